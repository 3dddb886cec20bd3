//! Tests of how the rules for packets from a VIP are followed.

use super::*;

const VIP: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 77);
const LAN: &str = "lan0";

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

fn main_table() -> Rule {
    for_all(32_766, Action::MAIN)
}

fn by(table: u32, metric: u32, index: u32) -> TableRoute {
    TableRoute {
        table,
        prefix: 0,
        metric,
        target: Target::Interfaces(vec![index]),
    }
}

/// What the server sends.
const FROM_LAN: Packets<'_> = Packets {
    source: VIP,
    ingress: LAN,
    egress: None,
};

/// The same asked with an interface to leave by.
fn leaving_by(index: u32, name: &str) -> Packets<'_> {
    Packets {
        ingress: LOOPBACK,
        egress: Some((index, name)),
        ..FROM_LAN
    }
}

#[test]
fn a_rule_for_the_vip_decides_before_the_main_table() {
    let routes = [by(254, 0, 5), by(102, 0, 7)];
    let found = |rules: &[Rule], packets| follow(rules, &routes, packets);
    let own = from_vip(1001, Action::lookup(102));
    let keeps_lans = from_vip(
        1000,
        Action::Lookup {
            table: 254,
            suppressed: Some(0),
        },
    );
    let documented = [keeps_lans, own.clone(), main_table()];
    assert_eq!(found(&documented, FROM_LAN), Some(7));
    assert_eq!(found(&documented, leaving_by(7, "wan1")), Some(7));
    assert_eq!(found(&documented, leaving_by(5, "wan0")), Some(5));
    assert_eq!(found(&documented, leaving_by(6, "wan2")), None);
    let late = [main_table(), own.clone()];
    assert_eq!(found(&late, FROM_LAN), Some(5));
    assert_eq!(found(&late, leaving_by(7, "wan1")), Some(7), "no other one");
    let of_another = Rule {
        source: Some((Ipv4Addr::new(203, 0, 113, 78), 32)),
        ..own.clone()
    };
    let marked = Rule {
        mark: Some((1, 1)),
        ..own.clone()
    };
    let of_a_network = Rule {
        packet_selectors: vec!["to 10.0.0.0/8".to_owned()],
        ..own.clone()
    };
    for other in [of_another, marked, of_a_network] {
        let rules = [other, main_table()];
        assert_eq!(found(&rules, FROM_LAN), Some(5), "{rules:?}");
    }
    for action in [Action::Blackhole, Action::Unreachable, Action::Prohibit] {
        let rules = [from_vip(1, action), own.clone(), main_table()];
        assert_eq!(found(&rules, FROM_LAN), None, "{action}");
    }
    assert_eq!(
        found(&[], FROM_LAN),
        None,
        "without a rule there is no table"
    );
}

#[test]
fn rules_by_an_interface_select_what_comes_or_has_to_leave_by_it() {
    let routes = [by(254, 0, 5), by(254, 1, 7), by(102, 0, 7)];
    let found = |rule: &Rule, packets| follow(&[rule.clone(), main_table()], &routes, packets);
    let any = for_all(1, Action::lookup(102));
    let from = |name: &str| Rule {
        ingress: Some(name.to_owned()),
        ..any.clone()
    };
    let not_from = |name: &str| Rule {
        inverted: true,
        ..from(name)
    };
    let to = |name: &str| Rule {
        egress: Some(name.to_owned()),
        ..for_all(1, Action::Prohibit)
    };
    for (rule, expected) in [
        (from(LAN), Some(7)),
        (from("lan1"), Some(5)),
        (from(LOOPBACK), Some(5)),
        (not_from(LAN), Some(5)),
        (not_from("lan1"), Some(7)),
        (to("wan0"), Some(5)),
    ] {
        assert_eq!(found(&rule, FROM_LAN), expected, "{rule:?}");
    }
    // Then the kernel sees no LAN.
    let of_lan = Rule {
        action: Action::Prohibit,
        ..from(LAN)
    };
    let of_host = Rule {
        action: Action::Prohibit,
        ..from(LOOPBACK)
    };
    for (rule, expected) in [
        (of_lan, Some(5)),
        (of_host, None),
        (to("wan0"), None),
        (to("wan1"), Some(5)),
    ] {
        assert_eq!(found(&rule, leaving_by(5, "wan0")), expected, "{rule:?}");
    }
}

