//! The HALF table: the two halves of a proof of establishment by IKE.

use crate::env::Env;
use crate::frame::Frame;
use crate::packet::Packet;
use crate::table::hash::digest;
use crate::table::recent::{self, short_tick};
use crate::vip;
use crate::wire::ike;
use xdp_common::limits::{HALF_OPEN_TICKS, IKE_PORT, UNAUTHENTICATED_TICKS};
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
    if packet.ike_at == 0 || may_be_unmarked(packet) {
        return None;
    }
    let header = ike::Header::read(frame, packet.ike_at)?;
    if !header.has_both_spis() {
        return None;
    }
    let service = vip::service_of::<E>(config, packet.vip);
    if packet.direction == Direction::Inbound {
        if !header.continues_handshake() {
            return None;
        }
        let limit = HALF_OPEN_TICKS;
        let [first, second] = begun_by(env, config, (service, &header), jiffies, limit)?;
        // Compared as a whole, so that no other peer's entry, whose SPIs the sender may know, can be hit
        // by a collision of digests.
        let [high, low] = slot::peer_words(packet.peer);
        let is_peer = first == high && half::peer_word(second) == low;
        return is_peer.then_some(half::ike_port(second));
    }
    if header.has_chosen_responder_spi() {
        remember_reply(env, config, packet, &header, jiffies);
    }
    // Whatever the reply is: remember the peer alone, for its fragments, which show no SPIs. This
    // entry has no details to display.
    if let Some((bucket, digest)) = half_open_bucket(env, config, service, packet.peer) {
        let tick = short_tick(config, jiffies);
        recent::remember(bucket, digest, tick, [0; 3]);
    }
    None
}

/// Remembers a message of the server to a peer with a session, if the server chose its SPI there. Who has a
/// session may forge the address of another peer as well.
#[inline(always)]
pub(super) fn remember_choice<F: Frame + ?Sized, E: Env>(
    frame: &F,
    env: &E,
    config: &Config,
    packet: &Packet,
    jiffies: u64,
) {
    if !may_be_unmarked(packet)
        && let Some(header) = ike::Header::read(frame, packet.ike_at)
        && header.has_chosen_responder_spi()
    {
        remember_reply(env, config, packet, &header, jiffies);
    }
}

/// Between port 500 and 4500 IKE has no marker, so what looks like one is part of an SPI.
#[inline(always)]
fn may_be_unmarked(packet: &Packet) -> bool {
    packet.class == Class::NattIke && packet.port == IKE_PORT
}

/// Remembers to which peer the reply at hand goes, in which the server chose its SPI.
///
/// A server repeats its reply to whoever repeats the first message, also at another address. Then one of the
/// two has forged the other's, and knows both SPIs: from then on the IKE SA is no one's
/// ([`half::NO_PEER`]).
#[inline(always)]
fn remember_reply<E: Env>(
    env: &E,
    config: &Config,
    packet: &Packet,
    header: &ike::Header,
    jiffies: u64,
) {
    let service = vip::service_of::<E>(config, packet.vip);
    let port = if packet.class == Class::Ike {
        packet.port
    } else {
        0
    };
    let [mut high, low] = slot::peer_words(packet.peer);
    if is_begun_by(env, config, (service, header), packet.peer, jiffies) == Some(false) {
        high = half::NO_PEER;
    }
    let low = half::with_ike_port(low, port);
    let digest = digest_of(config, service, header);
    if let Some(bucket) = env.half_open(recent::index(digest, config.half_mask)) {
        let details = [high, low, u64::from_be_bytes(header.initiator)];
        recent::remember(bucket, digest, short_tick(config, jiffies), details);
    }
}

/// Whether the server chose its SPI in a reply to this peer, and in none to another address. `None`: nothing
/// is remembered of the IKE SA.
#[inline(always)]
pub(super) fn is_begun_by<E: Env>(
    env: &E,
    config: &Config,
    sa: (u16, &ike::Header),
    peer: [u8; 4],
    jiffies: u64,
) -> Option<bool> {
    let [high, low] = slot::peer_words(peer);
    let [first, second] = begun_by(env, config, sa, jiffies, UNAUTHENTICATED_TICKS)?;
    Some((first ^ high) | (half::peer_word(second) ^ low) == 0)
}

/// The details of the entry of an IKE SA of a service, which say to whom the server has sent its SPI.
#[inline(always)]
fn begun_by<E: Env>(
    env: &E,
    config: &Config,
    (service, header): (u16, &ike::Header),
    jiffies: u64,
    limit: u16,
) -> Option<[u64; 2]> {
    let digest = digest_of(config, service, header);
    let bucket = env.half_open(recent::index(digest, config.half_mask))?;
    let tick = short_tick(config, jiffies);
    let [first, second, _] = recent::recall(bucket, digest, tick, limit)?;
    Some([first, second])
}

/// The digest of both SPIs of an IKE SA.
#[inline(always)]
fn digest_of(config: &Config, service: u16, header: &ike::Header) -> u64 {
    let [a, b, c, d, e, f, g, h] = header.initiator;
    let [i, j, k, l, m, n, o, p] = header.responder;
    digest(
        &config.secret,
        [
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
