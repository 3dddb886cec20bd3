use super::super::sample::fixtures::outbound;
use super::*;

/// A ruleset with one rule of these statements in a base chain, and what nft prints beside it.
fn tables(statements: &str, more: &str) -> Vec<Table> {
    let json = format!(
        r#"{{"nftables": [{{"metainfo": {{"version": "1.0.6"}}}},
        {{"table": {{"family": "ip", "name": "t", "handle": 1}}}}, {more}
        {{"chain": {{"family": "ip", "table": "t", "name": "post", "handle": 1, "type": "nat", "hook": "postrouting", "prio": 100, "policy": "accept"}}}},
        {{"rule": {{"family": "ip", "table": "t", "chain": "post", "handle": 7, "expr": [{statements}]}}}}]}}"#
    );
    parse(&json).expect("what nft prints")
}

fn rules(statements: &str, more: &str) -> Vec<Rule> {
    tables(statements, more)[0].chains["post"].rules.clone()
}

fn truth(condition: &str) -> Match {
    let statements = format!(r#"{{"match": {condition}}}, {{"masquerade": null}}"#);
    rules(&statements, "")[0].evaluate(&outbound())
}

/// `meta KEY`, `ct KEY`, or `PROTOCOL FIELD`, compared with something.
fn compared(left: &str, operator: &str, right: &str) -> Match {
    let left = match left.split_once(' ').expect("two words") {
        (kind @ ("meta" | "ct"), key) => format!(r#"{{"{kind}": {{"key": "{key}"}}}}"#),
        (protocol, field) => {
            format!(r#"{{"payload": {{"protocol": "{protocol}", "field": "{field}"}}}}"#)
        }
    };
    truth(&format!(
        r#"{{"op": "{operator}", "left": {left}, "right": {right}}}"#
    ))
}

#[test]
fn conditions_decide() {
    const TEN: &str = r#"{"prefix": {"addr": "10.0.0.0", "len": 8}}"#;
    const HERE: &str = r#"{"prefix": {"addr": "192.168.0.0", "len": 16}}"#;
    let nine = r#"{"range": ["192.168.0.1", "192.168.0.9"]}"#;
    let both = format!(r#"{{"set": [{TEN}, {HERE}]}}"#);
    let ports = r#"{"set": [500, 4500]}"#;
    for (left, operator, right, expected) in [
        ("meta oifname", "==", r#""wan0""#, Match::Yes),
        ("meta oifname", "==", r#""wan*""#, Match::Yes),
        ("meta oifname", "!=", r#""docker0""#, Match::Yes),
        ("meta oif", "==", r#"{"set": ["a", "wan0"]}"#, Match::Yes),
        ("ip saddr", "==", r#""192.168.0.1""#, Match::Yes),
        ("ip saddr", "==", TEN, Match::No),
        ("ip saddr", "==", nine, Match::Yes),
        ("ip daddr", "==", r#""198.51.100.1""#, Match::Some),
        ("ip daddr", "!=", &both, Match::Yes),
        ("ip ttl", "==", "64", Match::Some),
        ("udp sport", "==", ports, Match::Yes),
        ("udp length", ">", "1000", Match::Some),
        ("th sport", "==", r#"{"range": [1, 1023]}"#, Match::No),
        ("udp dport", "==", "4500", Match::Some),
        ("tcp dport", "==", "4500", Match::No),
        ("esp spi", "==", "1", Match::No),
        ("meta l4proto", "==", r#""esp""#, Match::No),
        (
            "ip protocol",
            "==",
            r#"{"set": ["udp", "esp"]}"#,
            Match::Yes,
        ),
        ("ct state", "in", r#"["established", "related"]"#, Match::No),
        (
            "ct state",
            "==",
            r#"{"set": ["new", "established"]}"#,
            Match::Yes,
        ),
        ("ct status", "in", r#""dnat""#, Match::No),
        ("ct mark", "==", "1", Match::Unknown),
        ("meta mark", "==", "1", Match::Unknown),
        (
            "ether saddr",
            "==",
            r#""02:00:00:00:00:01""#,
            Match::Unknown,
        ),
    ] {
        assert_eq!(
            compared(left, operator, right),
            expected,
            "{left} {operator} {right}"
        );
    }
}

#[test]
fn questions_to_the_routing_table_and_concatenations_are_understood_or_not() {
    let fib = |result: &str, flags: &str, right: &str| {
        let left = format!(r#"{{"fib": {{"result": "{result}", "flags": [{flags}]}}}}"#);
        truth(&format!(
            r#"{{"op": "==", "left": {left}, "right": {right}}}"#
        ))
    };
    assert_eq!(fib("type", r#""daddr""#, r#""local""#), Match::No);
    assert_eq!(fib("type", r#""saddr""#, r#""local""#), Match::No);
    assert_eq!(fib("oif", r#""saddr", "iif""#, "false"), Match::Unknown);
    let pair = r#"{"op": "==", "left": {"concat": [{"meta": {"key": "iifname"}}]}, "right": {"set": [{"concat": ["wan0"]}]}}"#;
    assert_eq!(truth(pair), Match::Unknown);
}

#[test]
fn named_sets_are_looked_up() {
    let rule = r#"{"match": {"op": "==", "left": {"payload": {"protocol": "ip", "field": "saddr"}}, "right": "@inside"}}, {"masquerade": null}"#;
    let set = |elements: &str| {
        format!(
            r#"{{"set": {{"family": "ip", "name": "inside", "table": "t", "type": "ipv4_addr", "handle": 3{elements}}}}},"#
        )
    };
    let truth = |set: &str| rules(rule, set)[0].evaluate(&outbound());
    assert_eq!(
        truth(&set(
            r#", "elem": ["10.0.0.1", {"elem": {"val": "192.168.0.1", "timeout": 60}}]"#
        )),
        Match::Yes
    );
    assert_eq!(truth(&set(r#", "elem": ["10.0.0.1"]"#)), Match::No);
    assert_eq!(truth(&set("")), Match::No);
}

#[test]
fn verdict_maps_are_taken_apart() {
    let map = r#"{"vmap": {"key": {"ct": {"key": "state"}}, "data": {"set": [["established", {"accept": null}], ["new", {"jump": {"target": "x"}}], ["invalid", {"drop": null}]]}}}"#;
    let rules_of = rules;
    let rules = rules(map, "");
    let matched: Vec<&Target> = rules
        .iter()
        .filter(|rule| rule.evaluate(&outbound()) == Match::Yes)
        .map(|rule| &rule.target)
        .collect();
    assert_eq!(matched, [&Target::Jump("x".to_owned())]);
    let named = r#"{"vmap": {"key": {"ct": {"key": "state"}}, "data": "@verdicts"}}"#;
    assert_eq!(rules_of(named, "")[0].target, Target::Unknown);
}

#[test]
fn what_is_not_understood_is_not_ignored() {
    let rule = &rules(
        r#"{"xt": {"type": "match", "name": "addrtype"}}, {"masquerade": null}"#,
        "",
    )[0];
    assert_eq!(rule.evaluate(&outbound()), Match::Unknown);
    let rule = &rules(r#"{"xt": null}"#, "")[0];
    assert_eq!(rule.evaluate(&outbound()), Match::Unknown);
    let queue = &rules(r#"{"queue": {"num": 0}}"#, "")[0];
    assert_eq!(queue.target, Target::Unknown);
    assert!(parse("{}").is_err());
    assert!(parse("Error: syntax error").is_err());
}

#[test]
fn a_rule_can_be_recognized_and_removed() {
    let rule = &rules(
        r#"{"match": {"op": "==", "left": {"meta": {"key": "oifname"}}, "right": "wan0"}}, {"counter": {"packets": 0, "bytes": 0}}, {"snat": {"addr": "203.0.113.1"}}"#,
        "",
    )[0];
    assert_eq!(
        rule.text,
        "nft ip t post handle 7: oifname wan0 snat to 203.0.113.1"
    );
    let remove = "nft delete rule ip t post handle 7";
    assert_eq!(rule.remove.as_deref(), Some(remove));
    assert_eq!(rule.target, Target::SourceNat);
    let base = tables("", "")[0].chains["post"]
        .base
        .clone()
        .expect("a base chain");
    assert!(base.kind == ChainType::Nat && base.hook == NetfilterHook::Postrouting && !base.drops);
}

#[test]
fn a_rule_whose_table_or_chain_cannot_be_written_has_no_command() {
    for (table, chain, has_one) in [
        ("u", "c", true),
        ("u;flush", "c", false),
        ("u", "c d", false),
    ] {
        let more = format!(
            r#"{{"table": {{"family": "ip", "name": "{table}", "handle": 2}}}},
            {{"chain": {{"family": "ip", "table": "{table}", "name": "{chain}", "handle": 1}}}},
            {{"rule": {{"family": "ip", "table": "{table}", "chain": "{chain}", "handle": 8, "expr": [{{"masquerade": null}}]}}}},"#
        );
        let tables = tables("", &more);
        let found = tables.iter().find(|one| one.name == table);
        let rule = &found.expect("the table").chains[chain].rules[0];
        assert_eq!(rule.remove.is_some(), has_one, "{table} {chain}");
    }
}

#[test]
fn identifiers_are_those_of_nfts_scanner() {
    for (name, is_one) in [
        ("filter", true),
        ("_x.y-1/z", true),
        ("1a", false),
        ("", false),
        ("a;flush", false),
        ("a b", false),
        ("a{", false),
        ("\"a\"", false),
        ("bü", false),
    ] {
        assert_eq!(is_identifier(name), is_one, "{name:?}");
    }
}
