//! By which WAN replies to clients leave. Where there are several WANs, replies from a VIP leave by the WAN
//! that has it, if a route to the client does; so each of these WANs needs a default route of its own.

use crate::config::location::{Network, OwningWan, VipLocation};
use crate::config::macvlans;
use crate::config::plan::Plan;
use crate::netlink::{Link, Netlink, Route};
use std::collections::BTreeSet;
use std::io;
use std::net::Ipv4Addr;

/// An address that stands for the clients. It is from a documentation network (RFC 5737), so its route
/// is the default route, unless the administrator has added one for that network.
pub(crate) const EXAMPLE_CLIENT: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);

/// A WAN that has VIPs, and by which no default route leaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unrouted {
    /// The WAN.
    pub wan: String,
    /// What becomes of the replies from its VIPs.
    pub effect: String,
    /// The command that adds the route without replacing that of another WAN.
    pub fix: String,
}

/// What decides by which WAN replies leave.
pub(crate) struct ClientRoutes<'r> {
    pub(crate) network: Network<'r>,
    /// The names of all WANs, also of absent ones, in the order of the settings.
    pub(crate) names: Vec<&'r str>,
    /// The numbers of the WANs that have a VIP.
    pub(crate) uplinks: &'r BTreeSet<usize>,
}

impl<'r> ClientRoutes<'r> {
    /// The route of replies from a VIP, as the host has it.
    pub(crate) fn of_host(
        netlink: &Netlink,
        vip: Ipv4Addr,
        location: VipLocation,
    ) -> io::Result<Route> {
        if location.is_local {
            netlink.route_from(vip, EXAMPLE_CLIENT)
        } else {
            netlink.route(EXAMPLE_CLIENT)
        }
    }

    /// The WAN that has the VIP, if a default route leaves by it. `None`: the route of the host decides,
    /// because no WAN has the VIP, or because the host sends by an interface that has none.
    pub(crate) fn of_vip(
        &self,
        netlink: &Netlink,
        vip: Ipv4Addr,
        location: VipLocation,
    ) -> Result<Option<&'r Link>, Unrouted> {
        let existing = self.network.wans.iter().filter(|wan| wan.exists());
        let Some(OwningWan { number, index }) = location.wan.filter(|_| existing.count() > 1)
        else {
            return Ok(None);
        };
        let host = Self::of_host(netlink, vip, location).ok();
        let host = host.and_then(|route| route.interface());
        let by = host.and_then(|index| self.number(index));
        let is_uplink = by.is_some_and(|by| self.uplinks.contains(&by));
        if host.is_some() && !is_uplink {
            return Ok(None);
        }
        let wan = &self.network.wans[number];
        let source = location.is_local.then_some(vip);
        if netlink.route_by(index, source, EXAMPLE_CLIENT).is_ok() {
            return Ok(Some(wan));
        }
        let effect = by.map_or_else(
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
        Err(Unrouted {
            wan: wan.name.clone(),
            effect,
            fix: self.fix(&wan.name),
        })
    }

    /// The number of the WAN that an interface is, or is on top of.
    fn number(&self, index: u32) -> Option<usize> {
        let lower = macvlans::lower_of(self.network.macvlans, index);
        let is_it = |wan: &Link| wan.exists() && wan.index == lower;
        self.network.wans.iter().position(is_it)
    }

    /// Routes to the same network need different metrics, and the first WAN the smallest one.
    fn fix(&self, wan: &str) -> String {
        let number = self.names.iter().position(|name| *name == wan);
        let metric = (number.unwrap_or_default() + 1) * 100;
        format!("ip route add default via GATEWAY dev {wan} metric {metric}")
    }
}

/// The WANs of a plan that have VIPs and lack a default route, each once.
pub fn unrouted(netlink: &Netlink, plan: &Plan) -> Vec<Unrouted> {
    let uplinks = plan.uplink_numbers();
    let routes = ClientRoutes {
        network: Network::of(plan),
        names: plan.wans.iter().map(|wan| wan.name.as_str()).collect(),
        uplinks: &uplinks,
    };
    let mut found: Vec<Unrouted> = Vec::new();
    for (vip, location) in plan.vips() {
        if let Err(one) = routes.of_vip(netlink, vip, location)
            && !found.iter().any(|known| known.wan == one.wan)
        {
            found.push(one);
        }
    }
    found
}
