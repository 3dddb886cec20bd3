//! The VIP that a connection of TCP was made to, of a service with several (PIN): by it the server's
//! segments leave, whatever else the peer sends, or a stranger in its name.
//!
//! What comes from outside may be forged, so it only *claims* a connection, until the peer has
//! acknowledged exactly what the server has sent to it by this VIP: then the connection is *proven*, and
//! no claim moves it. It moves when the server accepts another one from the same port of the peer.

use crate::conntrack::places::Own;
use crate::env::Env;
use crate::frame::Frame;
use crate::packet::Packet;
use crate::table::hash::digest;
use crate::table::recent::{self, short_tick};
use crate::vip;
use crate::wire::segment::{ACK, FIN, RST, SYN, Segment};
use crate::wire::tcp;
use xdp_common::limits::{PIN_BUCKETS, PIN_BUCKETS_OF_PEER};
use xdp_common::slot::pin;
use xdp_common::{Class, Config};

/// Reads the segment at hand.
#[inline(always)]
fn read<F: Frame + ?Sized>(frame: &F, packet: &Packet) -> Option<Segment> {
    let header = tcp::Header::read(frame, packet.transport_at)?;
    // A wrong length of the header is found later: what is computed from it proves nothing.
    let data = packet.data.wrapping_sub(u16::from(header.words()) * 4);
    Some(Segment::of(packet.direction, &header, data))
}

#[inline(always)]
const fn has(word: u64, flag: u64) -> bool {
    pin::has(word, flag) != 0
}

#[inline(always)]
const fn with(word: u64, flag: u64, is_set: bool) -> u64 {
    if is_set { word | flag } else { word }
}

/// Whether the entry exists and has this VIP.
#[inline(always)]
const fn is_by(word: u64, vip: u16) -> bool {
    has(word, pin::EXISTS) && pin::vip(word) == vip
}

/// Whether a segment of the server repeats the SYN and ACK of its connection, whose third segment has got lost
/// or was not accepted: it answers no other SYN. What proves a connection leaves the number in its word.
#[inline(always)]
const fn repeats(word: u64, segment: &Segment) -> bool {
    segment.is(SYN | ACK) && has(word, pin::SENT) && pin::number(word) == segment.next() as u64
}

/// The word with the VIP by which a segment of the server leaves, given that of its connection; zero: no
/// VIP is known. What answers a SYN leaves by the VIP of that SYN. Without data that may also be an
/// acknowledgment in a connection: one that is proven keeps it, and a peer that has lost the connection
/// answers it there with a RST.
#[inline(always)]
const fn leaving(word: u64, segment: &Segment) -> u64 {
    // The server refuses a SYN from the sequence number 0 (RFC 9293 section 3.10.7.1).
    let refuses = segment.has(RST) && segment.has(ACK) && segment.sequence() == 0;
    let is_bare = segment.is(ACK) && !segment.has_data() && !has(word, pin::PROVEN);
    let is_answer = segment.is(SYN | ACK) || refuses || is_bare;
    if is_answer && has(word, pin::OTHER) && !repeats(word, segment) {
        pin::claimed(pin::other(word))
    } else {
        word
    }
}

/// True for a RST of the peer's side by another VIP than that of the proven connection from this port: the
/// server would take it for one of that connection.
#[inline(always)]
const fn is_refused(word: u64, segment: &Segment, vip: u16) -> bool {
    segment.is_inbound() && segment.has(RST) && has(word, pin::PROVEN) && !is_by(word, vip)
}

/// In what [`decide`] returns, above the number of a VIP: the connection is known.
const KNOWN: usize = 1 << 16;
/// And: the segment is refused.
const REFUSAL: usize = 1 << 17;

/// By which VIP a segment goes, given the word of its connection and the VIP of the packet: [`found`] for one
/// of the server, [`is_refusal`] for one of the peer's side.
#[inline(always)]
#[must_use]
pub const fn decide(word: u64, segment: &Segment, vip: u16) -> usize {
    if segment.is_inbound() {
        let refusal = if is_refused(word, segment, vip) {
            REFUSAL
        } else {
            0
        };
        return vip as usize | refusal;
    }
    let leaving = leaving(word, segment);
    let known = if has(leaving, pin::EXISTS) { KNOWN } else { 0 };
    pin::vip(leaving) as usize | known
}

/// Whether [`decide`] has refused the segment.
#[inline(always)]
#[must_use]
pub const fn is_refusal(decision: usize) -> bool {
    decision & REFUSAL != 0
}

/// The number of the VIP that [`decide`] has found for a segment of the server.
#[inline(always)]
#[must_use]
#[expect(clippy::cast_possible_truncation, reason = "the number of a VIP")]
pub const fn found(decision: usize) -> Option<u16> {
    if decision & KNOWN == 0 {
        None
    } else {
        Some(decision as u16)
    }
}

/// The word of a connection, zero if it has none, after a segment by a VIP.
#[inline(always)]
#[must_use]
pub const fn after(before: u64, segment: &Segment, vip: u16) -> u64 {
    let after = if segment.is_inbound() {
        after_peer(before, segment, vip)
    } else if has(before, pin::EXISTS) {
        after_server(before, segment, vip)
    } else {
        // The server creates no entry.
        0
    };
    let is_over = has(after, pin::PEER_FIN) && has(after, pin::SERVER_FIN);
    if is_over { after & !pin::PROVEN } else { after }
}

