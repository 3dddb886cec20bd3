//! By which WAN replies to clients leave. Where there are several WANs, replies from a VIP leave by the WAN
//! that has it, if a route to the client does; so each of these WANs needs a default route of its own.

use crate::config::commands::quoted;
use crate::config::location::{Network, OwningWan, ServerLocation, VipLocation};
use crate::config::macvlans;
use crate::config::plan::Plan;
use crate::config::vip_route::{LOOPBACK, Packets, VipRoutes};
use crate::netlink::{Link, Netlink, Route};
use std::collections::BTreeSet;
use std::io;
use std::net::Ipv4Addr;

/// An address that stands for the clients. It is from a documentation network (RFC 5737), so its route
/// is the default route, unless the administrator has added one for that network.
pub(crate) const EXAMPLE_CLIENT: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);

/// An interface that has VIPs, and by which no default route leaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unrouted {
    /// The WAN, or the macvlan on top of it that has the VIPs.
    pub interface: String,
    /// What becomes of the replies from its VIPs.
    pub effect: String,
    /// The command that adds the route without replacing that of another WAN. `None`: the rules decide otherwise.
    pub fix: Option<String>,
}

/// What follows a finding that a default route of the main table would not remedy.
pub(crate) const RULES_DECIDE: &str =
    "a default route of the main table would not change that: see `ip rule`";

/// What a service sends from one of its VIPs.
#[derive(Clone, Copy)]
pub(crate) struct Replies {
    pub(crate) vip: Ipv4Addr,
    pub(crate) location: VipLocation,
    pub(crate) server: ServerLocation,
    /// The server's address. One on this host has it as the source when the kernel finds the route.
    pub(crate) server_address: Ipv4Addr,
}

/// What decides by which WAN replies leave.
pub(crate) struct ClientRoutes<'r> {
    pub(crate) network: Network<'r>,
    /// The names of all WANs, also of absent ones, in the order of the settings.
    pub(crate) names: Vec<&'r str>,
    /// The numbers of the WANs that have a VIP.
    pub(crate) uplinks: &'r BTreeSet<usize>,
    /// Routes to [`EXAMPLE_CLIENT`].
    pub(crate) routes: &'r VipRoutes<'r>,
}

impl<'r> ClientRoutes<'r> {
    /// The route of replies, as the host has it.
    pub(crate) fn of_host(&self, replies: Replies) -> io::Result<Route> {
        let (packets, is_local) = self.packets(replies);
        self.routes.of(packets, is_local)
    }

    /// Whether replies would leave by an interface if it had the default route of the main table.
    pub(crate) fn would_leave_by(&self, replies: Replies, index: u32) -> bool {
        let (packets, _) = self.packets(replies);
        self.routes
            .would_leave_by(packets, index, 0)
            .unwrap_or(true)
    }

    /// What the host routes, and whether its source is an address of this host.
    fn packets(&self, replies: Replies) -> (Packets<'r>, bool) {
        let ingress = match replies.server {
            ServerLocation::ByLan { lan, .. } => self.network.lans.get(lan),
            ServerLocation::Absent => self.network.lans.iter().find(|lan| lan.exists()),
            ServerLocation::Here => None,
        };
        let (source, is_local) = match replies.server {
            ServerLocation::Here => (replies.server_address, true),
            ServerLocation::ByLan { .. } | ServerLocation::Absent => {
                (replies.vip, replies.location.is_local)
            }
        };
        let packets = Packets {
            source,
            ingress: ingress.map_or(LOOPBACK, |lan| &lan.name),
            egress: None,
        };
        (packets, is_local)
    }

