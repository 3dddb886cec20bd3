//! Malicious or meaningless ICMP errors: each is dropped and counted under its reason.

use std::ops::Range;

use anyhow::{Context, Result};
use ikenat_tests::lab::Lab;
use ikenat_tests::lab::direction::Direction;
use ikenat_tests::lab::frames::icmp::{code, kind};
use ikenat_tests::lab::frames::{Captured, Checksum, Icmp, Packet};
use ikenat_tests::lab::icmp_errors::{
    Peers, about, counted, error_from_inside, error_from_outside,
};
use ikenat_tests::lab::ikenat::Ikenat;
use ikenat_tests::lab::topology::{CLIENT_MAC, SERVER, VIP, WAN_MAC};
use ikenat_tests::lab::wire::Wire;
use ikenat_tests::suite::Scenario;

use crate::datapath::icmp_translated::{ROUTER, ROUTER_INSIDE, good, packets};

pub(crate) fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario::new("icmp_errors_about_errors_are_refused", nested),
        Scenario::new("malformed_icmp_errors_are_refused", malformed),
        Scenario::new("icmp_errors_cut_anywhere_are_refused", cut_short),
        Scenario::new("spoofed_icmp_errors_are_refused", spoofed),
    ]
}

/// Fails unless each of these errors is swallowed and counted under this reason.
fn refused(
    lab: &Lab,
    wire: &Wire,
    direction: Direction,
    reason: &str,
    errors: &[Packet],
) -> Result<()> {
    let frames: Vec<Vec<u8>> = errors.iter().map(Packet::build).collect();
    counted(lab, ("dropped", reason), frames.len() as u64, || {
        wire.swallowed(direction, &frames)
    })
    .with_context(|| format!("{direction:?}"))
}

fn nested(lab: &Lab) -> Result<()> {
    let mut peers = Peers::route(lab)?;
    let _ikenat = Ikenat::start(lab)?;
    let wire = Wire::open(lab)?;
    for direction in Direction::BOTH {
        let client = peers.fresh();
        let (outside, inside) = match direction {
            Direction::Inbound => (VIP, client),
            Direction::Outbound => (client, SERVER),
        };
        let sent = packets(direction, client);
        let mut errors = Vec::new();
        for number in [kind::UNREACHABLE, kind::TIME_EXCEEDED, kind::PARAMETER] {
            let inner = about(&sent[0], &Icmp::new(number, 1, []), 28);
            let inner = Packet::icmp(outside, inside, &inner);
            for length in [8, 1000] {
                let error = about(
                    &inner,
                    &Icmp::new(kind::UNREACHABLE, code::HOST, []),
                    length,
                );
                errors.push(match direction {
                    Direction::Inbound => error_from_outside(ROUTER, &error),
                    Direction::Outbound => error_from_inside(ROUTER_INSIDE, client, &error),
                });
            }
        }
        refused(lab, &wire, direction, "icmp-nested", &errors)?;
    }
    Ok(())
}

fn spoil(packet: &Packet, change: impl FnOnce(&mut Icmp)) -> Result<Packet> {
    let frame = packet.build();
    let mut message = Captured::read(&frame)?.icmp().context("no ICMP message")?;
    change(&mut message);
    Ok(packet.clone().with_icmp(&message))
}

fn malformed(lab: &Lab) -> Result<()> {
    let mut peers = Peers::route(lab)?;
    let _ikenat = Ikenat::start(lab)?;
    let wire = Wire::open(lab)?;
    for direction in Direction::BOTH {
        let good = good(direction, peers.fresh());
        let errors = [
            spoil(&good, |message| message.checksum = Checksum::OffBy(1))?,
            spoil(&good, |message| message.checksum = Checksum::OffBy(0x8000))?,
            // The quoted header: its checksum, its length, its version.
            spoil(&good, |message| message.data[10] ^= 1)?,
            spoil(&good, |message| message.data[8] ^= 1)?,
            spoil(&good, |message| message.data[0] = 0x44)?,
            spoil(&good, |message| message.data[0] = 0x4F)?,
            spoil(&good, |message| message.data[0] = 0x65)?,
        ];
        refused(lab, &wire, direction, "icmp-malformed", &errors)?;
    }
    Ok(())
}

fn cut_short(lab: &Lab) -> Result<()> {
    let mut peers = Peers::route(lab)?;
    let _ikenat = Ikenat::start(lab)?;
    let wire = Wire::open(lab)?;
    let cut = |good: &Packet, lengths: Range<usize>| -> Result<Vec<Packet>> {
        lengths
            .map(|length| spoil(good, |message| message.data.truncate(length)))
            .collect()
    };
    for lengths in [0..14, 14..28] {
        let good = good(Direction::Inbound, peers.fresh());
        let cut = cut(&good, lengths)?;
        refused(lab, &wire, Direction::Inbound, "icmp-malformed", &cut)?;
    }
    let from_router = good(Direction::Outbound, peers.fresh());
    let from_server = Packet {
        source: SERVER,
        ..from_router.clone()
    };
    for good in [&from_router, &from_server] {
        let cut = cut(good, 20..28)?;
        refused(lab, &wire, Direction::Outbound, "icmp-malformed", &cut)?;
    }
    let less = cut(&from_server, 0..20)?;
    refused(lab, &wire, Direction::Outbound, "icmp-malformed", &less)?;
    // Without the quoted addresses nothing shows that a router's error is about the server's peers:
    // it is left to the host, which routes it.
    for packet in cut(&from_router, 0..20)? {
        let mut routed = packet.clone().with_macs(CLIENT_MAC, WAN_MAC);
        routed.ttl -= 1;
        wire.outbound_frames(&[packet.build()], &[routed.build()])?;
    }
    Ok(())
}

/// No host outside sees the server's address, or a packet from a client to it.
fn spoofed(lab: &Lab) -> Result<()> {
    let mut peers = Peers::route(lab)?;
    let _ikenat = Ikenat::start(lab)?;
    let wire = Wire::open(lab)?;
    let client = peers.fresh();
    let error = Icmp::fragmentation_needed(68, []);
    let errors: Vec<Packet> = packets(Direction::Outbound, client)
        .iter()
        .flat_map(|sent| [8, 28].map(|length| about(sent, &error, length)))
        .map(|error| error_from_outside(ROUTER, &error))
        .collect();
    refused(lab, &wire, Direction::Inbound, "icmp-spoofed", &errors)
}
