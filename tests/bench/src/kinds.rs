//! The packets of the benchmark: what the generator sends, and what must arrive at the sink.
//!
//! Of a contestant only two properties matter here: whether it translates addresses, and whether it
//! routes.

use anyhow::{Context, Result, ensure};
use bytemuck::Zeroable;
use ikenat_bench_abi::traffic::{HEADER, KINDS, NONE, PEER_AS_DESTINATION, PEER_AS_SOURCE, Spec};
use ikenat_tests::lab::frames::{Checksum, Mac, Packet, protocol};
use ikenat_tests::lab::topology::{CLIENT_MAC, LAN_MAC, SERVER, SERVER_MAC, VIP, WAN_MAC};
use std::net::Ipv4Addr;

use crate::results::{Direction, Traffic};

/// The peer of the first flow. The others follow it, all in 10.0.0.0/8.
pub const PEERS: Ipv4Addr = Ipv4Addr::new(10, 64, 0, 0);
/// SPI of the first flow, inbound.
const SPI_IN: u32 = 0x1000_0000;
/// SPI of the first flow, outbound.
const SPI_OUT: u32 = 0x2000_0000;
/// An EtherType for local experiments (IEEE 802 section 9.2.3), which no program handles.
const EXPERIMENT: [u8; 2] = [0x88, 0xb5];
const NATT: u16 = 4500;
const IKE: u16 = 500;
const OTHER: u16 = 53;

/// One case: what is sent, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Case {
    /// The kind of packet.
    pub traffic: Traffic,
    /// The direction.
    pub way: Direction,
    /// Length of a frame.
    pub frame: usize,
    /// Flows, a power of two.
    pub flows: u32,
    /// CPUs that send: 1 or 2.
    pub cores: u32,
    /// Packets carry a time stamp, and the sink keeps a histogram of their ages.
    pub stamped: bool,
}

/// The base case.
pub const BASE: Case = Case {
    traffic: Traffic::EspInUdp,
    way: Direction::Inbound,
    frame: 110,
    flows: 1,
    cores: 1,
    stamped: false,
};

/// How the gateway changes a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gateway {
    /// Addresses are translated. Otherwise the client sends to the server itself.
    pub translates: bool,
    /// The TTL is decremented.
    pub routes: bool,
    /// One interface has the clients and the server behind it.
    pub one_armed: bool,
}

/// The configuration of generator and sink for a case.
pub struct Load {
    /// The frame from which every generated one starts.
    pub frame: Vec<u8>,
    /// What is sent.
    pub send: [Spec; KINDS],
    /// What must arrive.
    pub expect: [Spec; KINDS],
}

/// Makes the load of a case for a gateway.
///
/// # Errors
/// The frame is too short for its headers.
pub fn load(case: &Case, gateway: Gateway) -> Result<Load> {
    let sent = match case.way {
        Direction::Inbound if gateway.translates => VIP,
        Direction::Inbound | Direction::Outbound => SERVER,
    };
    let seen = match case.way {
        Direction::Outbound if gateway.translates => VIP,
        Direction::Inbound | Direction::Outbound => SERVER,
    };
    let kinds = if case.traffic == Traffic::Mix {
        [
            Traffic::EspInUdp,
            Traffic::Ike,
            Traffic::Keepalive,
            Traffic::Esp,
        ]
    } else {
        [case.traffic; KINDS]
    };
    let mut send = [Spec::zeroed(); KINDS];
    let mut expect = [Spec::zeroed(); KINDS];
    for (i, traffic) in kinds.into_iter().enumerate() {
        send[i] = spec(case, traffic, sent, false)?;
        expect[i] = spec(case, traffic, seen, gateway.routes)?;
        if gateway.one_armed {
            send[i].header[..6].copy_from_slice(&WAN_MAC);
        }
    }
    let mut frame = vec![0; case.frame];
    fill(&mut frame);
    frame[..HEADER].copy_from_slice(&send[0].header);
    Ok(Load {
        frame,
        send,
        expect,
    })
}

/// Every byte after the header is its offset in the frame.
#[expect(clippy::cast_possible_truncation, reason = "the low byte is meant")]
fn fill(frame: &mut [u8]) {
    for (place, byte) in frame.iter_mut().enumerate() {
        *byte = place as u8;
    }
}