#[test]
fn a_goto_leads_to_the_rule_of_its_number_or_does_nothing() {
    let routes = [by(254, 0, 5), by(102, 0, 7)];
    let found = |rules: &[Rule]| follow(rules, &routes, FROM_LAN);
    let own = from_vip(1001, Action::lookup(102));
    let target = for_all(2000, Action::Nop);
    let goto = |priority| from_vip(1, Action::Goto(priority));
    let skipped = [goto(2000), own.clone(), target.clone(), main_table()];
    assert_eq!(found(&skipped), Some(5));
    // The rule that it leads to selects as any other one.
    let to_own = [goto(1001), from_vip(2, Action::Prohibit), own.clone()];
    assert_eq!(found(&to_own), Some(7));
    // There is a rule behind that number, and none of it.
    let unresolved = [goto(1500), own.clone(), target, main_table()];
    assert_eq!(found(&unresolved), Some(7));
    // It is behind the last rule.
    assert_eq!(found(&[goto(40_000), own, main_table()]), Some(7));
}

#[test]
fn of_several_routes_of_a_table_the_kernels_choice_is_taken() {
    let own = from_vip(1, Action::lookup(102));
    let found =
        |routes: &[TableRoute], packets| follow(std::slice::from_ref(&own), routes, packets);
    let specific = TableRoute {
        prefix: 24,
        ..by(102, 9, 8)
    };
    let both = [by(102, 200, 5), by(102, 100, 7)];
    assert_eq!(found(&both, FROM_LAN), Some(7));
    assert_eq!(found(&both, leaving_by(5, "wan0")), Some(5));
    let all = [&both[..], &[specific]].concat();
    assert_eq!(found(&all, FROM_LAN), Some(8));
}

#[test]
fn a_route_to_nowhere_ends_the_search_also_where_short_prefixes_are_suppressed() {
    let suppressing = Action::Lookup {
        table: 102,
        suppressed: Some(0),
    };
    let found = |action, target| {
        let rules = [from_vip(1, action), main_table()];
        let route = TableRoute {
            target,
            ..by(102, 1, 0)
        };
        let main = by(254, 0, 5);
        [FROM_LAN, leaving_by(5, "wan0")].map(|packets| {
            let routes = [route.clone(), by(102, 2, 5), main.clone()];
            follow(&rules, &routes, packets)
        })
    };
    let plain = Action::lookup(102);
    assert_eq!(found(plain, Target::Refused), [None; 2]);
    assert_eq!(found(plain, Target::Here), [None; 2]);
    assert_eq!(found(plain, Target::NextRule), [Some(5); 2]);
    assert_eq!(found(suppressing, Target::Refused), [None; 2]);
    assert_eq!(found(suppressing, Target::Here), [Some(5); 2]);
}

#[test]
fn what_was_read_is_not_read_again_but_an_error_is_not_kept() {
    let cell = OnceLock::new();
    let failed = || Err(Errno::NOBUFS.into());
    let nothing = once::<Rule>(&cell, failed).expect_err("not readable");
    assert_eq!(Errno::from_io_error(&nothing), Some(Errno::NOBUFS));
    assert_eq!(
        *once(&cell, || Ok(vec![main_table()])).expect("read"),
        [main_table()]
    );
    let again = once(&cell, || panic!("it was read"));
    assert_eq!(*again.expect("known"), [main_table()]);
}

#[test]
fn a_default_route_is_used_at_once_where_the_main_table_comes_first() {
    let netlink = Netlink::open().expect("netlink needs no privilege");
    let local = for_all(0, Action::lookup(255));
    let refused = from_vip(1, Action::Prohibit);
    for (rules, would, is_read) in [
        (vec![local.clone(), main_table()], true, false),
        (vec![local.clone(), refused, main_table()], false, true),
        (vec![local], false, true),
    ] {
        let routes = VipRoutes::to(&netlink, Ipv4Addr::new(192, 0, 2, 1));
        routes.rules.set(rules).expect("not read yet");
        let found = routes.would_leave_by(FROM_LAN, 5, 0).expect("readable");
        assert_eq!((found, routes.tables.get().is_some()), (would, is_read));
    }
}

/// Without such rules the kernel is asked, which then has the same answer for all sources.
#[test]
fn tables_are_read_only_where_rules_make_a_difference() {
    let netlink = Netlink::open().expect("netlink needs no privilege");
    for (rules, is_read) in [
        (vec![main_table()], false),
        (vec![from_vip(1, Action::lookup(102)), main_table()], true),
    ] {
        let routes = VipRoutes::to(&netlink, Ipv4Addr::LOCALHOST);
        routes.rules.set(rules).expect("not read yet");
        _ = routes.of(FROM_LAN, false);
        assert_eq!(routes.tables.get().is_some(), is_read);
    }
}
