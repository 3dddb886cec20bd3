//! Tests that the commands of `check` are about the right interface where its name has characters with a
//! meaning to a shell: all are allowed but `/`, `:` and white space.

use super::firewall::TOOLS;
use super::*;
use ikenat_tests::lab::ikenat::Ikenat;
use ikenat_tests::lab::netns::execute;
use ikenat_tests::lab::topology::{CLIENT, LAN, PEER, SERVER, VIP};

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario::new("check_quotes_names_of_interfaces_in_commands", interfaces)
            .with_programs(&["ping", "ethtool", "nsenter"]),
        Scenario::new("check_quotes_what_firewall_rules_contain", rules).with_programs(TOOLS),
        Scenario::new("what_a_terminal_obeys_is_not_printed", terminal).with_programs(&["bash"]),
    ]
}

const UGLY_WAN: &str = "w$0;'&(";
/// `sysctl` would take this for a name with a value, and for a pattern.
const UGLY_LAN: &str = "l=*\"<";

/// The names as variables of a script.
const NAMES: &str = r#"W='w$0;'\''&('; L='l=*"<'; P='p`id`|'; CONF=/proc/sys/net/ipv4/conf;"#;

/// Gives the interfaces of the gateway, and that of the client, other names.
fn rename(lab: &Lab) -> Result<()> {
    lab.gateway.shell(&format!(
        "{NAMES}
         ip link set dev {WAN} down; ip link set dev {WAN} name \"$W\"; ip link set dev \"$W\" up
         ip link set dev {LAN} down; ip link set dev {LAN} name \"$L\"; ip link set dev \"$L\" up
         ip route add default via {CLIENT} dev \"$W\""
    ))?;
    lab.client.shell(&format!(
        "{NAMES} ip link set dev {PEER} down; ip link set dev {PEER} name \"$P\"; ip link set dev \"$P\" up"
    ))?;
    Ok(())
}

fn look_at(lab: &Lab, wan: &str, lan: &str) -> Result<Command> {
    let mut command = lab.gateway.command(binary()?);
    let (vip, server) = (VIP.to_string(), SERVER.to_string());
    command.args(["check", "--wan", wan, "--lan", lan]);
    command.args(["--vip", &vip, "--server", &server]);
    command.arg("--bpffs").arg(lab.bpffs());
    Ok(command)
}

fn look(lab: &Lab) -> Result<Vec<Finding>> {
    findings_of(look_at(lab, UGLY_WAN, UGLY_LAN)?)
}

/// Provokes a condition, and expects the proposed command to end it.
fn provoked_and_fixed(lab: &Lab, provoke: &str, line: (&str, Option<&str>)) -> Result<()> {
    lab.gateway.shell(&format!("{NAMES} {provoke}"))?;
    let mut found = about(&look(lab)?, line.0, line.1);
    found.retain(|one| one.level != "ok");
    ensure!(!found.is_empty(), "{provoke}: {line:?} is ok");
    for one in &found {
        apply_fix(lab, one)?;
    }
    expect(&look(lab)?, line, "ok", &[])?;
    Ok(())
}

fn interfaces(lab: &Lab) -> Result<()> {
    rename(lab)?;
    let (wan, lan) = (Some(UGLY_WAN), Some(UGLY_LAN));
    for (provoke, line) in [
        ("ip link set dev \"$W\" mtu 1400", ("mtu", lan)),
        ("ip link set dev \"$L\" mtu 1400", ("mtu", lan)),
        ("echo 0 > \"$CONF/$W/forwarding\"", ("forwarding", wan)),
        ("echo 0 > \"$CONF/$L/forwarding\"", ("forwarding", lan)),
        (
            "echo 1 > \"$CONF/$W/rp_filter\"; ip route replace default via 192.168.0.1 dev \"$L\"",
            ("rp-filter", wan),
        ),
        ("ip neighbour flush dev \"$L\"", ("server-neighbour", lan)),
        (
            "ip route add 192.168.0.1 dev \"$W\"",
            ("server-route", None),
        ),
        (
            "ip rule add pref 100 from 192.168.0.1 iif \"$L\" lookup 7",
            ("routing-rules", None),
        ),
        ("ip link set dev \"$L\" down", ("interface", lan)),
        (
            "ip address del 203.0.113.1/24 dev \"$W\"; ip address add 203.0.113.7/24 dev \"$W\"",
            ("vip", None),
        ),
    ] {
        provoked_and_fixed(lab, provoke, line)?;
    }
    // Of this command the router is left to be filled in.
    lab.gateway
        .shell("ip route flush exact default; ip rule del pref 100; ip rule del pref 100")?;
    let line = ("client-route", None);
    lab.gateway
        .shell("ip link add up1 type veth peer name far1; ip link set up1 up")?;
    let mut two_wans = look_at(lab, UGLY_WAN, UGLY_LAN)?;
    two_wans.args(["--wan", "up1"]);
    let found = expect(
        &findings_of(two_wans)?,
        line,
        "warning",
        &["no default route leaves by"],
    )?;
    let begin = r"ip route append default via GATEWAY dev 'w$0;'\''&(' ";
    ensure!(found.fix[0].starts_with(begin), "{found:#?}");
    let found = expect(&look(lab)?, line, "warning", &["no default route"])?;
    let command = found.fix[0].replace("GATEWAY", &CLIENT.to_string());
    lab.gateway.shell(&command)?;
    expect(&look(lab)?, line, "ok", &[])?;
    // The far end is in another network namespace, under another name.
    lab.client
        .shell(&format!("{NAMES} ethtool -K \"$P\" tx on >/dev/null"))?;
    provoked_and_fixed(lab, "true", ("peer-checksum", wan))?;
    refused_start(lab)
}

