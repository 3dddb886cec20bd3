//! The SESSION table: the established peers, with their counters and their next hops.

use crate::conntrack::counted::Counted;
use crate::conntrack::proof::complete_or_remember;
use crate::counters;
use crate::env::Env;
use crate::frame::Frame;
use crate::packet::{Packet, VIP_GUESSED};
use crate::table::hash::digest_key;
use crate::table::word::Word;
use crate::table::{self, Buckets, Halves, Place, Slot};
use crate::vip;
use crate::wire::ike;
use xdp_common::limits::IKE_PORT;
use xdp_common::slot::{self, session};
use xdp_common::{Class, Config, Direction, Untracked, meta};

#[inline(always)]
pub(super) fn has_room<E: Env>(env: &E, entries: usize, limit: u64) -> bool {
    env.meta(entries).is_some_and(|word| word.load() < limit)
}

/// Counts why a packet gets no entry. False, since no table has counted it.
#[inline(always)]
pub(super) fn refuse<E: Env>(env: &E, cause: Untracked) -> bool {
    if let Some(block) = env.cpu_block() {
        counters::count_untracked(block, E::HOOK, cause);
    }
    false
}

#[inline(always)]
pub(super) fn one_more<E: Env>(env: &E, entries: usize) {
    if let Some(word) = env.meta(entries) {
        word.add(1);
    }
}

/// The peer's session.
// Out of line, and given an address instead of a packet: a packet whose address is passed on would have to
// be written to the stack with all its fields.
#[inline(never)]
pub(crate) fn session_of<'e, E: Env>(
    env: &'e E,
    config: &Config,
    service: u16,
    peer: [u8; 4],
) -> Option<&'e Slot<E::Word>> {
    let key = slot::session_key(peer, service);
    let place = Place::new(digest_key(&config.secret, &key), config.session_mask);
    table::find(env.sessions(), place, &key)
}

/// A session for a peer that has given a proof and has none.
#[inline(always)]
pub(super) fn new_session<'e, E: Env>(
    env: &'e E,
    config: &Config,
    packet: &Packet,
    jiffies: u64,
) -> Option<&'e Slot<E::Word>> {
    let guessed = u32::from(packet.vip_guessed) * VIP_GUESSED;
    let vip = u32::from(packet.vip) | guessed;
    let session = insert_session(env, config, vip, packet.peer, jiffies)?;
    env.established(packet.peer, packet.direction);
    Some(session)
}

/// `vip`: its number (bits 0-15), and [`VIP_GUESSED`] if it is a guess.
#[inline(never)]
#[expect(clippy::cast_possible_truncation, reason = "the low half is meant")]
fn insert_session<'e, E: Env>(
    env: &'e E,
    config: &Config,
    vip: u32,
    peer: [u8; 4],
    jiffies: u64,
) -> Option<&'e Slot<E::Word>> {
    let is_known = u64::from(vip & VIP_GUESSED == 0);
    let vip = vip::by_number::<E>(config, vip as u16);
    let key = slot::session_key(peer, vip::service::<E>(config, vip));
    let place = Place::new(digest_key(&config.secret, &key), config.session_mask);
    // Of one VIP there is no doubt; and the service may get more of them while the session lives.
    let pin = if vip.several == 0 {
        session::proven_pin(vip.number)
    } else {
        session::claim_pin(0, vip.number) * is_known
    };
    if !has_room(env, meta::SESSION_ENTRIES, config.session_limit.into()) {
        refuse(env, Untracked::SessionTableFull);
        return None;
    }
    let inserted = table::insert(env.sessions(), place, &key, |Halves { hot, .. }| {
        hot[session::LAST_SEEN].store(jiffies & 0xffff_ffff);
        let tick = jiffies >> config.tick_shift;
        hot[session::PORTS_CREATED].store(session::created_at(tick));
        hot[session::PIN].store(pin);
    });
    if inserted.is_none() {
        refuse(env, Untracked::SessionTableFull);
        return None;
    }
    one_more(env, meta::SESSION_ENTRIES);
    inserted
}

/// Writes down what a packet shows of its peer: its port, or that it uses native ESP. The packet is one
/// that the server does not send because of a forged one (ESP, or what refreshes a session).
// Out of line, with two numbers instead of the packet: each caller would follow its branches to the end.
#[inline(never)]
pub(super) fn note_peer<W: Word>(session: &Slot<W>, class: Class, port: u16) {
    let before = session[session::PORTS_CREATED].load();
    let now = match class {
        Class::Ike => session::with_port(before, true, port),
        // Between port 500 and 4500 nothing shows what a packet is.
        Class::NattIke | Class::Keepalive | Class::EspInUdp if port != IKE_PORT => {
            session::with_port(before, false, port)
        }
        Class::Esp => before | session::NATIVE_ESP,
        Class::NattIke
        | Class::Keepalive
        | Class::EspInUdp
        | Class::Fragment
        | Class::Other
        | Class::Icmp
        | Class::Tcp => return,
    };
    if now != before {
        session[session::PORTS_CREATED].store(now);
    }
}

