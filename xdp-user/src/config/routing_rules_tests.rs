//! Tests of the rules that are not followed: which ones are named, with which fix, and which are not.

use super::*;

const VIP: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);
const SERVER: Ipv4Addr = Ipv4Addr::new(192, 168, 0, 1);

fn rule(source: Option<([u8; 4], u8)>, mark: Option<(u32, u32)>) -> Rule {
    Rule {
        priority: 100,
        source: source.map(|(source, length)| (source.into(), length)),
        mark,
        action: Action::lookup(7),
        ..Rule::default()
    }
}

fn suppressing(table: u32) -> Action {
    Action::Lookup {
        table,
        suppressed: Some(0),
    }
}

fn elsewhere(_: Ipv4Addr) -> bool {
    false
}

/// No VIP leaves by the WAN that has it.
fn unrouted(_: Ipv4Addr) -> bool {
    false
}

fn judged_for_one(rule: &Rule) -> Option<Unfollowed> {
    judge(rule, &settings(&["eth1"]), elsewhere, |_| false)
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
    let settings = Settings {
        services: (0..100).map(service).collect(),
        ..settings(&["eth1"])
    };
    let judged = |rule: &Rule| judge(rule, &settings, elsewhere, |_| false);
    let found = judged(&rule(None, Some((1, 1)))).expect("by a mark");
    let words = "packets of 203.0.113.1 and 99 more VIPs are routed";
    assert!(found.message.contains(words), "{}", found.message);
    let fix = "ip rule add priority 100 from 203.0.113.1 lookup 7 # and one for each other VIP";
    assert_eq!(found.fix, fix);
    let from = rule(Some(([192, 168, 0, 2], 31)), None);
    let found = judged(&from).expect("from two servers");
    let words = "(203.0.113.2 and 1 more VIP)";
    assert!(found.message.contains(words), "{}", found.message);
}

const FROM_SERVER: Option<([u8; 4], u8)> = Some(([192, 168, 0, 1], 32));

fn settings(wans: &[&str]) -> Settings {
    Settings {
        wans: wans.iter().map(|wan| (*wan).to_owned()).collect(),
        lans: vec!["eth0".to_owned()],
        ..Settings::new(VIP, SERVER)
    }
}

/// The two rules that docs/slow-path.md gives.
fn for_the_kernel() -> [Rule; 2] {
    let first = Rule {
        action: suppressing(254),
        ..rule(FROM_SERVER, None)
    };
    [first, rule(FROM_SERVER, None)]
}

#[test]
fn rules_for_what_the_kernel_sends_are_right_with_several_wans() {
    let [first, second] = for_the_kernel();
    let judged = |rules: &[Rule], wans: &[&str]| {
        let found = judge_all(rules, &settings(wans), elsewhere, unrouted);
        found.into_iter().map(|one| one.message).collect::<Vec<_>>()
    };
    let by_vip = Rule {
        action: Action::lookup(8),
        ..rule(Some(([203, 0, 113, 1], 32)), None)
    };
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
    other_table[0].action = suppressing(7);
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
        let found = judge_all(&rules, &settings(&["eth1", "eth2"]), elsewhere, unrouted);
        found.into_iter().map(|one| one.fix).collect::<Vec<_>>()
    };
    let fix = "ip rule add priority 100 from 203.0.113.1 lookup 7";
    assert_eq!(fixes(None), [fix]);
    let by_vip = rule(Some(([203, 0, 113, 0], 24)), None);
    assert_eq!(fixes(Some(by_vip.clone())), Vec::<String>::new());
    let suppressed = Rule {
        action: suppressing(7),
        ..by_vip.clone()
    };
    let inverted = Rule {
        inverted: true,
        ..by_vip.clone()
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
    let found = judge_all(&for_the_kernel(), &settings(&["eth1"]), elsewhere, unrouted);
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
    let judged =
        |is_local: bool| judge_all(&rules, &settings(&["eth1"]), |_| is_local, unrouted).len();
    assert_eq!((judged(true), judged(false)), (0, 3));
}

/// With a default route out of each, replies follow their VIPs, whatever else chooses a WAN.
#[test]
fn rules_that_choose_a_wan_are_not_needed_where_routes_do() {
    let rules = [
        rule(None, Some((1, u32::MAX))),
        rule(FROM_SERVER, None),
        Rule {
            action: Action::Unreachable,
            ..rule(FROM_SERVER, None)
        },
    ];
    let found = |wans: &[&str], leaves_by_own_wan: bool| {
        let found = judge_all(&rules, &settings(wans), elsewhere, |_| leaves_by_own_wan);
        found.into_iter().map(|one| one.fix).collect::<Vec<_>>()
    };
    assert_eq!(found(&["eth1", "eth2"], true), Vec::<String>::new());
    assert_eq!(found(&["eth1", "eth2"], false).len(), 3);
    assert_eq!(found(&["eth1"], true).len(), 3, "one WAN has no other");
}

