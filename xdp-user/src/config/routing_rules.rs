//! Rules of policy routing that the kernel follows for packets that it forwards itself, and ikenat
//! does not.
//!
//! ikenat asks the FIB with the packet as it leaves, with protocol, ports and type of service, so rules
//! by these are followed. The source of what the server sends is the VIP. With iptables the source
//! changes after the route is chosen, so rules for such a gateway name the server. Marks are set by
//! the firewall of the host, which comes after XDP and tc.

use crate::config::services::{Service, named};
use crate::netlink::Netlink;
use crate::netlink::rule::Rule;
use std::io;
use std::net::Ipv4Addr;

/// A rule that is not followed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unfollowed {
    /// What it is, and what happens instead.
    pub message: String,
    /// A rule in its place.
    pub fix: String,
}

/// The rules of this host that are not followed for an instance, each once.
pub fn unfollowed(netlink: &Netlink, services: &[Service]) -> io::Result<Vec<Unfollowed>> {
    let rules = netlink.rules()?;
    let judged = rules.iter().filter_map(|rule| judge(rule, services));
    Ok(judged.collect())
}

/// A rule may be meant for hundreds of VIPs: the first of them is named.
fn judge(rule: &Rule, services: &[Service]) -> Option<Unfollowed> {
    let servers = services
        .iter()
        .filter_map(|one| Some((one, one.server_v4()?)));
    let vips = servers.flat_map(|(service, server)| {
        let vips = service.vips_v4();
        vips.filter(move |vip| is_missed(rule, *vip, server))
    });
    let vips: Vec<Ipv4Addr> = vips.collect();
    let first = vips.first()?;
    let named = named(vips.iter().map(Ipv4Addr::to_string).collect(), 1, "VIP");
    let Rule {
        priority, table, ..
    } = rule;
    let message = match (rule.mark, rule.source) {
        (Some((mark, mask)), _) => format!(
            "rule {priority} (fwmark {mark:#x}/{mask:#x} lookup {table}): packets of {named} are routed before the firewall marks them, so it selects none of them"
        ),
        (None, Some((source, length))) => format!(
            "rule {priority} (from {source}/{length} lookup {table}): what the server sends is routed as it leaves, with its VIP as its source ({named}), so it selects none of it"
        ),
        (None, None) => return None,
    };
    let mut fix = format!("ip rule add priority {priority} from {first} lookup {table}");
    if vips.len() > 1 {
        fix.push_str(" # and one for each other VIP");
    }
    Some(Unfollowed { message, fix })
}

/// Whether a rule is meant for packets of a server or a VIP, and selects none of them.
fn is_missed(rule: &Rule, vip: Ipv4Addr, server: Ipv4Addr) -> bool {
    match (rule.mark, rule.source) {
        // Packets without a mark do not fit; those that do not fit an inverted rule do.
        (Some((mark, mask)), _) => {
            mark & mask != 0 && !rule.inverted && (rule.is_from(server) || rule.is_from(vip))
        }
        (None, Some(_)) => !rule.inverted && rule.is_from(server) && !rule.is_from(vip),
        (None, None) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VIP: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);
    const SERVER: Ipv4Addr = Ipv4Addr::new(192, 168, 0, 1);

    fn rule(source: Option<([u8; 4], u8)>, mark: Option<(u32, u32)>) -> Rule {
        Rule {
            priority: 100,
            source: source.map(|(source, length)| (source.into(), length)),
            mark,
            inverted: false,
            table: 7,
        }
    }

    #[test]
    fn rules_by_the_server_and_by_marks_are_not_followed() {
        let fix = "ip rule add priority 100 from 203.0.113.1 lookup 7";
        for (rule, word) in [
            (
                rule(Some(([192, 168, 0, 1], 32)), None),
                "from 192.168.0.1/32",
            ),
            (
                rule(Some(([192, 168, 0, 0], 24)), None),
                "from 192.168.0.0/24",
            ),
            (rule(None, Some((1, u32::MAX))), "fwmark 0x1/0xffffffff"),
            (rule(Some(([192, 168, 0, 1], 32)), Some((1, 1))), "fwmark"),
        ] {
            let found = judge(&rule, &[Service::new("a", VIP, SERVER)]).expect(word);
            assert!(found.message.contains(word), "{}", found.message);
            assert_eq!(found.fix, fix);
        }
    }

    #[test]
    fn others_are() {
        let wireguard = Rule {
            inverted: true,
            ..rule(None, Some((51_820, u32::MAX)))
        };
        for rule in [
            rule(None, None),
            rule(Some(([203, 0, 113, 1], 32)), None),
            rule(Some(([0, 0, 0, 0], 0)), None),
            rule(Some(([10, 0, 0, 0], 8)), None),
            rule(Some(([10, 0, 0, 0], 8)), Some((1, 1))),
            wireguard,
        ] {
            assert_eq!(
                judge(&rule, &[Service::new("a", VIP, SERVER)]),
                None,
                "{rule:?}"
            );
        }
    }

    #[test]
    fn a_rule_for_many_vips_is_one_message() {
        let service = |number: u32| {
            let at = |first: Ipv4Addr| Ipv4Addr::from_bits(first.to_bits() + number);
            Service::new(&format!("s{number}"), at(VIP), at(SERVER))
        };
        let services: Vec<Service> = (0..100).map(service).collect();
        let found = judge(&rule(None, Some((1, 1))), &services).expect("by a mark");
        let words = "packets of 203.0.113.1 and 99 more VIPs are routed";
        assert!(found.message.contains(words), "{}", found.message);
        let fix = "ip rule add priority 100 from 203.0.113.1 lookup 7 # and one for each other VIP";
        assert_eq!(found.fix, fix);
        let from = rule(Some(([192, 168, 0, 2], 31)), None);
        let found = judge(&from, &services).expect("from two servers");
        let words = "(203.0.113.2 and 1 more VIP)";
        assert!(found.message.contains(words), "{}", found.message);
    }
}
