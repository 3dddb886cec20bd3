//! The rewrite of a forwarded packet: one address, the TTL, the IPv4 checksum, the checksum of UDP or TCP; in
//! XDP also the two MAC addresses. Nothing else.
//!
//! It reads no table and makes no decision.

use crate::checksum::Delta;
use crate::frame::Frame;
use crate::packet::Packet;
use crate::vip;
use crate::wire::{ethernet, ipv4, tcp, udp};
use xdp_common::{Class, Config, Direction};

/// Offset of the IPv4 header.
const IP: usize = ethernet::LENGTH;

/// Translates a packet in place and sets its TTL. False when the frame is too short, which
/// [`crate::classify::classify`] has ruled out.
#[inline(always)]
pub fn translate<F: Frame + ?Sized>(
    frame: &mut F,
    packet: &Packet,
    new_ttl: u8,
    config: &Config,
) -> bool {
    let service = vip::by_number::<F>(config, packet.vip);
    let (vip, server) = (
        F::opaque_address(service.address),
        F::opaque_address(service.server),
    );
    let (at, old, new) = match packet.direction {
        Direction::Inbound => (IP + ipv4::DESTINATION, vip, server),
        Direction::Outbound => (IP + ipv4::SOURCE, server, vip),
    };
    // The transport checksum first: in tc the helper invalidates what was read before.
    if packet.class == Class::Tcp {
        if !frame.update_tcp_checksum(packet.transport_at + tcp::CHECKSUM, old, new) {
            return false;
        }
    } else if packet.transport_at != 0
        && !frame.update_udp_checksum(packet.transport_at + udp::CHECKSUM, old, new)
    {
        return false;
    }
    let protocol = packet.protocol.number();
    let delta = Delta::new()
        .replace4(old, new)
        .replace2([packet.ttl, protocol], [new_ttl, protocol]);
    if frame
        .with_bytes_mut::<4, _>(at, |address| *address = new)
        .is_none()
    {
        return false;
    }
    let Some(field) = frame.array_mut::<2>(IP + ipv4::CHECKSUM) else {
        return false;
    };
    *field = delta.ip_field(*field);
    let Some(ttl) = frame.array_mut::<1>(IP + ipv4::TTL) else {
        return false;
    };
    *ttl = [new_ttl];
    true
}

/// Writes both MAC addresses, which are given as words.
#[inline(always)]
pub fn write_macs<F: Frame + ?Sized>(frame: &mut F, destination: u64, source: u64) -> bool {
    let Some(bytes) = frame.array_mut::<12>(0) else {
        return false;
    };
    store_macs::<F, 12>(bytes, destination, source);
    true
}

/// Writes both MAC addresses in two stores.
#[inline(always)]
#[expect(
    clippy::cast_possible_truncation,
    reason = "a part of the word is meant"
)]
pub fn store_macs<F: Frame + ?Sized, const N: usize>(
    bytes: &mut [u8; N],
    destination: u64,
    source: u64,
) {
    F::put64::<0, N>(bytes, u64::to_le(destination | source << 48));
    F::put32::<8, N>(bytes, u32::to_le((source >> 16) as u32));
}
