//! ICMP errors that the gateway sends itself because it cannot forward: time exceeded, and
//! fragmentation needed. On every kind of host the sender gets them from an address that it
//! expects, with its packet quoted as it was sent.

use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ikenat_tests::lab::direction::Direction;
use ikenat_tests::lab::frames::icmp::kind;
use ikenat_tests::lab::frames::{Captured, Checksum, DONT_FRAGMENT, Packet, protocol};
use ikenat_tests::lab::icmp_errors::{Peers, counted, fragmentation_needed, time_exceeded};
use ikenat_tests::lab::ikenat::Ikenat;
use ikenat_tests::lab::topology::{CLIENT, LAN, WAN};
use ikenat_tests::lab::wire::{
    Wire, esp, esp_from_server, exchange, from_client, from_server, ike, raw_from_client,
    with_client,
};
use ikenat_tests::lab::{Host, Lab};
use ikenat_tests::suite::Scenario;

pub(crate) fn scenarios() -> Vec<Scenario> {
    let mut all = Scenario::on_every_host("a_ttl_that_ends_is_answered", ttl_ends);
    all.extend(Scenario::on_every_host(
        "too_big_with_df_is_answered_with_the_mtu",
        too_big,
    ));
    all.extend([
        Scenario::new("the_lab_itself_answers_with_the_kernels_nat", kernel_nat),
        Scenario::new("later_fragments_cause_no_icmp_error", later_fragments),
        Scenario::new("answers_are_limited_for_each_peer", limited),
    ]);
    all
}

const SPI: u32 = 0xC321_4567;
/// MTU of the gateway's small side. Uneven, so that no rounding gives it by chance.
const SMALL: u16 = 1398;

/// One packet of each kind, of these total lengths, between the server and a client.
fn packets(direction: Direction, client: Ipv4Addr, total: usize) -> Vec<Packet> {
    let native = esp(SPI, 1, total - 20 - 8);
    let in_udp = esp(SPI, 1, total - 28 - 8);
    let handshake = ike(1, 0, exchange::IKE_SA_INIT, false, total - 28 - 28);
    let packets = match direction {
        Direction::Inbound => vec![
            from_client(500, 500, handshake),
            from_client(40_000, 4500, in_udp),
            raw_from_client(protocol::ESP, native),
        ],
        Direction::Outbound => vec![
            from_server(500, 500, handshake),
            from_server(4500, 40_000, in_udp),
            esp_from_server(native),
        ],
    };
    packets
        .into_iter()
        .map(|packet| with_client(packet, client))
        .collect()
}

/// Without ikenat: a failure here is a failure of the lab.
fn kernel_nat(lab: &Lab) -> Result<()> {
    let mut peers = Peers::route(lab)?;
    lab.kernel_nat()?;
    let wire = Wire::open(lab)?;
    for direction in Direction::BOTH {
        for mut packet in packets(direction, peers.fresh(), 700) {
            packet.ttl = 1;
            wire.answered(direction, &packet, &time_exceeded())
                .with_context(|| format!("{direction:?}"))?;
        }
    }
    lab.gateway.run(&format!("ip link set {LAN} mtu {SMALL}"))?;
    for mut packet in packets(Direction::Inbound, peers.fresh(), 1500) {
        packet.flags = DONT_FRAGMENT;
        wire.answered(Direction::Inbound, &packet, &fragmentation_needed(SMALL))?;
    }
    Ok(())
}

fn ttl_ends(lab: &Lab) -> Result<()> {
    let mut peers = Peers::route(lab)?;
    let _ikenat = Ikenat::start(lab)?;
    let wire = Wire::open(lab)?;
    if lab.options.host == Host::NoIpForward {
        return without_forwarding(lab, &wire, peers.fresh(), |packet| packet.ttl = 1);
    }
    for direction in Direction::BOTH {
        for total in [100, 101, 548, 549, 1500] {
            for ttl in [1, 0] {
                let client = peers.fresh();
                for mut packet in packets(direction, client, total) {
                    packet.ttl = ttl;
                    wire.answered(direction, &packet, &time_exceeded())
                        .with_context(|| format!("{direction:?}, {total} bytes, TTL {ttl}"))?;
                }
            }
        }
        odd_ones(&wire, direction, peers.fresh())?;
    }
    let count = lab.status()?.count("answered", "time-exceeded");
    // Three kinds, five lengths, two TTLs, two directions, and three unusual ones in each
    // direction.
    ensure!(count == 66, "{count} were counted");
    Ok(())
}

/// The quote has the sender's bytes, whatever they are.
fn odd_ones(wire: &Wire, direction: Direction, client: Ipv4Addr) -> Result<()> {
    let plain = || {
        let mut packet = packets(direction, client, 200).remove(1);
        packet.ttl = 1;
        packet
    };
    let mut options = plain();
    options.options = vec![1; 8];
    let mut padded = plain();
    padded.padding = vec![0xEE; 30];
    padded.tos = 0xB8;
    let wrong = plain().with_checksum(Checksum::OffBy(0x1111));
    for (what, packet) in [
        ("options", options),
        ("padding", padded),
        ("a wrong checksum", wrong),
    ] {
        wire.answered(direction, &packet, &time_exceeded())
            .with_context(|| format!("{direction:?} with {what}"))?;
    }
    Ok(())
}

