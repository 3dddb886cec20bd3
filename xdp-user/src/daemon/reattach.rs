//! Attaches the programs when interfaces appear, go away, come back or change their name while the
//! daemon runs. A program goes with its interface; when one of that name is there, everything is
//! attached as at a start, and the programs on other interfaces are exchanged without a gap. An
//! interface that is absent blocks no other. The programs are exchanged in the same manner when an
//! address changes that is a constant of theirs.

use crate::bpffs::layout::Instance;
use crate::config::interfaces::{HookPoint, Interface};
use crate::config::plan::Plan;
use crate::config::settings::Settings;
use crate::config::virtuals;
use crate::daemon::backoff::Backoff;
use crate::dataplane::attach;
use crate::dataplane::foreign_xdp;
use crate::dataplane::link;
use crate::dataplane::{self, Dataplane, Logger};
use crate::error::{Error, Result, causes};
use crate::netlink::{Link, Netlink, Route};
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::Arc;

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
    /// These are the virtual interfaces on top of it now, by name and MAC address.
    NewVirtuals(Vec<(String, [u8; 6])>),
}

impl LinkChange {
    /// Whether programs have to be attached or exchanged.
    const fn needs_programs(&self) -> bool {
        match self {
            Self::Bare(_) | Self::Appeared(_) | Self::NewMac(_) | Self::NewVirtuals(_) => true,
            Self::Renamed(_) | Self::Gone => false,
        }
    }
}