/// Which of a session's words of counters is that of a class.
#[inline(always)]
const fn session_counter(class: Class) -> Option<usize> {
    match class {
        Class::Ike => Some(0),
        Class::NattIke => Some(1),
        Class::Keepalive => Some(2),
        Class::Other => Some(3),
        Class::EspInUdp | Class::Esp | Class::Fragment | Class::Icmp | Class::Tcp => None,
    }
}

/// The cached next hop for packets that belong to no flow: that of the server, or that towards a
/// peer with a session.
#[inline(always)]
pub fn next_hop<E: Env>(env: &E, config: &Config, packet: &Packet) -> Option<u64> {
    match packet.direction {
        Direction::Inbound => {
            let service = vip::service_of::<E>(config, packet.vip);
            Some(env.meta(meta::server_hop(service))?.load())
        }
        Direction::Outbound => {
            let session = session_of(
                env,
                config,
                vip::service_of::<E>(config, packet.vip),
                packet.peer,
            )?;
            // That of another VIP may lead to another WAN.
            is_pinned::<E>(config, session, packet).then(|| session[session::HOP].load())
        }
    }
}

/// True when a packet has the VIP that the session's next hop is for.
#[inline(always)]
fn is_pinned<E: Env>(config: &Config, session: &Slot<E::Word>, packet: &Packet) -> bool {
    vip::by_number::<E>(config, packet.vip).several == 0
        || session::pinned(session[session::PIN].load()) == Some(packet.vip)
}

/// True for a message of the server that shows that the peer's SA is alive: a keepalive, or encrypted IKE.
/// What comes from outside may be forged, and so may be what makes the server answer in the clear;
/// either would keep a session that has ended for ever (RFC 4787 REQ-6). ESP refreshes its flow instead.
#[inline(always)]
fn is_refresh(packet: &Packet, kind: ike::Kind) -> bool {
    packet.class == Class::Keepalive || kind.is_encrypted()
}

/// Counts IKE, keepalives and other packets in the peer's session.
///
/// A keepalive never creates a session, and no inbound message refreshes one. For a peer without a
/// session, its half of the proof is remembered (outbound) or checked (inbound).
#[inline(always)]
pub(super) fn count_session<F: Frame + ?Sized, E: Env>(
    frame: &F,
    env: &E,
    config: &Config,
    packet: &Packet,
    jiffies: u64,
    hop: u64,
) -> Counted {
    let Some(counter) = session_counter(packet.class) else {
        return if packet.class == Class::Tcp {
            Counted::Segment
        } else {
            Counted::none(packet)
        };
    };
    let session = match session_of(
        env,
        config,
        vip::service_of::<E>(config, packet.vip),
        packet.peer,
    ) {
        Some(found) => found,
        None => {
            let Some(port) = complete_or_remember(frame, env, config, packet, jiffies) else {
                return Counted::none(packet);
            };
            let Some(new) = new_session(env, config, packet, jiffies) else {
                return Counted::No;
            };
            note_peer(new, Class::Ike, port);
            note_peer(new, packet.class, packet.port);
            new
        }
    };
    let mut counted = Counted::Yes;
    if packet.direction == Direction::Outbound {
        let kind = packet
            .ike_header()
            .and_then(|at| ike::Kind::read(frame, at))
            .unwrap_or(ike::Kind::NONE);
        if is_refresh(packet, kind) {
            session[session::LAST_SEEN].store(jiffies & 0xffff_ffff);
            let known = session[session::PORTS_CREATED].load();
            if session::port_on(known, packet.class == Class::Ike) != packet.port {
                note_peer(session, packet.class, packet.port);
            }
        } else if kind.chooses_spi() || packet.is_unmarked_ike() {
            counted = Counted::ChoosesSpi;
        }
        if hop != 0 && is_pinned::<E>(config, session, packet) {
            session[session::HOP].store(hop);
        }
    }
    if let Some(cold) = env.sessions().cold(session[slot::NUMBER].low()) {
        let half = 2 * (session::COUNTERS + counter) + packet.direction as usize;
        E::Word::add_to_half(cold, E::Word::opaque(half), 1);
    }
    counted
}

/// The word of counters of TCP in a session.
const SEGMENTS: usize = 4;

/// Counts a segment of TCP in the peer's session, if there is one. True: it was counted. It creates and
/// refreshes nothing.
#[inline(always)]
pub(super) fn count_segment<E: Env>(env: &E, config: &Config, packet: &Packet, hop: u64) -> bool {
    let service = vip::service_of::<E>(config, packet.vip);
    let Some(session) = session_of(env, config, service, packet.peer) else {
        return false;
    };
    if packet.direction == Direction::Outbound
        && hop != 0
        && is_pinned::<E>(config, session, packet)
    {
        session[session::HOP].store(hop);
    }
    if let Some(cold) = env.sessions().cold(session[slot::NUMBER].low()) {
        let half = 2 * (session::COUNTERS + SEGMENTS) + packet.direction as usize;
        E::Word::add_to_half(cold, E::Word::opaque(half), 1);
    }
    true
}
