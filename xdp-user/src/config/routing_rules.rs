//! Rules of policy routing that the kernel follows for packets that it forwards itself, and ikenat
//! does not.
//!
//! ikenat asks the FIB with the packet as it leaves, with protocol, ports and type of service, so rules
//! by these are followed. The source of what the server sends is the VIP. With iptables the source
//! changes after the route is chosen, so rules for such a gateway name the server. Marks are set by
//! the firewall of the host, which comes after XDP and tc.
//!
//! What the kernel itself sends is routed with the server as its source: the replies of a server on this
//! host, and what is fragmented. With several WANs rules by the server are the only ones for that, so
//! those that docs/slow-path.md gives for it are as they should be, beside a rule by the VIP for all
//! other packets.

use crate::config::services::{Service, named};
use crate::config::settings::Settings;
use crate::netlink::rule::Rule;
use crate::netlink::{Netlink, Route};
use netlink_packet_route::route::RouteHeader;
use std::io;
use std::net::Ipv4Addr;

/// A rule that is not followed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unfollowed {
    /// What it is, and what happens instead.
    pub message: String,
    /// A rule for the packets that it does not select.
    pub fix: String,
}

/// The rules of this host that are not followed for an instance, each once.
pub fn unfollowed(netlink: &Netlink, settings: &Settings) -> io::Result<Vec<Unfollowed>> {
    let rules = netlink.rules()?;
    let is_local = |server| {
        netlink
            .route(server)
            .is_ok_and(|route| route == Route::Local)
    };
    Ok(judge_all(&rules, settings, is_local))
}

fn judge_all(
    rules: &[Rule],
    settings: &Settings,
    is_local: impl Fn(Ipv4Addr) -> bool,
) -> Vec<Unfollowed> {
    let has_several_wans = settings.wans.len() > 1;
    let judged = rules.iter().enumerate().filter_map(|(number, rule)| {
        let kernel_rule = kernel_rule(rule, &rules[..number]).filter(|_| has_several_wans);
        let has_own_rule =
            |vip| kernel_rule == Some(KernelRule::ChoosesWan) && has_rule(rules, vip);
        if kernel_rule == Some(KernelRule::KeepsLans) {
            return None;
        }
        judge(rule, &settings.services, &is_local, has_own_rule)
    });
    judged.collect()
}

/// The two rules of docs/slow-path.md for what the kernel itself sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum KernelRule {
    /// The first one keeps the way to the LANs, and so shows what the second one is for.
    KeepsLans,
    /// The second one chooses the WAN. It is enough where rules by the VIPs choose that of all other
    /// packets.
    ChoosesWan,
}

fn kernel_rule(rule: &Rule, earlier: &[Rule]) -> Option<KernelRule> {
    let (source, length) = rule.source.filter(|_| rule.mark.is_none())?;
    let keeps_lans = |first: &Rule| {
        let contains = first.is_from(source) && first.source.is_some_and(|(_, of)| of <= length);
        first.suppressed.is_some()
            && first.table == u32::from(RouteHeader::RT_TABLE_MAIN)
            && contains
            && is_plain(first)
    };
    if keeps_lans(rule) {
        return Some(KernelRule::KeepsLans);
    }
    earlier
        .iter()
        .any(keeps_lans)
        .then_some(KernelRule::ChoosesWan)
}

/// Whether a rule by its source names a table for the packets of a VIP.
fn has_rule(rules: &[Rule], vip: Ipv4Addr) -> bool {
    let is_by_source = |rule: &Rule| rule.source.is_some_and(|(_, length)| length > 0);
    let names_it = |rule: &Rule| is_by_source(rule) && rule.is_from(vip) && is_plain(rule);
    let mut rules = rules.iter();
    rules.any(|rule| names_it(rule) && rule.suppressed.is_none())
}

/// Whether a rule selects packets by what they are, and not by a mark or by what they are not.
fn is_plain(rule: &Rule) -> bool {
    rule.mark.is_none() && !rule.inverted
}

