//! Rules of policy routing (`ip rule`) for IPv4.

use super::Netlink;
use super::socket::dump;
use netlink_packet_core::Nla as _;
use netlink_packet_route::route::RouteHeader;
use netlink_packet_route::rule::{
    RuleAction, RuleAttribute, RuleFlags, RuleMessage, RulePortRange,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr};

/// The number of the table of this host's own addresses (`RT_TABLE_LOCAL` of `linux/rtnetlink.h`).
pub const LOCAL: u32 = 255;

/// The number of the main table.
pub const MAIN: u32 = RouteHeader::RT_TABLE_MAIN as u32;

/// A rule: what it selects packets by, as far as ikenat looks at it, and what it does with them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rule {
    /// Rules with smaller numbers come first.
    pub priority: u32,
    /// The prefix of the source: address and length. Length 0: any.
    pub source: Option<(Ipv4Addr, u8)>,
    /// The name of the interface by which the packets come.
    pub ingress: Option<String>,
    /// The name of the interface to which a socket is bound, or by which a packet has to leave. No packet
    /// that the kernel forwards has one; the dataplane asks with one where there are several WANs.
    pub egress: Option<String>,
    /// The firewall mark and its mask.
    pub mark: Option<(u32, u32)>,
    /// What else of a packet it looks at (destination, protocol, ports, type of service), as `ip rule` writes
    /// it.
    pub packet_selectors: Vec<String>,
    /// It selects by what this version does not read (the user or the tunnel, for example).
    pub has_unread_selectors: bool,
    /// It selects what does not fit.
    pub inverted: bool,
    /// What becomes of the packets.
    pub action: Action,
}

/// What a rule does with the packets that it selects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// They are routed by a table.
    Lookup {
        /// The table.
        table: u32,
        /// Routes of the table with this length of the prefix, or a shorter one, do not count
        /// (`suppress_prefixlength`).
        suppressed: Option<u32>,
    },
    /// The rules from this priority on come next.
    Goto(u32),
    /// The next rule decides.
    Nop,
    /// They are dropped.
    Blackhole,
    /// They are answered with an ICMP error: no route.
    Unreachable,
    /// They are answered with an ICMP error: prohibited.
    Prohibit,
}

impl Default for Action {
    fn default() -> Self {
        Self::MAIN
    }
}

impl Action {
    /// The main table.
    pub const MAIN: Self = Self::lookup(MAIN);

    /// A table with all of its routes.
    pub const fn lookup(table: u32) -> Self {
        Self::Lookup {
            table,
            suppressed: None,
        }
    }
}

/// As `ip rule` writes it.
impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lookup {
                table,
                suppressed: None,
            } => write!(f, "lookup {table}"),
            Self::Lookup {
                table,
                suppressed: Some(length),
            } => write!(f, "lookup {table} suppress_prefixlength {length}"),
            Self::Goto(priority) => write!(f, "goto {priority}"),
            Self::Nop => f.write_str("nop"),
            Self::Blackhole => f.write_str("blackhole"),
            Self::Unreachable => f.write_str("unreachable"),
            Self::Prohibit => f.write_str("prohibit"),
        }
    }
}

impl Rule {
    /// Whether its prefix of the source contains an address.
    pub fn is_from(&self, address: Ipv4Addr) -> bool {
        self.source.is_none_or(|(source, length)| {
            let bits = u32::from(source) ^ u32::from(address);
            bits.checked_shr(32 - u32::from(length.min(32)))
                .unwrap_or(0)
                == 0
        })
    }
}

impl Netlink {
    /// The rules of IPv4, in the order in which the kernel asks them.
    pub fn rules(&self) -> io::Result<Vec<Rule>> {
        Ok(self.rule_messages()?.iter().map(rule).collect())
    }

