//! Rules of policy routing (`ip rule`) for IPv4.

use super::Netlink;
use super::socket::dump;
use netlink_packet_route::rule::{RuleAttribute, RuleFlags, RuleMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use std::io;
use std::net::{IpAddr, Ipv4Addr};

/// A rule: what it selects packets by, as far as ikenat looks at it, and the table that it names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rule {
    /// Rules with smaller numbers come first.
    pub priority: u32,
    /// The prefix of the source: address and length. Length 0: any.
    pub source: Option<(Ipv4Addr, u8)>,
    /// The firewall mark and its mask.
    pub mark: Option<(u32, u32)>,
    /// It selects what does not fit.
    pub inverted: bool,
    /// The routing table.
    pub table: u32,
    /// Routes of the table with this length of the prefix, or a shorter one, do not count
    /// (`suppress_prefixlength`).
    pub suppressed: Option<u32>,
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
    let mut rule = Rule {
        inverted: message.header.flags.contains(RuleFlags::Invert),
        table: message.header.table.into(),
        ..Rule::default()
    };
    let (mut mark, mut mask) = (None, u32::MAX);
    for attribute in &message.attributes {
        if let RuleAttribute::Priority(priority) = attribute {
            rule.priority = *priority;
        } else if let RuleAttribute::Source(IpAddr::V4(address)) = attribute {
            rule.source = Some((*address, message.header.src_len));
        } else if let RuleAttribute::FwMark(value) = attribute {
            mark = Some(*value);
        } else if let RuleAttribute::FwMask(value) = attribute {
            mask = *value;
        } else if let RuleAttribute::Table(table) = attribute {
            rule.table = *table;
        } else if let RuleAttribute::SuppressPrefixLen(length) = attribute {
            // The kernel writes all ones where there is none.
            rule.suppressed = (*length != u32::MAX).then_some(*length);
        }
    }
    rule.mark = mark.map(|mark| (mark, mask));
    rule
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rules_of_this_host_have_the_main_table() {
        let netlink = Netlink::open().expect("netlink needs no privilege");
        let rules = netlink.rules().expect("rules");
        let main = rules.iter().find(|rule| rule.table == 254);
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
            rule(&message).suppressed
        };
        assert_eq!(suppressed(0), Some(0));
        assert_eq!(suppressed(u32::MAX), None);
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
