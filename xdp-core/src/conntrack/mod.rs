//! What is remembered of a packet: FLOW, SESSION, HALF and FRAGMENT, and who may create an entry.
//!
//! It may not know how a packet is sent. Forwarding never depends on it: a packet that finds no room is `untracked`.
//!
//! Established means a proof that a spoofer cannot give: the server sends ESP to the peer (it shares a key with it), or
//! an IKE message carries the pair of SPIs that the server's own reply to that address contained.

use crate::env::Env;
use crate::frame::Frame;
use crate::packet::Packet;
use crate::sequence::is_ahead;
use crate::table::hash::{digest, digest_key};
use crate::table::recent;
use crate::table::word::Word;
use crate::table::{self, Place, Slot};
use crate::wire::esp;
use crate::wire::ike::Spis;
use crate::wire::ipv4::Protocol;
use xdp_common::limits::{FRAGMENT_TICKS, HALF_OPEN_TICKS};
use xdp_common::slot::{self, Key, flow, session};
use xdp_common::{Class, Config, Direction, Reason, meta};

/// Where a flow stands, or would stand.
#[derive(Clone, Copy)]
pub struct FlowKey {
    key: Key,
    place: Place,
}

impl FlowKey {
    /// The key of an ESP packet; `None` for other packets and for SPIs that cannot be (RFC 4303 section 2.1).
    #[inline(always)]
    pub fn of(packet: &Packet, config: &Config) -> Option<Self> {
        if !packet.class.is_esp() || packet.esp.spi < esp::FIRST_SPI {
            return None;
        }
        let key = slot::flow_key(packet.peer, packet.esp.spi, packet.class, packet.direction);
        let place = Place::new(digest_key(&config.secret, &key), config.flow_mask);
        Some(Self { key, place })
    }

    /// The live slot.
    #[inline(always)]
    pub fn find<'e, E: Env>(&self, env: &'e E) -> Option<&'e Slot<E::Word>> {
        table::find(env.flows(), self.place, &self.key)
    }
}

#[inline(always)]
const fn seen_word(highest: u32, jiffies: u64) -> u64 {
    jiffies << 32 | highest as u64
}

/// Counts an ESP packet into its flow.
///
/// Packets and bytes are atomic adds. The other words are plain stores: when two CPUs have packets of one SPI at the
/// same moment, one of two neighbouring values wins, and both were true. All that changes with every packet stands in
/// the slot's first cache line; the second one is touched by what is rare.
#[inline(always)]
pub fn count<W: Word>(slot: &Slot<W>, sequence: u32, bytes: u16, jiffies: u64) {
    slot[flow::PACKETS].add(1);
    slot[flow::BYTES].add(u64::from(bytes));
    let highest = slot[flow::SEEN].low();
    // The next one, or some later one, without a wrap: one compare says all of it.
    let step = u64::from(sequence).wrapping_sub(u64::from(highest));
    if step.wrapping_sub(1) < 0x7fff_ffff {
        #[expect(
            clippy::cast_possible_truncation,
            reason = "the low 32 bits of jiffies are kept"
        )]
        slot[flow::SEEN].store_halves(jiffies as u32, sequence);
    } else {
        count_unusual(slot, sequence, highest, jiffies);
    }
}

/// The sequence number of a packet that is not simply ahead of the highest one.
#[inline(never)]
fn count_unusual<W: Word>(slot: &Slot<W>, sequence: u32, highest: u32, jiffies: u64) {
    let ahead = is_ahead(sequence, highest);
    let now = if ahead { sequence } else { highest };
    slot[flow::SEEN].store(seen_word(now, jiffies));
    if !ahead {
        slot[flow::REORDERED].add(1);
        slot[flow::LATE].store(u64::from(sequence) << 32 | u64::from(highest));
    } else {
        // Ahead and yet a smaller number: it has wrapped.
        let first = slot[flow::FIRST].load();
        let wraps = first.wrapping_add(0x1_0000) & 0xffff_0000;
        slot[flow::FIRST].store(first & !0xffff_0000 | wraps);
    }
}

