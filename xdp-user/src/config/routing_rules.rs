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
//!
//! With several WANs, too, replies leave by the WAN that has their VIP if it has a default route. Rules by the
//! server or by a mark change nothing about that, whether they choose a WAN or forbid (unreachable, prohibit,
//! blackhole).

use crate::config::commands::quoted;
use crate::config::services::{Service, named};
use crate::config::settings::Settings;
use crate::netlink::rule::{Action, MAIN, Rule};
use crate::netlink::{Netlink, Route};
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

/// The rules of this host that are not followed for an instance, each once. `leaves_by_own_wan`: whether replies
/// from a VIP leave by that of several WANs that has it.
pub fn unfollowed(
    netlink: &Netlink,
    settings: &Settings,
    leaves_by_own_wan: impl Fn(Ipv4Addr) -> bool,
) -> io::Result<Vec<Unfollowed>> {
    let rules = netlink.rules()?;
    let is_local = |server| {
        netlink
            .route(server)
            .is_ok_and(|route| route == Route::Local)
    };
    Ok(judge_all(&rules, settings, is_local, leaves_by_own_wan))
}

fn judge_all(
    rules: &[Rule],
    settings: &Settings,
    is_local: impl Fn(Ipv4Addr) -> bool,
    leaves_by_own_wan: impl Fn(Ipv4Addr) -> bool,
) -> Vec<Unfollowed> {
    let has_several_wans = settings.wans.len() > 1;
    let lans = &settings.lans[..];
    let judged = rules.iter().enumerate().filter_map(|(number, rule)| {
        let kernel_rule = kernel_rule(rule, &rules[..number]).filter(|_| has_several_wans);
        if kernel_rule == Some(KernelRule::KeepsLans) {
            return None;
        }
        let chooses_wan = kernel_rule == Some(KernelRule::ChoosesWan);
        // Also if the rule forbids: proposed for the VIP it would stop all replies.
        let is_served = |vip| {
            has_same(rules, rule, vip)
                || (chooses_wan && has_rule(rules, lans, vip))
                || (has_several_wans && leaves_by_own_wan(vip))
        };
        judge(rule, settings, &is_local, is_served)
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
        let keeps = matches!(
            first.action,
            Action::Lookup {
                table: MAIN,
                suppressed: Some(_),
            }
        );
        keeps && contains && is_plain(first, &[])
    };
    if keeps_lans(rule) {
        return Some(KernelRule::KeepsLans);
    }
    earlier
        .iter()
        .any(keeps_lans)
        .then_some(KernelRule::ChoosesWan)
}

/// The rules that come before the main table decides.
fn before_main(rules: &[Rule]) -> impl Iterator<Item = &Rule> {
    let is_for_all =
        |rule: &Rule| rule.source.is_none_or(|(_, length)| length == 0) && is_plain(rule, &[]);
    rules
        .iter()
        .take_while(move |rule| rule.action != Action::MAIN || !is_for_all(rule))
}

/// Whether a rule by its source names a table for all packets of a VIP.
fn has_rule(rules: &[Rule], lans: &[String], vip: Ipv4Addr) -> bool {
    let names_it = |rule: &Rule| names(rule, vip) && is_plain(rule, lans);
    let has_table = |rule: &Rule| {
        matches!(
            rule.action,
            Action::Lookup {
                suppressed: None,
                ..
            }
        )
    };
    before_main(rules).any(|rule| names_it(rule) && has_table(rule))
}

/// Whether there is the rule that [`judge`] proposes for a VIP, or one that does the same for more packets.
fn has_same(rules: &[Rule], rule: &Rule, vip: Ipv4Addr) -> bool {
    let is_same = |other: &&Rule| {
        let includes = |own: &Option<String>| own.is_none() || *own == rule.ingress;
        let is_plain = other.mark.is_none() && !other.inverted && !is_for_other_packets(other);
        let mut selectors = other.packet_selectors.iter();
        let is_as_wide = selectors.all(|one| rule.packet_selectors.contains(one));
        let selects = names(other, vip) && is_plain && is_as_wide && includes(&other.ingress);
        selects && other.action == rule.action
    };
    before_main(rules).any(|other| is_same(&other))
}

/// Whether a rule is for some sources, among them the VIP.
fn names(rule: &Rule, vip: Ipv4Addr) -> bool {
    rule.source.is_some_and(|(_, length)| length > 0) && rule.is_from(vip)
}

/// Whether a rule selects packets by their source alone, of all that come by a LAN: not by a mark or by what
/// they are not, nor some of them.
fn is_plain(rule: &Rule, lans: &[String]) -> bool {
    let is_of_lan = |name| lans == std::slice::from_ref(name);
    rule.mark.is_none()
        && !rule.inverted
        && !is_for_other_packets(rule)
        && rule.packet_selectors.is_empty()
        && rule.ingress.as_ref().is_none_or(is_of_lan)
}

/// Whether a rule selects by what no packet has that the kernel forwards, or by what is not read.
const fn is_for_other_packets(rule: &Rule) -> bool {
    rule.has_unread_selectors || rule.egress.is_some()
}

/// A rule may be meant for hundreds of VIPs: the first of them is named. Those that are served by
/// another rule are left out.
fn judge(
    rule: &Rule,
    settings: &Settings,
    is_local: impl Fn(Ipv4Addr) -> bool,
    is_served: impl Fn(Ipv4Addr) -> bool,
) -> Option<Unfollowed> {
    let comes_by_lan = |name: &String| settings.lans.contains(name);
    let is_by_lan = rule.ingress.as_ref().is_none_or(comes_by_lan);
    if is_for_other_packets(rule) || !is_by_lan || is_for_sockets(rule) {
        return None;
    }
    let servers = settings
        .services
        .iter()
        .filter_map(|one: &Service| Some((one, one.server_v4()?)));
    let vips = servers.flat_map(|(service, server)| {
        let vips = service.vips_v4();
        let missed: Vec<Ipv4Addr> = vips.filter(|vip| is_missed(rule, *vip, server)).collect();
        // The kernel itself routes what a server on this host sends, by its source and its mark.
        let is_followed = !missed.is_empty() && is_local(server);
        missed.into_iter().filter(move |_| !is_followed)
    });
    let vips: Vec<Ipv4Addr> = vips.filter(|vip| !is_served(*vip)).collect();
    let first = vips.first()?;
    let named = named(vips.iter().map(Ipv4Addr::to_string).collect(), 1, "VIP");
    let priority = rule.priority;
    let ingress = rule
        .ingress
        .iter()
        .map(|name| format!("iif {}", quoted(name)));
    let words = ingress.chain(rule.packet_selectors.iter().cloned());
    let rest = words.chain([rule.action.to_string()]).collect::<Vec<_>>();
    let rest = rest.join(" ");
    let message = match (rule.mark, rule.source) {
        (Some((mark, mask)), _) => format!(
            "rule {priority} (fwmark {mark:#x}/{mask:#x} {rest}): packets of {named} are routed before the firewall marks them, so it selects none of them"
        ),
        (None, Some((source, length))) => format!(
            "rule {priority} (from {source}/{length} {rest}): it selects only what the kernel itself sends; what the server sends through this gateway is routed as it leaves, with its VIP as its source ({named})"
        ),
        (None, None) => return None,
    };
    let mut fix = format!("ip rule add priority {priority} from {first} {rest}");
    if vips.len() > 1 {
        fix.push_str(" # and one for each other VIP");
    }
    Some(Unfollowed { message, fix })
}

/// Whether a rule by a mark is not meant for what the server sends. VPN programs of the host (Tailscale, for
/// example) mark their own sockets: what they send takes the usual tables, and is stopped if these lead nowhere.
fn is_for_sockets(rule: &Rule) -> bool {
    /// `linux/rtnetlink.h`.
    const RT_TABLE_DEFAULT: u32 = 253;
    const USUAL: [u32; 2] = [MAIN, RT_TABLE_DEFAULT];
    let chooses = matches!(
        rule.action,
        Action::Lookup { table, suppressed } if suppressed.is_some() || !USUAL.contains(&table)
    );
    rule.mark.is_some() && !chooses
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
#[path = "routing_rules_tests.rs"]
mod tests;
