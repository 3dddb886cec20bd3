//! The HALF table: the two halves of a proof of establishment by IKE.

use crate::env::Env;
use crate::frame::Frame;
use crate::packet::Packet;
use crate::table::hash::digest;
use crate::table::recent::{self, short_tick};
use crate::vip;
use crate::wire::ike;
use xdp_common::limits::{HALF_OPEN_TICKS, IKE_PORT};
use xdp_common::slot::{self, half};
use xdp_common::{Class, Config, Direction};

/// Remembers the reply to a peer without a session in which the server has chosen its SPI. A message from
/// the peer that has this SPI completes the proof: the peer's port on 500 to which that reply went, if
/// it came from there, else zero.
#[inline(always)]
pub(super) fn complete_or_remember<F: Frame + ?Sized, E: Env>(
    frame: &F,
    env: &E,
    config: &Config,
    packet: &Packet,
    jiffies: u64,
) -> Option<u16> {
    // Between port 500 and 4500 IKE has no marker, so what looks like one is part of an SPI.
    if packet.ike_at == 0 || (packet.class == Class::NattIke && packet.port == IKE_PORT) {
        return None;
    }
    let header = ike::Header::read(frame, packet.ike_at)?;
    if !header.has_both_spis() {
        return None;
    }
    let service = vip::service_of::<E>(config, packet.vip);
    let digest = digest_of(config, service, packet.peer, &header);
    let bucket = env.half_open(recent::index(digest, config.half_mask))?;
    let tick = short_tick(config, jiffies);
    let [high, low] = slot::peer_words(packet.peer);
    if packet.direction == Direction::Inbound {
        if !header.continues_handshake() {
            return None;
        }
        // The peer is compared as well, so that no other peer's entry, whose SPIs the sender may
        // know, can be hit by a collision of digests.
        let details = recent::recall(bucket, digest, tick, HALF_OPEN_TICKS)?;
        let is_peer = details[0] == high && half::peer_word(details[1]) == low;
        return is_peer.then_some(half::ike_port(details[1]));
    }
    if header.has_chosen_responder_spi() {
        let port = if packet.class == Class::Ike {
            packet.port
        } else {
            0
        };
        let low = half::with_ike_port(low, port);
        let details = [high, low, u64::from_be_bytes(header.initiator)];
        recent::remember(bucket, digest, tick, details);
    }
    // Whatever the reply is: remember the peer alone, for its fragments, which show no SPIs. This
    // entry has no details to display.
    if let Some((bucket, digest)) = half_open_bucket(env, config, service, packet.peer) {
        recent::remember(bucket, digest, tick, [0; 3]);
    }
    None
}

/// The digest of a peer and both SPIs of an IKE SA.
#[inline(always)]
fn digest_of(config: &Config, service: u16, peer: [u8; 4], header: &ike::Header) -> u64 {
    let [a, b, c, d, e, f, g, h] = header.initiator;
    let [i, j, k, l, m, n, o, p] = header.responder;
    digest(
        &config.secret,
        [
            u32::from_ne_bytes(peer),
            u32::from_ne_bytes([a, b, c, d]),
            u32::from_ne_bytes([e, f, g, h]),
            u32::from_ne_bytes([i, j, k, l]),
            u32::from_ne_bytes([m, n, o, p]),
            service.into(),
        ],
    )
}

/// The bucket and the digest of the entry that shows that the server has recently answered a peer.
#[inline(always)]
pub(super) fn half_open_bucket<'e, E: Env>(
    env: &'e E,
    config: &Config,
    service: u16,
    peer: [u8; 4],
) -> Option<(&'e recent::Bucket<E::Word>, u64)> {
    let digest = digest(&config.secret, [u32::from_ne_bytes(peer), service.into()]);
    let bucket = env.half_open(recent::index(digest, config.half_mask))?;
    Some((bucket, digest))
}
