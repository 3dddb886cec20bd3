//! Tests of `check` for interfaces, drivers and offloads, as far as virtual devices have them;
//! `network_cards.rs` covers what only real drivers do.

use super::*;
use ikenat_tests::kernel::kernel_is_at_least;
use ikenat_tests::lab::topology::{LAN, PEER, WAN};

use crate::support::{arguments_with, refused, timed_command};

pub(super) fn scenarios() -> Vec<Scenario> {
    const BPFTOOL: &[&str] = &["bpftool"];
    vec![
        Scenario::new("check_names_interfaces_that_do_not_serve", interfaces)
            .with_programs(&["bpftool", "tc"]),
        Scenario::new("check_names_drivers_without_xdp", modes),
        Scenario::new("check_names_frames_too_large_for_xdp", large),
        Scenario::new("check_names_programs_of_others", programs).with_programs(BPFTOOL),
        Scenario::new("check_names_devices_without_xdp_transmit", redirect),
        Scenario::new("check_names_offloads_of_far_ends", offloads),
        Scenario::new("check_names_a_traffic_shaper", shaper).with_programs(&["tc"]),
    ]
}

fn interfaces(lab: &Lab) -> Result<()> {
    let mut other = lab.gateway.command(binary()?);
    other.args([
        "check",
        "--wan",
        "nosuch0",
        "--lan",
        LAN,
        "--vip",
        "203.0.113.1",
    ]);
    other
        .args(["--server", "192.168.0.1"])
        .arg("--bpffs")
        .arg(lab.bpffs());
    let missing = ("interface", Some("nosuch0"));
    expect(
        &findings_of(other)?,
        missing,
        "error",
        &["no interface nosuch0", WAN, LAN],
    )?;
    for name in [WAN, LAN] {
        provoked_and_fixed(
            lab,
            &format!("ip link set dev {name} down"),
            ("interface", Some(name)),
            "error",
            &["down"],
            &[&format!("ip link set dev {name} up")],
        )?;
    }
    lab.gateway.shell("ip tuntap add tun0 mode tun")?;
    let findings = findings_of(with_lan(lab, "tun0", &[])?)?;
    expect(
        &findings,
        ("interface", Some("tun0")),
        "error",
        &["not Ethernet", "in front of this host", "iptables"],
    )?;
    let mut start = timed_command(lab, &arguments_with("--lan", "tun0"))?;
    start.arg("--bpffs").arg(lab.bpffs());
    refused(lab, start, &["tun0", "in front of this host", "iptables"])?;
    Ok(())
}

/// The usual question about another LAN.
fn with_lan(lab: &Lab, lan: &str, more: &[&str]) -> Result<Command> {
    let mut command = lab.gateway.command(binary()?);
    command.args(["check", "--wan", WAN, "--lan", lan, "--vip", "203.0.113.1"]);
    command.args(["--server", "192.168.0.1"]).args(more);
    command.arg("--bpffs").arg(lab.bpffs());
    Ok(command)
}

/// Whether the kernel reports the XDP features of devices.
pub(super) fn kernel_tells() -> Result<bool> {
    kernel_is_at_least((6, 3))
}

fn modes(lab: &Lab) -> Result<()> {
    lab.gateway
        .shell("ip link add br0 type bridge; ip link set dev br0 up")?;
    let findings = findings_of(with_lan(lab, "br0", &[])?)?;
    let mode = ("xdp-mode", Some("br0"));
    if kernel_tells()? {
        let found = expect(&findings, mode, "error", &["no native XDP"])?;
        let run = format!(
            "ikenat run --wan {WAN} --lan br0 --vip 203.0.113.1 --server 192.168.0.1 --lan-mode generic --bpffs {}",
            lab.bpffs().display()
        );
        ensure!(found.fix == [run], "{found:#?}");
    } else {
        expect(
            &findings,
            mode,
            "warning",
            &["not checked", "--mode generic"],
        )?;
    }
    expect(
        &findings,
        ("redirect", Some("br0")),
        "warning",
        &["a bridge has no XDP transmit"],
    )?;
    let dry = findings_of(with_lan(lab, "br0", &["--dry-run"])?)?;
    expect(&dry, mode, "ok", &["a dry run attaches no XDP program"])?;
    let generic = findings_of(with_lan(lab, "br0", &["--mode", "generic"])?)?;
    expect(&generic, mode, "ok", &["generic"])?;
    // Native XDP is the preferred mode where the driver has it.
    let found = expect(
        &generic,
        ("xdp-mode", Some(WAN)),
        "warning",
        &["the driver has native XDP"],
    )?;
    ensure!(
        found.fix[0].contains(" --lan-mode generic"),
        "the LAN stays as it is: {found:#?}"
    );
    Ok(())
}

fn large(lab: &Lab) -> Result<()> {
    // The far end's own XDP program keeps the frames small.
    lab.client.run(&format!("ip link set dev {PEER} xdp off"))?;
    provoked_and_fixed(
        lab,
        &format!("ip link set dev {WAN} mtu 9000"),
        ("xdp-mode", Some(WAN)),
        "warning",
        &["MTU of 9000"],
        &[&format!("ip link set dev {WAN} mtu 1500")],
    )
}

