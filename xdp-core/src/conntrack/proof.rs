//! The HALF table: the two halves of a proof of establishment by IKE.

use crate::env::Env;
use crate::frame::Frame;
use crate::packet::Packet;
use crate::table::hash::digest;
use crate::table::recent::{self, short_tick};
use crate::table::word::Word;
use crate::vip;
use crate::wire::{ike, udp};
use xdp_common::limits::{HALF_OPEN_TICKS, UNAUTHENTICATED_TICKS};
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
    let header = ike::Header::read(frame, packet.ike_header()?)?;
    if !header.has_both_spis() {
        return None;
    }
    let service = vip::service_of::<E>(config, packet.vip);
    if packet.direction == Direction::Inbound {
        if !header.continues_handshake() {
            return None;
        }
        let (bucket, digest) = bucket_of_sa(env, config, (service, &header))?;
        let at = recent::find(bucket, digest, short_tick(config, jiffies), HALF_OPEN_TICKS)?;
        let port = half::ike_port(bucket[at + 1].load());
        return is_peer(bucket, at, packet.peer).then_some(port);
    }
    if header.has_chosen_responder_spi() {
        remember_reply(env, config, packet, &header, (jiffies, false));
    }
    // Whatever the reply is: remember the peer alone, for its fragments, which show no SPIs. This
    // entry has no details to display.
    if let Some((bucket, digest)) = half_open_bucket(env, config, service, packet.peer) {
        let tick = short_tick(config, jiffies);
        recent::remember(bucket, digest, tick, [0; 3]);
    }
    None
}

/// Remembers the message of the server at hand, which goes to a peer with a session or has no marker, if the server
/// chose its SPI there. Who has a session may forge the address of another peer as well.
// A step of its own, and not one of `count`, for the stack.
#[inline(never)]
pub fn remember_choice<F: Frame + ?Sized, E: Env>(
    frame: &F,
    env: &E,
    config: &Config,
    jiffies: u64,
) {
    let Some(packet) = &env.load_packet().and_then(Packet::unpack) else {
        return;
    };
    // IKE without a marker proves nothing, but its SPIs may come again from elsewhere.
    let is_unmarked = packet.is_unmarked_ike();
    let at = if is_unmarked {
        packet.transport_at + udp::LENGTH
    } else {
        packet.ike_at
    };
    if let Some(header) = ike::Header::read(frame, at)
        && header.has_chosen_responder_spi()
    {
        remember_reply(env, config, packet, &header, (jiffies, is_unmarked));
    }
}

/// Remembers to which peer the reply at hand goes, in which the server chose its SPI.
///
/// A server repeats its reply to whoever repeats the first message, also at another address. Then one of the
/// two has forged the other's, and knows both SPIs: from then on the IKE SA belongs to no peer
/// ([`half::NO_PEER`]).
#[inline(always)]
fn remember_reply<E: Env>(
    env: &E,
    config: &Config,
    packet: &Packet,
    header: &ike::Header,
    (jiffies, is_unmarked): (u64, bool),
) {
    let service = vip::service_of::<E>(config, packet.vip);
    let Some((bucket, digest)) = bucket_of_sa(env, config, (service, header)) else {
        return;
    };
    let tick = short_tick(config, jiffies);
    let [mut high, low] = slot::peer_words(packet.peer);
    let found = recent::find(bucket, digest, tick, UNAUTHENTICATED_TICKS);
    if is_unmarked || found.is_some_and(|at| !is_peer(bucket, at, packet.peer)) {
        high = half::NO_PEER;
    }
    let port = if packet.class == Class::Ike {
        packet.port
    } else {
        0
    };
    let low = half::with_ike_port(low, port);
    let details = [high, low, u64::from_be_bytes(header.initiator)];
    recent::remember(bucket, digest, tick, details);
}

/// Whether the server chose its SPI in a reply to this peer, and in none to another address. `None`: nothing
/// is remembered of the IKE SA.
#[inline(always)]
pub(super) fn was_sent_to_alone<E: Env>(
    env: &E,
    config: &Config,
    sa: (u16, &ike::Header),
    peer: [u8; 4],
    jiffies: u64,
) -> Option<bool> {
    let (bucket, digest) = bucket_of_sa(env, config, sa)?;
    let at = recent::find(
        bucket,
        digest,
        short_tick(config, jiffies),
        UNAUTHENTICATED_TICKS,
    )?;
    Some(is_peer(bucket, at, peer))
}

/// A bucket of HALF, and the digest of an entry in it.
type BucketEntry<'e, W> = (&'e recent::Bucket<W>, u64);

/// Whether the details at this place say that the server has sent its SPI to this peer. Compared as a whole, so
/// that no other peer's entry, whose SPIs the sender may know, can be hit by a collision of digests.
#[inline(always)]
fn is_peer<W: Word>(bucket: &recent::Bucket<W>, at: usize, peer: [u8; 4]) -> bool {
    let [high, low] = slot::peer_words(peer);
    let second = half::peer_word(bucket[at + 1].load());
    (bucket[at].load() ^ high) | (second ^ low) == 0
}

/// The place of both SPIs of an IKE SA of a service.
#[inline(always)]
fn bucket_of_sa<'e, E: Env>(
    env: &'e E,
    config: &Config,
    (service, header): (u16, &ike::Header),
) -> Option<BucketEntry<'e, E::Word>> {
    let [a, b, c, d, e, f, g, h] = header.initiator;
    let [i, j, k, l, m, n, o, p] = header.responder;
    let words = [
        u32::from_ne_bytes([a, b, c, d]),
        u32::from_ne_bytes([e, f, g, h]),
        u32::from_ne_bytes([i, j, k, l]),
        u32::from_ne_bytes([m, n, o, p]),
        service.into(),
    ];
    bucket_of(env, config, words)
}

/// The place of the entry that shows that the server has recently answered a peer.
#[inline(always)]
pub(super) fn half_open_bucket<'e, E: Env>(
    env: &'e E,
    config: &Config,
    service: u16,
    peer: [u8; 4],
) -> Option<BucketEntry<'e, E::Word>> {
    bucket_of(env, config, [u32::from_ne_bytes(peer), service.into()])
}

#[inline(always)]
fn bucket_of<'e, E: Env, const N: usize>(
    env: &'e E,
    config: &Config,
    words: [u32; N],
) -> Option<BucketEntry<'e, E::Word>> {
    let digest = digest(&config.secret, words);
    let bucket = env.half_open(recent::index(digest, config.half_mask))?;
    Some((bucket, digest))
}
