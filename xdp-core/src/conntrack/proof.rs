//! The HALF table: the two halves of a proof of establishment by IKE.

use crate::env::Env;
use crate::frame::Frame;
use crate::packet::Packet;
use crate::table::hash::digest;
use crate::table::recent::{self, short_tick};
use crate::wire::ike;
use xdp_common::limits::{HALF_OPEN_TICKS, IKE_PORT};
use xdp_common::{Class, Config, Direction, slot};

/// Remembers the reply to a peer without a session in which the server has chosen its SPI. True: a
/// message from the peer that has this SPI completes the proof.
#[inline(always)]
pub(super) fn complete_or_remember<F: Frame + ?Sized, E: Env>(
    frame: &F,
    env: &E,
    config: &Config,
    packet: &Packet,
    jiffies: u64,
) -> bool {
    // Between port 500 and 4500 IKE has no marker, so what looks like one is part of an SPI.
    if packet.ike_at == 0 || (packet.class == Class::NattIke && packet.port == IKE_PORT) {
        return false;
    }
    let Some(header) = ike::Header::read(frame, packet.ike_at) else {
        return false;
    };
    if !header.has_both_spis() {
        return false;
    }
    let [a, b, c, d, e, f, g, h] = header.initiator;
    let [i, j, k, l, m, n, o, p] = header.responder;
    let digest = digest(
        &config.secret,
        [
            u32::from_ne_bytes(packet.peer),
            u32::from_ne_bytes([a, b, c, d]),
            u32::from_ne_bytes([e, f, g, h]),
            u32::from_ne_bytes([i, j, k, l]),
            u32::from_ne_bytes([m, n, o, p]),
        ],
    );
    let Some(bucket) = env.half_open(recent::index(digest, config.half_mask)) else {
        return false;
    };
    let tick = short_tick(config, jiffies);
    let [high, low] = slot::peer_words(packet.peer);
    if packet.direction == Direction::Inbound {
        // The peer is compared as well, so that no other peer's entry, whose SPIs the sender may
        // know, can be hit by a collision of digests.
        return header.continues_handshake()
            && recent::recall(bucket, digest, tick, HALF_OPEN_TICKS)
                .is_some_and(|details| details[0] == high && details[1] == low);
    }
    if header.has_chosen_responder_spi() {
        let details = [high, low, u64::from_be_bytes(header.initiator)];
        recent::remember(bucket, digest, tick, details);
    }
    // Whatever the reply is: remember the peer alone, for its fragments, which show no SPIs. This
    // entry has no details to display.
    if let Some((bucket, digest)) = half_open_bucket(env, config, packet.peer) {
        recent::remember(bucket, digest, tick, [0; 3]);
    }
    false
}

/// The bucket and the digest of the entry that shows that the server has recently answered a peer.
#[inline(always)]
pub(super) fn half_open_bucket<'e, E: Env>(
    env: &'e E,
    config: &Config,
    peer: [u8; 4],
) -> Option<(&'e recent::Bucket<E::Word>, u64)> {
    let digest = digest(&config.secret, [u32::from_ne_bytes(peer)]);
    let bucket = env.half_open(recent::index(digest, config.half_mask))?;
    Some((bucket, digest))
}