/// XDP programs of another owner on an interface of the gateway: once attached as `ip` does it,
/// once by a link.
fn programs(lab: &Lab) -> Result<()> {
    let json = lab.client.run(&format!("ip -j link show dev {PEER}"))?;
    let links: serde_json::Value = serde_json::from_str(&json)?;
    let id = &links[0]["xdp"]["prog"]["id"];
    ensure!(id.is_u64(), "the client has no XDP program: {json}");
    provoked_and_fixed(
        lab,
        &format!("bpftool net attach xdpdrv id {id} dev {WAN}"),
        ("xdp-program", Some(WAN)),
        "error",
        &[&format!("(id {id})"), "another owner"],
        &[&format!("ip link set dev {WAN} xdp off")],
    )?;
    let attach = format!("bpftool net attach xdpdrv id {id} dev {WAN}");
    lab.gateway.run(&attach)?;
    let dry = findings_of(command(lab, &["--dry-run"])?)?;
    expect(
        &dry,
        ("xdp-program", Some(WAN)),
        "ok",
        &["a dry run can run beside it"],
    )?;
    lab.gateway.run(&format!("ip link set dev {WAN} xdp off"))?;
    beside_another(lab)
}

/// Another ikenat, with its pins in a directory that this one does not look at.
fn beside_another(lab: &Lab) -> Result<()> {
    let other = lab.directory().join("other");
    std::fs::create_dir(&other)?;
    let shown = other.display();
    // The daemon is ended by `timeout`; its programs stay, by the pins.
    let run = usual_arguments().join(" ");
    let program = binary()?;
    let program = program.display();
    let outcome = lab
        .gateway
        .shell(&format!(
            "mount -t bpf bpf {shown}; timeout 2 {program} {run} --bpffs {shown} || true"
        ))
        .and_then(|_| {
            let findings = check(lab)?;
            let found = expect(
                &findings,
                ("xdp-program", Some(WAN)),
                "error",
                &["ikenat_xdp_wan"],
            )?;
            ensure!(
                found.fix[0].starts_with("bpftool link detach id "),
                "{found:#?}"
            );
            apply_fix(lab, &found)?;
            expect(&check(lab)?, ("xdp-program", Some(WAN)), "ok", &[])?;
            Ok(())
        });
    lab.gateway.shell(&format!(
        "{program} unload --force --bpffs {shown} || true; umount {shown}"
    ))?;
    outcome
}

fn redirect(lab: &Lab) -> Result<()> {
    for (name, far) in [(WAN, &lab.client), (LAN, &lab.server)] {
        far.shell(&format!(
            "ip link set dev {PEER} xdp off; ethtool -K {PEER} gro off"
        ))?;
        if !kernel_tells()? {
            let words = ["before Linux 6.3"];
            expect(&check(lab)?, ("redirect", Some(name)), "warning", &words)?;
            continue;
        }
        provoked_and_fixed(
            lab,
            "true",
            ("redirect", Some(name)),
            "warning",
            &["on its peer"],
            &[&format!(
                "nsenter --net={} ethtool -K {PEER} gro on",
                far.path()
            )],
        )?;
    }
    Ok(())
}

fn offloads(lab: &Lab) -> Result<()> {
    let findings = check(lab)?;
    for (name, far) in [(WAN, &lab.client), (LAN, &lab.server)] {
        expect(&findings, ("lro", Some(name)), "ok", &[])?;
        expect(&findings, ("rss", Some(name)), "ok", &["one receive queue"])?;
        for feature in ["rx-udp-gro-forwarding", "rx-gro-list"] {
            provoked_and_fixed(
                lab,
                &format!("ethtool -K {name} {feature} on"),
                ("udp-gro", Some(name)),
                "warning",
                &[feature],
                &[&format!("ethtool -K {name} {feature} off")],
            )?;
        }
        // By default a veth passes VLAN tags beside the frame (VLAN offload).
        let ethtool = |what: &str| format!("nsenter --net={} ethtool -K {PEER} {what}", far.path());
        provoked_and_fixed(
            lab,
            &ethtool("txvlan on"),
            ("vlan-offload", Some(name)),
            "warning",
            &["beside the frames"],
            &[&ethtool("txvlan off")],
        )?;
        expect(&findings, ("peer-checksum", Some(name)), "ok", &[])?;
        provoked_and_fixed(
            lab,
            &ethtool("tx on"),
            ("peer-checksum", Some(name)),
            "warning",
            &["partial checksums"],
            &[&ethtool("tx off")],
        )?;
    }
    Ok(())
}

/// Packets that XDP redirects do not pass the qdiscs of their egress.
fn shaper(lab: &Lab) -> Result<()> {
    const SHAPER: (&str, Option<&str>) = ("shaper", Some(WAN));
    expect(&check(lab)?, SHAPER, "ok", &["no qdisc"])?;
    for (kind, more) in [
        ("tbf", "rate 100mbit burst 64k latency 50ms"),
        ("htb", "default 1"),
        ("fq_codel", ""),
    ] {
        let line = format!("tc qdisc replace dev {WAN} root {kind} {more}");
        // A kernel need not have each of them as a module.
        if lab.gateway.run(&line).is_err() {
            println!("no {kind} here");
            continue;
        }
        let findings = check(lab)?;
        if kind == "fq_codel" {
            expect(&findings, SHAPER, "ok", &["no qdisc"])?;
        } else {
            expect(&findings, SHAPER, "warning", &[kind, "bypass"])?;
            expect(&findings, ("shaper", Some(LAN)), "ok", &["no qdisc"])?;
        }
        lab.gateway.run(&format!("tc qdisc del dev {WAN} root"))?;
    }
    Ok(())
}
