//! Typical rule sets and their findings.

use super::*;
use crate::check::Level;
use std::net::Ipv4Addr;

const SERVER: Ipv4Addr = Ipv4Addr::new(192, 168, 0, 1);
const VIP: Ipv4Addr = Ipv4Addr::new(88, 88, 88, 88);

fn traffic() -> HandledTraffic {
    HandledTraffic {
        wans: vec!["eth1".to_owned()],
        lans: vec!["eth0".to_owned()],
        vip: VIP,
        vip_is_local: true,
        server: SERVER,
        server_is_local: false,
    }
}

fn nat(rules: &str) -> Vec<Table> {
    let chains = ":PREROUTING ACCEPT [0:0]\n:INPUT ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n:POSTROUTING ACCEPT [0:0]\n";
    iptables::parse(&format!("*nat\n{chains}{rules}\nCOMMIT\n"), "iptables")
}

fn filter(policy: &str, rules: &str) -> Vec<Table> {
    let chains = format!(":INPUT ACCEPT [0:0]\n:FORWARD {policy} [0:0]\n:OUTPUT ACCEPT [0:0]\n");
    iptables::parse(&format!("*filter\n{chains}{rules}\nCOMMIT\n"), "iptables")
}

/// The findings of a code that are not OK.
fn bad(tables: &[Table], code: &str) -> Vec<Finding> {
    let findings = assess(&traffic(), tables, true);
    let is_bad = |finding: &Finding| finding.code == code && finding.level != Level::Ok;
    findings.into_iter().filter(is_bad).collect()
}

#[test]
fn no_rules_are_three_times_ok() {
    let findings = assess(&traffic(), &[], true);
    let codes: Vec<&str> = findings.iter().map(|finding| finding.code).collect();
    assert_eq!(codes, ["snat", "dnat", "forward"]);
    assert!(findings.iter().all(|finding| finding.level == Level::Ok));
    // A rule set that could not be read may do anything.
    assert!(assess(&traffic(), &[], false).is_empty());
}

#[test]
fn masquerade_is_named_until_handled_packets_are_exempt() {
    let rule = "-A POSTROUTING -o eth1 -j MASQUERADE";
    let found = bad(&nat(rule), "snat");
    assert_eq!(found.len(), 1);
    assert!(found[0].message.contains(rule) && found[0].message.contains("UDP 500, UDP 4500, ESP"));
    assert!(
        found[0].message.contains("packets from the server"),
        "{}",
        found[0].message
    );
    let fix = [
        "iptables -t nat -I POSTROUTING 1 -s 192.168.0.1 -o eth1 -p udp -m multiport --sports 500,4500 -j ACCEPT",
        "iptables -t nat -I POSTROUTING 1 -s 192.168.0.1 -o eth1 -p esp -j ACCEPT",
    ];
    assert_eq!(found[0].fix, fix);
    let accepted = "-A POSTROUTING -s 192.168.0.1/32 -o eth1 -p esp -j ACCEPT\n-A POSTROUTING -s 192.168.0.1/32 -o eth1 -p udp -m multiport --sports 500,4500 -j ACCEPT\n";
    assert!(bad(&nat(&format!("{accepted}{rule}")), "snat").is_empty());
    // Half of it is not enough.
    let half = "-A POSTROUTING -s 192.168.0.1/32 -o eth1 -p esp -j ACCEPT\n";
    let found = bad(&nat(&format!("{half}{rule}")), "snat");
    assert!(
        found[0].message.contains("(UDP 500, UDP 4500)"),
        "{}",
        found[0].message
    );
}

/// iptables(8): an interface that ends in a plus sign is every one that begins so.
#[test]
fn no_rule_for_a_name_that_would_be_a_wildcard_is_proposed() {
    let mut traffic = traffic();
    for (name, commands) in [("eth1", 2), ("eth+", 0)] {
        traffic.wans = vec![name.to_owned()];
        let findings = assess(&traffic, &filter("DROP", ""), true);
        let inbound = |finding: &&Finding| finding.message.contains("to the server");
        let found = findings.iter().find(inbound);
        let found = found.expect("a finding about what comes in");
        assert_eq!(found.fix.len(), commands, "{found:?}");
    }
}

