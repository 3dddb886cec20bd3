//! Route look-ups: where the kernel sends packets for an address.

use super::Netlink;
use super::socket::{another, get};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use rustix::io::Errno;
use std::io;
use std::net::Ipv4Addr;

/// The kernel's answer to a route look-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// Packets leave by an interface.
    Via {
        /// Index of the interface.
        index: u32,
        /// The next router; `None` when the destination is a neighbour.
        gateway: Option<Ipv4Addr>,
        /// The source address that the kernel prefers for this route.
        source: Option<Ipv4Addr>,
    },
    /// The address is one of this host.
    Local,
}

impl Route {
    /// The interface by which packets leave; `None` for an address of this host.
    pub const fn interface(&self) -> Option<u32> {
        match self {
            Self::Via { index, .. } => Some(*index),
            Self::Local => None,
        }
    }

    /// The next router.
    pub const fn gateway(&self) -> Option<Ipv4Addr> {
        match self {
            Self::Via { gateway, .. } => *gateway,
            Self::Local => None,
        }
    }
}

impl Netlink {
    /// The route to an address. When there is none, the error is the kernel's.
    pub fn route(&self, to: Ipv4Addr) -> io::Result<Route> {
        self.get_route(to, None, None)
    }

    /// The route to an address for packets from a local address, which policy routing may look at
    /// (`ip rule from`).
    pub fn route_from(&self, source: Ipv4Addr, to: Ipv4Addr) -> io::Result<Route> {
        self.get_route(to, Some(source), None)
    }

    /// The metric of the route to an address.
    pub fn metric(&self, to: Ipv4Addr) -> io::Result<u32> {
        let mut message = request(to);
        message.header.flags = RouteFlags::FibMatch;
        let reply = get(&self.route, RouteNetlinkMessage::GetRoute(message))?;
        let RouteNetlinkMessage::NewRoute(reply) = reply else {
            return Err(another());
        };
        Ok(metric(&reply))
    }

    /// The route to an address among those that leave by an interface, for packets from a local address
    /// if one is given.
    pub fn route_by(
        &self,
        interface: u32,
        source: Option<Ipv4Addr>,
        to: Ipv4Addr,
    ) -> io::Result<Route> {
        self.get_route(to, source, Some(interface))
    }

    fn get_route(
        &self,
        to: Ipv4Addr,
        from: Option<Ipv4Addr>,
        by: Option<u32>,
    ) -> io::Result<Route> {
        let mut message = request(to);
        if let Some(from) = from {
            message.header.source_prefix_length = 32;
            let source = RouteAttribute::Source(RouteAddress::Inet(from));
            message.attributes.push(source);
        }
        if let Some(interface) = by {
            message.attributes.push(RouteAttribute::Oif(interface));
            message.header.flags = RouteFlags::LookupTable;
        }
        let reply = get(&self.route, RouteNetlinkMessage::GetRoute(message))?;
        if !is_about(&reply, to) {
            return Err(another());
        }
        if by.is_some() && is_assumed(&reply) {
            return Err(Errno::NETUNREACH.into());
        }
        route(&reply).ok_or_else(|| io::Error::other("the kernel names no interface"))
    }
}

/// The question for the route to an address.
fn request(to: Ipv4Addr) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = AddressFamily::Inet;
    message.header.destination_prefix_length = 32;
    let destination = RouteAttribute::Destination(RouteAddress::Inet(to));
    message.attributes.push(destination);
    message
}

/// Without one it is 0.
pub(super) fn metric(message: &RouteMessage) -> u32 {
    let metric = |attribute: &RouteAttribute| {
        if let RouteAttribute::Priority(metric) = attribute {
            Some(*metric)
        } else {
            None
        }
    };
    message.attributes.iter().find_map(metric).unwrap_or(0)
}

fn is_about(reply: &RouteNetlinkMessage, to: Ipv4Addr) -> bool {
    let RouteNetlinkMessage::NewRoute(reply) = reply else {
        return false;
    };
    let destination = RouteAttribute::Destination(RouteAddress::Inet(to));
    reply.attributes.contains(&destination)
}

/// Where no route leaves by the interface that was asked about, the kernel takes the destination for a
/// neighbour there (`ip_route_output_key_hash_rcu`). Such an answer is from no table.
fn is_assumed(reply: &RouteNetlinkMessage) -> bool {
    let RouteNetlinkMessage::NewRoute(reply) = reply else {
        return false;
    };
    reply.header.table == RouteHeader::RT_TABLE_UNSPEC
}

fn route(message: &RouteNetlinkMessage) -> Option<Route> {
    let RouteNetlinkMessage::NewRoute(message) = message else {
        return None;
    };
    if message.header.kind == RouteType::Local {
        return Some(Route::Local);
    }
    let (mut interface, mut gateway, mut source) = (None, None, None);
    for attribute in &message.attributes {
        if let RouteAttribute::Oif(index) = attribute {
            interface = Some(*index);
        } else if let RouteAttribute::Gateway(RouteAddress::Inet(address)) = attribute {
            gateway = Some(*address);
        } else if let RouteAttribute::PrefSource(RouteAddress::Inet(address)) = attribute {
            source = Some(*address);
        }
    }
    interface.map(|index| Route::Via {
        index,
        gateway,
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_addresses_are_local() {
        let netlink = Netlink::open().expect("netlink needs no privilege");
        let route = netlink.route(Ipv4Addr::LOCALHOST).expect("a route");
        assert_eq!(route, Route::Local);
        assert_eq!(route.interface(), None);
    }

    #[test]
    fn the_interface_gateway_and_source_of_a_route_are_read() {
        let mut message = RouteMessage::default();
        message.header.kind = RouteType::Unicast;
        let gateway = Ipv4Addr::new(203, 0, 113, 254);
        let source = Ipv4Addr::new(203, 0, 113, 1);
        message.attributes = vec![
            RouteAttribute::Oif(7),
            RouteAttribute::Gateway(RouteAddress::Inet(gateway)),
            RouteAttribute::PrefSource(RouteAddress::Inet(source)),
        ];
        let found = route(&RouteNetlinkMessage::NewRoute(message)).expect("a route");
        let expected = Route::Via {
            index: 7,
            gateway: Some(gateway),
            source: Some(source),
        };
        assert_eq!(found, expected);
        assert_eq!(
            (found.interface(), found.gateway()),
            (Some(7), Some(gateway))
        );
        let without = RouteNetlinkMessage::NewRoute(RouteMessage::default());
        assert_eq!(route(&without), None);
    }
}
