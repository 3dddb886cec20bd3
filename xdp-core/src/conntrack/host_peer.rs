//! The HOSTPEER table: the VPN peers of this host itself, and of the hosts for which it translates
//! addresses (MASQUERADE). Their packets come to the VIP on the server's ports, and are not the
//! server's.
//!
//! [`crate::learn`] creates its entries. See `docs/decisions/learned-host-peers.md`.

use crate::conntrack::flow::FlowKey;
use crate::conntrack::session::session_of;
use crate::env::Env;
use crate::packet::Packet;
use crate::table::hash::host_peer_digest;
use crate::table::recent::{self, AHEAD};
use crate::table::word::Word;
use crate::vip;
use crate::wire::ipv4::Protocol;
use xdp_common::limits::{HOST_PEER_BUCKETS, HOST_PEER_TICKS, IKE_PORT, NATT_PORT};
use xdp_common::slot::{WAYS, host_peer, recent as recent_slot, session};
use xdp_common::{Class, Config, Direction, meta};

/// True when the host has sent something to a peer of its own lately. Otherwise the table has nothing
/// to say. Then the server's next hop is cached ([`meta::server_hop`]), and what uses it does not even
/// ask.
#[inline(always)]
pub fn in_use<E: Env>(env: &E, config: &Config, jiffies: u64) -> bool {
    env.meta(meta::HOST_PEER_LAST_TICK)
        .is_some_and(|word| is_recent(config, jiffies, word.load()))
}

#[inline(always)]
fn is_recent(config: &Config, jiffies: u64, tick: u64) -> bool {
    age(config, jiffies, tick) <= u64::from(HOST_PEER_TICKS + AHEAD)
}

/// The age of a tick, and [`AHEAD`].
#[inline(always)]
fn age(config: &Config, jiffies: u64, tick: u64) -> u64 {
    let now = (jiffies >> config.tick_shift).wrapping_add(AHEAD.into());
    now.wrapping_sub(tick) & host_peer::TICK_MASK
}

/// The number of a VIP, and a peer that the host exchanges packets with from it.
pub(crate) type VipPeer = (u16, [u8; 4]);

/// Whose a packet is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Owner {
    /// The server's.
    Server,
    /// The host's own, or of a host behind it.
    Host,
    /// Nothing shows it: both get it, and the one whose it is not drops it, not knowing its SPI.
    Undecided,
}

/// Whose the packet at hand is. In steps: what one keeps on the stack is not there while another one
/// runs.
#[inline(always)]
pub(crate) fn owner_of_packet<E: Env>(env: &E, config: &Config, jiffies: u64) -> Owner {
    let entry = entry_of_sender(env, config, jiffies);
    if !entry.exists() {
        return Owner::Server;
    }
    let owner = owner_by_server_tables(env, config);
    // What is the server's answers nothing: its clients must not keep the entries of a scan.
    if owner != Owner::Server && !entry.is_answered() {
        note_answer(env, entry);
    }
    owner
}

/// An entry of the table, in one word: its bucket (bits 16-31), the place of its details in the bucket
/// (bits 8-15; never zero), and whether its peer has answered (bit 0). Zero: there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry(u32);

impl Entry {
    const NONE: Self = Self(0);

    #[inline(always)]
    const fn exists(self) -> bool {
        self.0 != 0
    }

    #[inline(always)]
    const fn is_answered(self) -> bool {
        self.0 & 1 != 0
    }
}

/// The entry of the packet at hand, if it is inbound, from the address and the port of a peer of the host.
#[inline(never)]
fn entry_of_sender<E: Env>(env: &E, config: &Config, jiffies: u64) -> Entry {
    let Some(packet) = env.load_packet().and_then(Packet::unpack) else {
        return Entry::NONE;
    };
    // A later fragment has no ports: it follows its first one. TCP teaches no peer.
    if packet.direction != Direction::Inbound
        || matches!(packet.class, Class::Fragment | Class::Tcp)
    {
        return Entry::NONE;
    }
    find(
        env,
        config,
        (packet.vip, packet.peer),
        ports(&packet),
        jiffies,
    )
}

/// Writes down that the peer of an entry has answered the host.
#[inline(never)]
fn note_answer<E: Env>(env: &E, entry: Entry) {
    let Entry(word) = entry;
    if let Some(bucket) = env.host_peer_bucket(word >> 16 & (HOST_PEER_BUCKETS - 1)) {
        let at = E::Word::opaque((word >> 8 & 0xff) as usize);
        let word = &bucket[(at + LAST_DETAIL) & (recent_slot::BUCKET_WORDS - 1)];
        word.store(word.load() | host_peer::ANSWERED);
    }
}

/// The word of the details that [`host_peer`] describes.
const LAST_DETAIL: usize = 2;

