//! Tests of `check` for common firewall rules in each rule language, and that the proposed command
//! has the same effect in the kernel as in the model of the rules.

use std::net::{IpAddr, SocketAddrV4};
use std::time::Duration;

use super::*;
use ikenat_tests::lab::sender::socket_in;
use ikenat_tests::lab::topology::{CLIENT, SERVER, VIP, WAN};
use ikenat_tests::lab::udp_pair::receive;

/// Both kinds of iptables.
pub(super) const TOOLS: &[&str] = &[
    "iptables-legacy",
    "iptables-legacy-save",
    "iptables-nft",
    "iptables-nft-save",
];

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario::new("check_names_masquerade", masquerade).with_programs(TOOLS),
        Scenario::new("check_names_snat", snat).with_programs(TOOLS),
        Scenario::new("check_names_the_old_eight_rules", old_rules).with_programs(TOOLS),
        Scenario::new("check_names_docker_rules_that_affect_ikenat", docker).with_programs(TOOLS),
        Scenario::new("check_names_a_forward_chain_that_drops", forward).with_programs(TOOLS),
    ]
}

pub(super) const IPTABLES: [&str; 2] = ["iptables-legacy", "iptables-nft"];

/// Runs a script with a lock file of iptables for this lab alone: with the lock of the machine,
/// parallel labs would block each other.
pub(super) fn shell(lab: &Lab, script: &str) -> Result<String> {
    let lock = lab.directory().join("xtables.lock");
    lab.gateway.shell(&format!(
        "export XTABLES_LOCKFILE={}\n{script}",
        lock.display()
    ))
}

pub(super) fn flush(lab: &Lab) -> Result<()> {
    shell(
        lab,
        "nft flush ruleset
         for table in filter nat; do iptables-legacy -t $table -F; iptables-legacy -t $table -X; done
         iptables-legacy -P FORWARD ACCEPT",
    )?;
    Ok(())
}

pub(super) fn fix_all(lab: &Lab, found: &[Finding]) -> Result<()> {
    for finding in found {
        ensure!(!finding.fix.is_empty(), "no command fixes it: {finding:#?}");
        for line in &finding.fix {
            shell(lab, line).with_context(|| format!("while fixing {finding:#?}"))?;
        }
    }
    Ok(())
}

/// The findings with a code whose level is not "ok".
pub(super) fn bad(lab: &Lab, code: &str) -> Result<Vec<Finding>> {
    let mut found = about(&check(lab)?, code, None);
    found.retain(|finding| finding.level != "ok");
    Ok(found)
}

pub(super) fn is_clear(lab: &Lab) -> Result<()> {
    let findings = check(lab)?;
    for code in ["snat", "dnat", "forward"] {
        expect(&findings, (code, None), "ok", &["no "])?;
    }
    ensure!(about(&findings, "rule", None).is_empty(), "{findings:#?}");
    Ok(())
}

/// Where a datagram from the server comes from, as the client sees it.
fn source_at_client(lab: &Lab) -> Result<IpAddr> {
    let client = socket_in(&lab.client, SocketAddrV4::new(CLIENT, 4500))?;
    let server = socket_in(&lab.server, SocketAddrV4::new(SERVER, 4500))?;
    client.set_read_timeout(Some(Duration::from_secs(5)))?;
    server.send_to(b"from the server", (CLIENT, 4500))?;
    let (_, from) = receive(&client, &mut [0; 64]).context("nothing came to the client")?;
    Ok(from.ip())
}

