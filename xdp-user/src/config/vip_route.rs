//! The route of packets from a VIP that is no address of this host. The kernel refuses RTM_GETROUTE with such
//! a source (`EINVAL`), though it answers the same question of a program, so the rules that name the VIP are followed
//! here.

use crate::netlink::route_table::{TableRoute, Target};
use crate::netlink::rule::{Action, Rule};
use crate::netlink::{Netlink, Route};
use rustix::io::Errno;
use std::io;
use std::net::Ipv4Addr;

/// The route of packets from a VIP that is no address of this host, by an interface if one is given.
pub(super) fn route(
    netlink: &Netlink,
    vip: Ipv4Addr,
    to: Ipv4Addr,
    by: Option<u32>,
) -> io::Result<Route> {
    let rules = netlink.rules()?;
    let names_it = |rule: &Rule| rule.source.is_some() && rule.is_from(vip);
    // All routes are listed only where a rule makes a difference.
    let found = if rules.iter().any(names_it) {
        follow(&rules, &netlink.table_routes(to)?, vip, by)
    } else {
        Found::AsWithoutSource
    };
    match (found, by) {
        (Found::By(index), _) => Ok(Route::Via {
            index,
            gateway: None,
            source: None,
        }),
        (Found::Nowhere, _) => Err(Errno::NETUNREACH.into()),
        (Found::AsWithoutSource, Some(index)) => netlink.route_by(index, None, to),
        (Found::AsWithoutSource, None) => netlink.route(to),
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Found {
    By(u32),
    Nowhere,
    /// No rule that names the source decides.
    AsWithoutSource,
}

/// Follows the rules up to that for all packets that names the main table.
fn follow(rules: &[Rule], routes: &[TableRoute], vip: Ipv4Addr, by: Option<u32>) -> Found {
    let mut from = 0;
    for rule in rules {
        if rule.priority < from || !selects(rule, vip) {
            continue;
        }
        if rule.source.is_none() && rule.action == Action::MAIN {
            return Found::AsWithoutSource;
        }
        match rule.action {
            Action::Lookup { table, suppressed } => {
                let best = best_route(routes, table, by);
                let best =
                    best.filter(|route| suppressed.is_none_or(|at| u32::from(route.prefix) > at));
                match best.map(|route| &route.target) {
                    Some(Target::Interfaces(all)) => {
                        let index = by.or(all.first().copied());
                        return index.map_or(Found::Nowhere, Found::By);
                    }
                    Some(Target::Nowhere) => return Found::Nowhere,
                    Some(Target::NextRule) | None => {}
                }
            }
            Action::Goto(priority) => from = priority,
            Action::Nop => {}
            Action::Blackhole | Action::Unreachable | Action::Prohibit => return Found::Nowhere,
        }
    }
    Found::AsWithoutSource
}

/// The most specific route of a table, and of these the one with the smallest metric; if it has to leave by an
/// interface, routes by others do not count.
fn best_route(routes: &[TableRoute], table: u32, by: Option<u32>) -> Option<&TableRoute> {
    let leaves = |route: &&TableRoute| match (&route.target, by) {
        (Target::Interfaces(all), Some(by)) => all.contains(&by),
        _ => true,
    };
    let own = routes.iter().filter(|route| route.table == table);
    let key = |route: &&TableRoute| (32 - route.prefix, route.metric);
    own.filter(leaves).min_by_key(key)
}

/// Whether a rule selects all that is sent from the VIP to clients: they have no mark yet, and differ in all
/// else that rules may look at.
fn selects(rule: &Rule, vip: Ipv4Addr) -> bool {
    let fits = rule.is_from(vip) && rule.mark.is_none_or(|(mark, mask)| mark & mask == 0);
    let is_about_all = rule.ingress.is_none() && rule.others.is_empty() && !rule.is_special;
    (fits && is_about_all) != rule.inverted
}

#[cfg(test)]
mod tests {
    use super::*;

    const VIP: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 77);

    fn from_vip(priority: u32, action: Action) -> Rule {
        Rule {
            priority,
            source: Some((VIP, 32)),
            action,
            ..Rule::default()
        }
    }

    fn for_all(priority: u32, action: Action) -> Rule {
        Rule {
            source: None,
            ..from_vip(priority, action)
        }
    }

    fn by(table: u32, metric: u32, index: u32) -> TableRoute {
        TableRoute {
            table,
            prefix: 0,
            metric,
            target: Target::Interfaces(vec![index]),
        }
    }

    #[test]
    fn a_rule_for_the_vip_decides_before_the_main_table() {
        let main = for_all(32_766, Action::lookup(254));
        let routes = [by(254, 0, 5), by(102, 0, 7)];
        let found = |rules: &[Rule], out| follow(rules, &routes, VIP, out);
        let own = from_vip(1001, Action::lookup(102));
        let keeps_lans = from_vip(
            1000,
            Action::Lookup {
                table: 254,
                suppressed: Some(0),
            },
        );
        let documented = [keeps_lans, own.clone(), main.clone()];
        assert_eq!(found(&documented, None), Found::By(7));
        assert_eq!(found(&documented, Some(7)), Found::By(7));
        assert_eq!(found(&documented, Some(5)), Found::AsWithoutSource);
        let late = [main.clone(), own.clone()];
        assert_eq!(found(&late, None), Found::AsWithoutSource);
        let of_another = Rule {
            source: Some((Ipv4Addr::new(203, 0, 113, 78), 32)),
            ..own.clone()
        };
        let marked = Rule {
            mark: Some((1, 1)),
            ..own.clone()
        };
        let of_a_network = Rule {
            others: vec!["to 10.0.0.0/8".to_owned()],
            ..own.clone()
        };
        for other in [of_another, marked, of_a_network] {
            let rules = [other, main.clone()];
            assert_eq!(found(&rules, None), Found::AsWithoutSource, "{rules:?}");
        }
        let skipped = [from_vip(1, Action::Goto(2000)), own.clone(), main.clone()];
        assert_eq!(found(&skipped, None), Found::AsWithoutSource);
        for action in [Action::Blackhole, Action::Unreachable, Action::Prohibit] {
            let rules = [from_vip(1, action), own.clone(), main.clone()];
            assert_eq!(found(&rules, None), Found::Nowhere, "{action}");
        }
    }

    #[test]
    fn of_several_routes_of_a_table_the_kernels_choice_is_taken() {
        let rules = [from_vip(1, Action::lookup(102))];
        let found = |routes: &[TableRoute], out| follow(&rules, routes, VIP, out);
        let specific = TableRoute {
            prefix: 24,
            ..by(102, 9, 8)
        };
        let both = [by(102, 200, 5), by(102, 100, 7)];
        assert_eq!(found(&both, None), Found::By(7));
        assert_eq!(found(&both, Some(5)), Found::By(5));
        assert_eq!(
            found(&[&both[..], &[specific]].concat(), None),
            Found::By(8)
        );
        let ends = |target| {
            let first = TableRoute {
                target,
                ..by(102, 1, 0)
            };
            found(&[&both[..], &[first]].concat(), Some(5))
        };
        assert_eq!(ends(Target::Nowhere), Found::Nowhere);
        assert_eq!(ends(Target::NextRule), Found::AsWithoutSource);
    }
}
