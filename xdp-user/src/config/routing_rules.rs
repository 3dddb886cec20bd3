//! Rules of policy routing that the kernel follows for packets that it forwards itself, and ikenat
//! does not.
//!
//! ikenat asks the FIB with the packet as it leaves, with protocol, ports and type of service, so rules
//! by these are followed. The source of what the server sends is the VIP. With iptables the source
//! changes after the route is chosen, so rules for such a gateway name the server. Marks are set by
//! the firewall of the host, which comes after XDP and tc.

use crate::config::services::Service;
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

/// The rules of this host that are not followed for an instance.
pub fn unfollowed(netlink: &Netlink, services: &[Service]) -> io::Result<Vec<Unfollowed>> {
    let rules = netlink.rules()?;
    let mut all = Vec::new();
    for service in services {
        let Some(server) = service.server_v4() else {
            continue;
        };
        let found = service.vips_v4().flat_map(|vip| {
            rules
                .iter()
                .filter_map(move |rule| judge(rule, vip, server))
        });
        for one in found {
            if !all.contains(&one) {
                all.push(one);
            }
        }
    }
    Ok(all)
}

fn judge(rule: &Rule, vip: Ipv4Addr, server: Ipv4Addr) -> Option<Unfollowed> {
    let Rule {
        priority, table, ..
    } = rule;
    let fix = format!("ip rule add priority {priority} from {vip} lookup {table}");
    let message = match (rule.mark, rule.source) {
        // Packets without a mark do not fit; those that do not fit an inverted rule do.
        (Some((mark, mask)), _)
            if mark & mask != 0
                && !rule.inverted
                && (rule.is_from(server) || rule.is_from(vip)) =>
        {
            format!(
                "rule {priority} (fwmark {mark:#x}/{mask:#x} lookup {table}): packets are routed before the firewall marks them, so it selects none of them"
            )
        }
        (None, Some((source, length)))
            if !rule.inverted && rule.is_from(server) && !rule.is_from(vip) =>
        {
            format!(
                "rule {priority} (from {source}/{length} lookup {table}): what the server sends is routed as it leaves, with {vip} as its source, so it selects none of it"
            )
        }
        _ => return None,
    };
    Some(Unfollowed { message, fix })
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
            let found = judge(&rule, VIP, SERVER).expect(word);
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
            assert_eq!(judge(&rule, VIP, SERVER), None, "{rule:?}");
        }
    }
}