/// Whose the packet at hand is, which comes from a peer of the host.
#[inline(never)]
fn owner_by_server_tables<E: Env>(env: &E, config: &Config) -> Owner {
    match env.load_packet().and_then(Packet::unpack) {
        Some(packet) => owner_by_tables(env, config, &packet),
        None => Owner::Server,
    }
}

/// True when a fragment without ports may come from a peer of the host: the host sends ESP, or UDP from
/// whatever port, to its address.
#[inline(never)]
pub(super) fn may_send_fragment<E: Env>(
    env: &E,
    config: &Config,
    packet: &Packet,
    jiffies: u64,
) -> bool {
    let ports = match packet.protocol {
        Protocol::UDP => host_peer::ANY_UDP,
        Protocol::ESP => 0,
        // TCP teaches no peer.
        _ => return false,
    };
    in_use(env, config, jiffies)
        && find(env, config, (packet.vip, packet.peer), ports, jiffies).exists()
}

/// True when a packet that an ICMP error quotes is one that the host sent to a peer of its own.
#[inline(always)]
pub(crate) fn has_sent_quoted<E: Env>(
    env: &E,
    config: &Config,
    quoted: &Packet,
    jiffies: u64,
) -> bool {
    find(
        env,
        config,
        (quoted.vip, quoted.peer),
        ports(quoted),
        jiffies,
    )
    .exists()
        && owner_of_quoted(env, config, quoted) == Owner::Host
}

#[inline(never)]
fn owner_of_quoted<E: Env>(env: &E, config: &Config, quoted: &Packet) -> Owner {
    owner_by_tables(env, config, quoted)
}

/// Both ports of a packet, as an entry has them.
#[inline(always)]
fn ports(packet: &Packet) -> u32 {
    match (packet.protocol == Protocol::UDP, packet.class) {
        (false, _) => 0,
        (true, Class::Ike) => host_peer::ports(packet.port, IKE_PORT),
        (true, _) => host_peer::ports(packet.port, NATT_PORT),
    }
}

/// Whose a packet from or to a peer of the host is. It is the server's if one of its flows has the SPI,
/// or if the session of that address has this port. Native ESP has no port, so nothing decides about an
/// SPI that no flow has, if the server exchanges native ESP with the same address, or may begin to: the
/// peer has no port of NAT-T there.
#[inline(always)]
fn owner_by_tables<E: Env>(env: &E, config: &Config, packet: &Packet) -> Owner {
    if FlowKey::of::<E>(packet, config).is_some_and(|flow| flow.find(env).is_some()) {
        return Owner::Server;
    }
    let Some(session) = session_of(
        env,
        config,
        vip::service_of::<E>(config, packet.vip),
        packet.peer,
    ) else {
        return Owner::Host;
    };
    let known = session[session::PORTS_CREATED].load();
    if packet.protocol != Protocol::ESP {
        let port = session::port_on(known, packet.class == Class::Ike);
        return if port == packet.port {
            Owner::Server
        } else {
            Owner::Host
        };
    }
    let is_native = known & session::NATIVE_ESP != 0 || session::port_on(known, false) == 0;
    // What the server sends has a flow.
    if is_native && packet.direction == Direction::Inbound {
        Owner::Undecided
    } else {
        Owner::Host
    }
}

/// Looks for an entry that is young enough. The whole entry is compared: part of a digest and of a time
/// must not decide whose packet it is.
#[inline(always)]
fn find<E: Env>(env: &E, config: &Config, at: VipPeer, ports: u32, jiffies: u64) -> Entry {
    let (index, digest) = place(config, at, ports);
    let (vip, peer) = at;
    let now = recent::short_tick(config, jiffies);
    let Some(bucket) = env.host_peer_bucket(index) else {
        return Entry::NONE;
    };
    let Some(at) = recent::find(bucket, digest, now, HOST_PEER_TICKS) else {
        return Entry::NONE;
    };
    let [number, address] = host_peer::key_words(vip, peer);
    let word = bucket[at + LAST_DETAIL].load();
    if bucket[at].load() != number
        || bucket[at + 1].load() != address
        || word & 0xffff_ffff != u64::from(ports)
        || !is_recent(config, jiffies, host_peer::tick(word))
    {
        return Entry::NONE;
    }
    #[expect(clippy::cast_possible_truncation, reason = "a place is small")]
    Entry(index << 16 | (at as u32) << 8 | (word >> 63) as u32)
}

/// The bucket and the digest of an entry.
#[inline(always)]
fn place(config: &Config, (vip, peer): VipPeer, ports: u32) -> (u32, u64) {
    let digest = host_peer_digest(&config.secret, vip, peer, ports);
    (recent::index(digest, HOST_PEER_BUCKETS - 1), digest)
}