#[test]
fn dockers_rules_matter_only_for_containers() {
    let rules = "-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER\n-A OUTPUT ! -d 127.0.0.0/8 -m addrtype --dst-type LOCAL -j DOCKER\n-A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE\n-A DOCKER -i docker0 -j RETURN\n";
    let chain = ":DOCKER - [0:0]\n";
    assert!(
        assess(&traffic(), &nat(&format!("{chain}{rules}")), true)
            .iter()
            .all(|finding| finding.level == Level::Ok)
    );
    let published = format!(
        "{chain}{rules}-A DOCKER ! -i docker0 -p udp -m udp --dport 4500 -j DNAT --to-destination 172.17.0.2:4500\n"
    );
    let found = bad(&nat(&published), "dnat");
    assert_eq!(found.len(), 1);
    assert!(
        found[0].message.contains("to 172.17.0.2 (UDP 4500)"),
        "{}",
        found[0].message
    );
    assert_eq!(
        found[0].fix,
        [
            "iptables -t nat -D DOCKER ! -i docker0 -p udp -m udp --dport 4500 -j DNAT --to-destination 172.17.0.2:4500"
        ]
    );
    let mut container = traffic();
    container.server = Ipv4Addr::new(172, 17, 0, 2);
    container.lans = vec!["docker0".to_owned()];
    let findings = assess(&container, &nat(&format!("{chain}{rules}")), true);
    assert!(
        findings
            .iter()
            .any(|finding| finding.code == "snat" && finding.level == Level::Warning)
    );
}

#[test]
fn the_old_eight_rules_are_named_with_their_removal() {
    let old = "-A PREROUTING -d 88.88.88.88/32 -p udp -m udp --dport 500 -j DNAT --to-destination 192.168.0.1\n-A PREROUTING -d 88.88.88.88/32 -p udp -m udp --dport 4500 -j DNAT --to-destination 192.168.0.1\n-A POSTROUTING -d 192.168.0.1/32 -p udp -m udp --dport 500 -j SNAT --to-source 88.88.88.88\n-A POSTROUTING -d 192.168.0.1/32 -p udp -m udp --dport 4500 -j SNAT --to-source 88.88.88.88\n";
    let tables = nat(old);
    let dnat = bad(&tables, "dnat");
    assert_eq!(dnat.len(), 2);
    assert!(
        dnat[0]
            .message
            .contains("already forwards to the server (UDP 500)"),
        "{}",
        dnat[0].message
    );
    let snat = bad(&tables, "snat");
    assert_eq!(snat.len(), 2);
    assert!(
        snat[1].message.contains("packets from clients (UDP 4500)"),
        "{}",
        snat[1].message
    );
    let removed = "iptables -t nat -D POSTROUTING -d 192.168.0.1/32 -p udp -m udp --dport 4500 -j SNAT --to-source 88.88.88.88";
    assert_eq!(snat[1].fix, [removed]);
    let accept = "-A FORWARD -d 192.168.0.1/32 -i eth1 -p udp -m udp --dport 500 -j ACCEPT\n-A FORWARD -s 192.168.0.1/32 -o eth1 -p udp -m udp --sport 500 -j ACCEPT\n-A FORWARD -d 192.168.0.1/32 -i eth1 -p udp -m udp --dport 4500 -j ACCEPT\n-A FORWARD -s 192.168.0.1/32 -o eth1 -p udp -m udp --sport 4500 -j ACCEPT\n";
    // They were never enough for ESP.
    let found = bad(&filter("DROP", accept), "forward");
    assert_eq!(found.len(), 2);
    assert!(
        found[0]
            .message
            .contains("drops ESP to the server: its policy"),
        "{}",
        found[0].message
    );
    assert!(bad(&filter("ACCEPT", accept), "forward").is_empty());
}