/// The interfaces of a plan to which something has happened, by the names that they had, each once.
fn changes(instance: &Instance, plan: &Plan, netlink: &Netlink) -> Vec<(String, LinkChange)> {
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

/// The interfaces on top of which there are other virtual interfaces than in the plan, by their names.
fn virtual_changes(plan: &Plan, netlink: &Netlink) -> Vec<(String, LinkChange)> {
    let Ok(links) = netlink.links() else {
        return Vec::new();
    };
    let existing = plan.interfaces().into_iter();
    let changed = existing.filter_map(|(_, link)| {
        let now = virtuals::on_top(&links, std::slice::from_ref(link));
        let planned = plan.virtuals_on(link.index);
        if planned.eq(&now) {
            return None;
        }
        let named = now.into_iter().map(|one| (one.name, one.mac));
        Some((link.name.clone(), LinkChange::NewVirtuals(named.collect())))
    });
    changed.collect()
}

/// The address that this host has for the server, if it is another one than in the plan.
fn new_lan_address(plan: &Plan, netlink: &Netlink) -> Option<Ipv4Addr> {
    let Ok(Route::Via { index, source, .. }) = netlink.route(plan.settings.server) else {
        return None;
    };
    let lower = virtuals::lower_of(&plan.virtuals, index);
    let is_lan = plan.lans.iter().any(|lan| lan.index == lower);
    source.filter(|address| is_lan && *address != plan.lan_address)
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

/// Watches the interfaces of an instance. It remembers what it has reported, so that each change is
/// reported once.
#[derive(Debug, Default)]
pub struct LinkMonitor {
    reported: Vec<(String, LinkChange)>,
    lan_address: Option<Ipv4Addr>,
    has_looked: bool,
    /// The error of the last attempt.
    failure: Option<String>,
    backoff: Backoff<Vec<Link>>,
}

/// What a log should say.
#[derive(Debug)]
pub enum Event {
    /// Something has happened to this interface.
    Changed(String, LinkChange),
    /// This host has this address for the server now.
    LanAddress(Ipv4Addr),
    /// The programs cannot be attached again yet, for this reason.
    NotReattached(String),
}

/// The plan and the loggers of an instance that was attached again.
pub type Reattached = (Plan, Vec<Logger>);

impl LinkMonitor {
    /// Looks at the interfaces, and attaches again when one of them has no program, or programs with
    /// wrong constants. It looks for virtual interfaces, for which all interfaces of the host have to
    /// be listed, only at first and when the kernel has notified of something: `notified`.
    pub fn check(
        &mut self,
        dataplane: &mut Dataplane,
        plan: &Plan,
        netlink: &Netlink,
        notified: bool,
    ) -> (Vec<Event>, Option<Reattached>) {
        let mut changes = changes(&dataplane.instance, plan, netlink);
        if notified || !self.has_looked {
            self.has_looked = true;
            changes.extend(virtual_changes(plan, netlink));
        } else {
            // What was found then, and could not be followed yet.
            let is_open =
                |change: &&(String, LinkChange)| matches!(change.1, LinkChange::NewVirtuals(_));
            changes.extend(self.reported.iter().filter(is_open).cloned());
        }
        let new = changes
            .iter()
            .filter(|change| !self.reported.contains(change));
        let mut events: Vec<Event> = new
            .map(|(name, change)| Event::Changed(name.clone(), change.clone()))
            .collect();
        let lan_address = new_lan_address(plan, netlink);
        let new = lan_address.filter(|_| lan_address != self.lan_address);
        events.extend(new.map(Event::LanAddress));
        self.lan_address = lan_address;
        let is_needed = changes.iter().any(|(_, change)| change.needs_programs());
        self.reported = changes;
        if !is_needed && lan_address.is_none() {
            self.failure = None;
            self.backoff = Backoff::default();
            return (events, None);
        }
        match self.try_to_attach(dataplane, plan, netlink) {
            Ok(None) => (events, None),
            Ok(Some(reattached)) => {
                *self = Self::default();
                (events, Some(reattached))
            }
            Err(error) => {
                let why = dataplane.instance.named(&causes(&error));
                if self.failure.as_ref() != Some(&why) {
                    self.failure = Some(why.clone());
                    events.push(Event::NotReattached(why));
                }
                (events, None)
            }
        }
    }

    /// One attempt, unless a refused one is to be waited for. What a device or the verifier refuses
    /// is tried more and more rarely, because an attempt costs time, and may reset devices; what
    /// the plan lacks, for example a route, is cheap to look for.
    fn try_to_attach(
        &mut self,
        dataplane: &mut Dataplane,
        old: &Plan,
        netlink: &Netlink,
    ) -> Result<Option<Reattached>> {
        let settings = settings_now(old, netlink);
        let plan = match Plan::check(settings.clone(), netlink) {
            Ok(plan) => plan,
            // All of a side are gone, which is reported already.
            Err(Error::NoInterface { .. }) => return Ok(None),
            Err(error) => return Err(error),
        };
        let links = |plan: &Plan| [plan.wans.as_slice(), plan.lans.as_slice()].concat();
        if !self.backoff.permits(&links(&plan)) {
            return Ok(None);
        }
        match reattach(dataplane, plan, netlink) {
            Ok(reattached) => Ok(Some(reattached)),
            Err(error) => {
                // As the attempt has left them.
                let left = Plan::check(settings, netlink);
                self.backoff
                    .refused(left.map_or_else(|_| Vec::new(), |plan| links(&plan)));
                Err(error)
            }
        }
    }
}

/// The settings with the names that the interfaces have now: a renamed one is still meant.
fn settings_now(plan: &Plan, netlink: &Netlink) -> Settings {
    let mut settings = plan.settings.clone();
    for (names, links) in [
        (&mut settings.wans, &plan.wans),
        (&mut settings.lans, &plan.lans),
    ] {
        for (name, link) in names.iter_mut().zip(links) {
            if link.exists()
                && let Ok(now) = netlink.link_by_index(link.index)
            {
                *name = now.name;
            }
        }
    }
    settings
}

/// Attaches as a start does, under the lock that is held already.
fn reattach(dataplane: &mut Dataplane, plan: Plan, netlink: &Netlink) -> Result<Reattached> {
    // By the descriptor that is held: the path may need a capability that was given up.
    let bpffs = dataplane.instance.directory.ancestors().nth(2);
    foreign_xdp::check(&plan, bpffs.unwrap_or(Path::new("/")), &dataplane.instance)?;
    let saved = dataplane::adopt_existing(&dataplane.instance, &plan, netlink)?;
    let saved = saved.ok_or_else(|| {
        let gone = std::io::ErrorKind::NotFound.into();
        Error::system(format!("find the tables of {}", dataplane.instance.vip))(gone)
    })?;
    let mut created = Vec::new();
    let (instance, grace) = (&dataplane.instance, &dataplane.grace);
    match dataplane::load_and_attach(&plan, netlink, instance, Some(saved), grace, &mut created) {
        Ok(loaded) => {
            dataplane.tables = Arc::new(loaded.tables);
            dataplane.tc_backend = loaded.tc_backend;
            dataplane.attached = loaded.attached;
            Ok((plan, loaded.loggers))
        }
        Err(error) => {
            attach::rollback(netlink, instance, &created);
            Err(error)
        }
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
