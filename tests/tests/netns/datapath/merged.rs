//! Frames that the kernel has changed before tc sees them: datagrams that were merged (UDP GRO), and
//! priority tags. What arrives is what would arrive without that.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ikenat_tests::lab::Lab;
use ikenat_tests::lab::capture::PacketSocket;
use ikenat_tests::lab::frames::{DONT_FRAGMENT, Packet, not_ipv4};
use ikenat_tests::lab::ikenat::Ikenat;
use ikenat_tests::lab::netns::Namespace;
use ikenat_tests::lab::topology::{LAN, PEER, WAN};
use ikenat_tests::lab::wire::{Wire, at_client, at_server, cross, esp, from_client, from_server};
use ikenat_tests::suite::Scenario;

use crate::support::{count, everything_crosses, force_slow_path};

pub(crate) fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario::new("merged_datagrams_arrive_one_by_one", merged),
        Scenario::new("priority_tags_are_no_vlans", priority),
    ]
}

/// A burst is merged only if its packets wait for each other. Merged frames are cut again before they
/// leave, as for a device that cannot cut them itself.
fn merge(gateway: &Namespace) -> Result<()> {
    gateway.shell(&format!(
        "ethtool -K {WAN} gro on
         ethtool -K {WAN} rx-udp-gro-forwarding on
         ethtool -K {LAN} gso off tso off tx off
         unshare --mount sh -c 'mount -t sysfs sysfs /sys && echo 20000000 > /sys/class/net/{WAN}/gro_flush_timeout'"
    ))?;
    Ok(())
}

/// What is the same in all datagrams that were merged, and what the kernel numbers again.
fn without_id(frame: &[u8]) -> Vec<u8> {
    let (id, checksum) = (18..20, 24..26);
    let kept = (0..frame.len()).filter(|at| !id.contains(at) && !checksum.contains(at));
    kept.map(|at| frame[at]).collect()
}

fn merged(lab: &Lab) -> Result<()> {
    const SPI: u32 = 0xC321_0007;
    const BURST: u32 = 12;
    merge(&lab.gateway)?;
    force_slow_path(lab)?;
    let _ikenat = Ikenat::start(lab)?;
    everything_crosses(lab)?;
    let wire = Wire::open(lab)?;
    let packets: Vec<Packet> = (1..=BURST)
        .map(|sequence| Packet {
            flags: DONT_FRAGMENT,
            ..from_client(4500, 4500, esp(SPI, sequence, 1000))
        })
        .collect();
    let before = count(lab, "tc", "esp-in-udp-in")?;
    let sent: Vec<Vec<u8>> = packets.iter().map(Packet::build).collect();
    wire.server.drain()?;
    for frame in &sent {
        wire.client.send(frame)?;
    }
    for packet in &packets {
        let wanted = without_id(&at_server(packet).build());
        let is_it = |frame: &[u8]| without_id(frame) == wanted;
        let found = wire.server.find(Duration::from_secs(3), is_it)?;
        found.with_context(|| format!("{packet:?} has not arrived"))?;
    }
    let frames = count(lab, "tc", "esp-in-udp-in")? - before;
    ensure!(
        frames < u64::from(BURST),
        "{frames} frames of {BURST} datagrams: nothing was merged"
    );
    ensure!(count(lab, "tc", "fragmentation-needed")? == 0);
    Ok(())
}

/// The same frame with a tag of VLAN 0.
fn with_tag(frame: &[u8]) -> Vec<u8> {
    [&frame[..12], &[0x81, 0, 0xa0, 0], &frame[12..]].concat()
}

fn priority(lab: &Lab) -> Result<()> {
    let _ikenat = Ikenat::start(lab)?;
    everything_crosses(lab)?;
    let client = PacketSocket::open(&lab.client, PEER)?;
    let server = PacketSocket::open(&lab.server, PEER)?;
    let inbound = from_client(4500, 4500, esp(0xC321_0008, 1, 60));
    let outbound = from_server(4500, 4500, esp(0xC321_0009, 1, 60));
    let tagged = [with_tag(&inbound.build())];
    let wanted = [at_server(&inbound).build()];
    cross(&client, &server, &tagged, &wanted).context("inbound")?;
    let tagged = [with_tag(&outbound.build())];
    let wanted = [at_client(&outbound).build()];
    cross(&server, &client, &tagged, &wanted).context("outbound")?;
    // Another network on the same wire stays one.
    let before = count(lab, "tc", "not-ipv4")?;
    let mut other = with_tag(&inbound.build());
    other[15] = 7;
    server.drain()?;
    client.send(&other)?;
    server.expect_silence(Duration::from_millis(300), not_ipv4)?;
    ensure!(count(lab, "tc", "not-ipv4")? > before, "it is not counted");
    Ok(())
}