    /// The same as the kernel's messages.
    pub(super) fn rule_messages(&self) -> io::Result<Vec<RuleMessage>> {
        let mut message = RuleMessage::default();
        message.header.family = AddressFamily::Inet;
        let replies = dump(&self.route, RouteNetlinkMessage::GetRule(message))?;
        let rule = |reply| {
            if let RouteNetlinkMessage::NewRule(rule) = reply {
                Some(rule)
            } else {
                None
            }
        };
        Ok(replies.into_iter().filter_map(rule).collect())
    }
}

fn rule(message: &RuleMessage) -> Rule {
    let header = &message.header;
    let mut rule = Rule {
        inverted: header.flags.contains(RuleFlags::Invert),
        ..Rule::default()
    };
    if header.tos != 0 {
        rule.packet_selectors.push(format!("tos {:#x}", header.tos));
    }
    let (mut table, mut suppressed) = (u32::from(header.table), None);
    let (mut mark, mut mask, mut target) = (None, u32::MAX, 0);
    for attribute in &message.attributes {
        if let RuleAttribute::Priority(priority) = attribute {
            rule.priority = *priority;
        } else if let RuleAttribute::Source(IpAddr::V4(address)) = attribute {
            rule.source = Some((*address, header.src_len));
        } else if let RuleAttribute::Iifname(name) = attribute {
            rule.ingress = Some(name.clone());
        } else if let RuleAttribute::Oifname(name) = attribute {
            rule.egress = Some(name.clone());
        } else if let RuleAttribute::FwMark(value) = attribute {
            mark = Some(*value);
        } else if let RuleAttribute::FwMask(value) = attribute {
            mask = *value;
        } else if let RuleAttribute::Table(number) = attribute {
            table = *number;
        } else if let RuleAttribute::Goto(priority) = attribute {
            target = *priority;
        } else if let RuleAttribute::SuppressPrefixLen(length) = attribute {
            // The kernel writes all ones where there is none.
            suppressed = (*length != u32::MAX).then_some(*length);
        } else if let Some(words) = selector(attribute, header.dst_len) {
            rule.packet_selectors.push(words);
        } else if !says_nothing_more(attribute) {
            rule.has_unread_selectors = true;
        }
    }
    rule.mark = mark.map(|mark| (mark, mask));
    rule.action = [
        (RuleAction::Goto, Action::Goto(target)),
        (RuleAction::Nop, Action::Nop),
        (RuleAction::Blackhole, Action::Blackhole),
        (RuleAction::Unreachable, Action::Unreachable),
        (RuleAction::Prohibit, Action::Prohibit),
    ]
    .into_iter()
    .find_map(|(kind, action)| (kind == header.action).then_some(action))
    .unwrap_or(Action::Lookup { table, suppressed });
    rule
}

/// `FRA_SPORT_MASK` and `FRA_DPORT_MASK` of `linux/fib_rules.h`, from Linux 6.15 on.
const PORT_MASKS: [u16; 2] = [28, 29];

/// Whether an attribute selects no packets, or just as one beside it does: the mask of a single port.
fn says_nothing_more(attribute: &RuleAttribute) -> bool {
    if let RuleAttribute::Other(other) = attribute {
        let mut mask = vec![0; other.value_len()];
        other.emit_value(&mut mask);
        PORT_MASKS.contains(&other.kind()) && mask == [0xFF; 2]
    } else {
        matches!(
            attribute,
            RuleAttribute::Protocol(_) | RuleAttribute::Realm(_)
        )
    }
}

