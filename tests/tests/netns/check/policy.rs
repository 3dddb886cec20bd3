//! Tests of `check` for rules of policy routing, and for networks of the host that are neither WAN nor
//! LAN.

use super::*;
use ikenat_tests::lab::ikenat::Ikenat;
use ikenat_tests::lab::topology::{GATEWAY_LAN, LAN, SERVER, WAN};

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
    rules_for_the_kernel(lab)
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
    let found = check(lab)?;
    let found = about(&found, line.0, line.1);
    let fixes: Vec<_> = found.iter().flat_map(|one| &one.fix).collect();
    let expected = ["254 suppress_prefixlength 0", "101"];
    ensure!(
        fixes.len() == 2
            && fixes
                .iter()
                .zip(expected)
                .all(|(fix, end)| fix.ends_with(end)),
        "{found:#?}"
    );
    let words = "selects only what the kernel itself sends";
    ensure!(found[0].message.contains(words), "{found:#?}");
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