#[test]
fn snat_to_the_vip_and_flushed_forward_chains_are_named() {
    let found = bad(
        &nat("-A POSTROUTING -s 192.168.0.0/24 -o eth1 -j SNAT --to-source 88.88.88.88"),
        "snat",
    );
    assert_eq!((found.len(), found[0].fix.len()), (1, 2));
    let established = "-A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\n";
    let found = bad(&filter("DROP", established), "forward");
    assert_eq!(found.len(), 2);
    assert!(
        found[1]
            .message
            .contains("UDP 500, UDP 4500, ESP from the server"),
        "{}",
        found[1].message
    );
    let reject = "-A FORWARD -i eth1 -j REJECT --reject-with icmp-port-unreachable\n";
    let found = bad(&filter("ACCEPT", reject), "forward");
    assert_eq!(found.len(), 1);
    assert!(
        found[0].message.contains("-j REJECT"),
        "{}",
        found[0].message
    );
}

#[test]
fn when_the_server_is_this_host_the_input_chain_decides() {
    let mut local = traffic();
    local.server_is_local = true;
    local.lans.clear();
    let text = "*filter\n:INPUT DROP [0:0]\n:FORWARD DROP [0:0]\n:OUTPUT ACCEPT [0:0]\nCOMMIT\n";
    let findings = assess(&local, &iptables::parse(text, "iptables"), true);
    let forward: Vec<&Finding> = findings
        .iter()
        .filter(|finding| finding.code == "forward")
        .collect();
    assert_eq!(forward.len(), 1);
    assert_eq!(forward[0].level, Level::Error);
    assert!(
        forward[0].message.contains("chain INPUT"),
        "{}",
        forward[0].message
    );
    assert!(
        forward[0].fix[0].contains("-I INPUT 1 -d 192.168.0.1 -i eth1"),
        "{:?}",
        forward[0].fix
    );
    assert!(forward[0].message.contains("TCP 4500"));
    let tcp = "-i eth1 -p tcp -m tcp --dport 4500 -j ACCEPT";
    assert!(
        forward[0].fix.iter().any(|line| line.ends_with(tcp)),
        "{:?}",
        forward[0].fix
    );
}

/// The kernel forwards no TCP of the server, since TCP is never fragmented; but a rule that gives TCP
/// 4500 of the VIP to another host has no effect while ikenat is attached.
#[test]
fn a_destination_rule_for_tcp_4500_is_named_and_no_other_rule_for_tcp() {
    let rule = "-A PREROUTING -d 88.88.88.88/32 -p tcp -m tcp --dport 4500 -j DNAT --to-destination 192.168.0.9";
    let found = bad(&nat(rule), "dnat");
    assert_eq!(found.len(), 1);
    assert!(
        found[0].message.contains("(TCP 4500)"),
        "{}",
        found[0].message
    );
    let other = "-A PREROUTING -d 88.88.88.88/32 -p tcp -m tcp --dport 500 -j DNAT --to-destination 192.168.0.9";
    assert!(bad(&nat(other), "dnat").is_empty());
    let source = "-A POSTROUTING -p tcp -j MASQUERADE";
    assert!(bad(&nat(source), "snat").is_empty());
}

#[test]
fn a_rule_that_is_not_understood_is_named_and_nothing_is_called_ok() {
    let rule = "-A POSTROUTING -o eth1 -m mark --mark 0x1 -j MASQUERADE";
    let findings = assess(&traffic(), &nat(rule), true);
    assert_eq!(findings.len(), 1);
    assert_eq!(
        (findings[0].code, findings[0].level),
        ("rule", Level::Warning)
    );
    assert!(
        findings[0].message.contains(rule),
        "{}",
        findings[0].message
    );
    // A rule that cannot match handled packets is not reported.
    let rule = "-A POSTROUTING -o eth7 -m mark --mark 0x1 -j MASQUERADE";
    assert_eq!(assess(&traffic(), &nat(rule), true).len(), 3);
}
