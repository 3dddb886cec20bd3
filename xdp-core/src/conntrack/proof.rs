//! The HALF table: the two halves of a proof of establishment by IKE.

use crate::env::Env;
use crate::frame::Frame;
use crate::packet::Packet;
use crate::table::hash::digest;
use crate::table::recent::{self, short_tick};
use crate::wire::ike::Spis;
use xdp_common::limits::HALF_OPEN_TICKS;
use xdp_common::{Config, Direction, slot};

/// Remembers the server's reply to a peer without a session. True: a message from the peer
/// completes the proof.
#[inline(always)]
pub(super) fn complete_or_remember<F: Frame + ?Sized, E: Env>(
    frame: &F,
    env: &E,
    config: &Config,
    packet: &Packet,
    jiffies: u64,
) -> bool {
    if packet.ike_at == 0 {
        return false;
    }
    let Some(spis) = Spis::read(frame, packet.ike_at) else {
        return false;
    };
    if !spis.is_complete() {
        return false;
    }
    let [a, b, c, d, e, f, g, h] = spis.initiator;
    let [i, j, k, l, m, n, o, p] = spis.responder;
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
    match packet.direction {
        Direction::Inbound => recent::recall(bucket, digest, tick, HALF_OPEN_TICKS).is_some(),
        Direction::Outbound => {
            let [high, low] = slot::peer_words(packet.peer);
            let details = [high, low, u64::from_be_bytes(spis.initiator)];
            recent::remember(bucket, digest, 0, tick, details);
            // Also remember the peer alone, for its fragments, which show no SPIs. This entry has
            // no details to display; the one above has.
            if let Some((bucket, digest)) = half_open_bucket(env, config, packet.peer) {
                recent::remember(bucket, digest, 0, tick, [0; 3]);
            }
            false
        }
    }
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