/// Counts an ESP packet that did not come through the fast path: there its flow's next hop has expired, or is not known.
/// So it is the moment to remember another one, and to look at the peer's port, which a NAT may have changed.
#[inline(always)]
pub fn count_flow<W: Word>(slot: &Slot<W>, packet: &Packet, jiffies: u64, hop: u64) {
    count(slot, packet.esp.sequence, packet.total_length, jiffies);
    if hop != 0 {
        slot[flow::HOP].store(hop);
    }
    let first = slot[flow::FIRST].load();
    if first & 0xffff != u64::from(packet.port) {
        slot[flow::FIRST].store(first & !0xffff | u64::from(packet.port));
    }
}

/// Counts a packet that is about to be forwarded into the table that it belongs to. True: there it is counted. `hop` is
/// what its flow may remember of the way out; zero: nothing new (tc asks for the way of every packet).
// Out of line, as everything here that is large: the packets that care for nanoseconds do not come this way, and what one
// function keeps on the stack is not there while another one runs.
#[inline(never)]
pub fn track<F: Frame + ?Sized, E: Env>(
    frame: &F,
    env: &E,
    config: &Config,
    jiffies: u64,
    hop: u64,
) -> bool {
    let Some(packet) = &env.take().and_then(Packet::unpack) else {
        return false;
    };
    remember_fragment(env, config, packet, jiffies);
    let Some(key) = FlowKey::of(packet, config) else {
        return count_session(frame, env, config, packet, jiffies, hop);
    };
    if let Some(slot) = key.find(env) {
        count_flow(slot, packet, jiffies, hop);
        return true;
    }
    admit_flow(env, config, key, packet, jiffies, hop)
}

/// Makes a flow for an SPI that has none, if the peer has given a proof and there is room. True: it is counted.
#[inline(always)]
fn admit_flow<E: Env>(
    env: &E,
    config: &Config,
    flow: FlowKey,
    packet: &Packet,
    jiffies: u64,
    hop: u64,
) -> bool {
    // The server's ESP is the proof: it has a key with this peer.
    let proven = packet.direction == Direction::Outbound;
    let Some(session) = session_or_new(env, config, packet, jiffies, proven) else {
        return false;
    };
    if packet.direction == Direction::Inbound
        && session[session::SPIS].load() >= u64::from(config.spis_per_session)
    {
        return false;
    }
    if !has_room(env, meta::FLOW_ENTRIES, config.flow_limit) {
        return false;
    }
    let inserted = table::insert(env.flows(), flow.place, &flow.key, |slot| {
        slot[flow::PACKETS].store(1);
        slot[flow::BYTES].store(u64::from(packet.total_length));
        slot[flow::SEEN].store(seen_word(packet.esp.sequence, jiffies));
        slot[flow::HOP].store(hop);
        slot[flow::FIRST_SEEN].store(jiffies);
        slot[flow::FIRST].store(u64::from(packet.esp.sequence) << 32 | u64::from(packet.port));
    });
    if inserted.is_none() {
        return false;
    }
    if packet.direction == Direction::Inbound {
        session[session::SPIS].add(1);
    }
    one_more(env, meta::FLOW_ENTRIES);
    true
}

#[inline(always)]
fn has_room<E: Env>(env: &E, entries: usize, limit: u32) -> bool {
    env.meta(entries)
        .is_some_and(|word| word.load() < u64::from(limit))
}

#[inline(always)]
fn one_more<E: Env>(env: &E, entries: usize) {
    if let Some(word) = env.meta(entries) {
        word.add(1);
    }
}