#[inline(always)]
const fn after_peer(before: u64, segment: &Segment, vip: u16) -> u64 {
    let is_reset = segment.has(RST);
    if is_by(before, vip) {
        // A later segment by its own VIP, which may be the next SYN: the other one is not waited for. A
        // RST may answer what has come astray. Data comes before a FIN, so that one was forged or is repeated.
        let goes_on = if segment.has_data() { pin::PEER_FIN } else { 0 };
        let word = if is_reset {
            before
        } else {
            before & !(pin::OTHER | goes_on)
        };
        let proves = segment.has(ACK)
            && !is_reset
            && has(before, pin::SENT)
            && pin::number(before) == segment.acknowledgment();
        let word = with(word, pin::PROVEN, proves);
        return with(word, pin::PEER_FIN, segment.has(FIN) && !is_reset);
    }
    if segment.is(SYN) && has(before, pin::EXISTS) {
        return pin::with_other(before, vip);
    }
    // A RST answers a segment: it claims nothing.
    if is_reset || has(before, pin::PROVEN) {
        before
    } else {
        pin::claimed(vip)
    }
}

#[inline(always)]
const fn after_server(before: u64, segment: &Segment, vip: u16) -> u64 {
    let sent = pin::sent(vip, segment.next());
    if segment.is(SYN | ACK) {
        return if repeats(before, segment) {
            before
        } else {
            sent
        };
    }
    if !is_by(before, vip) {
        return before;
    }
    if segment.has(RST) {
        // It has the number that whoever provoked it has chosen (RFC 9293 section 3.10.7.1): that proves
        // nothing.
        return before & !pin::PROVEN;
    }
    let word = if has(before, pin::PROVEN) {
        before
    } else {
        sent | before & (pin::OTHER | pin::PEER_FIN | pin::SERVER_FIN)
    };
    with(word, pin::SERVER_FIN, segment.has(FIN))
}

/// The index of the bucket of a connection, and the word with digest and tick that its entry would have now. The
/// connections of one peer are in a part of all buckets: whoever makes very many displaces those of few others.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "halves of a word")]
fn place_of(config: &Config, owner: u64, jiffies: u64) -> (u32, u64) {
    const ALL: u32 = PIN_BUCKETS - 1;
    const OF_PEER: u32 = PIN_BUCKETS_OF_PEER - 1;
    let of_peer = pin::without_port(owner);
    let part = digest(&config.secret, [(of_peer >> 32) as u32, of_peer as u32]);
    let digest = digest(&config.secret, [(owner >> 32) as u32, owner as u32]);
    let fresh = recent::named(digest, short_tick(config, jiffies));
    let index = recent::index(part, ALL & !OF_PEER) | recent::index(digest, OF_PEER);
    (index, fresh)
}

/// Follows the connection of the segment at hand: what becomes of it ([`decide`]); zero if it is none. What it
/// shows is written down at once, before anything else is decided: a frame that XDP leaves to tc comes twice. A
/// SYN and ACK that comes again is one that the server repeats, whatever has come meanwhile.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "the number of a VIP")]
pub fn follow<F: Frame + ?Sized, E: Env>(
    frame: &F,
    env: &E,
    config: &Config,
    jiffies: u64,
) -> usize {
    let Some(packet) = env.load_packet().and_then(Packet::unpack) else {
        return 0;
    };
    let vip = vip::by_number::<E>(config, packet.vip);
    if packet.class != Class::Tcp || vip.several == 0 {
        return 0;
    }
    let Some(segment) = read(frame, &packet) else {
        return 0;
    };
    let owner = pin::connection(u32::from_ne_bytes(packet.peer), packet.port, vip.service);
    let (index, fresh) = place_of(config, owner, jiffies);
    let Some(bucket) = env.pin_bucket(index) else {
        return 0;
    };
    let own = Own::read(bucket, fresh, owner);
    // A VIP that is gone, or has become that of another service, gives way.
    let before = if vip::belongs::<E>(config, pin::vip(own.before), vip.service) {
        own.before
    } else {
        0
    };
    let decision = env.decide_segment(before, &segment, packet.vip);
    let vip = decision as u16;
    let now = env.follow_connection(before, &segment, vip);
    // Its time is that of the peer's last segment by its own VIP.
    let refreshes = segment.is_inbound() && !segment.has(RST) && is_by(now, vip);
    if !own.update(bucket, fresh, owner, (now, refreshes)) {
        env.put_pin(index, fresh, [owner, 0, now]);
    }
    decision
}

/// The VIP of the connection from a port of the peer with a service.
#[inline(always)]
pub(crate) fn vip_of<E: Env>(
    env: &E,
    config: &Config,
    service: u16,
    (peer, port): ([u8; 4], u16),
    jiffies: u64,
) -> Option<u16> {
    let owner = pin::connection(u32::from_ne_bytes(peer), port, service);
    let (index, fresh) = place_of(config, owner, jiffies);
    let word = Own::read(env.pin_bucket(index)?, fresh, owner).before;
    has(word, pin::EXISTS).then(|| pin::vip(word))
}
