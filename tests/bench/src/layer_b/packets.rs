//! The packets of layer B: the bytes of each kind of traffic before and after the gateway, and the
//! counter that records it.

use super::gateway::{PEER, SPI, UNKNOWN_PEER};
use super::wrapper::plan;
use crate::results::{Direction, Traffic};
use anyhow::{Context, Result, bail, ensure};
use ikenat_bench_abi::measure::Plan;
use ikenat_tests::lab::frames::{self, Captured, Checksum, Packet, Verdict, protocol};
use ikenat_tests::lab::topology::{CLIENT_MAC, LAN_MAC, SERVER, SERVER_MAC, VIP, WAN_MAC};
use std::net::Ipv4Addr;
use xdp_common::Class;
use xdp_common::limits::{IKE_PORT, NATT_PORT};

/// A port that ikenat does not handle.
const OTHER_PORT: u16 = 53;
/// The length of the shortest Ethernet frame.
const SHORTEST: usize = 60;
/// The byte that fills the payload.
const FILL: [u8; 60] = [7; 60];

/// The properties of a kind of traffic.
#[derive(Clone, Copy, Debug)]
struct Kind {
    /// The class that the dataplane counts; `None`: ikenat does not handle it.
    class: Option<Class>,
    /// The port on ikenat's side; `None`: there is no UDP.
    port: Option<u16>,
    checksum: Checksum,
    /// Bytes before the fill bytes: SPI and sequence number, or both SPIs of IKE. `None`: a
    /// keepalive.
    start: Option<&'static [u8]>,
}

const fn kind(traffic: Traffic) -> Kind {
    let esp_in_udp = Kind {
        class: Some(Class::EspInUdp),
        port: Some(NATT_PORT),
        checksum: Checksum::Zero,
        start: Some(&[0; 8]),
    };
    match traffic {
        Traffic::EspInUdp | Traffic::Mix => esp_in_udp,
        Traffic::EspInUdpChecksum => Kind {
            checksum: Checksum::Right,
            ..esp_in_udp
        },
        Traffic::Esp => Kind {
            class: Some(Class::Esp),
            port: None,
            ..esp_in_udp
        },
        Traffic::Ike => Kind {
            class: Some(Class::Ike),
            port: Some(IKE_PORT),
            start: Some(&[0x11; 16]),
            ..esp_in_udp
        },
        Traffic::Keepalive => Kind {
            class: Some(Class::Keepalive),
            start: None,
            ..esp_in_udp
        },
        Traffic::OtherPort | Traffic::NotIpv4 => Kind {
            class: None,
            port: Some(OTHER_PORT),
            ..esp_in_udp
        },
    }
}

/// The class that the dataplane counts; `None`: ikenat does not handle it.
pub(super) const fn class(traffic: Traffic) -> Option<Class> {
    kind(traffic).class
}

/// True if FLOW holds its flows.
pub(super) fn is_esp(traffic: Traffic) -> bool {
    class(traffic).is_some_and(Class::is_esp)
}

/// The direction as the dataplane's type.
pub(super) const fn direction(way: Direction) -> xdp_common::Direction {
    match way {
        Direction::Inbound => xdp_common::Direction::Inbound,
        Direction::Outbound => xdp_common::Direction::Outbound,
    }
}

/// A frame whose peer address, SPI and sequence number are zero, with correct checksums.
pub(super) fn frame(traffic: Traffic, way: Direction) -> Vec<u8> {
    let kind = kind(traffic);
    let peer = Ipv4Addr::UNSPECIFIED;
    let payload = match kind.start {
        None => vec![0xff],
        Some(start) => [start, &FILL].concat(),
    };
    let packet = match (kind.port, way) {
        (None, Direction::Inbound) => Packet::raw(peer, VIP, protocol::ESP, payload),
        (None, Direction::Outbound) => Packet::raw(SERVER, peer, protocol::ESP, payload),
        (Some(port), Direction::Inbound) => Packet::udp((peer, NATT_PORT), (VIP, port), payload),
        (Some(port), Direction::Outbound) => {
            Packet::udp((SERVER, port), (peer, NATT_PORT), payload)
        }
    };
    let (to, from) = match way {
        Direction::Inbound => (WAN_MAC, CLIENT_MAC),
        Direction::Outbound => (LAN_MAC, SERVER_MAC),
    };
    let mut packet = packet.with_macs(to, from).with_checksum(kind.checksum);
    packet.padding = vec![0; SHORTEST.saturating_sub(packet.build().len())];
    let mut frame = packet.build();
    if traffic == Traffic::NotIpv4 {
        frame[12..14].copy_from_slice(&[0x86, 0xdd]);
    }
    frame
}

