//! The routes of the routing tables that lead to an address.

use super::Netlink;
use super::route::metric;
use super::socket::dump;
use ipnet::Ipv4Net;
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteType};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use std::io;
use std::net::Ipv4Addr;

/// A route of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableRoute {
    /// The number of the table.
    pub table: u32,
    /// The length of the prefix.
    pub prefix: u8,
    /// Of routes to the same prefix, that with the smallest one holds.
    pub metric: u32,
    /// Where packets go.
    pub target: Target,
}

/// Where the packets of a route go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// To one of these interfaces, by their indices.
    Interfaces(Vec<u32>),
    /// To the next rule (`throw`).
    NextRule,
    /// To this host, or to a group.
    Here,
    /// Nowhere (`unreachable`, `prohibit`, `blackhole`).
    Refused,
}

impl Netlink {
    /// The routes of all tables that lead to an address. The kernel lists all routes for that, which may be
    /// many.
    pub fn table_routes(&self, to: Ipv4Addr) -> io::Result<Vec<TableRoute>> {
        let mut message = RouteMessage::default();
        message.header.address_family = AddressFamily::Inet;
        let replies = dump(&self.route, RouteNetlinkMessage::GetRoute(message))?;
        let route = |reply| {
            if let RouteNetlinkMessage::NewRoute(reply) = reply {
                table_route(&reply, to)
            } else {
                None
            }
        };
        Ok(replies.into_iter().filter_map(route).collect())
    }
}

/// The kinds of routes that lead to this host, or to a group.
const HERE: [RouteType; 4] = [
    RouteType::Local,
    RouteType::Broadcast,
    RouteType::Anycast,
    RouteType::Multicast,
];

/// `None`: the route does not lead there, or only packets with one type of service.
fn table_route(message: &RouteMessage, to: Ipv4Addr) -> Option<TableRoute> {
    let prefix = message.header.destination_prefix_length;
    let (mut table, mut interfaces) = (u32::from(message.header.table), Vec::new());
    let mut destination = Ipv4Addr::UNSPECIFIED;
    for attribute in &message.attributes {
        if let RouteAttribute::Table(number) = attribute {
            table = *number;
        } else if let RouteAttribute::Oif(index) = attribute {
            interfaces.push(*index);
        } else if let RouteAttribute::MultiPath(hops) = attribute {
            interfaces.extend(hops.iter().map(|hop| hop.interface_index));
        } else if let RouteAttribute::Destination(RouteAddress::Inet(address)) = attribute {
            destination = *address;
        }
    }
    let leads_there = Ipv4Net::new(destination, prefix).is_ok_and(|net| net.contains(&to));
    let target = if message.header.kind == RouteType::Unicast {
        Target::Interfaces(interfaces)
    } else if message.header.kind == RouteType::Throw {
        Target::NextRule
    } else if HERE.contains(&message.header.kind) {
        Target::Here
    } else {
        Target::Refused
    };
    (leads_there && message.header.tos == 0).then(|| TableRoute {
        table,
        prefix,
        metric: metric(message),
        target,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(destination: [u8; 4], prefix: u8, attributes: &[RouteAttribute]) -> RouteMessage {
        let mut message = RouteMessage::default();
        message.header.table = 254;
        message.header.kind = RouteType::Unicast;
        message.header.destination_prefix_length = prefix;
        let destination = RouteAttribute::Destination(RouteAddress::Inet(destination.into()));
        message.attributes = [&[destination], attributes].concat();
        message
    }

    #[test]
    fn routes_that_lead_to_an_address_are_read() {
        const TO: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
        let mut route = message([192, 0, 2, 0], 24, &[RouteAttribute::Oif(7)]);
        let expected = TableRoute {
            table: 254,
            prefix: 24,
            metric: 0,
            target: Target::Interfaces(vec![7]),
        };
        assert_eq!(table_route(&route, TO), Some(expected.clone()));
        let more = [RouteAttribute::Table(1000), RouteAttribute::Priority(20)];
        route.attributes.extend(more);
        let expected = TableRoute {
            table: 1000,
            metric: 20,
            ..expected
        };
        assert_eq!(table_route(&route, TO), Some(expected.clone()));
        for (kind, target) in [
            (RouteType::Throw, Target::NextRule),
            (RouteType::Unreachable, Target::Refused),
            (RouteType::BlackHole, Target::Refused),
            (RouteType::Local, Target::Here),
            (RouteType::Broadcast, Target::Here),
        ] {
            route.header.kind = kind;
            let expected = TableRoute {
                target,
                ..expected.clone()
            };
            assert_eq!(table_route(&route, TO), Some(expected));
        }
        assert_eq!(table_route(&message([10, 0, 0, 0], 8, &[]), TO), None);
        route.header.tos = 0x10;
        assert_eq!(table_route(&route, TO), None, "not all packets take it");
        // The default route has no destination.
        assert!(table_route(&message([0; 4], 0, &[]), TO).is_some());
    }
}
