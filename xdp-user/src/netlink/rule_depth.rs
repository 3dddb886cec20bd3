//! The rules of policy routing (`ip rule`): which parts of a packet they look at, beyond what a cached
//! next hop was asked for.

use super::Netlink;
use ipnet::Ipv4Net;
use netlink_packet_core::Nla as _;
use netlink_packet_route::rule::{RuleAttribute, RuleFlags, RuleMessage, RulePortRange};
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use xdp_common::limits::{IKE_PORT, NATT_PORT};

/// `FRA_DSCP` of `linux/fib_rules.h`, the first of the attributes that netlink-packet-route does not
/// know. It and all that follow look into the packet.
const FIRST_UNKNOWN: u16 = 25;

/// IP protocols.
const UDP: i32 = 17;
const ESP: i32 = 50;

/// The packets of one direction.
#[derive(Clone, Debug)]
pub struct Traffic<'t> {
    /// The names of the interfaces by which they come.
    pub ingress: Vec<&'t str>,
    /// Their source, if all have the same one: the VIP.
    pub source: Option<Ipv4Addr>,
    /// Their destination, if all have the same one: the server.
    pub destination: Option<Ipv4Addr>,
}

/// How much of a packet the rules look at. More includes less.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum RuleDepth {
    /// Nothing that differs between the packets of a session.
    #[default]
    Session,
    /// What differs between the flows of a session, or between the peers that share the next hop to
    /// the server: protocol, port of the service, source.
    Flow,
    /// What differs between packets of a flow: type of service, port of the peer, interface.
    Packet,
}

impl Netlink {
    /// How much the IPv4 rules look at of the packets of each direction, of any of its traffic.
    pub fn rule_depths<const N: usize>(
        &self,
        directions: [&[Traffic<'_>]; N],
    ) -> io::Result<[RuleDepth; N]> {
        let rules = self.rule_messages()?;
        Ok(directions.map(|all| {
            let of = |traffic| rules.iter().map(move |rule| depth(rule, traffic));
            all.iter().flat_map(of).max().unwrap_or_default()
        }))
    }
}

/// How much one rule looks at; nothing if it matches no packet of this traffic.
fn depth(rule: &RuleMessage, traffic: &Traffic<'_>) -> RuleDepth {
    let mut depth = RuleDepth::Session;
    if rule.header.tos != 0 {
        depth = RuleDepth::Packet;
    }
    for attribute in &rule.attributes {
        match of_attribute(attribute, rule, traffic) {
            Some(more) => depth = depth.max(more),
            // It matches none of them; inverted, all of them.
            None if rule.header.flags.contains(RuleFlags::Invert) => {}
            None => return RuleDepth::Session,
        }
    }
    depth
}

/// How much an attribute of a rule looks at; `None`: no packet has that.
fn of_attribute(
    attribute: &RuleAttribute,
    rule: &RuleMessage,
    traffic: &Traffic<'_>,
) -> Option<RuleDepth> {
    let contains = |network: &IpAddr, length: u8, address: Ipv4Addr| match network {
        IpAddr::V4(network) => {
            Ipv4Net::new(*network, length).is_ok_and(|prefix| prefix.contains(&address))
        }
        IpAddr::V6(_) => false,
    };
    // The same source or destination for all: matched by all or none.
    let by_address = |network, length, constant: Option<Ipv4Addr>, otherwise| match constant {
        Some(address) => contains(network, length, address).then_some(RuleDepth::Session),
        None => Some(otherwise),
    };
    // The port of the service is on the side of the server.
    let by_port = |range: &RulePortRange, is_service: bool| {
        let has = |port| (range.start..=range.end).contains(&port);
        match is_service {
            true => (has(IKE_PORT) || has(NATT_PORT)).then_some(RuleDepth::Flow),
            false => Some(RuleDepth::Packet),
        }
    };
    let is_inbound = traffic.destination.is_some();
    if let RuleAttribute::Source(network) = attribute {
        by_address(
            network,
            rule.header.src_len,
            traffic.source,
            RuleDepth::Flow,
        )
    } else if let RuleAttribute::Destination(network) = attribute {
        // The key of a session has the peer.
        let peer = RuleDepth::Session;
        by_address(network, rule.header.dst_len, traffic.destination, peer)
    } else if let RuleAttribute::Iifname(name) = attribute {
        let is_here = traffic.ingress.contains(&name.as_str());
        let is_only = traffic.ingress.len() == 1;
        is_here.then_some(if is_only {
            RuleDepth::Session
        } else {
            RuleDepth::Packet
        })
    } else if let RuleAttribute::IpProtocol(protocol) = attribute {
        [UDP, ESP]
            .contains(&i32::from(*protocol))
            .then_some(RuleDepth::Flow)
    } else if let RuleAttribute::SourcePortRange(range) = attribute {
        by_port(range, !is_inbound)
    } else if let RuleAttribute::DestinationPortRange(range) = attribute {
        by_port(range, is_inbound)
    } else if let RuleAttribute::FwMark(mark) = attribute {
        // No packet has a mark before ikenat's hooks.
        (*mark == 0).then_some(RuleDepth::Session)
    } else if let RuleAttribute::Other(other) = attribute {
        let looks = other.kind() >= FIRST_UNKNOWN;
        Some(if looks {
            RuleDepth::Packet
        } else {
            RuleDepth::Session
        })
    } else {
        Some(RuleDepth::Session)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use RuleAttribute::{
        Destination, DestinationPortRange, FwMark, Iifname, IpProtocol as Protocol, Source,
        SourcePortRange,
    };

    const VIP: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);
    const SERVER: Ipv4Addr = Ipv4Addr::new(192, 168, 0, 1);

    fn inbound() -> Traffic<'static> {
        Traffic {
            ingress: vec!["wan0"],
            source: None,
            destination: Some(SERVER),
        }
    }

    fn outbound() -> Traffic<'static> {
        Traffic {
            ingress: vec!["lan0"],
            source: Some(VIP),
            destination: None,
        }
    }