fn too_big(lab: &Lab) -> Result<()> {
    let mut peers = Peers::route(lab)?;
    for (direction, egress) in [(Direction::Inbound, LAN), (Direction::Outbound, WAN)] {
        lab.gateway
            .run(&format!("ip link set {egress} mtu {SMALL}"))?;
        let ikenat = Ikenat::start(lab)?;
        let wire = Wire::open(lab)?;
        if lab.options.host == Host::NoIpForward {
            without_forwarding(lab, &wire, peers.fresh(), |packet| {
                packet.flags = DONT_FRAGMENT;
            })?;
        } else {
            for total in [usize::from(SMALL) + 1, 1500] {
                for mut packet in packets(direction, peers.fresh(), total) {
                    packet.flags = DONT_FRAGMENT;
                    wire.answered(direction, &packet, &fragmentation_needed(SMALL))
                        .with_context(|| format!("{direction:?}, {total} bytes"))?;
                }
            }
            for mut packet in packets(direction, peers.fresh(), usize::from(SMALL)) {
                packet.flags = DONT_FRAGMENT;
                match direction {
                    Direction::Inbound => wire.inbound(&packet),
                    Direction::Outbound => wire.outbound(&packet),
                }
                .context("it fits")?;
            }
        }
        drop(wire);
        ikenat.kill()?;
        lab.unload()?;
        lab.gateway.run(&format!("ip link set {egress} mtu 1500"))?;
    }
    Ok(())
}

/// The kernel returns no route for the packet, so neither its egress interface nor its MTU is
/// known: it is counted as not forwardable, like every other packet, and the host sends no error.
fn without_forwarding(
    lab: &Lab,
    wire: &Wire,
    client: Ipv4Addr,
    change: impl Fn(&mut Packet),
) -> Result<()> {
    for (direction, reason) in [
        (
            Direction::Inbound,
            ("dropped", "forwarding-disabled-inbound"),
        ),
        (Direction::Outbound, ("punted", "forwarding-disabled")),
    ] {
        let frames: Vec<Vec<u8>> = packets(direction, client, 1400)
            .into_iter()
            .map(|mut packet| {
                change(&mut packet);
                packet.build()
            })
            .collect();
        let before = lab.status()?.count(reason.0, reason.1);
        wire.swallowed(direction, &frames)?;
        let status = lab.status()?;
        // Both hooks see what is punted.
        ensure!(
            status.count(reason.0, reason.1) >= before + 3,
            "{reason:?} was not counted: {}",
            status.given()
        );
    }
    Ok(())
}

/// RFC 1122 section 3.2.2: no error about a fragment that is not the first.
fn later_fragments(lab: &Lab) -> Result<()> {
    let _ikenat = Ikenat::start(lab)?;
    let wire = Wire::open(lab)?;
    // With a session a fragment without ports is handled.
    wire.outbound(&from_server(4500, 4500, esp(SPI, 1, 60)))?;
    for direction in Direction::BOTH {
        for (id, mut packet) in (1..).zip(packets(direction, CLIENT, 1400)) {
            (packet.ttl, packet.id) = (1, id);
            let frames = packet.build_fragments(&[704]);
            wire.answered_frame(direction, packet.source, &frames[0], &time_exceeded())?;
            counted(lab, ("dropped", "icmp-limited"), 1, || {
                wire.swallowed(direction, &frames[1..])
            })
            .with_context(|| format!("{direction:?}"))?;
        }
    }
    Ok(())
}

fn limited(lab: &Lab) -> Result<()> {
    const SENT: usize = 500;
    // Peers share 1,024 buckets by a keyed hash: one in so many has that of the first peer.
    const OTHERS: u64 = 8;
    let mut peers = Peers::route(lab)?;
    let _ikenat = Ikenat::start(lab)?;
    let wire = Wire::open(lab)?;
    for direction in Direction::BOTH {
        let mut expiring = || {
            let mut packet = packets(direction, peers.fresh(), 100).remove(2);
            packet.ttl = 1;
            packet.build()
        };
        let frame_of_first = expiring();
        let (from, _) = wire.ends(direction);
        from.drain()?;
        let before = lab.status()?;
        for _ in 0..SENT {
            from.send(&frame_of_first)?;
        }
        // The answers to other peers are not held back by those of the first.
        for _ in 0..OTHERS {
            from.send(&expiring())?;
        }
        let mut answers = [0_u64; 2];
        while let Some(frame) = from.receive(Duration::from_millis(50))? {
            let Ok(ip) = Captured::read(&frame) else {
                continue;
            };
            let Some(message) = ip.icmp() else { continue };
            ensure!(message.kind == kind::TIME_EXCEEDED, "{message:?}");
            let quotes_first = message.data == frame_of_first[14..];
            answers[usize::from(!quotes_first)] += 1;
        }
        let after = lab.status()?;
        let count = |outcome, reason| after.count(outcome, reason) - before.count(outcome, reason);
        // At least ten errors a second for each peer; a flood gets no flood in return.
        ensure!(
            (10..=100).contains(&answers[0]) && (OTHERS - 1..=OTHERS).contains(&answers[1]),
            "{direction:?}: {answers:?} answers"
        );
        ensure!(
            count("answered", "time-exceeded") == answers[0] + answers[1]
                && count("dropped", "icmp-limited")
                    == SENT as u64 + OTHERS - answers[0] - answers[1],
            "{direction:?}: {answers:?} answers, counted {}",
            after.given()
        );
    }
    Ok(())
}