/// A rule may be meant for hundreds of VIPs: the first of them is named. Those that are served by
/// another rule are left out.
fn judge(
    rule: &Rule,
    services: &[Service],
    is_local: impl Fn(Ipv4Addr) -> bool,
    has_own_rule: impl Fn(Ipv4Addr) -> bool,
) -> Option<Unfollowed> {
    let servers = services
        .iter()
        .filter_map(|one| Some((one, one.server_v4()?)));
    let vips = servers.flat_map(|(service, server)| {
        let vips = service.vips_v4();
        let missed: Vec<Ipv4Addr> = vips.filter(|vip| is_missed(rule, *vip, server)).collect();
        // The kernel itself routes what a server on this host sends, by its source and its mark.
        let is_followed = !missed.is_empty() && is_local(server);
        missed.into_iter().filter(move |_| !is_followed)
    });
    let vips: Vec<Ipv4Addr> = vips.filter(|vip| !has_own_rule(*vip)).collect();
    let first = vips.first()?;
    let named = named(vips.iter().map(Ipv4Addr::to_string).collect(), 1, "VIP");
    let priority = rule.priority;
    let action = match rule.suppressed {
        Some(length) => format!("lookup {} suppress_prefixlength {length}", rule.table),
        None => format!("lookup {}", rule.table),
    };
    let message = match (rule.mark, rule.source) {
        (Some((mark, mask)), _) => format!(
            "rule {priority} (fwmark {mark:#x}/{mask:#x} {action}): packets of {named} are routed before the firewall marks them, so it selects none of them"
        ),
        (None, Some((source, length))) => format!(
            "rule {priority} (from {source}/{length} {action}): it selects only what the kernel itself sends; what the server sends through this gateway is routed as it leaves, with its VIP as its source ({named})"
        ),
        (None, None) => return None,
    };
    let mut fix = format!("ip rule add priority {priority} from {first} {action}");
    if vips.len() > 1 {
        fix.push_str(" # and one for each other VIP");
    }
    Some(Unfollowed { message, fix })
}

