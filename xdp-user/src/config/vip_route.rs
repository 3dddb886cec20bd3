//! The route of replies from a VIP, as the dataplane finds it: with the VIP as their source, and the LAN
//! by which the server's packets come. The kernel answers no such question (RTM_GETROUTE refuses a
//! source that is no address of this host, and one that is but comes by an interface), so where the
//! rules make a difference, they are followed here as the kernel does it (`fib_rules_lookup`).

use crate::netlink::route_table::{TableRoute, Target};
use crate::netlink::rule::{Action, LOCAL, MAIN, Rule};
use crate::netlink::{Netlink, Route};
use rustix::io::Errno;
use std::io;
use std::net::Ipv4Addr;
use std::sync::OnceLock;

/// The interface by which packets come that this host makes, as rules see it.
pub(super) const LOOPBACK: &str = "lo";

/// Packets to clients, by what rules may select of them. They have no mark yet, and differ in all else.
#[derive(Clone, Copy, Debug)]
pub(super) struct Packets<'p> {
    pub(super) source: Ipv4Addr,
    /// The interface by which they come.
    pub(super) ingress: &'p str,
    /// The interface by which they have to leave, if one is given: its index and its name.
    pub(super) egress: Option<(u32, &'p str)>,
}

/// The routes of replies to a client. Rules and routing tables are read once, and the tables only where
/// rules make a difference: they may be large.
pub(crate) struct VipRoutes<'n> {
    netlink: &'n Netlink,
    to: Ipv4Addr,
    rules: OnceLock<Vec<Rule>>,
    tables: OnceLock<Vec<TableRoute>>,
}

impl<'n> VipRoutes<'n> {
    /// Routes to this client.
    pub(crate) const fn to(netlink: &'n Netlink, to: Ipv4Addr) -> Self {
        Self {
            netlink,
            to,
            rules: OnceLock::new(),
            tables: OnceLock::new(),
        }
    }

    pub(crate) const fn netlink(&self) -> &'n Netlink {
        self.netlink
    }

    /// The route of packets from a VIP. `is_local`: it is an address of this host.
    pub(super) fn of(&self, packets: Packets<'_>, is_local: bool) -> io::Result<Route> {
        let rules = once(&self.rules, || self.netlink.rules())?;
        let source = is_local.then_some(packets.source);
        // As the kernel answers about packets of its own.
        let asked = Packets {
            source: source.unwrap_or(Ipv4Addr::UNSPECIFIED),
            ingress: LOOPBACK,
            ..packets
        };
        let makes_no_difference = |rule: &Rule| selects(rule, packets) == selects(rule, asked);
        if rules.iter().all(makes_no_difference) {
            return match (packets.egress, source) {
                (Some((index, _)), source) => self.netlink.route_by(index, source, self.to),
                (None, Some(source)) => self.netlink.route_from(source, self.to),
                (None, None) => self.netlink.route(self.to),
            };
        }
        let tables = once(&self.tables, || self.netlink.table_routes(self.to))?;
        let found = follow(rules, tables, packets).map(|index| Route::Via {
            index,
            gateway: None,
            source: None,
        });
        found.ok_or_else(|| Errno::NETUNREACH.into())
    }

    /// Whether packets would leave by an interface if the main table had a default route by it, in front of those with
    /// the same metric. If not, the rules decide otherwise, or never reach it.
    pub(super) fn would_leave_by(
        &self,
        packets: Packets<'_>,
        index: u32,
        metric: u32,
    ) -> io::Result<bool> {
        let rules = once(&self.rules, || self.netlink.rules())?;
        // The table of this host's addresses leads to no client. If only that comes before the main table, the
        // tables, which may be large, say nothing more.
        let may_decide =
            |rule: &&Rule| selects(rule, packets) && rule.action != Action::lookup(LOCAL);
        let first = rules.iter().find(may_decide);
        if first.is_some_and(|rule| rule.action == Action::MAIN) {
            return Ok(true);
        }
        let tables = once(&self.tables, || self.netlink.table_routes(self.to))?;
        let new = TableRoute {
            table: MAIN,
            prefix: 0,
            metric,
            target: Target::Interfaces(vec![index]),
        };
        let routes: Vec<TableRoute> = std::iter::once(new).chain(tables.iter().cloned()).collect();
        Ok(follow(rules, &routes, packets) == Some(index))
    }
}

/// What was read the first time. An error is not kept.
fn once<T>(
    cell: &OnceLock<Vec<T>>,
    read: impl FnOnce() -> io::Result<Vec<T>>,
) -> io::Result<&Vec<T>> {
    if let Some(known) = cell.get() {
        return Ok(known);
    }
    let read = read()?;
    Ok(cell.get_or_init(|| read))
}

/// The interface by which packets leave. `None`: they do not.
fn follow(rules: &[Rule], routes: &[TableRoute], packets: Packets<'_>) -> Option<u32> {
    let egress = packets.egress.map(|(index, _)| index);
    let mut left = rules;
    while let Some((rule, later)) = left.split_first() {
        left = later;
        if !selects(rule, packets) {
            continue;
        }
        match rule.action {
            Action::Lookup { table, suppressed } => {
                let Some(best) = best_route(routes, table, egress) else {
                    continue;
                };
                // Only what leads somewhere is suppressed.
                let is_suppressed = suppressed.is_some_and(|at| u32::from(best.prefix) <= at);
                match &best.target {
                    Target::NextRule => {}
                    Target::Refused => return None,
                    Target::Interfaces(_) | Target::Here if is_suppressed => {}
                    Target::Interfaces(all) => return egress.or(all.first().copied()),
                    Target::Here => return None,
                }
            }
            // Without a rule of exactly this priority, the `goto` does nothing: `ip rule` shows it as
            // unresolved.
            Action::Goto(priority) => {
                let target = later.iter().position(|one| one.priority == priority);
                left = target.map_or(later, |at| &later[at..]);
            }
            Action::Nop => {}
            Action::Blackhole | Action::Unreachable | Action::Prohibit => return None,
        }
    }
    None
}

/// The most specific route of a table, and of these the one with the smallest metric; if it has to leave by an
/// interface, routes by others do not count.
fn best_route(routes: &[TableRoute], table: u32, egress: Option<u32>) -> Option<&TableRoute> {
    let leaves = |route: &&TableRoute| match (&route.target, egress) {
        (Target::Interfaces(all), Some(by)) => all.contains(&by),
        _ => true,
    };
    let own = routes.iter().filter(|route| route.table == table);
    let key = |route: &&TableRoute| (32 - route.prefix, route.metric);
    own.filter(leaves).min_by_key(key)
}

/// Whether a rule selects all of these packets (`fib_rule_match`).
fn selects(rule: &Rule, packets: Packets<'_>) -> bool {
    let is_by = |wanted: &Option<String>, by: Option<&str>| {
        wanted.as_deref().is_none_or(|name| Some(name) == by)
    };
    let fits = rule.is_from(packets.source)
        && is_by(&rule.ingress, Some(packets.ingress))
        && is_by(&rule.egress, packets.egress.map(|(_, name)| name))
        && rule.mark.is_none_or(|(mark, mask)| mark & mask == 0);
    let is_about_all = rule.packet_selectors.is_empty() && !rule.has_unread_selectors;
    (fits && is_about_all) != rule.inverted
}

#[cfg(test)]
#[path = "vip_route_tests.rs"]
mod tests;