/// The peer's session; when it has none and `proven` says that it may, a new one.
// Out of line: four callers, none of them on ESP's hot path. Inlined it makes the XDP program half as long again.
#[inline(never)]
fn session_or_new<'e, E: Env>(
    env: &'e E,
    config: &Config,
    packet: &Packet,
    jiffies: u64,
    proven: bool,
) -> Option<&'e Slot<E::Word>> {
    let key = slot::session_key(packet.peer);
    let place = Place::new(digest_key(&config.secret, &key), config.session_mask);
    if let Some(found) = table::find(env.sessions(), place, &key) {
        return Some(found);
    }
    if !proven || !has_room(env, meta::SESSION_ENTRIES, config.session_limit) {
        return None;
    }
    let inserted = table::insert(env.sessions(), place, &key, |slot| {
        slot[session::LAST_SEEN].store(jiffies & 0xffff_ffff);
    })?;
    one_more(env, meta::SESSION_ENTRIES);
    env.established(packet.peer, packet.direction);
    Some(inserted)
}

/// Which of a session's pairs of counters a class has.
#[inline(always)]
const fn session_counter(class: Class) -> Option<usize> {
    match class {
        Class::Ike => Some(0),
        Class::NattIke => Some(1),
        Class::Keepalive => Some(2),
        Class::Other => Some(3),
        Class::EspInUdp | Class::Esp | Class::Fragment | Class::Icmp => None,
    }
}

/// The next hop that is remembered for packets of no flow: the server's, or the one towards a peer with a session.
#[inline(always)]
pub fn next_hop<E: Env>(env: &E, config: &Config, packet: &Packet, jiffies: u64) -> Option<u64> {
    match packet.direction {
        Direction::Inbound => Some(env.meta(meta::SERVER_HOP)?.load()),
        Direction::Outbound => {
            let session = session_or_new(env, config, packet, jiffies, false)?;
            Some(session[session::HOP].load())
        }
    }
}

/// Counts IKE, keepalives and the rest into the peer's session. True: it is counted.
///
/// A keepalive refreshes a session and never creates one. A peer without a session has its half of the proof
/// remembered (outbound) or checked (inbound).
#[inline(always)]
fn count_session<F: Frame + ?Sized, E: Env>(
    frame: &F,
    env: &E,
    config: &Config,
    packet: &Packet,
    jiffies: u64,
    hop: u64,
) -> bool {
    let Some(counter) = session_counter(packet.class) else {
        return false;
    };
    let session = match session_or_new(env, config, packet, jiffies, false) {
        Some(found) => found,
        None => {
            if !half(frame, env, config, packet, jiffies) {
                return false;
            }
            match session_or_new(env, config, packet, jiffies, true) {
                Some(new) => new,
                None => return false,
            }
        }
    };
    let at = session::COUNTERS + 2 * counter + packet.direction as usize;
    session[E::Word::hide(at) & (slot::WORDS - 1)].add(1);
    session[session::LAST_SEEN].store(jiffies & 0xffff_ffff);
    if hop != 0 && packet.direction == Direction::Outbound {
        session[session::HOP].store(hop);
    }
    let ports = session[session::PORTS].load();
    let now = match packet.class {
        Class::Ike => ports & 0xffff | u64::from(packet.port) << 16,
        Class::NattIke | Class::Keepalive => ports & 0xffff_0000 | u64::from(packet.port),
        Class::EspInUdp | Class::Esp | Class::Fragment | Class::Other | Class::Icmp => ports,
    };
    if now != ports {
        session[session::PORTS].store(now);
    }
    true
}

/// The current tick, as HALF and FRAGMENT keep it.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "16 bits of tick are kept")]
const fn short_tick(config: &Config, jiffies: u64) -> u16 {
    (jiffies >> config.tick_shift) as u16
}

/// Remembers the server's reply to a peer without a session; says whether a peer's message completes the proof.
#[inline(always)]
fn half<F: Frame + ?Sized, E: Env>(
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
    let Some(bucket) = env.half(recent::index(digest, config.half_mask)) else {
        return false;
    };
    let tick = short_tick(config, jiffies);
    match packet.direction {
        Direction::Inbound => recent::recall(bucket, digest, tick, HALF_OPEN_TICKS).is_some(),
        Direction::Outbound => {
            let [high, low] = slot::peer_words(packet.peer);
            let note = [high, low, u64::from_be_bytes(spis.initiator)];
            recent::remember(bucket, digest, 0, tick, note);
            // And the peer alone, for its fragments, which show no SPIs. Not for people: the entry above is.
            if let Some((bucket, digest)) = half_open_bucket(env, config, packet.peer) {
                recent::remember(bucket, digest, 0, tick, [0; 3]);
            }
            false
        }
    }
}