/// Whether a rule is meant for packets of a server or a VIP, and selects none of them as they leave.
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
            suppressed: None,
        }
    }

    fn elsewhere(_: Ipv4Addr) -> bool {
        false
    }

    /// No VIP has a rule.
    fn without_rule(_: Ipv4Addr) -> bool {
        false
    }

    fn judged_for_one(rule: &Rule) -> Option<Unfollowed> {
        judge(
            rule,
            &[Service::new("a", VIP, SERVER)],
            elsewhere,
            without_rule,
        )
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
            let found = judged_for_one(&rule).expect(word);
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
            assert_eq!(judged_for_one(&rule), None, "{rule:?}");
        }
    }

    #[test]
    fn a_rule_for_many_vips_is_one_message() {
        let service = |number: u32| {
            let at = |first: Ipv4Addr| Ipv4Addr::from_bits(first.to_bits() + number);
            Service::new(&format!("s{number}"), at(VIP), at(SERVER))
        };
        let services: Vec<Service> = (0..100).map(service).collect();
        let found = judge(
            &rule(None, Some((1, 1))),
            &services,
            elsewhere,
            without_rule,
        )
        .expect("by a mark");
        let words = "packets of 203.0.113.1 and 99 more VIPs are routed";
        assert!(found.message.contains(words), "{}", found.message);
        let fix = "ip rule add priority 100 from 203.0.113.1 lookup 7 # and one for each other VIP";
        assert_eq!(found.fix, fix);
        let from = rule(Some(([192, 168, 0, 2], 31)), None);
        let found = judge(&from, &services, elsewhere, without_rule).expect("from two servers");
        let words = "(203.0.113.2 and 1 more VIP)";
        assert!(found.message.contains(words), "{}", found.message);
    }

    const FROM_SERVER: Option<([u8; 4], u8)> = Some(([192, 168, 0, 1], 32));

    fn settings(wans: &[&str]) -> Settings {
        Settings {
            wans: wans.iter().map(|wan| (*wan).to_owned()).collect(),
            ..Settings::new(VIP, SERVER)
        }
    }

    /// The two rules that docs/slow-path.md gives.
    fn for_the_kernel() -> [Rule; 2] {
        let first = Rule {
            table: 254,
            suppressed: Some(0),
            ..rule(FROM_SERVER, None)
        };
        [first, rule(FROM_SERVER, None)]
    }

    #[test]
    fn rules_for_what_the_kernel_sends_are_right_with_several_wans() {
        let [first, second] = for_the_kernel();
        let judged = |rules: &[Rule], wans: &[&str]| {
            let found = judge_all(rules, &settings(wans), elsewhere);
            found.into_iter().map(|one| one.message).collect::<Vec<_>>()
        };
        let by_vip = rule(Some(([203, 0, 113, 1], 32)), None);
        let both = [first, second.clone(), by_vip];
        assert_eq!(judged(&both, &["eth1", "eth2"]), Vec::<String>::new());
        // The first one may be for all servers, and has to come before the second one.
        let mut wide = both.clone();
        wide[0].source = Some(([192, 168, 0, 0].into(), 24));
        assert_eq!(judged(&wide, &["eth1", "eth2"]), Vec::<String>::new());
        wide.reverse();
        assert_eq!(judged(&wide, &["eth1", "eth2"]).len(), 1);
        // It has to keep the routes of the main table.
        let mut other_table = both.clone();
        other_table[0].table = 7;
        assert_eq!(judged(&other_table, &["eth1", "eth2"]).len(), 2);
        let words = "it selects only what the kernel itself sends";
        for (rules, wans) in [
            (&[second][..], &["eth1", "eth2"][..]),
            (&both[1..], &["eth1"]),
        ] {
            let found = judged(rules, wans);
            assert!(found.len() == 1 && found[0].contains(words), "{found:?}");
        }
    }

    /// Otherwise what the server sends follows no rule at all.
    #[test]
    fn rules_for_what_the_kernel_sends_need_one_by_the_vip() {
        let [first, second] = for_the_kernel();
        let fixes = |more: Option<Rule>| {
            let rules: Vec<Rule> = [first.clone(), second.clone()]
                .into_iter()
                .chain(more)
                .collect();
            let found = judge_all(&rules, &settings(&["eth1", "eth2"]), elsewhere);
            found.into_iter().map(|one| one.fix).collect::<Vec<_>>()
        };
        let fix = "ip rule add priority 100 from 203.0.113.1 lookup 7";
        assert_eq!(fixes(None), [fix]);
        let by_vip = rule(Some(([203, 0, 113, 0], 24)), None);
        assert_eq!(fixes(Some(by_vip.clone())), Vec::<String>::new());
        let suppressed = Rule {
            suppressed: Some(0),
            ..by_vip
        };
        let inverted = Rule {
            inverted: true,
            ..by_vip
        };
        let marked = Rule {
            mark: Some((1, 1)),
            ..by_vip
        };
        let of_another = rule(Some(([203, 0, 113, 2], 32)), None);
        let of_all = rule(Some(([0, 0, 0, 0], 0)), None);
        for other in [suppressed, inverted, of_another, of_all] {
            assert_eq!(fixes(Some(other.clone())), [fix], "{other:?}");
        }
        assert_eq!(fixes(Some(marked)).len(), 2, "the mark is not seen either");
    }

    #[test]
    fn a_rule_in_its_place_suppresses_what_it_suppresses() {
        let found = judge_all(&for_the_kernel(), &settings(&["eth1"]), elsewhere);
        let fixes: Vec<&str> = found.iter().map(|one| one.fix.as_str()).collect();
        let expected = [
            "ip rule add priority 100 from 203.0.113.1 lookup 254 suppress_prefixlength 0",
            "ip rule add priority 100 from 203.0.113.1 lookup 7",
        ];
        assert_eq!(fixes, expected);
    }

    #[test]
    fn the_kernel_follows_all_rules_for_a_server_on_this_host() {
        let rules = [
            rule(FROM_SERVER, None),
            rule(FROM_SERVER, Some((1, 1))),
            rule(None, Some((1, 1))),
        ];
        let judged = |is_local: bool| judge_all(&rules, &settings(&["eth1"]), |_| is_local).len();
        assert_eq!((judged(true), judged(false)), (0, 3));
    }
}
