//! The gateway's own addresses change while it runs: the MAC addresses of its interfaces, and the
//! address that its ICMP errors to the server come from.

use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ikenat_tests::lab::Lab;
use ikenat_tests::lab::capture::PacketSocket;
use ikenat_tests::lab::frames::{Mac, Packet, not_ipv4, protocol};
use ikenat_tests::lab::ikenat::Ikenat;
use ikenat_tests::lab::topology::{
    CLIENT_MAC, GATEWAY_LAN, LAN, LAN_MAC, SERVER, SERVER_MAC, WAN, WAN_MAC,
};
use ikenat_tests::lab::wire::{Wire, at_client, at_server, esp, from_client, from_server};
use ikenat_tests::suite::Scenario;

use crate::support::{count, everything_crosses, patience, wait_for_log};

pub(crate) fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario::new("a_mac_address_that_changes_is_followed", followed),
        Scenario::new("a_mac_address_that_changes_without_the_daemon", alone),
        Scenario::new("a_lan_address_that_changes_is_followed", lan_address),
    ]
}

const NEW_WAN_MAC: Mac = [2, 0, 0, 0, 1, 0x77];
const NEW_LAN_MAC: Mac = [2, 0, 0, 0, 2, 0x77];
const SPI_IN: u32 = 0xC000_0021;
const SPI_OUT: u32 = 0xC000_0022;
/// Packets each way after each change. Each has to arrive.
const PACKETS: u32 = 50;
/// The fewest of them that XDP sends when all is settled: some take the slow path, so that the
/// kernel confirms the neighbour.
const BY_XDP: u64 = 40;

fn inbound(sequence: u32, to: Mac) -> Packet {
    from_client(4500, 4500, esp(SPI_IN, sequence, 60)).with_macs(to, CLIENT_MAC)
}

fn outbound(sequence: u32, to: Mac) -> Packet {
    from_server(4500, 4500, esp(SPI_OUT, sequence, 60)).with_macs(to, SERVER_MAC)
}

pub(crate) fn set_mac(lab: &Lab, interface: &str, mac: Mac) -> Result<()> {
    let mac = mac.map(|byte| format!("{byte:02x}")).join(":");
    lab.gateway
        .run(&format!("ip link set {interface} address {mac}"))?;
    Ok(())
}

/// What arrives is as it was sent but for the address, the TTL and the MAC addresses. The source MAC
/// address may be that of a moment ago.
fn crosses(from: &PacketSocket, to: &PacketSocket, sent: &Packet, wanted: &Packet) -> Result<()> {
    const SOURCE_MAC: std::ops::Range<usize> = 6..12;
    let without = |mut frame: Vec<u8>| {
        frame[SOURCE_MAC].fill(0);
        frame
    };
    let wanted = without(wanted.build());
    to.drain()?;
    from.send(&sent.build())?;
    let came = to.find(patience(Duration::from_secs(3)), |frame| {
        without(frame.to_vec()) == wanted
    })?;
    came.map(drop)
        .with_context(|| format!("lost: {:?}", sent.build()))
}

/// Every packet arrives from the moment of the change on, and a moment later XDP sends them.
fn followed(lab: &Lab) -> Result<()> {
    let _ikenat = Ikenat::start(lab)?;
    everything_crosses(lab)?;
    let wire = Wire::open(lab)?;
    let mut sequence = 0;
    for (interface, mac) in [(WAN, NEW_WAN_MAC), (LAN, NEW_LAN_MAC)] {
        let (wan, lan) = match interface {
            WAN => (mac, LAN_MAC),
            _ => (NEW_WAN_MAC, mac),
        };
        let both = |sequence| -> Result<()> {
            let sent = inbound(sequence, wan);
            crosses(&wire.client, &wire.server, &sent, &at_server(&sent))?;
            let sent = outbound(sequence, lan);
            crosses(&wire.server, &wire.client, &sent, &at_client(&sent))
        };
        std::fs::write(lab.log("ikenat"), "")?;
        set_mac(lab, interface, mac)?;
        for _ in 0..PACKETS {
            sequence += 1;
            both(sequence).with_context(|| format!("packet {sequence}, {interface}"))?;
        }
        let text = mac.map(|byte| format!("{byte:02x}")).join(":");
        wait_for_log(lab, &format!("{interface}: its MAC address is {text} now"))?;
        wait_for_log(lab, "ready again")?;
        settled(lab, &wire, &mut sequence, (wan, lan))
            .with_context(|| format!("after the change of {interface}"))?;
    }
    Ok(())
}

