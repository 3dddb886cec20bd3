//! Malicious fragments: floods of first fragments, overlaps, first fragments too short to show the
//! header fields that decide about them, and ends beyond the largest packet.

use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ikenat_tests::lab::Lab;
use ikenat_tests::lab::direction::Direction;
use ikenat_tests::lab::frames::{Packet, protocol};
use ikenat_tests::lab::icmp_errors::{Peers, counted};
use ikenat_tests::lab::ikenat::Ikenat;
use ikenat_tests::lab::load::Load;
use ikenat_tests::lab::wire::{
    Wire, at_client, at_server, esp, esp_from_server, exchange, from_client, from_server, ike,
    marked, raw_from_client, responder_spi, with_client,
};
use ikenat_tests::suite::Scenario;

use crate::support::patience;

pub(crate) fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario::new(
            "a_flood_of_first_fragments_leaves_other_traffic_alone",
            flood,
        )
        .alone(),
        Scenario::new("overlapping_fragments_are_refused", overlaps),
        Scenario::new("tiny_first_fragments_are_refused", tiny),
        Scenario::new("fragments_past_the_end_are_refused", past_the_end),
    ]
}

const SPI: u32 = 0xC321_0003;
/// More fragments to come.
const MORE: u16 = 0x2000;

fn flood(lab: &Lab) -> Result<()> {
    const FLOOD: u32 = 100_000;
    /// A quarter of what the ring of a veth holds.
    const BURST: u32 = 64;
    let mut peers = Peers::route(lab)?;
    let _ikenat = Ikenat::start(lab)?;
    let wire = Wire::open(lab)?;
    let client = peers.fresh();
    half_open(&wire, client)?;
    let load = Load::start(lab, 1000, 1000)?;
    let mut first = from_client(500, 500, ike(9, 0, exchange::IKE_SA_INIT, false, 100));
    first.flags = MORE;
    for number in 0..FLOOD {
        // Sources and IDs that no real peer uses.
        let [_, a, b, c] = number.to_be_bytes();
        first.source = Ipv4Addr::new(100, 64 | a, b, c);
        first.id = u16::try_from(number % 65_521).context("below 65,521")?;
        wire.client.send(&first.build())?;
        if number % BURST == 0 {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    // A peer in the middle of a handshake completes it, with a message in fragments.
    let auth = marked(&ike(
        1,
        responder_spi(client),
        exchange::IKE_AUTH,
        false,
        5000,
    ));
    let message = with_client(from_client(4500, 4500, auth), client);
    let cuts = [1480, 2960, 4440];
    let (sent, wanted) = (
        message.build_fragments(&cuts),
        at_server(&message).build_fragments(&cuts),
    );
    // What the flood left in the socket takes an emulated machine longer to read than it waits.
    wire.server.drain()?;
    for frame in &sent {
        wire.client.send(frame)?;
    }
    for frame in &wanted {
        let came = wire
            .server
            .find(patience(Duration::from_secs(3)), |came| came == frame)?;
        came.context("a fragment of the legitimate handshake is missing")?;
    }
    load.finish().context("who is established")?;
    let stats = lab.stats()?;
    ensure!(
        stats.sessions.len() <= 2,
        "the flood has made sessions: {}",
        stats.sessions.len()
    );
    Ok(())
}

fn half_open(wire: &Wire, client: Ipv4Addr) -> Result<()> {
    let (request, answer) = (
        ike(1, 0, exchange::IKE_SA_INIT, false, 200),
        ike(1, responder_spi(client), exchange::IKE_SA_INIT, true, 200),
    );
    wire.inbound(&with_client(from_client(500, 500, request), client))?;
    wire.outbound(&with_client(from_server(500, 500, answer), client))
}

/// A packet of each kind, large enough to be cut.
fn packets(direction: Direction, client: Ipv4Addr) -> [Packet; 3] {
    let handshake = marked(&ike(
        1,
        responder_spi(client),
        exchange::IKE_AUTH,
        false,
        1300,
    ));
    match direction {
        Direction::Inbound => [
            from_client(4500, 4500, handshake),
            from_client(4500, 4500, esp(SPI, 1, 1300)),
            raw_from_client(protocol::ESP, esp(SPI, 1, 1300)),
        ],
        Direction::Outbound => [
            from_server(4500, 4500, handshake),
            from_server(4500, 4500, esp(SPI, 1, 1300)),
            esp_from_server(esp(SPI, 1, 1300)),
        ],
    }
    .map(|packet| with_client(packet, client))
}

fn translated(direction: Direction, packet: &Packet) -> Packet {
    match direction {
        Direction::Inbound => at_server(packet),
        Direction::Outbound => at_client(packet),
    }
}

/// The first fragment is 800 bytes long; another begins before that.
fn overlaps(lab: &Lab) -> Result<()> {
    let mut peers = Peers::route(lab)?;
    let _ikenat = Ikenat::start(lab)?;
    let wire = Wire::open(lab)?;
    for direction in Direction::BOTH {
        for packet in packets(direction, peers.fresh()) {
            let (from, to) = wire.ends(direction);
            for (id, start) in [(1, 8), (2, 400), (3, 792)] {
                let mut packet = packet.clone();
                packet.id = id;
                let first = packet.build_fragments(&[800]).remove(0);
                let overlap = packet.build_fragments(&[start]).remove(1);
                to.drain()?;
                from.send(&first)?;
                let wanted = translated(direction, &packet)
                    .build_fragments(&[800])
                    .remove(0);
                to.expect(&wanted, Duration::from_secs(3), |frame| {
                    frame[12..14] != [8, 0]
                })?;
                counted(lab, ("dropped", "fragment-overlap"), 1, || {
                    wire.swallowed(direction, &[overlap])
                })
                .with_context(|| {
                    format!("{direction:?}, from byte {start}, protocol {}", first[23])
                })?;
            }
        }
    }
    Ok(())
}

/// RFC 1858 section 3: a first fragment too short for the header fields that decide about it.
fn tiny(lab: &Lab) -> Result<()> {
    let mut peers = Peers::route(lab)?;
    let _ikenat = Ikenat::start(lab)?;
    let wire = Wire::open(lab)?;
    for direction in Direction::BOTH {
        let [_, in_udp, native] = packets(direction, peers.fresh());
        for (packet, lengths) in [(in_udp, [0, 4, 7]), (native, [0, 4, 7])] {
            for length in lengths {
                let mut frame = packet.build();
                frame.truncate(34 + length);
                let total = u16::try_from(20 + length).context("tiny")?;
                set_header(&mut frame, total, MORE);
                counted(lab, ("dropped", "fragment-tiny"), 1, || {
                    wire.swallowed(direction, &[frame.clone()])
                })
                .with_context(|| {
                    format!("{direction:?}, {length} bytes of protocol {}", frame[23])
                })?;
            }
        }
    }
    Ok(())
}

/// The end of these would be beyond byte 65,535 of the packet (the "ping of death").
fn past_the_end(lab: &Lab) -> Result<()> {
    let mut peers = Peers::route(lab)?;
    let _ikenat = Ikenat::start(lab)?;
    let wire = Wire::open(lab)?;
    for direction in Direction::BOTH {
        let client = peers.fresh();
        // With a session, so that UDP fragments without ports are handled.
        wire.outbound(&with_client(
            from_server(4500, 4500, esp(SPI, 1, 60)),
            client,
        ))?;
        for packet in packets(direction, client) {
            let whole = packet.build();
            // Offsets are in units of eight. The last byte of the second fragment would be number
            // 65,516, plus 20 bytes of header: one too many.
            for (offset, length) in [(8191, 24), (8100, 720), (8189, 16)] {
                let mut frame = whole[..34 + length].to_vec();
                let total = u16::try_from(20 + length).context("small")?;
                set_header(&mut frame, total, offset);
                counted(lab, ("dropped", "fragment-past-end"), 1, || {
                    wire.swallowed(direction, &[frame.clone()])
                })
                .with_context(|| format!("{direction:?}, offset {offset}, {length} bytes"))?;
            }
        }
    }
    Ok(())
}

/// Another total length and another word of flags and offset, with a right header checksum.
fn set_header(frame: &mut [u8], total: u16, flags: u16) {
    frame[16..18].copy_from_slice(&total.to_be_bytes());
    frame[20..22].copy_from_slice(&flags.to_be_bytes());
    frame[24..26].fill(0);
    let sum: u32 = frame[14..34]
        .chunks(2)
        .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])))
        .sum();
    let folded = (sum & 0xFFFF) + (sum >> 16);
    let folded = (folded & 0xFFFF) + (folded >> 16);
    let field = !u16::try_from(folded).expect("folded twice");
    frame[24..26].copy_from_slice(&field.to_be_bytes());
}