fn masquerade(lab: &Lab) -> Result<()> {
    is_clear(lab)?;
    for program in IPTABLES {
        shell(
            lab,
            &format!("{program} -t nat -A POSTROUTING -o {WAN} -j MASQUERADE"),
        )?;
        short_connections(lab)?;
        ensure!(
            source_at_client(lab)? == IpAddr::from(VIP),
            "the rule does nothing"
        );
        let found = bad(lab, "snat")?;
        ensure!(
            found.len() == 1 && found[0].level == "warning",
            "{found:#?}"
        );
        for word in [
            "-A POSTROUTING -o wan0 -j MASQUERADE",
            "UDP 500, UDP 4500, ESP",
            "packets from the server",
        ] {
            ensure!(
                found[0].message.contains(word),
                "{word:?} is not in {found:#?}"
            );
        }
        let begin = format!("{program} -t nat -I POSTROUTING 1 -s {SERVER} -o {WAN} -p");
        let commands = [
            format!("{begin} udp -m multiport --sports 500,4500 -j ACCEPT"),
            format!("{begin} esp -j ACCEPT"),
        ];
        ensure!(found[0].fix == commands, "{found:#?}");
        fix_all(lab, &found)?;
        is_clear(lab)?;
        // And the kernel agrees.
        forget_connections();
        ensure!(
            source_at_client(lab)? == IpAddr::from(SERVER),
            "the command does not exempt the server"
        );
        flush(lab)?;
        forget_connections();
    }
    Ok(())
}

/// A connection keeps its initial translation as long as packets arrive. The settings appear with
/// the first rule.
fn short_connections(lab: &Lab) -> Result<()> {
    lab.gateway.shell(
        "sysctl -qw net.netfilter.nf_conntrack_udp_timeout=1 net.netfilter.nf_conntrack_udp_timeout_stream=1",
    )?;
    Ok(())
}

fn forget_connections() {
    std::thread::sleep(Duration::from_millis(2500));
}

fn snat(lab: &Lab) -> Result<()> {
    for program in IPTABLES {
        shell(
            lab,
            &format!(
                "{program} -t nat -A POSTROUTING -s 192.168.0.0/24 -o {WAN} -j SNAT --to-source {VIP}"
            ),
        )?;
        let found = bad(lab, "snat")?;
        ensure!(
            found.len() == 1 && found[0].message.contains("-j SNAT --to-source 203.0.113.1"),
            "{found:#?}"
        );
        fix_all(lab, &found)?;
        is_clear(lab)?;
        flush(lab)?;
        // The rule may treat other packets as it likes.
        shell(
            lab,
            &format!(
                "{program} -t nat -A POSTROUTING -s 192.168.7.0/24 -o {WAN} -j SNAT --to-source {VIP}"
            ),
        )?;
        is_clear(lab)?;
        flush(lab)?;
    }
    Ok(())
}

/// `OLD-RULES.md`, with the lab's addresses.
fn old_rules(lab: &Lab) -> Result<()> {
    for program in IPTABLES {
        let mut rules = String::new();
        for port in [500, 4500] {
            rules.push_str(&format!(
                "{program} -A FORWARD -d {SERVER}/32 -i {WAN} -p udp -m udp --dport {port} -j ACCEPT
                 {program} -A FORWARD -s {SERVER}/32 -o {WAN} -p udp -m udp --sport {port} -j ACCEPT
                 {program} -t nat -A PREROUTING -d {VIP}/32 -p udp -m udp --dport {port} -j DNAT --to-destination {SERVER}
                 {program} -t nat -A POSTROUTING -d {SERVER}/32 -p udp -m udp --dport {port} -j SNAT --to-source {VIP}\n"
            ));
        }
        shell(lab, &rules)?;
        let dnat = bad(lab, "dnat")?;
        ensure!(
            dnat.len() == 2
                && dnat
                    .iter()
                    .all(|finding| finding.message.contains("already forwards to the server")),
            "{dnat:#?}"
        );
        let removal = format!(
            "{program} -t nat -D PREROUTING -d {VIP}/32 -p udp -m udp --dport 500 -j DNAT --to-destination {SERVER}"
        );
        ensure!(
            dnat.iter().any(|finding| finding.fix == [removal.clone()]),
            "{dnat:#?}"
        );
        let snat = bad(lab, "snat")?;
        ensure!(
            snat.len() == 2
                && snat
                    .iter()
                    .all(|finding| finding.message.contains("packets from clients")),
            "{snat:#?}"
        );
        // Their FORWARD rules let everything pass but ESP, once somebody drops the rest.
        shell(lab, &format!("{program} -P FORWARD DROP"))?;
        let forward = bad(lab, "forward")?;
        ensure!(
            forward.len() == 2
                && forward
                    .iter()
                    .all(|finding| finding.message.contains("drops ESP ")),
            "{forward:#?}"
        );
        for found in [dnat, snat, forward] {
            fix_all(lab, &found)?;
        }
        is_clear(lab)?;
        shell(lab, &format!("{program} -P FORWARD ACCEPT"))?;
        flush(lab)?;
    }
    Ok(())
}