/// XDP sends nearly all packets, and they have the MAC addresses of now.
fn settled(lab: &Lab, wire: &Wire, sequence: &mut u32, (wan, lan): (Mac, Mac)) -> Result<()> {
    const REASONS: [&str; 2] = ["esp-in-udp-in", "esp-in-udp-out"];
    let counts = || -> Result<Vec<u64>> {
        let of = |reason: &&str| count(lab, "xdp", reason);
        REASONS.iter().map(of).collect()
    };
    let before = counts()?;
    for _ in 0..PACKETS {
        *sequence += 1;
        let sent = inbound(*sequence, wan);
        let wanted = at_server(&sent).with_macs(SERVER_MAC, lan);
        wire.inbound_frames(&[sent.build()], &[wanted.build()])?;
        let sent = outbound(*sequence, lan);
        let wanted = at_client(&sent).with_macs(CLIENT_MAC, wan);
        wire.outbound_frames(&[sent.build()], &[wanted.build()])?;
    }
    for ((before, after), reason) in before.iter().zip(counts()?).zip(REASONS) {
        let sent = after - before;
        ensure!(sent >= BY_XDP, "XDP sent {sent} of {PACKETS} {reason}");
    }
    Ok(())
}

/// The programs are not exchanged: tc handles what the kernel takes for its own, and nothing else.
fn alone(lab: &Lab) -> Result<()> {
    let ikenat = Ikenat::start(lab)?;
    everything_crosses(lab)?;
    ikenat.kill()?;
    let wire = Wire::open(lab)?;
    set_mac(lab, WAN, NEW_WAN_MAC)?;
    set_mac(lab, LAN, NEW_LAN_MAC)?;
    let before = count(lab, "tc", "esp-in-udp-in")?;
    for sequence in 1..=PACKETS {
        let sent = inbound(sequence, NEW_WAN_MAC);
        crosses(&wire.client, &wire.server, &sent, &at_server(&sent))?;
        let sent = outbound(sequence, NEW_LAN_MAC);
        crosses(&wire.server, &wire.client, &sent, &at_client(&sent))?;
    }
    let by_tc = count(lab, "tc", "esp-in-udp-in")? - before;
    ensure!(by_tc == u64::from(PACKETS), "tc forwarded {by_tc}");
    // That of another host now.
    wire.punted_on_wan(&inbound(PACKETS + 1, [2, 0, 0, 0, 1, 0x78]).build())?;
    let others = count(lab, "tc", "not-our-mac")?;
    ensure!(others == 1, "{others} were counted as those of others");
    // XDP knows the old one only, which is another host's now.
    let _ikenat = Ikenat::start(lab)?;
    wire.punted_on_wan(&inbound(PACKETS + 2, WAN_MAC).build())
}

/// The source of the ICMP error about a packet of the server whose TTL ends here.
fn answered_from(wire: &Wire, sequence: u32) -> Result<Option<Ipv4Addr>> {
    let mut packet = outbound(sequence, LAN_MAC);
    packet.ttl = 1;
    wire.server.drain()?;
    wire.server.send(&packet.build())?;
    let is_answer = |frame: &[u8]| !not_ipv4(frame) && frame[23] == protocol::ICMP;
    let came = wire.server.find(Duration::from_millis(100), is_answer)?;
    Ok(came.map(|frame| Ipv4Addr::new(frame[26], frame[27], frame[28], frame[29])))
}

fn lan_address(lab: &Lab) -> Result<()> {
    const NEW: Ipv4Addr = Ipv4Addr::new(192, 168, 0, 253);
    let _ikenat = Ikenat::start(lab)?;
    everything_crosses(lab)?;
    let wire = Wire::open(lab)?;
    let first = answered_from(&wire, 1)?;
    ensure!(first == Some(GATEWAY_LAN), "{first:?}");
    lab.gateway.shell(&format!(
        "ip address del {GATEWAY_LAN}/24 dev {LAN}; ip address add {NEW}/24 dev {LAN}"
    ))?;
    wait_for_log(
        lab,
        &format!("{NEW}: the address of this host for the server {SERVER} now"),
    )?;
    wait_for_log(lab, "ready again")?;
    let then = answered_from(&wire, 2)?;
    ensure!(then == Some(NEW), "{then:?}");
    everything_crosses(lab)
}