/// The packet with its varying fields zero. `other` is the address that is not the peer's.
fn packet(case: &Case, traffic: Traffic, other: Ipv4Addr) -> Result<Vec<u8>> {
    let varying = Ipv4Addr::UNSPECIFIED;
    let (to, from): (Mac, Mac) = match case.way {
        Direction::Inbound => (WAN_MAC, CLIENT_MAC),
        Direction::Outbound => (LAN_MAC, SERVER_MAC),
    };
    let mut pattern = vec![0; case.frame];
    fill(&mut pattern);
    let udp = |port: u16, mut payload: Vec<u8>, esp: bool| {
        if esp {
            payload[..8].fill(0);
            if case.stamped {
                payload[8..16].fill(0);
            }
        }
        // A client behind a NAT keeps port 4500 only by chance; here it is the same for all
        // contestants.
        let packet = match case.way {
            Direction::Inbound => Packet::udp((varying, NATT), (other, port), payload),
            Direction::Outbound => Packet::udp((other, port), (varying, NATT), payload),
        };
        packet.with_checksum(Checksum::Zero)
    };
    let room = case
        .frame
        .checked_sub(42)
        .context("failed to make a frame: too short")?;
    let rest = pattern[42..].to_vec();
    let mut packet = match traffic {
        Traffic::Mix | Traffic::EspInUdp | Traffic::EspInUdpChecksum => udp(NATT, rest, true),
        Traffic::Ike => udp(IKE, rest, false),
        Traffic::Keepalive => udp(NATT, vec![0xff], false),
        Traffic::OtherPort | Traffic::NotIpv4 => udp(OTHER, rest, false),
        Traffic::Esp => {
            let mut payload = pattern[34..].to_vec();
            payload[..8].fill(0);
            if case.stamped {
                payload[8..16].fill(0);
            }
            let (source, destination) = match case.way {
                Direction::Inbound => (varying, other),
                Direction::Outbound => (other, varying),
            };
            Packet::raw(source, destination, protocol::ESP, payload)
        }
    }
    .with_macs(to, from);
    packet.id = 0;
    if traffic == Traffic::Keepalive {
        packet.padding = pattern[pattern.len() - (room - 1)..].to_vec();
    }
    let mut frame = packet.build();
    ensure!(
        frame.len() == case.frame && frame.len() >= HEADER,
        "failed to make a frame of {} bytes: its headers make it {}",
        case.frame,
        frame.len()
    );
    // The generator writes the checksum.
    frame[24..26].fill(0);
    if traffic == Traffic::NotIpv4 {
        frame[12..14].copy_from_slice(&EXPERIMENT);
    }
    Ok(frame)
}

fn sum(bytes: &[u8]) -> u32 {
    bytes
        .chunks(2)
        .map(|word| u32::from(word[0]) << 8 | word.get(1).map_or(0, |&low| u32::from(low)))
        .sum()
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "a frame has 1518 bytes at most"
)]
fn spec(case: &Case, traffic: Traffic, other: Ipv4Addr, routed: bool) -> Result<Spec> {
    let frame = packet(case, traffic, other)?;
    let esp_at = match traffic {
        Traffic::Mix | Traffic::EspInUdp | Traffic::EspInUdpChecksum => 42,
        Traffic::Esp => 34,
        Traffic::Ike | Traffic::Keepalive | Traffic::OtherPort | Traffic::NotIpv4 => NONE,
    };
    // Pseudo-header: addresses, protocol, length (RFC 768). The generator adds the peer's address,
    // which varies.
    let length = u32::from(u16::from_be_bytes([frame[38], frame[39]]));
    let end = 34 + length as usize;
    let udp_sum = if traffic == Traffic::EspInUdpChecksum {
        sum(&other.octets()) + 17 + length + sum(&frame[34..end])
    } else {
        0
    };
    Ok(Spec {
        header: frame[..HEADER].try_into()?,
        ip_sum: sum(&frame[14..34]),
        udp_sum,
        peer: PEERS.into(),
        flow_mask: case.flows - 1,
        spi: match case.way {
            Direction::Inbound => SPI_IN,
            Direction::Outbound => SPI_OUT,
        },
        peer_at: match case.way {
            Direction::Inbound => PEER_AS_SOURCE,
            Direction::Outbound => PEER_AS_DESTINATION,
        },
        checksum_at: if traffic == Traffic::EspInUdpChecksum {
            40
        } else {
            NONE
        },
        esp_at,
        stamp_at: if case.stamped && esp_at != NONE {
            esp_at + 8
        } else {
            NONE
        },
        cpu_shift: case.cores - 1,
        flow_bits: (case.flows / case.cores).max(1).ilog2(),
        others: u32::from(case.traffic == Traffic::Mix),
        hops: u32::from(routed),
        length: frame.len() as u32,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sink_expects_what_the_gateway_makes() -> Result<()> {
        let nat = Gateway {
            translates: true,
            routes: true,
            one_armed: false,
        };
        let inbound = load(&BASE, nat)?;
        assert_eq!(inbound.send[0].header[30..34], VIP.octets());
        assert_eq!(inbound.expect[0].header[30..34], SERVER.octets());
        let way = Direction::Outbound;
        let outbound = load(&Case { way, ..BASE }, nat)?;
        assert_eq!(outbound.send[0].header[26..30], SERVER.octets());
        assert_eq!(outbound.expect[0].header[26..30], VIP.octets());
        Ok(())
    }

    #[test]
    fn the_mix_has_three_other_kinds_of_one_length() -> Result<()> {
        let traffic = Traffic::Mix;
        let gateway = Gateway {
            translates: false,
            routes: false,
            one_armed: false,
        };
        let mix = load(&Case { traffic, ..BASE }, gateway)?;
        assert_eq!(mix.send[0].others, 1);
        let ports = mix
            .send
            .map(|spec| (spec.header[23], spec.header[37], spec.length));
        assert_eq!(
            ports,
            [
                (17, 0x94, 110),
                (17, 0xf4, 110),
                (17, 0x94, 110),
                (50, mix.send[3].header[37], 110)
            ]
        );
        // The length of a keepalive is 29, whatever the length of the frame.
        assert_eq!(mix.send[2].header[16..18], [0, 29]);
        Ok(())
    }

    #[test]
    fn a_frame_that_holds_no_headers_is_refused() {
        let frame = 50;
        let gateway = Gateway {
            translates: true,
            routes: true,
            one_armed: false,
        };
        assert!(load(&Case { frame, ..BASE }, gateway).is_err());
    }
}
