//! The headers of UDP and TCP: checksums that are still partial, and port 4500 of TCP, on which IKE
//! and perhaps ESP are in a stream (RFC 9329).
//!
//! A segment is forwarded by its ports alone, but for a service with several VIPs
//! (`conntrack::connection`). It creates, refreshes and ends no flow and no session: anyone can forge one,
//! and a proof is what it is without TCP.

use crate::checksum::partial;
use crate::env::{Env, Side};
use crate::frame::Frame;
use crate::packet::Packet;
use crate::wire::ipv4::{self, Protocol};
use crate::wire::{tcp, udp};
use xdp_common::limits::{IKE_PORT, NATT_PORT};
use xdp_common::{Class, Config, Direction, Hook, Reason};

/// True for a port of the service: 4500, and 500 of UDP. In one comparison.
#[inline(always)]
pub(crate) fn is_service(is_tcp: usize, port: u16) -> bool {
    u64::from(port ^ NATT_PORT) * (u64::from(port ^ IKE_PORT) | (is_tcp as u64) << 16) == 0
}

/// Offset of the checksum in a header of UDP or TCP.
#[inline(always)]
pub(crate) fn checksum_offset(is_tcp: usize) -> usize {
    udp::CHECKSUM + is_tcp * (tcp::CHECKSUM - udp::CHECKSUM)
}

/// The least length of a first fragment (RFC 1858 section 3): ports or SPI; of TCP its whole header,
/// in which the checksum is near the end.
#[inline(always)]
pub(crate) fn least_first_fragment(protocol: Protocol) -> usize {
    if protocol == Protocol::TCP {
        tcp::LENGTH
    } else {
        udp::LENGTH
    }
}

/// Reads the ports of a segment. All else is left to [`refuse_segment`]: what follows here the verifier
/// follows to the end of the classification.
#[inline(always)]
pub(crate) fn read_ports<F: Frame + ?Sized>(
    frame: &F,
    packet: &mut Packet,
    at: usize,
) -> Result<(), Reason> {
    let (source, destination) = tcp::ports(frame, at).ok_or(Reason::Malformed)?;
    let (service_port, port) = match packet.direction {
        Direction::Inbound => (destination, source),
        Direction::Outbound => (source, destination),
    };
    if service_port != NATT_PORT {
        return Err(Reason::OtherPort);
    }
    packet.class = Class::Tcp;
    packet.port = port;
    packet.transport_at = at;
    Ok(())
}

/// The reason why the packet at hand is not forwarded, if it is of TCP and damaged, or if XDP cannot
/// translate it. Adds to the stored packet what a segment shows beyond its ports.
// A step of its own: the paths of the classification have joined here.
#[inline(never)]
pub(crate) fn refuse_segment<F: Frame + ?Sized, E: Env>(
    frame: &F,
    env: &E,
    config: &Config,
    side: Side,
) -> Option<Reason> {
    let mut packet = env.load_packet().and_then(Packet::unpack)?;
    if packet.protocol != Protocol::TCP {
        return None;
    }
    if packet.class != Class::Tcp {
        // Whatever the first one says: no sender cuts through the header (RFC 3128).
        return (usize::from(packet.offset) * 8 < tcp::LENGTH).then_some(Reason::FragmentTiny);
    }
    // It is reserved (RFC 6335 section 6).
    if packet.port == 0 {
        return Some(Reason::Malformed);
    }
    let ip = ipv4::Header::read_outer(frame)?;
    let Some(header) = tcp::Header::read(frame, packet.transport_at) else {
        return Some(Reason::Malformed);
    };
    let length = usize::from(header.words()) * 4;
    let data = usize::from(packet.data);
    // The options of a first fragment may go on in the next one.
    if length < tcp::LENGTH || data < tcp::LENGTH || (length > data && !packet.first_fragment) {
        return Some(Reason::Malformed);
    }
    if E::HOOK == Hook::Xdp
        && may_be_partial::<F>(config, side)
        && header.checksum == partial(ip.source, ip.destination, TCP, packet.data)
    {
        return Some(Reason::ChecksumPartial);
    }
    packet.transport_words = header.words();
    packet.begins_stream = data >= length + tcp::STREAM_PREFIX.len()
        && frame.with_bytes(packet.transport_at + length, |start| {
            *start == tcp::STREAM_PREFIX
        }) == Some(true);
    env.store_packet(packet.pack());
    None
}

const UDP: u8 = Protocol::UDP.number();
const TCP: u8 = Protocol::TCP.number();

/// True when frames of a side may have the sender's partial checksum.
#[inline(always)]
fn may_be_partial<F: Frame + ?Sized>(config: &Config, side: Side) -> bool {
    let (lan, wan) = (
        F::opaque(config.lan_partial.into()),
        F::opaque(config.wan_partial.into()),
    );
    let possible = match side {
        Side::Lan => lan,
        Side::Wan | Side::Both | Side::Out => wan,
    };
    possible != 0
}

/// True when the UDP checksum may still be the sender's partial one. In XDP only the value shows
/// it, and no partial checksum is missed: it is exactly the sum over the pseudo-header. One full
/// checksum in 65,535 has the same value and takes the slow path needlessly. See
/// `docs/decisions/partial-checksum-in-xdp.md`.
#[inline(always)]
pub(crate) fn is_partial<F: Frame + ?Sized>(
    frame: &F,
    config: &Config,
    side: Side,
    ip: &ipv4::Header,
    at: usize,
) -> bool {
    if !may_be_partial::<F>(config, side) {
        return false;
    }
    let Some(header) = udp::Header::read(frame, at) else {
        return false;
    };
    // Never true for a checksum of zero: the sum includes the protocol number.
    header.checksum == partial(ip.source, ip.destination, UDP, header.length)
}
