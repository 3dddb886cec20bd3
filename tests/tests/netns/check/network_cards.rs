//! Tests of `check` for what only real drivers do: the two network cards of a guest of `cargo xtask
//! vm` replace the veths between gateway and client.

use super::*;
use crate::support::{count, everything_crosses, refused, timed_command};
use ikenat_tests::kernel::kernel_is_at_least;
use ikenat_tests::lab::Options;
use ikenat_tests::lab::frames::not_ipv4;
use ikenat_tests::lab::ikenat::Ikenat;
use ikenat_tests::lab::topology::{LAN, WAN};
use ikenat_tests::lab::wire::{Wire, at_server, esp, from_client, from_server};
use std::time::Duration;

/// Takes VLAN tags out of frames, and has no native XDP.
const PLAIN: &str = "e1000e";
/// Merges packets and has a receive queue for each CPU; native XDP from Linux 6.6 on.
const VIRTUAL: &str = "vmxnet3";

const SPI: u32 = 0xC000_0001;

pub(super) fn scenarios() -> Vec<Scenario> {
    let in_a_guest = |name, driver, test| {
        Scenario::in_a_guest(name, test).with_options(Options {
            wan_driver: Some(driver),
            ..Options::default()
        })
    };
    vec![
        in_a_guest("check_names_a_card_that_merges_packets", VIRTUAL, merging),
        in_a_guest("check_names_a_card_that_strips_vlan_tags", PLAIN, tags),
        in_a_guest("check_names_a_card_without_native_xdp", PLAIN, generic),
        in_a_guest("check_calls_a_card_with_native_xdp_ok", VIRTUAL, native).unless(
            !kernel_is_at_least((6, 6)).unwrap_or(false),
            "its driver has native XDP from Linux 6.6 on",
        ),
        in_a_guest(
            "check_shows_how_a_card_distributes_packets",
            VIRTUAL,
            spreading,
        ),
    ]
}

fn merging(lab: &Lab) -> Result<()> {
    provoked_and_fixed(
        lab,
        &format!("ethtool -K {WAN} lro on"),
        ("lro", Some(WAN)),
        "warning",
        &["large receive offload is on"],
        &[&format!("ethtool -K {WAN} lro off")],
    )
}

/// Packets of another VLAN reach the server until the fix that `check` proposes is applied.
fn tags(lab: &Lab) -> Result<()> {
    const PATIENCE: Duration = Duration::from_secs(1);
    let _ikenat = Ikenat::start_with(lab, &["--wan-mode", "generic"])?;
    let wire = Wire::open(lab)?;
    let packet = from_client(4500, 4500, esp(SPI, 1, 60));
    wire.inbound(&packet)?;
    let mut tagged = packet.build();
    tagged.splice(12..12, [0x81, 0x00, 0x00, 0x07]);
    // tc sees the tag. It is XDP that does not, and from time to time XDP leaves a packet to tc.
    let crossed = || -> Result<bool> {
        wire.server.drain()?;
        for _ in 0..10 {
            wire.client.send(&tagged)?;
        }
        let came = wire.server.find(PATIENCE, |frame| !not_ipv4(frame))?;
        Ok(came.is_some_and(|frame| frame == at_server(&packet).build()))
    };
    // The lab's packet sockets have the card let every VLAN in.
    lab.gateway.run(&format!("ethtool -K {WAN} rxvlan on"))?;
    ensure!(crossed()?, "XDP sees tags that the card takes out");
    provoked_and_fixed(
        lab,
        "true",
        ("vlan-offload", Some(WAN)),
        "warning",
        &["removes VLAN tags"],
        &[&format!("ethtool -K {WAN} rxvlan off")],
    )?;
    wire.wan.drain()?;
    ensure!(!crossed()?, "packets of another VLAN are translated");
    // They did come in: behind XDP the kernel shows them with their tags beside them.
    let untagged = packet.build();
    let came = wire.wan.find(PATIENCE, |frame| frame == untagged)?;
    ensure!(came.is_some(), "they got lost before the gateway");
    wire.inbound(&packet).context("of no VLAN")
}

fn generic(lab: &Lab) -> Result<()> {
    const MODE: (&str, Option<&str>) = ("xdp-mode", Some(WAN));
    const REDIRECT: (&str, Option<&str>) = ("redirect", Some(WAN));
    let run = format!("{} --wan-mode generic", usual_arguments().join(" "));
    let findings = check(lab)?;
    if device::kernel_tells()? {
        let found = expect(&findings, MODE, "error", &["no native XDP"])?;
        let named = format!("ikenat {run} --bpffs {}", lab.bpffs().display());
        ensure!(found.fix == [named], "{found:#?}");
    } else {
        let words = ["not checked", "is refused", "--wan-mode"];
        expect(&findings, MODE, "warning", &words)?;
    }
    let mut native = timed_command(lab, &usual_arguments())?;
    native.arg("--bpffs").arg(lab.bpffs());
    let words = [WAN, "refuses native XDP", "`--wan-mode generic`"];
    refused(lab, native, &words)?;

    let words: Vec<&str> = run.split(' ').collect();
    let ikenat = Ikenat::run(lab, &lab.gateway, "ikenat", &words)?;
    everything_crosses(lab)?;
    ensure!(xdp_mode(lab, WAN)? == "generic" && xdp_mode(lab, LAN)? == "native");
    let findings = findings_of(command(lab, &["--wan-mode", "generic"])?)?;
    expect(&findings, MODE, "ok", &["generic"])?;
    // What goes out there comes from native XDP on the LAN. The daemon says the same.
    let slow = format!("{WAN}: driver has no XDP transmit");
    expect(&findings, REDIRECT, "warning", &["no XDP transmit"])?;
    ensure!(ikenat.log().contains(&slow), "{}", ikenat.log());
    let findings = findings_of(command(lab, &["--mode", "generic"])?)?;
    expect(&findings, REDIRECT, "ok", &["through the network stack"])?;
    Ok(())
}

fn xdp_mode(lab: &Lab, interface: &str) -> Result<String> {
    let mut attached = lab.status()?.attached.into_iter();
    let found = attached.find(|one| one.hook == "xdp" && one.interface == interface);
    Ok(found.context("no XDP program")?.mode)
}

fn native(lab: &Lab) -> Result<()> {
    let findings = check(lab)?;
    expect(&findings, ("xdp-mode", Some(WAN)), "ok", &["native"])?;
    expect(&findings, ("redirect", Some(WAN)), "ok", &["XDP transmit"])?;
    let _ikenat = Ikenat::start(lab)?;
    ensure!(xdp_mode(lab, WAN)? == "native");
    let wire = Wire::open(lab)?;
    // The first of them have a neighbour resolved, and take the slow path.
    for sequence in 1..=5 {
        wire.outbound(&from_server(4500, 4500, esp(SPI, sequence, 60)))?;
        wire.inbound(&from_client(4500, 4500, esp(SPI, sequence, 60)))?;
    }
    for reason in ["esp-in-udp-in", "esp-in-udp-out"] {
        ensure!(count(lab, "xdp", reason)? > 0, "{reason}: none by XDP");
    }
    Ok(())
}

fn spreading(lab: &Lab) -> Result<()> {
    let words = [
        "not checked",
        "2 receive queues",
        &format!("ethtool -n {WAN} rx-flow-hash udp4"),
        "esp4",
    ];
    expect(&check(lab)?, ("rss", Some(WAN)), "warning", &words)?;
    Ok(())
}
