//! The ICMP errors that ikenat sends: time exceeded, and fragmentation needed.
//!
//! They come from an address that the sender can expect (the VIP, or the gateway's own on the
//! server's side), and quote the packet as it was sent: nothing of it has been translated. The
//! caller decides that an error is due, and makes the frame longer. See
//! `docs/decisions/answers-from-tc.md`.

use crate::checksum::{fold, partial};
use crate::env::Side;
use crate::frame::Frame;
use crate::vip;
use crate::wire::ethernet::{self, EtherType};
use crate::wire::icmp::{self, Kind};
use crate::wire::ipv4::{self, Protocol};
use crate::wire::{tcp, udp};
use xdp_common::limits::ICMP_LENGTH;
use xdp_common::{Config, Reason};

/// Offset of the IPv4 header ...
const IP: usize = ethernet::LENGTH;
/// ... and of the ICMP header.
const ICMP: usize = IP + ipv4::LENGTH;
/// Length of the Ethernet, IPv4 and ICMP headers before the quote.
pub const LENGTH: usize = ICMP + icmp::LENGTH;
/// Bytes that are inserted before the quoted packet; its Ethernet header is overwritten.
pub const ADDED_LENGTH: usize = ipv4::LENGTH + icmp::LENGTH;
/// The same, in the type of a packet's length fields.
#[expect(clippy::cast_possible_truncation, reason = "28")]
const HEADERS: u16 = ADDED_LENGTH as u16;
/// Maximum number of bytes of a packet that are quoted.
pub const QUOTE: u16 = ICMP_LENGTH - HEADERS;

/// An ICMP error: its headers, and how much of the packet is quoted after them.
#[derive(Clone, Copy, Debug)]
pub struct IcmpError {
    /// The frame up to the quote.
    pub head: [u8; LENGTH],
    /// Bytes of the packet, from its IPv4 header on.
    pub quote: u16,
}

/// The cause of an ICMP error.
#[derive(Clone, Copy, Debug)]
pub struct ErrorCause {
    /// The side that the packet came in on.
    pub side: Side,
    /// [`Reason::TimeExceeded`] or [`Reason::FragmentationNeeded`].
    pub reason: Reason,
    /// MTU of the route, for the latter.
    pub mtu: u16,
}

/// RFC 1812 section 4.3.2.5: precedence "internetwork control".
const TOS: u8 = 0xc0;
const TTL: u8 = 64;

/// The error for a frame, which leaves by the interface that received the frame. `None`: the frame
/// cannot be answered.
// Out of line, because it is rare and uses much of the stack.
#[inline(never)]
pub fn build<F: Frame + ?Sized>(
    frame: &F,
    config: &Config,
    cause: &ErrorCause,
) -> Option<IcmpError> {
    let ethernet = ethernet::Header::read(frame)?;
    if ethernet.has_group_source() {
        // There is no sender to answer.
        return None;
    }
    let ip = ipv4::Header::read_outer(frame)?;
    let to_vip = match cause.side {
        Side::Wan | Side::Both => vip::by_address::<F>(config, ip.destination),
        Side::Lan => None,
        Side::Out => return None,
    };
    let source = match to_vip {
        Some(vip) => F::opaque_address(vip.address),
        None => F::opaque_address(vip::by_server::<F>(config, ip.source)?.lan_address),
    };
    let quote = if ip.total_length < QUOTE {
        ip.total_length
    } else {
        QUOTE
    };
    let [mtu_high, mtu_low] = cause.mtu.to_be_bytes();
    let (kind, code) = type_and_code(cause.reason);
    let quoted = quoted_sum(frame, &ip, quote)?;
    let first_word = u16::from_be_bytes([kind.number(), code]);
    let checksum = !fold(u64::from(first_word) + u64::from(cause.mtu) + u64::from(quoted));
    let message = icmp::Header {
        kind,
        code,
        checksum,
        rest: [0, 0, mtu_high, mtu_low],
    };
    let header = ipv4::Header {
        version_length: ipv4::WITHOUT_OPTIONS,
        tos: TOS,
        total_length: quote + HEADERS,
        // With "don't fragment" it has no meaning (RFC 6864 section 4.1).
        id: [0; 2],
        flags_offset: ipv4::DONT_FRAGMENT,
        ttl: TTL,
        protocol: Protocol::ICMP,
        checksum: 0,
        source,
        destination: ip.source,
    };
    let header = ipv4::Header {
        checksum: !fold(header.sum()),
        ..header
    };
    let reply = ethernet::Header {
        destination: ethernet.source,
        source: ethernet.destination,
        ether_type: EtherType::IPV4,
    };
    let mut head = [0; LENGTH];
    head[..IP].copy_from_slice(&reply.emit());
    head[IP..ICMP].copy_from_slice(&header.emit());
    head[ICMP..].copy_from_slice(&message.emit());
    Some(IcmpError { head, quote })
}

/// Type and code of the error for a reason.
#[inline(always)]
const fn type_and_code(reason: Reason) -> (Kind, u8) {
    if reason as u8 == Reason::TimeExceeded as u8 {
        (Kind::TIME_EXCEEDED, 0)
    } else {
        (Kind::UNREACHABLE, icmp::FRAGMENTATION_NEEDED)
    }
}

/// The sum of the quoted bytes as they will be sent. A checksum that is still partial will be completed
/// by the device over the rest of the packet: the header of UDP or TCP and the data after it then add
/// up to the complement of the present value of the field.
#[inline(always)]
fn quoted_sum<F: Frame + ?Sized>(frame: &F, ip: &ipv4::Header, quote: u16) -> Option<u16> {
    let header = ip.header_length()?;
    let at = IP + header;
    #[expect(clippy::cast_possible_truncation, reason = "60 bytes at most")]
    let data = ip.total_length.wrapping_sub(header as u16);
    let found = match ip.protocol {
        Protocol::UDP => udp::Header::read(frame, at).map(|udp| (udp.checksum, udp.length)),
        Protocol::TCP => tcp::Header::read(frame, at).map(|tcp| (tcp.checksum, data)),
        _ => None,
    };
    if !ip.is_later_fragment()
        && let Some((checksum, length)) = found
        && checksum == partial(ip.source, ip.destination, ip.protocol.number(), length)
    {
        let before = frame.sum(IP, header)?;
        return Some(fold(u64::from(before) + u64::from(!checksum)));
    }
    frame.sum(IP, usize::from(quote))
}
