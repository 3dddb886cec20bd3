//! The FRAGMENT table: the first fragments of datagrams, which decide about the later ones.

use crate::conntrack::host_peer;
use crate::conntrack::proof::half_open_bucket;
use crate::conntrack::session::session_of;
use crate::env::Env;
use crate::packet::Packet;
use crate::table::hash::digest;
use crate::table::recent::{self, short_tick};
use crate::vip;
use crate::wire::ipv4::Protocol;
use xdp_common::limits::{FRAGMENT_TICKS, HALF_OPEN_TICKS};
use xdp_common::vips::VIPS;
use xdp_common::{Config, Direction, Reason, slot};

/// Remembers the first fragment of a handled packet and where it ends, so that the later ones
/// follow it and none of them may overwrite its data.
#[inline(always)]
pub(super) fn remember_fragment<E: Env>(env: &E, config: &Config, packet: &Packet, jiffies: u64) {
    if packet.first_fragment
        && let Some((bucket, digest)) = fragment_bucket(env, config, packet)
    {
        let [high, low] = slot::peer_words(packet.peer);
        let tick = short_tick(config, jiffies);
        let end = end_word(digest, packet.data / 8, packet.vip);
        recent::remember(bucket, digest, tick, [high, low, end]);
    }
}

/// Where a first fragment ends, in units of eight bytes, has 13 bits. Above them is the number of its VIP.
const END_MASK: u64 = 0x1fff;
const VIP_SHIFT: u32 = 13;
const DIGEST_MASK: u64 = !0x3f_ffff;
const _: () = assert!((VIPS as u64) << VIP_SHIFT == 1 + !DIGEST_MASK);

/// The end of a first fragment and its VIP, with the upper bits of the digest that it belongs to.
#[inline(always)]
const fn end_word(digest: u64, end: u16, vip: u16) -> u64 {
    digest & DIGEST_MASK | (vip as u64) << VIP_SHIFT | end as u64 & END_MASK
}

/// The end in a word that belongs to this digest. `None`: another CPU was writing the entry.
#[inline(always)]
const fn end_of(digest: u64, word: u64) -> Option<u16> {
    if (word ^ digest) & DIGEST_MASK != 0 {
        return None;
    }
    Some((word & END_MASK) as u16)
}

/// The VIP that the first fragment of a datagram of the server has got.
#[inline(always)]
pub(super) fn vip_of<E: Env>(
    env: &E,
    config: &Config,
    packet: &Packet,
    jiffies: u64,
) -> Option<u16> {
    let (bucket, digest) = fragment_bucket(env, config, packet)?;
    let tick = short_tick(config, jiffies);
    let [_, _, word] = recent::recall(bucket, digest, tick, FRAGMENT_TICKS)?;
    end_of(digest, word)?;
    u16::try_from(word >> VIP_SHIFT & (VIPS as u64 - 1)).ok()
}

/// The end in FRAGMENT of a datagram that is not handled. The first fragment of a handled one has
/// at least eight bytes, and so a value of at least one.
const FOREIGN: u16 = 0;

/// Remembers that a datagram is not handled, so that its later fragments follow the first one.
/// Otherwise they would be handled whenever their peer has a session.
#[inline(always)]
pub fn remember_foreign<E: Env>(env: &E, config: &Config, first: &Packet, jiffies: u64) {
    if let Some((bucket, digest)) = fragment_bucket(env, config, first) {
        let tick = short_tick(config, jiffies);
        recent::remember(bucket, digest, tick, [0, 0, end_word(digest, FOREIGN, 0)]);
    }
}

/// What becomes of a fragment without ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is handled.
    Handled,
    /// It may be handled, and it may be the host's own: both get a copy. Who has no first fragment
    /// forgets it.
    Undecided,
    /// It is not forwarded.
    Refused(Reason),
}

/// Decides about a fragment without ports. It is refused when it begins before the first one ends, or
/// when nothing shows that it is handled. Every fragment of ESP is handled because of its protocol
/// number; one of UDP or TCP follows the first fragment. While that one has not arrived, nothing decides
/// about it when its peer has a session, or when the server has recently answered the peer; it is
/// handled when the VIP is dedicated to this service and the host has no peer of its own at that address.
/// What the server sends to such a peer is handled.
/// See `docs/decisions/fragments-without-ports.md`.
#[inline(always)]
pub fn fate<E: Env>(env: &E, config: &Config, packet: &Packet, jiffies: u64) -> Fate {
    let tick = short_tick(config, jiffies);
    if let Some((bucket, digest)) = fragment_bucket(env, config, packet)
        && let Some([_, _, word]) = recent::recall(bucket, digest, tick, FRAGMENT_TICKS)
        && let Some(end) = end_of(digest, word)
    {
        return if end == FOREIGN {
            Fate::Refused(Reason::OtherFragment)
        } else if packet.offset < end {
            Fate::Refused(Reason::FragmentOverlap)
        } else {
            Fate::Handled
        };
    }
    let inbound = packet.direction == Direction::Inbound;
    let is_esp = packet.protocol == Protocol::ESP;
    if is_esp || (inbound && vip::by_number::<E>(config, packet.vip).dedicated != 0) {
        let is_shared = inbound && host_peer::may_send_fragment(env, config, packet, jiffies);
        return if is_shared {
            Fate::Undecided
        } else {
            Fate::Handled
        };
    }
    let connected = session_of(
        env,
        config,
        vip::service_of::<E>(config, packet.vip),
        packet.peer,
    )
    .is_some()
        || half_open_bucket(
            env,
            config,
            vip::service_of::<E>(config, packet.vip),
            packet.peer,
        )
        .is_some_and(|(bucket, digest)| {
            recent::recall(bucket, digest, tick, HALF_OPEN_TICKS).is_some()
        });
    match (connected, inbound) {
        (false, _) => Fate::Refused(Reason::OtherFragment),
        (true, true) => Fate::Undecided,
        (true, false) => Fate::Handled,
    }
}

/// The bucket and the digest of a datagram, which is identified by source, destination, protocol
/// and identification (RFC 791 section 3.2); of source and destination only the peer, the service and the
/// direction vary. All datagrams of a peer share a bucket, so that a peer that sends endless first
/// fragments only displaces its own.
#[inline(always)]
fn fragment_bucket<'e, E: Env>(
    env: &'e E,
    config: &Config,
    packet: &Packet,
) -> Option<(&'e recent::Bucket<E::Word>, u64)> {
    let peer = u32::from_ne_bytes(packet.peer);
    // All VIPs of a service together: outbound it is not known yet which one the peer uses.
    let vip = vip::by_number::<E>(config, packet.vip).first;
    let place = digest(&config.secret, [peer, packet.direction as u32]);
    let name = digest(
        &config.secret,
        [
            peer,
            vip.into(),
            u32::from(u16::from_ne_bytes(packet.id)) << 16
                | u32::from(packet.protocol.number()) << 8
                | packet.direction as u32,
        ],
    );
    let bucket = env.fragments(recent::index(place, config.fragment_mask))?;
    Some((bucket, name))
}