fn docker(lab: &Lab) -> Result<()> {
    for program in IPTABLES {
        shell(
            lab,
            &format!(
                "{program} -t nat -N DOCKER
                 {program} -t nat -A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
                 {program} -t nat -A OUTPUT ! -d 127.0.0.0/8 -m addrtype --dst-type LOCAL -j DOCKER
                 {program} -t nat -A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE
                 {program} -t nat -A DOCKER -i docker0 -j RETURN
                 {program} -t nat -A DOCKER ! -i docker0 -p tcp -m tcp --dport 443 -j DNAT --to-destination 172.17.0.2:443"
            ),
        )?;
        is_clear(lab)?;
        shell(
            lab,
            &format!(
                "{program} -t nat -A DOCKER ! -i docker0 -p udp -m udp --dport 4500 -j DNAT --to-destination 172.17.0.2:4500"
            ),
        )?;
        let found = bad(lab, "dnat")?;
        ensure!(
            found.len() == 1 && found[0].message.contains("to 172.17.0.2 (UDP 4500)"),
            "{found:#?}"
        );
        fix_all(lab, &found)?;
        is_clear(lab)?;
        // The server in a container is what the other rule is about.
        lab.gateway.shell("ip link add docker0 type bridge; ip address add 172.17.0.1/16 dev docker0; ip link set dev docker0 up")?;
        let mut command = lab.gateway.command(binary()?);
        command.args([
            "check",
            "--wan",
            WAN,
            "--lan",
            "docker0",
            "--vip",
            "203.0.113.1",
            "--server",
            "172.17.0.2",
        ]);
        command.arg("--bpffs").arg(lab.bpffs());
        expect(
            &findings_of(command)?,
            ("snat", None),
            "warning",
            &["-s 172.17.0.0/16 ! -o docker0 -j MASQUERADE"],
        )?;
        lab.gateway.run("ip link del dev docker0")?;
        flush(lab)?;
    }
    Ok(())
}

fn forward(lab: &Lab) -> Result<()> {
    for program in IPTABLES {
        shell(
            lab,
            &format!(
                "{program} -P FORWARD DROP; {program} -A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT"
            ),
        )?;
        let found = bad(lab, "forward")?;
        ensure!(found.len() == 2, "both directions: {found:#?}");
        for (finding, way) in found.iter().zip(["to the server", "from the server"]) {
            ensure!(
                finding.level == "warning" && finding.message.contains("its policy"),
                "{finding:#?}"
            );
            ensure!(
                finding
                    .message
                    .contains(&format!("UDP 500, UDP 4500, ESP {way}")),
                "{finding:#?}"
            );
        }
        ensure!(passes(lab).is_err(), "the chain drops nothing");
        fix_all(lab, &found)?;
        is_clear(lab)?;
        passes(lab)?;
        shell(
            lab,
            &format!(
                "{program} -P FORWARD ACCEPT; {program} -F FORWARD; {program} -A FORWARD -i {WAN} -j REJECT"
            ),
        )?;
        let found = bad(lab, "forward")?;
        ensure!(
            found.len() == 1 && found[0].message.contains("-A FORWARD -i wan0 -j REJECT"),
            "{found:#?}"
        );
        fix_all(lab, &found)?;
        is_clear(lab)?;
        flush(lab)?;
    }
    Ok(())
}

/// A datagram of the server to a client, through the kernel.
fn passes(lab: &Lab) -> Result<()> {
    let client = socket_in(&lab.client, SocketAddrV4::new(CLIENT, 500))?;
    let server = socket_in(&lab.server, SocketAddrV4::new(SERVER, 500))?;
    client.set_read_timeout(Some(Duration::from_millis(700)))?;
    // The first one may have to wait for ARP.
    for _ in 0..3 {
        server.send_to(b"from the server", (CLIENT, 500))?;
        if receive(&client, &mut [0; 64]).is_ok() {
            return Ok(());
        }
    }
    bail!("nothing came to the client")
}