/// Where HALF says of a peer that the server has answered it lately.
#[inline(always)]
fn half_open_bucket<'e, E: Env>(
    env: &'e E,
    config: &Config,
    peer: [u8; 4],
) -> Option<(&'e recent::Bucket<E::Word>, u64)> {
    let digest = digest(&config.secret, [u32::from_ne_bytes(peer)]);
    let bucket = env.half(recent::index(digest, config.half_mask))?;
    Some((bucket, digest))
}

/// Remembers the first fragment of a packet of ours, and where it ends: so the others follow it, and none of them may
/// write over what it says.
#[inline(always)]
fn remember_fragment<E: Env>(env: &E, config: &Config, packet: &Packet, jiffies: u64) {
    if packet.first_fragment
        && let Some((bucket, digest)) = fragment_bucket(env, config, packet)
    {
        let [high, low] = slot::peer_words(packet.peer);
        let tick = short_tick(config, jiffies);
        recent::remember(bucket, digest, packet.data / 8, tick, [high, low, 0]);
    }
}

/// What FRAGMENT says of a datagram that is not ours. One of ours ends after eight bytes at least.
const FOREIGN: u16 = 0;

/// Remembers that a datagram is not ours, so that its later fragments follow the first one: without that they would go the way
/// of their peer's session.
#[inline(always)]
pub fn remember_foreign<E: Env>(env: &E, config: &Config, first: &Packet, jiffies: u64) {
    if let Some((bucket, digest)) = fragment_bucket(env, config, first) {
        let tick = short_tick(config, jiffies);
        recent::remember(bucket, digest, FOREIGN, tick, [0; 3]);
    }
}

/// The reason why a fragment without ports is not forwarded: it begins before the first one ends, or nothing connects it
/// with us. Every fragment of ESP is ours by its protocol number; one of UDP goes the way of the first one; where that has not
/// come yet, it is ours when its peer has a session or the server has answered it lately, or when the VIP is for nothing else.
#[inline(always)]
pub fn refuse_fragment<E: Env>(
    env: &E,
    config: &Config,
    packet: &Packet,
    jiffies: u64,
) -> Option<Reason> {
    let tick = short_tick(config, jiffies);
    if let Some((bucket, digest)) = fragment_bucket(env, config, packet)
        && let Some(end) = recent::recall(bucket, digest, tick, FRAGMENT_TICKS)
    {
        if end == FOREIGN {
            return Some(Reason::OtherFragment);
        }
        return (packet.offset < end).then_some(Reason::FragmentOverlap);
    }
    let connected = packet.protocol == Protocol::ESP
        || (config.dedicated != 0 && packet.direction == Direction::Inbound)
        || session_or_new(env, config, packet, jiffies, false).is_some()
        || half_open_bucket(env, config, packet.peer).is_some_and(|(bucket, digest)| {
            recent::recall(bucket, digest, tick, HALF_OPEN_TICKS).is_some()
        });
    (!connected).then_some(Reason::OtherFragment)
}

/// A datagram is named by source, destination, protocol and identification (RFC 791 section 3.2); of source and
/// destination only the peer and the direction vary. All of a peer share a bucket, so that whoever sends first fragments
/// without end forgets his own.
#[inline(always)]
fn fragment_bucket<'e, E: Env>(
    env: &'e E,
    config: &Config,
    packet: &Packet,
) -> Option<(&'e recent::Bucket<E::Word>, u64)> {
    let peer = u32::from_ne_bytes(packet.peer);
    let place = digest(&config.secret, [peer, packet.direction as u32]);
    let name = digest(
        &config.secret,
        [
            peer,
            u32::from(u16::from_ne_bytes(packet.id)) << 16
                | u32::from(packet.protocol.number()) << 8
                | packet.direction as u32,
        ],
    );
    let bucket = env.fragments(recent::index(place, config.fragment_mask))?;
    Some((bucket, name))
}
