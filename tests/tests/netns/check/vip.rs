//! Tests of `check` for the host that answers ARP for the VIP, as reported and as observed, and for
//! addresses that cannot be a VIP or a server.

use super::*;
use ikenat_tests::lab::topology::{LAN, PEER, SERVER, WAN};

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario::new("check_says_who_answers_arp_for_the_vip", arp).with_programs(&["ping"]),
        Scenario::new("check_names_addresses_of_no_host", addresses),
    ]
}

/// Whether the client learns a hardware address for it.
fn is_answered(lab: &Lab, vip: &str) -> Result<bool> {
    lab.client.shell(&format!(
        "ip neighbour flush dev {PEER}; ping -n -q -c 1 -W 2 {vip} >/dev/null || true"
    ))?;
    let entry = lab
        .client
        .run(&format!("ip neighbour show {vip} dev {PEER}"))?;
    Ok(entry.contains("lladdr"))
}

fn arp(lab: &Lab) -> Result<()> {
    let vip = "203.0.113.50";
    let line = ("vip", None);
    let look = |level, words: &[&str]| {
        expect(&question(lab, LAN, vip, "192.168.0.1")?, line, level, words)
    };
    let found = look("warning", &["no interface answers ARP"])?;
    ensure!(!is_answered(lab, vip)?, "somebody answers");
    ensure!(
        found.fix == [format!("ip address add {vip}/32 dev {WAN}")],
        "{found:#?}"
    );
    apply_fix(lab, &found)?;
    look("ok", &["wan0; this host answers ARP"])?;
    ensure!(is_answered(lab, vip)?, "no ARP answer");

    lab.gateway.shell(&format!(
        "ip address del {vip}/32 dev {WAN}; ip address add {vip}/24 dev {WAN}"
    ))?;
    look("ok", &["secondary", "from 203.0.113.1"])?;
    lab.gateway
        .run(&format!("ip address del {vip}/24 dev {WAN}"))?;

    // A proxy answers for addresses that it would forward to by another interface.
    for (on, off) in [
        (
            format!("ip neighbour add proxy {vip} dev {WAN}"),
            format!("ip neighbour del proxy {vip} dev {WAN}"),
        ),
        (
            format!("sysctl -qw net.ipv4.conf.{WAN}.proxy_arp=1"),
            format!("sysctl -qw net.ipv4.conf.{WAN}.proxy_arp=0"),
        ),
    ] {
        lab.gateway.run(&on)?;
        look("warning", &["no interface answers ARP"])?;
        ensure!(!is_answered(lab, vip)?, "somebody answers after `{on}`");
        lab.gateway
            .run(&format!("ip route add {vip}/32 via {SERVER} dev {LAN}"))?;
        look("ok", &["wan0 answers ARP for it (proxy)"])?;
        ensure!(is_answered(lab, vip)?, "no answer after `{on}`");
        lab.gateway
            .shell(&format!("ip route del {vip}/32; {off}"))?;
    }
    on_another_interface(lab, vip)?;
    let far = question(lab, LAN, "198.51.100.50", "192.168.0.1")?;
    expect(&far, line, "warning", &["not visible from this host"])?;
    Ok(())
}

fn on_another_interface(lab: &Lab, vip: &str) -> Result<()> {
    lab.gateway.shell(&format!(
        "ip address add {vip}/32 dev lo
         sysctl -qw net.ipv4.conf.{WAN}.arp_ignore=1"
    ))?;
    let look = || question(lab, LAN, vip, "192.168.0.1");
    let found = expect(&look()?, ("vip", None), "warning", &["arp_ignore"])?;
    ensure!(!is_answered(lab, vip)?, "somebody answers");
    apply_fix(lab, &found)?;
    expect(&look()?, ("vip", None), "ok", &["an address of lo"])?;
    ensure!(is_answered(lab, vip)?, "no ARP answer");
    Ok(())
}

fn addresses(lab: &Lab) -> Result<()> {
    for (vip, server, words) in [
        (
            "127.0.0.1",
            "192.168.0.1",
            ["the VIP 127.0.0.1", "loopback"],
        ),
        (
            "203.0.113.1",
            "224.0.0.1",
            ["the server 224.0.0.1", "multicast"],
        ),
        ("203.0.113.1", "203.0.113.1", ["both", "203.0.113.1"]),
    ] {
        expect(
            &question(lab, LAN, vip, server)?,
            ("address", None),
            "error",
            &words,
        )?;
    }
    Ok(())
}