    /// The interface by which replies leave because it is of the WAN that has the VIP. `None`: the route of
    /// the host decides, because no WAN has the VIP, because the server is on this host, or because the host
    /// sends by an interface that has none.
    /// As the dataplane decides it (`xdp-core/src/uplink.rs`).
    pub(crate) fn of_vip(&self, replies: Replies) -> Result<Option<&'r str>, Unrouted> {
        let existing = self.network.wans.iter().filter(|wan| wan.exists());
        let is_here = replies.server == ServerLocation::Here;
        let owner = replies
            .location
            .wan
            .filter(|_| !is_here && existing.count() > 1);
        let Some(OwningWan { number, index }) = owner else {
            return Ok(None);
        };
        let host = self.of_host(replies).ok();
        let host = host.and_then(|route| route.interface());
        let by = host.and_then(|index| self.number(index));
        let is_uplink = by.is_some_and(|by| self.uplinks.contains(&by));
        if host.is_some() && !is_uplink {
            return Ok(None);
        }
        let name = self.name(number, index);
        // Asked with an output interface, the kernel takes packets for its own: they come by no LAN.
        let by_owner = Packets {
            source: replies.vip,
            ingress: LOOPBACK,
            egress: Some((index, name)),
        };
        if self.routes.of(by_owner, replies.location.is_local).is_ok() {
            return Ok(Some(name));
        }
        // A macvlan has the VIP, and the route of the host leaves by the WAN beneath it.
        if let Some(host) = host.filter(|_| by == Some(number)) {
            return Ok(Some(self.name(number, host)));
        }
        let mut effect = by.map_or_else(
            || {
                "only clients in networks with a route by a WAN receive replies from its VIPs"
                    .to_owned()
            },
            |by| {
                format!(
                    "replies from its VIPs leave by {}, whose provider may drop them",
                    self.network.wans[by].name
                )
            },
        );
        let fix = self.fix((number, index), by_owner);
        if fix.is_none() {
            effect = format!("{effect}; {RULES_DECIDE}");
        }
        Err(Unrouted {
            interface: name.to_owned(),
            effect,
            fix,
        })
    }

    /// The number of the WAN that an interface is, or is on top of.
    fn number(&self, index: u32) -> Option<usize> {
        let lower = macvlans::lower_of(self.network.macvlans, index);
        let is_it = |wan: &Link| wan.exists() && wan.index == lower;
        self.network.wans.iter().position(is_it)
    }

    /// The name of a WAN, or of the macvlan on top of it that has this index.
    fn name(&self, number: usize, index: u32) -> &'r str {
        let macvlan = self.network.macvlans.iter().find(|one| one.index == index);
        macvlan.map_or(&self.network.wans[number].name, |one| &one.name)
    }

    /// Routes to the same network need different metrics, and the first WAN the smallest one. What the host
    /// itself sends keeps its default route: the new one has a larger metric, and is appended to others that
    /// have that. With an equal one, the order would change when the first one goes and comes back. `None`: the
    /// rules decide otherwise.
    fn fix(&self, (number, index): (usize, u32), packets: Packets<'_>) -> Option<String> {
        let netlink = self.routes.netlink();
        let (wan, dev) = (&self.network.wans[number].name, self.name(number, index));
        let number = self.names.iter().position(|name| name == wan);
        let wanted = u32::try_from(number.unwrap_or_default() + 1).map_or(u32::MAX, |at| at * 100);
        let host = netlink.metric(EXAMPLE_CLIENT);
        let metric = host.map_or(wanted, |own| own.saturating_add(1).max(wanted));
        let would = self.routes.would_leave_by(packets, index, metric);
        if !would.unwrap_or(true) {
            return None;
        }
        // Without a network on the interface, the kernel takes no router for one that it reaches.
        let addresses = netlink.addresses().unwrap_or_default();
        let mut own = addresses.iter().filter(|one| one.index == index);
        let onlink = if own.any(|one| one.prefix < 32) {
            ""
        } else {
            " onlink"
        };
        let dev = quoted(dev);
        Some(format!(
            "ip route append default via GATEWAY dev {dev}{onlink} metric {metric}"
        ))
    }
}

/// The interfaces of a plan that have VIPs and lack a default route, each once.
pub fn unrouted(netlink: &Netlink, plan: &Plan) -> Vec<Unrouted> {
    let mut found: Vec<Unrouted> = Vec::new();
    of_plan(netlink, plan, |_, by| {
        if let Err(one) = by
            && !found.iter().any(|known| known.interface == one.interface)
        {
            found.push(one);
        }
    });
    found
}

/// The VIPs of a plan whose replies leave by the WAN that has them, of several.
pub fn routed_by_owner(netlink: &Netlink, plan: &Plan) -> BTreeSet<Ipv4Addr> {
    let mut found = BTreeSet::new();
    of_plan(netlink, plan, |vip, by| {
        if matches!(by, Ok(Some(_))) {
            found.insert(vip);
        }
    });
    found
}

fn of_plan(
    netlink: &Netlink,
    plan: &Plan,
    mut each: impl FnMut(Ipv4Addr, Result<Option<&str>, Unrouted>),
) {
    let uplinks = plan.uplink_numbers();
    let to_clients = VipRoutes::to(netlink, EXAMPLE_CLIENT);
    let routes = ClientRoutes {
        network: Network::of(plan),
        names: plan.wans.iter().map(|wan| wan.name.as_str()).collect(),
        uplinks: &uplinks,
        routes: &to_clients,
    };
    let services = plan.settings.services.iter().zip(&plan.locations);
    for (service, place) in services {
        for (vip, location) in service.vips_v4().zip(place.vips.iter().copied()) {
            let replies = Replies {
                vip,
                location,
                server: place.server,
                server_address: service.server_v4().unwrap_or(vip),
            };
            each(vip, routes.of_vip(replies));
        }
    }
}