/// What a rule selects by, as `ip rule` writes it.
fn selector(attribute: &RuleAttribute, destination_length: u8) -> Option<String> {
    let range = |what: &str, ports: &RulePortRange| {
        if ports.start == ports.end {
            format!("{what} {}", ports.start)
        } else {
            format!("{what} {}-{}", ports.start, ports.end)
        }
    };
    if let RuleAttribute::Destination(IpAddr::V4(address)) = attribute {
        Some(format!("to {address}/{destination_length}"))
    } else if let RuleAttribute::IpProtocol(protocol) = attribute {
        Some(format!("ipproto {}", i32::from(*protocol)))
    } else if let RuleAttribute::SourcePortRange(ports) = attribute {
        Some(range("sport", ports))
    } else if let RuleAttribute::DestinationPortRange(ports) = attribute {
        Some(range("dport", ports))
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use netlink_packet_core::DefaultNla;

    #[test]
    fn the_rules_of_this_host_have_the_main_table() {
        let netlink = Netlink::open().expect("netlink needs no privilege");
        let rules = netlink.rules().expect("rules");
        let main = rules.iter().find(|rule| rule.action == Action::lookup(254));
        let main = main.expect("a rule for the main table");
        assert!(main.is_from(Ipv4Addr::new(192, 0, 2, 1)) && main.mark.is_none());
    }

    #[test]
    fn the_length_of_suppressed_prefixes_is_read() {
        let suppressed = |length| {
            let mut message = RuleMessage::default();
            message
                .attributes
                .push(RuleAttribute::SuppressPrefixLen(length));
            rule(&message).action.to_string()
        };
        assert_eq!(suppressed(0), "lookup 0 suppress_prefixlength 0");
        assert_eq!(suppressed(u32::MAX), "lookup 0");
    }

    #[test]
    fn what_a_rule_selects_and_does_is_read() {
        let mut message = RuleMessage::default();
        message.header.action = RuleAction::Unreachable;
        (message.header.dst_len, message.header.tos) = (8, 0x10);
        message.attributes = vec![
            RuleAttribute::Destination(Ipv4Addr::new(10, 0, 0, 0).into()),
            RuleAttribute::Iifname("eth0".to_owned()),
            RuleAttribute::IpProtocol(17.into()),
            RuleAttribute::SourcePortRange(RulePortRange {
                start: 500,
                end: 4500,
            }),
            RuleAttribute::DestinationPortRange(RulePortRange {
                start: 4500,
                end: 4500,
            }),
        ];
        let found = rule(&message);
        let words = [
            "tos 0x10",
            "to 10.0.0.0/8",
            "ipproto 17",
            "sport 500-4500",
            "dport 4500",
        ];
        assert_eq!(found.packet_selectors, words);
        assert_eq!(found.ingress.as_deref(), Some("eth0"));
        assert_eq!(found.action, Action::Unreachable);
        assert!(!found.has_unread_selectors);
        let port_mask = |mask: u16| {
            let mask = DefaultNla::new(PORT_MASKS[0], mask.to_ne_bytes().to_vec());
            RuleAttribute::Other(mask)
        };
        message.attributes.push(port_mask(u16::MAX));
        assert!(!rule(&message).has_unread_selectors);
        message.attributes.push(port_mask(0xFFF0));
        assert!(rule(&message).has_unread_selectors);
        message.attributes = vec![RuleAttribute::Oifname("eth0".to_owned())];
        let bound = rule(&message);
        assert_eq!(bound.egress.as_deref(), Some("eth0"));
        assert!(bound.ingress.is_none() && !bound.has_unread_selectors);
        message.header.action = RuleAction::Goto;
        message.attributes = vec![RuleAttribute::Goto(500)];
        assert_eq!(rule(&message).action.to_string(), "goto 500");
    }

    #[test]
    fn a_prefix_contains_its_addresses() {
        let from = |source| Rule {
            source,
            ..Rule::default()
        };
        let network = from(Some((Ipv4Addr::new(192, 168, 0, 0), 24)));
        assert!(network.is_from(Ipv4Addr::new(192, 168, 0, 255)));
        assert!(!network.is_from(Ipv4Addr::new(192, 168, 1, 0)));
        let host = from(Some((Ipv4Addr::new(192, 168, 0, 1), 32)));
        assert!(host.is_from(Ipv4Addr::new(192, 168, 0, 1)));
        assert!(!host.is_from(Ipv4Addr::new(192, 168, 0, 0)));
        assert!(from(None).is_from(Ipv4Addr::LOCALHOST));
    }
}
