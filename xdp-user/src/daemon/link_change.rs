//! What has become of the interfaces of a plan.

use crate::bpffs::layout::Instance;
use crate::config::interfaces::{HookPoint, Interface};
use crate::config::location::{Network, ServerLocation};
use crate::config::macvlans;
use crate::config::plan::Plan;
use crate::dataplane::link;
use crate::netlink::{Link, Netlink};
use std::net::Ipv4Addr;

/// What has become of an interface of the plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkChange {
    /// It is there, under this new name.
    Renamed(String),
    /// There is no interface of that name.
    Gone,
    /// There was none at the start, and now there is one, with this index.
    Appeared(u32),
    /// There is one of that name, with this index, and without ikenat's program: it was created
    /// again, it is back from another namespace, or another process has detached the program.
    Bare(u32),
    /// It has this MAC address now.
    NewMac([u8; 6]),
    /// These are the macvlans on top of it now, by name and MAC address.
    NewMacvlans(Vec<(String, [u8; 6])>),
}

impl LinkChange {
    /// Whether programs have to be attached or exchanged.
    pub(super) const fn needs_programs(&self) -> bool {
        match self {
            Self::Bare(_) | Self::Appeared(_) | Self::NewMac(_) | Self::NewMacvlans(_) => true,
            Self::Renamed(_) | Self::Gone => false,
        }
    }
}

/// The interfaces of a plan to which something has happened, by the names that they had, each once.
pub(super) fn changes_of(
    instance: &Instance,
    plan: &Plan,
    netlink: &Netlink,
) -> Vec<(String, LinkChange)> {
    let dry = plan.settings.dry_run;
    let existing = plan.interfaces().into_iter();
    let mut changed: Vec<(String, LinkChange)> = existing
        .filter_map(|(interface, link)| {
            let now = netlink.link_by_index(link.index).ok();
            let now = now.filter(|_| !has_dead_link(instance, interface));
            let change = change(link, now, dry, || netlink.link(&link.name).ok())?;
            Some((link.name.clone(), change))
        })
        .collect();
    changed.extend(plan.absent().into_iter().filter_map(|name| {
        let found = netlink.link(name).ok()?;
        Some((name.to_owned(), LinkChange::Appeared(found.index)))
    }));
    changed
}

/// The interfaces on top of which there are other macvlans than in the plan, by their names.
pub(super) fn macvlan_changes(plan: &Plan, netlink: &Netlink) -> Vec<(String, LinkChange)> {
    let Ok(links) = netlink.links() else {
        return Vec::new();
    };
    let existing = plan.interfaces().into_iter();
    let changed = existing.filter_map(|(_, link)| {
        let now = macvlans::on_top(&links, std::slice::from_ref(link));
        let planned = plan.macvlans_on(link.index);
        if planned.eq(&now) {
            return None;
        }
        let named = now.into_iter().map(|one| (one.name, one.mac));
        Some((link.name.clone(), LinkChange::NewMacvlans(named.collect())))
    });
    changed.collect()
}

/// What has become of the location of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Moved {
    /// This host has this address for the server now.
    LanAddress {
        /// The address.
        address: Ipv4Addr,
        /// The server.
        server: Ipv4Addr,
    },
    /// A VIP belongs to another WAN now.
    Vip {
        /// The VIP.
        vip: Ipv4Addr,
        /// The name of the WAN.
        wan: String,
    },
}

/// What has become of the locations in the plan. A server without a route and a VIP that no WAN has
/// are not reported: their packets go where they went before, or nowhere.
pub(super) fn moved(plan: &Plan, netlink: &Netlink) -> Vec<Moved> {
    let network = Network::of(plan);
    let mut all = Vec::new();
    for (service, location) in plan.settings.services.iter().zip(&plan.locations) {
        let Some(server) = service.server_v4() else {
            continue;
        };
        if let Ok(ServerLocation::ByLan { lan, address }) = network.server(netlink, server)
            && !address.is_unspecified()
            && location.server != (ServerLocation::ByLan { lan, address })
        {
            all.push(Moved::LanAddress { address, server });
        }
    }
    // With one WAN it does not matter.
    if plan.wans.len() > 1
        && let Ok(addresses) = netlink.addresses()
    {
        all.extend(plan.vips().filter_map(|(vip, location)| {
            let wan = network.owner(&addresses, vip)?;
            let name = plan.wans[wan.number].name.clone();
            (location.wan != Some(wan)).then_some(Moved::Vip { vip, wan: name })
        }));
    }
    all
}

/// Whether a link of an interface is attached to nothing any more: the interface is gone, or
/// another process has detached the link.
fn has_dead_link(instance: &Instance, interface: Interface) -> bool {
    let hook_points = HookPoint::all().filter(|hook_point| hook_point.interface == interface);
    hook_points
        .filter_map(|hook_point| {
            link::open(&instance.pin(&hook_point.link_pin()))
                .ok()
                .flatten()
        })
        .any(|(_, bpf_link)| bpf_link.ifindex == 0)
}

/// What has become of `link`. `now` is the interface of the same index, unless a link on it is
/// dead; `namesake` finds one of the same name. A dry run has no XDP program.
fn change(
    link: &Link,
    now: Option<Link>,
    dry: bool,
    namesake: impl FnOnce() -> Option<Link>,
) -> Option<LinkChange> {
    match now {
        Some(now) if now.xdp.is_none() && !dry => Some(LinkChange::Bare(now.index)),
        Some(Link { mac: Some(mac), .. }) if link.mac != Some(mac) => Some(LinkChange::NewMac(mac)),
        Some(now) if now.name != link.name => Some(LinkChange::Renamed(now.name)),
        Some(_) => None,
        None => Some(namesake().map_or(LinkChange::Gone, |found| LinkChange::Bare(found.index))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(index: u32, name: &str, xdp: Option<u32>) -> Link {
        Link {
            index,
            name: name.to_owned(),
            xdp,
            ..Link::default()
        }
    }

    #[test]
    fn an_interface_is_known_by_its_index_first_and_by_its_name_when_that_is_gone() {
        let eth1 = link(5, "eth1", Some(7));
        let change = |now, namesake| change(&eth1, now, false, || namesake);
        assert_eq!(change(Some(link(5, "eth1", Some(9))), None), None);
        assert_eq!(
            change(Some(link(5, "up0", Some(7))), Some(link(8, "eth1", None))),
            Some(LinkChange::Renamed("up0".to_owned()))
        );
        assert_eq!(
            change(Some(link(5, "eth1", None)), None),
            Some(LinkChange::Bare(5))
        );
        let mac = [2, 0, 0, 0, 0, 7];
        let other = Link {
            mac: Some(mac),
            ..link(5, "eth1", Some(7))
        };
        assert_eq!(change(Some(other), None), Some(LinkChange::NewMac(mac)));
        assert_eq!(
            change(None, Some(link(8, "eth1", None))),
            Some(LinkChange::Bare(8))
        );
        assert_eq!(change(None, None), Some(LinkChange::Gone));
        let dry = super::change(&eth1, Some(link(5, "eth1", None)), true, || None);
        assert_eq!(dry, None);
    }
}
