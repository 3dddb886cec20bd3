//! Packets that are lost after XDP has redirected them. The dataplane counts them as forwarded, and
//! `status` says by interface how many were lost.

use anyhow::{Context, Result, ensure};
use ikenat_tests::lab::Lab;
use ikenat_tests::lab::capture::PacketSocket;
use ikenat_tests::lab::ikenat::Ikenat;
use ikenat_tests::lab::topology::{LAN, Options, PEER, WAN};
use ikenat_tests::lab::wire::{Wire, esp, from_client, from_server};
use ikenat_tests::suite::Scenario;

use crate::support::{count, everything_crosses};

pub(crate) fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario::new("frames_that_a_driver_does_not_send_are_counted", not_sent),
        Scenario::new("redirects_that_the_kernel_refuses_are_counted", refused),
        Scenario::new("generic_redirects_that_are_refused_are_counted", generic),
    ]
}

const PACKETS: u32 = 20;

/// What is lost on an interface.
fn lost(lab: &Lab, interface: &str) -> Result<u64> {
    let status = lab.status()?;
    let mut all = status.redirect.iter();
    let found = all.find(|redirect| redirect.interface == interface);
    let found = found.with_context(|| format!("{interface} is not in {:?}", status.redirect))?;
    found.lost.context("losses are not counted")
}

/// Packets of a known flow to the server, which do not arrive. Returns how many XDP has forwarded.
fn send(lab: &Lab, length: usize) -> Result<u64> {
    let client = PacketSocket::open(&lab.client, PEER)?;
    let forwarded = || count(lab, "xdp", "esp-in-udp-in");
    let before = forwarded()?;
    for sequence in 100..100 + PACKETS {
        client.send(&from_client(4500, 4500, esp(0xC000_0001, sequence, length)).build())?;
    }
    let sent = forwarded()? - before;
    ensure!(sent > u64::from(PACKETS) / 2, "XDP forwarded only {sent}");
    Ok(sent)
}

/// A flow that XDP forwards, nothing lost, and no daemon that would see what happens next.
fn prepared(lab: &Lab, more: &[&str]) -> Result<()> {
    let ikenat = Ikenat::start_with(lab, more)?;
    everything_crosses(lab)?;
    let wire = Wire::open(lab)?;
    for sequence in 2..6 {
        wire.outbound(&from_server(4500, 4500, esp(0xC000_0002, sequence, 60)))?;
        wire.inbound(&from_client(4500, 4500, esp(0xC000_0001, sequence, 60)))?;
    }
    ensure!((lost(lab, WAN)?, lost(lab, LAN)?) == (0, 0), "lost already");
    ikenat.kill()
}

/// A veth sends no frame that is larger than the MTU of its far end. That of its own end is what the
/// dataplane looks at. A ring that is full loses packets at the same place (`veth_xdp_xmit`).
fn not_sent(lab: &Lab) -> Result<()> {
    // Another gateway, in another network namespace, whose interfaces have the same indices.
    let other = Lab::new(Options::default())?;
    prepared(&other, &[])?;
    prepared(lab, &[])?;
    let indices = |lab: &Lab| -> Result<Vec<u32>> {
        let attached = lab.status()?.attached;
        Ok(attached.iter().map(|program| program.ifindex).collect())
    };
    ensure!(indices(lab)? == indices(&other)?, "the indices differ");
    lab.server.run(&format!("ip link set {PEER} mtu 600"))?;
    let sent = send(lab, 1000)?;
    let found = [lost(lab, WAN)?, lost(lab, LAN)?];
    ensure!(
        found == [0, sent],
        "lost on WAN and LAN: {found:?} of {sent}"
    );
    let text = lab.gateway.run(&format!(
        "{} status --bpffs {}",
        ikenat_tests::lab::ikenat::binary()?.display(),
        lab.bpffs().display()
    ))?;
    let line = format!("{LAN}: {sent} forwarded packets were lost");
    ensure!(text.contains(&line), "no {line:?} in {text}");
    let elsewhere = lost(&other, LAN)?;
    ensure!(elsewhere == 0, "{elsewhere} packets of the other gateway");
    // They stay counted, and the next programs add to them.
    let ikenat = Ikenat::start(lab)?;
    ensure!(lost(lab, LAN)? == sent, "a restart has changed {sent}");
    ikenat.kill()?;
    let more = send(lab, 1000)?;
    let after = lost(lab, LAN)?;
    ensure!(after == sent + more, "{after}, not {sent} + {more}");
    lab.unload()
}

/// The far end of the veth takes no frames from XDP any more.
fn refused(lab: &Lab) -> Result<()> {
    prepared(lab, &[])?;
    lab.server.run(&format!("ip link set dev {PEER} xdp off"))?;
    let sent = send(lab, 60)?;
    let found = [lost(lab, WAN)?, lost(lab, LAN)?];
    ensure!(
        found == [0, sent],
        "lost on WAN and LAN: {found:?} of {sent}"
    );
    Ok(())
}

/// The same in generic mode, by an egress that is smaller than the dataplane believes.
fn generic(lab: &Lab) -> Result<()> {
    prepared(lab, &["--mode", "generic"])?;
    lab.gateway.run(&format!("ip link set {LAN} mtu 600"))?;
    let sent = send(lab, 1000)?;
    let found = [lost(lab, WAN)?, lost(lab, LAN)?];
    ensure!(
        found == [0, sent],
        "lost on WAN and LAN: {found:?} of {sent}"
    );
    Ok(())
}
