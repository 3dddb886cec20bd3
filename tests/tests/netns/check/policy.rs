//! Tests of `check` for rules of policy routing, and for networks of the host that are neither WAN nor
//! LAN.

use super::*;
use ikenat_tests::lab::ikenat::Ikenat;
use ikenat_tests::lab::topology::{GATEWAY_LAN, LAN, SERVER, VIP, WAN};

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario::new("check_names_rules_that_are_not_followed", rules),
        Scenario::new("check_names_networks_whose_clients_are_not_served", guests),
    ]
}

/// With iptables, rules name the server; ikenat asks for what leaves, which has the VIP.
fn rules(lab: &Lab) -> Result<()> {
    let line = ("routing-rules", None);
    expect(&check(lab)?, line, "ok", &[])?;
    lab.gateway
        .run(&format!("ip rule add priority 100 from {SERVER} lookup 7"))?;
    let found = expect(
        &check(lab)?,
        line,
        "warning",
        &["rule 100 (from 192.168.0.1/32 lookup 7)"],
    )?;
    ensure!(
        found.fix == ["ip rule add priority 100 from 203.0.113.1 lookup 7"],
        "{found:#?}"
    );
    let ikenat = Ikenat::start(lab)?;
    ensure!(
        ikenat.log().contains("rule 100 (from 192.168.0.1/32"),
        "{}",
        ikenat.log()
    );
    lab.gateway
        .shell("ip rule del priority 100; ip rule add priority 101 fwmark 0x10/0xf0 lookup 8")?;
    let words = ["rule 101 (fwmark 0x10/0xf0 lookup 8)"];
    expect(&check(lab)?, line, "warning", &words)?;
    lab.gateway.shell(
        "ip rule del priority 101
         ip rule add priority 102 not fwmark 0xca6c lookup main
         ip rule add priority 103 from 203.0.113.1 lookup main
         ip rule add priority 104 from 10.0.0.0/8 lookup main",
    )?;
    expect(&check(lab)?, line, "ok", &[])?;
    drop(ikenat);
    rules_for_some_packets(lab)?;
    rules_for_the_kernel(lab)
}

/// A fix is for the same packets, and does the same with them. Applied, it ends the finding.
fn rules_for_some_packets(lab: &Lab) -> Result<()> {
    let line = ("routing-rules", None);
    for selector in [
        format!("iif {LAN} to 10.9.0.0/16 tos 0x10 lookup 9"),
        "to 10.9.0.0/16 ipproto 17 sport 4500 dport 500-4500 unreachable".to_owned(),
        "blackhole".to_owned(),
        "goto 32766".to_owned(),
    ] {
        // `ip` does not keep the order.
        let sorted = |text: &str| {
            let mut words: Vec<String> = text.split(' ').map(str::to_owned).collect();
            words.sort();
            words
        };
        let add = |source| format!("ip rule add priority 108 from {source} {selector}");
        lab.gateway.run(&add(SERVER))?;
        let found = expect(&check(lab)?, line, "warning", &["rule 108"])?;
        let is_as_expected = found.fix.len() == 1 && sorted(&found.fix[0]) == sorted(&add(VIP));
        ensure!(is_as_expected, "{selector}: {found:#?}");
        lab.gateway.run(&found.fix[0])?;
        expect(&check(lab)?, line, "ok", &[])?;
        lab.gateway
            .shell("ip rule del priority 108; ip rule del priority 108")?;
    }
    // The server's packets do not come by that.
    lab.gateway.run(&format!(
        "ip rule add priority 108 from {SERVER} iif lo lookup 9"
    ))?;
    expect(&check(lab)?, line, "ok", &[])?;
    lab.gateway.run("ip rule del priority 108").map(drop)
}

/// As docs/slow-path.md gives them, for what the kernel itself sends.
fn rules_for_the_kernel(lab: &Lab) -> Result<()> {
    let line = ("routing-rules", None);
    lab.gateway.shell(&format!(
        "ip link add up1 type veth peer name far1; ip link set up1 up
         ip rule add pref 105 from {SERVER} lookup main suppress_prefixlength 0
         ip rule add pref 106 from {SERVER} lookup 101"
    ))?;
    // What the server sends needs a rule by the VIP. That of priority 103 is one.
    let two_wans = || findings_of(command(lab, &["--wan", "up1"])?);
    expect(&two_wans()?, line, "ok", &[])?;
    lab.gateway.run("ip rule del priority 103")?;
    let found = expect(&two_wans()?, line, "warning", &["rule 106"])?;
    ensure!(
        found.fix == ["ip rule add priority 106 from 203.0.113.1 lookup 101"],
        "{found:#?}"
    );
    // Its command is right.
    lab.gateway.run(&found.fix[0])?;
    expect(&two_wans()?, line, "ok", &[])?;
    // With one WAN the first rule needs one for the VIP as well, and the second one has it.
    let words = ["rule 105", "selects only what the kernel itself sends"];
    let found = expect(&check(lab)?, line, "warning", &words)?;
    let fix = "ip rule add priority 105 from 203.0.113.1 lookup 254 suppress_prefixlength 0";
    ensure!(found.fix == [fix], "{found:#?}");
    lab.gateway.run(fix)?;
    expect(&check(lab)?, line, "ok", &[])?;
    // The replies of a server on this host are among that.
    lab.gateway.run(&format!(
        "ip rule add pref 107 from {GATEWAY_LAN} lookup 101"
    ))?;
    let local = question(lab, LAN, "203.0.113.1", &GATEWAY_LAN.to_string())?;
    expect(&local, line, "ok", &[]).map(drop)
}

fn guests(lab: &Lab) -> Result<()> {
    const GUEST: &str = "guest0";
    let line = ("other-networks", Some(GUEST));
    lab.gateway.shell(&format!(
        "ip link add {GUEST} type veth peer name far0; ip address add 10.9.0.1/24 dev {GUEST}"
    ))?;
    ensure!(about(&check(lab)?, line.0, line.1).is_empty(), "it is down");
    lab.gateway.run(&format!("ip link set {GUEST} up"))?;
    let found = expect(
        &check(lab)?,
        line,
        "warning",
        &["behind guest0", "203.0.113.1"],
    )?;
    ensure!(
        found.fix.len() == 1 && found.fix[0].contains("--wan guest0"),
        "{found:#?}"
    );
    let served = command(lab, &["--wan", GUEST])?;
    let served = findings_of(served)?;
    ensure!(about(&served, line.0, line.1).is_empty(), "{served:#?}");
    for name in [WAN, LAN] {
        ensure!(about(&served, line.0, Some(name)).is_empty(), "{served:#?}");
    }
    Ok(())
}