/// A refusal of `run` names the command as well.
fn refused_start(lab: &Lab) -> Result<()> {
    lab.gateway
        .shell(&format!("{NAMES} echo 0 > \"$CONF/$W/forwarding\""))?;
    let mut start = lab.gateway.command(binary()?);
    let (vip, server) = (VIP.to_string(), SERVER.to_string());
    start.args(["run", "--wan", UGLY_WAN, "--lan", UGLY_LAN]);
    start.args(["--vip", &vip, "--server", &server]);
    let output = start.arg("--bpffs").arg(lab.bpffs()).output()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let (_, command) = said
        .rsplit_once(": run `")
        .with_context(|| format!("no command is named: {said}"))?;
    lab.gateway
        .shell(command.trim_end().trim_end_matches('`'))?;
    let value = lab
        .gateway
        .shell(&format!("{NAMES} cat \"$CONF/$W/forwarding\""))?;
    ensure!(value.trim() == "1", "{said}");
    Ok(())
}

fn rules(lab: &Lab) -> Result<()> {
    rename(lab)?;
    lab.gateway.shell(
        "nft add table inet fw
         nft 'add chain inet fw way { type filter hook forward priority filter; policy drop; }'",
    )?;
    provoked_and_fixed(lab, "true", ("forward", None))?;
    lab.gateway
        .shell("nft flush ruleset; iptables -P FORWARD DROP")?;
    provoked_and_fixed(lab, "true", ("forward", None))?;
    // What a comment contains is no part of the command that removes its rule.
    let marker = lab.bpffs().join("../executed");
    let rule = format!(
        "iptables -t nat -A PREROUTING ! -i lo -d {VIP} -p udp --dport 500 -m comment --comment 'a $(touch {}) \"b\" \\' -j DNAT --to-destination {SERVER}",
        marker.display()
    );
    provoked_and_fixed(lab, &rule, ("dnat", None))?;
    ensure!(!marker.exists(), "the comment was executed");
    Ok(())
}

/// It clears the screen of a terminal, and then some.
const ESCAPING: &str = "w\u{1b}[2J\u{9b}1";
/// The same as it is printed, and in the log.
const PRINTED: &str = r"w\u001b[2J\u009b1";
const LOGGED: &str = r"w\x1b[2J\u{9b}1";

/// A device may come back under any name from a container that had it.
fn terminal(lab: &Lab) -> Result<()> {
    for words in [
        ["link", "set", "dev", WAN, "down"].as_slice(),
        &["link", "set", "dev", WAN, "name", ESCAPING],
        &["link", "set", "dev", ESCAPING, "up"],
    ] {
        execute(lab.gateway.command("ip").args(words))?;
    }
    let harmless = |output: &[u8], name: &str| -> Result<()> {
        let text = String::from_utf8_lossy(output).into_owned();
        let is_obeyed = |character: char| character.is_control() && character != '\n';
        ensure!(!text.contains(is_obeyed), "{text:?}");
        ensure!(text.contains(name), "{name} is not in {text}");
        Ok(())
    };
    let forwarding = format!("/proc/sys/net/ipv4/conf/{ESCAPING}/forwarding");
    let text = look_at(lab, ESCAPING, LAN)?.output()?.stdout;
    harmless(&text, PRINTED)?;
    let mut json = look_at(lab, ESCAPING, LAN)?;
    harmless(&json.arg("--json").output()?.stdout, PRINTED)?;
    // The document has the name itself, and the command is about it.
    execute(
        lab.gateway
            .command("sh")
            .args(["-c", "echo 0 > \"$0\"", &forwarding]),
    )?;
    let line = ("forwarding", Some(ESCAPING));
    let found = expect(
        &findings_of(look_at(lab, ESCAPING, LAN)?)?,
        line,
        "error",
        &[],
    )?;
    execute(lab.gateway.command("bash").args(["-c", &found.fix[0]]))?;
    expect(&findings_of(look_at(lab, ESCAPING, LAN)?)?, line, "ok", &[])?;

    // A VIP that is no address of this host has a command in the log.
    let server = SERVER.to_string();
    let start = |lan| {
        ["run", "--wan", ESCAPING, "--lan", lan]
            .into_iter()
            .chain(["--vip", "203.0.113.77", "--server", &server])
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    let mut refused = lab.gateway.command(binary()?);
    refused
        .args(start("nosuch0"))
        .arg("--bpffs")
        .arg(lab.bpffs());
    harmless(&refused.output()?.stderr, PRINTED)?;
    let words = start(LAN);
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let ikenat = Ikenat::run(lab, &lab.gateway, "ikenat", &words)?;
    harmless(ikenat.log().as_bytes(), LOGGED)?;
    let command = r"`ip address add 203.0.113.77/32 dev $'w\033[2J\302\2331'`";
    harmless(ikenat.log().as_bytes(), command)?;
    let mut status = lab.gateway.command(binary()?);
    status.arg("status").arg("--bpffs").arg(lab.bpffs());
    harmless(&status.output()?.stdout, PRINTED)
}