/// Remembers a peer of the host. False: there is no room, since all peers of its bucket have answered.
#[inline(always)]
pub(crate) fn remember<E: Env>(
    env: &E,
    config: &Config,
    at: VipPeer,
    ports: u32,
    jiffies: u64,
) -> bool {
    let refreshed = refresh(env, config, at, ports.into(), jiffies);
    if refreshed == Refreshed::NoRoom {
        return false;
    }
    if ports != 0 && refreshed != Refreshed::Before {
        let answered = if refreshed == Refreshed::Answered {
            host_peer::ANSWERED
        } else {
            0
        };
        let any = u64::from(host_peer::ANY_UDP) | answered;
        refresh(env, config, at, any, jiffies);
    }
    let tick = jiffies >> config.tick_shift;
    if let Some(word) = env.meta(meta::HOST_PEER_LAST_TICK)
        && word.load() != tick
    {
        word.store(tick);
        // Inbound packets of no known flow have to come by this table, and not by a cached route.
        // Where there are several services, these packets look at the tick first.
        if let Some(hop) = env.meta(meta::server_hop(vip::service::<E>(config, &config.vip))) {
            hop.store(0);
        }
    }
    true
}

/// What has become of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Refreshed {
    /// There is no room for it.
    NoRoom,
    /// This tick has written it before.
    Before,
    /// It is written, and the peer has not answered.
    Unanswered,
    /// It is written, and the peer has answered.
    Answered,
}

/// Writes an entry, once a tick, so that a busy tunnel of the host does not write to shared memory with
/// each packet. `word`: its ports, and [`host_peer::ANSWERED`] if that is known from another entry.
#[inline(never)]
fn refresh<E: Env>(env: &E, config: &Config, at: VipPeer, word: u64, jiffies: u64) -> Refreshed {
    #[expect(clippy::cast_possible_truncation, reason = "the low half is meant")]
    let ports = word as u32;
    let (index, digest) = place(config, at, ports);
    let (vip, peer) = at;
    let Some(bucket) = env.host_peer_bucket(index) else {
        return Refreshed::NoRoom;
    };
    let short_tick = recent::short_tick(config, jiffies);
    let (way, rank) = way_for(bucket, digest, config, jiffies);
    if rank == 0 {
        return Refreshed::NoRoom;
    }
    let at = (E::Word::opaque(way) % WAYS) * recent_slot::WORDS;
    let is_own = rank >= OWN;
    if is_own && bucket[at + recent_slot::DIGEST].load() & 0xffff == u64::from(short_tick) {
        return Refreshed::Before;
    }
    // That of an entry that is too old counts no more.
    let answered = if is_own && rank & FREE == 0 {
        bucket[at + recent_slot::DETAILS + LAST_DETAIL].load() & host_peer::ANSWERED
    } else {
        0
    };
    let [number, address] = host_peer::key_words(vip, peer);
    let tick = jiffies >> config.tick_shift & host_peer::TICK_MASK;
    let word = word | answered | tick << 32;
    recent::write(bucket, way, digest, short_tick, [number, address, word]);
    if word & host_peer::ANSWERED == 0 {
        Refreshed::Unanswered
    } else {
        Refreshed::Answered
    }
}

/// The rank of an entry of the same digest, which goes before all others ...
const OWN: u64 = 1 << 40;
/// ... and of one that is empty or too old, which goes before all ages.
const FREE: u64 = 1 << 39;

/// The way for an entry, and its rank: its own, else one that is free or too old, else the oldest one whose
/// peer has not answered. Rank zero: all have. A host that sends to however many addresses takes no living
/// tunnel from another host.
// Without branches: the verifier would follow each of them to the end.
#[inline(always)]
fn way_for<W: Word>(
    bucket: &recent::Bucket<W>,
    digest: u64,
    config: &Config,
    jiffies: u64,
) -> (usize, u64) {
    let (mut victim, mut highest) = (0, 0);
    let mut way = 0;
    while way < WAYS {
        let at = way * recent_slot::WORDS;
        let name = bucket[at + recent_slot::DIGEST].load();
        let word = bucket[at + recent_slot::DETAILS + LAST_DETAIL].load();
        // An empty one has the tick zero, which is long ago: jiffies begin just below 2^32.
        let age = age(config, jiffies, host_peer::tick(word));
        let is_old = below(u64::from(HOST_PEER_TICKS + AHEAD), age);
        let is_own = below(recent::difference(name, digest), 1);
        let waits = 1 - (word >> 63);
        let rank = OWN * is_own + FREE * is_old + (age + 1) * waits * (1 - is_old);
        let more = below(highest, rank).wrapping_neg();
        highest = highest & !more | rank & more;
        victim = victim & !more | way as u64 & more;
        way += 1;
    }
    #[expect(clippy::cast_possible_truncation, reason = "a way is small")]
    (victim as usize, highest)
}

/// One if the first number is the smaller one, else zero; both are below 2^63.
#[inline(always)]
fn below(a: u64, b: u64) -> u64 {
    core::hint::black_box(a.wrapping_sub(b)) >> 63
}
