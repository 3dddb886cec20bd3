//! The ICMP errors that ikenat sends: time exceeded, and fragmentation needed.
//!
//! They come from an address that the sender can expect (the VIP, or the gateway's own on the
//! server's side), and quote the packet as it was sent: nothing of it has been translated. The
//! caller decides that an error is due, and makes the frame longer. See
//! `docs/decisions/answers-from-tc.md`.

use crate::checksum::{fold, udp_partial};
use crate::env::Side;
use crate::frame::Frame;
use crate::wire::icmp::{self, Kind};
use crate::wire::ipv4::{self, Protocol};
use crate::wire::{ethernet, udp};
use xdp_common::limits::ICMP_LENGTH;
use xdp_common::{Config, Reason};

/// Length of the Ethernet, IPv4 and ICMP headers before the quote.
pub const LENGTH: usize = ethernet::LENGTH + ipv4::LENGTH + icmp::LENGTH;
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
/// "Don't fragment": so the identification has no meaning (RFC 6864 section 4.1).
const FLAGS: [u8; 2] = [0x40, 0];

/// The error for a frame, which leaves by the interface that received the frame. `None`: the frame
/// cannot be answered.
// Out of line, because it is rare and uses much of the stack.
#[inline(never)]
pub fn build<F: Frame + ?Sized>(
    frame: &F,
    config: &Config,
    cause: &ErrorCause,
) -> Option<IcmpError> {
    let [a, b, c, d, e, f, g, h, i, j, k, l] = *frame.array::<12>(0)?;
    if g & 1 != 0 {
        // The source is a group address: there is no sender to answer.
        return None;
    }
    let ip = ipv4::Header::read(frame)?;
    let inbound = match cause.side {
        Side::Wan => true,
        Side::Lan => false,
        Side::Both => ip.destination == config.vip,
        Side::Out => return None,
    };
    let (vip, lan) = (
        F::opaque_address(config.vip),
        F::opaque_address(config.lan_address),
    );
    let source = if inbound { vip } else { lan };
    let quote = if ip.total_length < QUOTE {
        ip.total_length
    } else {
        QUOTE
    };
    let [kind, code] = type_and_code(cause.reason);
    let [mtu_high, mtu_low] = cause.mtu.to_be_bytes();
    let message = u64::from(u16::from_be_bytes([kind, code]))
        + u64::from(cause.mtu)
        + u64::from(quoted_sum(frame, &ip, quote)?);
    let [s0, s1] = (!fold(message)).to_be_bytes();
    let [t0, t1] = (quote + HEADERS).to_be_bytes();
    let [p0, p1, p2, p3] = source;
    let [q0, q1, q2, q3] = ip.source;
    let word = |high: u8, low: u8| u64::from(u16::from_be_bytes([high, low]));
    let header = word(0x45, TOS)
        + word(t0, t1)
        + word(FLAGS[0], FLAGS[1])
        + word(TTL, Protocol::ICMP.number())
        + word(p0, p1)
        + word(p2, p3)
        + word(q0, q1)
        + word(q2, q3);
    let [h0, h1] = (!fold(header)).to_be_bytes();
    #[rustfmt::skip]
    let head = [
        g, h, i, j, k, l, a, b, c, d, e, f, 8, 0,
        0x45, TOS, t0, t1, 0, 0, FLAGS[0], FLAGS[1], TTL, Protocol::ICMP.number(), h0, h1,
        p0, p1, p2, p3, q0, q1, q2, q3,
        kind, code, s0, s1, 0, 0, mtu_high, mtu_low,
    ];
    Some(IcmpError { head, quote })
}

/// Type and code of the error for a reason.
#[inline(always)]
const fn type_and_code(reason: Reason) -> [u8; 2] {
    if reason as u8 == Reason::TimeExceeded as u8 {
        [Kind::TIME_EXCEEDED.number(), 0]
    } else {
        [Kind::UNREACHABLE.number(), icmp::FRAGMENTATION_NEEDED]
    }
}

/// The sum of the quoted bytes as they will be sent. A UDP checksum that is still partial will be
/// completed by the device over the rest of the packet: the UDP header and the data after it then
/// add up to the complement of the present value of the field.
#[inline(always)]
fn quoted_sum<F: Frame + ?Sized>(frame: &F, ip: &ipv4::Header, quote: u16) -> Option<u16> {
    let header = ip.header_length()?;
    if ip.protocol == Protocol::UDP
        && !ip.is_later_fragment()
        && let Some(udp) = udp::Header::read(frame, ipv4::AT + header)
        && udp.checksum == udp_partial(ip.source, ip.destination, udp.length)
    {
        let before = frame.sum(ipv4::AT, header)?;
        return Some(fold(u64::from(before) + u64::from(!udp.checksum)));
    }
    frame.sum(ipv4::AT, usize::from(quote))
}
