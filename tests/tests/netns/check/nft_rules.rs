//! Tests of `check` for native nftables rules, rules that it does not understand and rules that it
//! cannot read.

use super::firewall::{IPTABLES, TOOLS, bad, fix_all, flush, is_clear, shell};
use super::*;
use ikenat_tests::lab::topology::{SERVER, VIP, WAN};

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario::new("check_names_rules_of_nft", nft),
        Scenario::new(
            "check_names_rules_that_it_does_not_understand",
            not_understood,
        )
        .with_programs(TOOLS),
        Scenario::new("check_says_that_it_cannot_look_at_rules", cannot_look).with_programs(TOOLS),
    ]
}

fn nft(lab: &Lab) -> Result<()> {
    shell(
        lab,
        &format!(
            "nft add table ip mynat
             nft 'add chain ip mynat post {{ type nat hook postrouting priority srcnat; }}'
             nft 'add chain ip mynat pre {{ type nat hook prerouting priority dstnat; }}'
             nft 'add set ip mynat inside {{ type ipv4_addr; flags interval; elements = {{ 192.168.0.0/16 }}; }}'
             nft 'add rule ip mynat post oifname \"{WAN}\" ip saddr @inside counter masquerade'
             nft 'add rule ip mynat pre ip daddr {VIP} udp dport {{ 500, 4500 }} dnat to {SERVER}'
             nft add table inet fw
             nft 'add chain inet fw way {{ type filter hook forward priority filter; policy drop; }}'
             nft 'add rule inet fw way ct state vmap {{ established : accept, related : accept, invalid : drop }}'
             nft 'add rule inet fw way ip saddr 192.168.0.0/24 oifname \"{WAN}\" accept'"
        ),
    )?;
    let snat = bad(lab, "snat")?;
    ensure!(
        snat.len() == 1 && snat[0].message.contains("nft ip mynat post handle"),
        "{snat:#?}"
    );
    ensure!(snat[0].message.contains("masquerade"), "{snat:#?}");
    let dnat = bad(lab, "dnat")?;
    ensure!(
        dnat.len() == 1 && dnat[0].fix[0].starts_with("nft delete rule ip mynat pre handle "),
        "{dnat:#?}"
    );
    // What the server sends is let pass, what clients send is not.
    let forward = bad(lab, "forward")?;
    ensure!(
        forward.len() == 1 && forward[0].message.contains("to the server: its policy"),
        "{forward:#?}"
    );
    let command = format!(
        "nft 'insert rule inet fw way iifname \"{WAN}\" ip daddr {SERVER} udp dport {{ 500, 4500 }} accept'"
    );
    ensure!(forward[0].fix[0] == command, "{forward:#?}");
    for found in [snat, dnat, forward] {
        fix_all(lab, &found)?;
    }
    is_clear(lab)
}

fn not_understood(lab: &Lab) -> Result<()> {
    for program in IPTABLES {
        shell(
            lab,
            &format!("{program} -t nat -A POSTROUTING -o {WAN} -m mark --mark 0x1 -j MASQUERADE"),
        )?;
        let findings = check(lab)?;
        expect(
            &findings,
            ("rule", None),
            "warning",
            &["not understood", "-m mark --mark 0x1"],
        )?;
        ensure!(
            about(&findings, "snat", None).is_empty(),
            "nothing is sure: {findings:#?}"
        );
        flush(lab)?;
    }
    shell(
        lab,
        "nft add table ip f; nft 'add chain ip f x { type filter hook forward priority 0; }'; nft add rule ip f x meta mark 1 drop",
    )?;
    expect(
        &check(lab)?,
        ("rule", None),
        "warning",
        &["nft ip f x handle", "drop handled packets"],
    )?;
    Ok(())
}

/// The programs' directory is empty, in a mount namespace of its own.
fn cannot_look(lab: &Lab) -> Result<()> {
    let copy = lab.directory().join("ikenat-alone");
    std::fs::copy(binary()?, &copy).context("failed to copy ikenat")?;
    let look = |empty: &str| -> Result<Vec<Finding>> {
        let script = format!(
            "{empty}; exec {} check {} --bpffs {} --json",
            copy.display(),
            usual_arguments()[1..].join(" "),
            lab.bpffs().display()
        );
        let mut command = lab.gateway.command("unshare");
        findings(&command.args(["--mount", "sh", "-euc", &script]).output()?)
    };
    let findings = look("mount -t tmpfs none /usr/sbin")?;
    let found = expect(
        &findings,
        ("firewall", None),
        "warning",
        &["not checked: nft is not installed"],
    )?;
    ensure!(found.fix == ["apt-get install nftables"], "{found:#?}");
    for code in ["snat", "dnat", "forward"] {
        ensure!(
            about(&findings, code, None).is_empty(),
            "it calls {code} OK: {findings:#?}"
        );
    }
    shell(
        lab,
        &format!("iptables-legacy -t nat -A POSTROUTING -o {WAN} -j MASQUERADE"),
    )?;
    let findings = look("mount -t tmpfs none /usr/sbin")?;
    let all = about(&findings, "firewall", None);
    ensure!(
        all.iter().any(|one| one.level == "warning"
            && one
                .message
                .contains("iptables-legacy-save is not installed")),
        "{all:#?}"
    );
    Ok(())
}