/// They are for what the program itself sends; one that forbids, given for the VIP, would stop all replies.
#[test]
fn the_rules_of_tailscale_are_not_meant() {
    let marked = Some((0x8_0000, 0xff_0000));
    let by_mark = |priority, action| Rule {
        priority,
        action,
        ..rule(None, marked)
    };
    let for_all = |priority, table| Rule {
        priority,
        action: Action::lookup(table),
        ..rule(None, None)
    };
    let rules = [
        by_mark(5210, Action::lookup(254)),
        by_mark(5230, Action::lookup(253)),
        by_mark(5250, Action::Unreachable),
        for_all(5270, 52),
        for_all(32_766, 254),
    ];
    for wans in [&["eth1"][..], &["eth1", "eth2"]] {
        for leaves_by_own_wan in [false, true] {
            let found = judge_all(&rules, &settings(wans), elsewhere, |_| leaves_by_own_wan);
            assert_eq!(found, Vec::new(), "{wans:?} {leaves_by_own_wan}");
        }
    }
}

#[test]
fn a_rule_behind_the_main_table_serves_nothing() {
    let main = Rule {
        priority: 32_766,
        action: Action::lookup(254),
        ..rule(None, None)
    };
    let late = Rule {
        priority: 40_000,
        ..rule(Some(([203, 0, 113, 1], 32)), None)
    };
    let by_server = rule(FROM_SERVER, None);
    let judged = |rules: &[Rule]| judge_all(rules, &settings(&["eth1"]), elsewhere, unrouted).len();
    assert_eq!(judged(&[by_server.clone(), late.clone(), main.clone()]), 0);
    assert_eq!(judged(&[by_server, main, late]), 1);
}

/// Those of [`for_the_kernel`] need one that serves all packets of the VIP.
#[test]
fn a_rule_for_some_packets_of_the_vip_or_without_a_table_does_not_serve_it() {
    let [first, second] = for_the_kernel();
    let by_vip = rule(Some(([203, 0, 113, 1], 32)), None);
    let is_served = |other: Rule| {
        let rules = [first.clone(), second.clone(), other];
        judge_all(&rules, &settings(&["eth1", "eth2"]), elsewhere, unrouted).is_empty()
    };
    assert!(is_served(by_vip.clone()));
    let by = |name: &str| Rule {
        ingress: Some(name.to_owned()),
        action: Action::lookup(8),
        ..by_vip.clone()
    };
    assert!(is_served(by("eth0")), "the only LAN");
    assert!(!is_served(by("eth1")));
    for selector in ["to 10.0.0.0/8", "ipproto 17", "sport 4500", "tos 0x10"] {
        let partial = Rule {
            packet_selectors: vec![selector.to_owned()],
            ..by_vip.clone()
        };
        assert!(!is_served(partial), "{selector}");
    }
    let special = Rule {
        has_unread_selectors: true,
        ..by_vip.clone()
    };
    assert!(!is_served(special));
    for action in [
        Action::Blackhole,
        Action::Unreachable,
        Action::Prohibit,
        Action::Goto(5),
        Action::Nop,
    ] {
        let other = Rule {
            action,
            ..by_vip.clone()
        };
        assert!(!is_served(other), "{action}");
    }
}

/// Otherwise the rule for the VIP would select more, or do something else.
#[test]
fn a_fix_selects_and_does_the_same() {
    let partial = Rule {
        ingress: Some("eth0".to_owned()),
        packet_selectors: vec!["to 10.0.0.0/8".to_owned(), "sport 4500".to_owned()],
        action: Action::Prohibit,
        ..rule(FROM_SERVER, None)
    };
    let found = judged_for_one(&partial).expect("not followed");
    let words = "iif eth0 to 10.0.0.0/8 sport 4500 prohibit";
    assert_eq!(
        found.fix,
        format!("ip rule add priority 100 from 203.0.113.1 {words}")
    );
    assert!(
        found
            .message
            .starts_with(&format!("rule 100 (from 192.168.0.1/32 {words})"))
    );
    // With it the rule is no longer found.
    let fixed = Rule {
        source: Some((VIP, 32)),
        ..partial.clone()
    };
    let judged = |rules: &[Rule]| judge_all(rules, &settings(&["eth1"]), elsewhere, unrouted);
    assert_eq!(judged(&[partial.clone(), fixed]), []);
    let elsewhere = Rule {
        ingress: Some("lo".to_owned()),
        ..partial.clone()
    };
    let special = Rule {
        has_unread_selectors: true,
        ..partial.clone()
    };
    let of_a_socket = Rule {
        egress: Some("eth1".to_owned()),
        ..partial
    };
    for rule in [elsewhere, special, of_a_socket] {
        assert_eq!(judged_for_one(&rule), None, "no packet of the server");
    }
}