    fn rule(attributes: &[RuleAttribute]) -> RuleMessage {
        let mut message = RuleMessage::default();
        message.header.src_len = 24;
        message.header.dst_len = 24;
        message.attributes = attributes.to_vec();
        message
    }

    fn both(attributes: &[RuleAttribute]) -> [RuleDepth; 2] {
        [inbound(), outbound()].map(|traffic| depth(&rule(attributes), &traffic))
    }

    #[test]
    fn a_rule_looks_as_deep_as_its_deepest_attribute() {
        use RuleDepth::{Flow, Packet, Session};
        let network = |last| IpAddr::from([203, 0, 113, last]);
        let servers = IpAddr::from([192, 168, 0, 0]);
        let ports = |start, end| RulePortRange { start, end };
        let name = |name: &str| Iifname(name.to_owned());
        let udp = Protocol(UDP.into());
        for (attributes, expected) in [
            (vec![], [Session, Session]),
            (vec![Source(network(0))], [Flow, Session]),
            (vec![Source(servers)], [Flow, Session]),
            (vec![Destination(servers)], [Session, Session]),
            (vec![udp.clone()], [Flow, Flow]),
            (vec![Protocol(6.into())], [Session, Session]),
            (vec![SourcePortRange(ports(4500, 4500))], [Packet, Flow]),
            (vec![DestinationPortRange(ports(500, 500))], [Flow, Packet]),
            (vec![DestinationPortRange(ports(53, 53))], [Session, Packet]),
            (
                vec![DestinationPortRange(ports(53, 53)), name("wan0")],
                [Session, Session],
            ),
            (vec![name("wan0"), udp.clone()], [Flow, Session]),
            (vec![name("lan0")], [Session, Session]),
            (vec![FwMark(7), udp.clone()], [Session, Session]),
            (vec![FwMark(0), udp], [Flow, Flow]),
        ] {
            assert_eq!(both(&attributes), expected, "{attributes:?}");
        }
    }

    #[test]
    fn the_type_of_service_differs_between_packets() {
        let mut message = rule(&[]);
        message.header.tos = 0x10;
        assert_eq!(depth(&message, &inbound()), RuleDepth::Packet);
        message.attributes = vec![Iifname("other".to_owned())];
        assert_eq!(depth(&message, &inbound()), RuleDepth::Session);
        message.header.flags = RuleFlags::Invert;
        assert_eq!(depth(&message, &inbound()), RuleDepth::Packet);
    }

    #[test]
    fn one_of_several_interfaces_differs_between_packets() {
        let several = Traffic {
            ingress: vec!["wan0", "wan1"],
            ..inbound()
        };
        let message = rule(&[Iifname("wan1".to_owned())]);
        assert_eq!(depth(&message, &several), RuleDepth::Packet);
    }

    #[test]
    fn the_rules_of_every_kernel_look_at_nothing() {
        let netlink = Netlink::open().expect("netlink needs no privilege");
        let found = netlink.rule_depths([&[inbound()]]).expect("an answer");
        assert_eq!(found, [RuleDepth::Session]);
    }
}