/// The plan from which the wrapper writes the packets of a kind.
///
/// # Errors
/// The number of flows is not a power of two that fits.
pub(super) fn plan_of(traffic: Traffic, way: Direction, flows: u64, known: bool) -> Result<Plan> {
    ensure!(flows.is_power_of_two(), "{flows} is not a power of two");
    let kind = kind(traffic);
    Ok(Plan {
        flow_mask: u32::try_from(flows - 1)?,
        flow_bits: flows.trailing_zeros(),
        peer: if known { PEER } else { UNKNOWN_PEER },
        spi: SPI,
        outbound: u8::from(way == Direction::Outbound),
        esp: u8::from(is_esp(traffic)),
        udp: u8::from(kind.port.is_some()),
        checksum: u8::from(kind.port.is_some() && kind.checksum == Checksum::Right),
        ..plan(&frame(traffic, way))?
    })
}

/// Checks a packet byte by byte where a gateway may be wrong.
///
/// # Errors
/// A byte is wrong.
pub(super) fn check(
    traffic: Traffic,
    way: Direction,
    translated: bool,
    frame: &[u8],
) -> Result<()> {
    if traffic == Traffic::NotIpv4 {
        ensure!(frames::not_ipv4(frame), "a frame has become IPv4");
        return Ok(());
    }
    let kind = kind(traffic);
    let seen = Captured::read(frame)?;
    let (peer, source, destination) = match (way, translated) {
        (Direction::Inbound, false) => (seen.source, seen.source, VIP),
        (Direction::Inbound, true) => (seen.source, seen.source, SERVER),
        (Direction::Outbound, false) => (seen.destination, SERVER, seen.destination),
        (Direction::Outbound, true) => (seen.destination, VIP, seen.destination),
    };
    let udp = match (kind.port, kind.checksum) {
        (None, _) => None,
        (Some(_), Checksum::Right) => Some(Verdict::Right),
        (Some(_), Checksum::Zero) => Some(Verdict::Zero),
        (Some(_), Checksum::OffBy(_)) => bail!("a wrong checksum was sent"),
    };
    let right = seen.header_checksum
        && seen.ttl == 64 - u8::from(translated)
        && (seen.source, seen.destination) == (source, destination)
        && peer.octets()[0] == 10
        && seen.udp_checksum() == udp;
    ensure!(right, "a wrong packet: {}", frames::describe(frame));
    let at = if kind.port.is_some() { 8 } else { 0 };
    if is_esp(traffic) {
        let spi = seen.body.get(at..at + 4).context("a packet without SPI")?;
        let number = u32::from(peer) & 0xf_ffff;
        ensure!(
            spi == (SPI + number).to_be_bytes(),
            "another flow's SPI: {}",
            frames::describe(frame)
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_fill_the_wire_and_the_plan_fits_them() {
        for way in [Direction::Inbound, Direction::Outbound] {
            for traffic in [Traffic::Esp, Traffic::Keepalive, Traffic::EspInUdpChecksum] {
                assert!(frame(traffic, way).len() >= SHORTEST);
                let plan = plan_of(traffic, way, 1024, true).expect("a power of two");
                assert_eq!(plan.flow_mask, 1023);
                assert_eq!(plan.checksum == 1, traffic == Traffic::EspInUdpChecksum);
            }
        }
        assert!(plan_of(Traffic::Esp, Direction::Inbound, 1000, true).is_err());
    }

    #[test]
    fn a_packet_with_a_wrong_checksum_is_refused() {
        let mut frame = frame(Traffic::EspInUdp, Direction::Inbound);
        // Peer 10.0.0.0 and its SPI, with the IPv4 checksum left as it was for 0.0.0.0.
        frame[26] = 10;
        frame[42..46].copy_from_slice(&SPI.to_be_bytes());
        assert!(check(Traffic::EspInUdp, Direction::Inbound, false, &frame).is_err());
        let field = u16::from_be_bytes([frame[24], frame[25]]) - 0x0a00;
        frame[24..26].copy_from_slice(&field.to_be_bytes());
        check(Traffic::EspInUdp, Direction::Inbound, false, &frame).expect("a right packet");
        assert!(check(Traffic::EspInUdp, Direction::Inbound, true, &frame).is_err());
    }
}
