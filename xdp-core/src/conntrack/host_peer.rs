//! The HOSTPEER table: the VPN peers of this host itself, and of the hosts for which it translates
//! addresses (MASQUERADE). Their packets come to the VIP on the server's ports, and are not the
//! server's.
//!
//! [`crate::learn`] creates its entries. See `docs/decisions/learned-host-peers.md`.

use crate::conntrack::flow::FlowKey;
use crate::conntrack::session::find_session;
use crate::env::Env;
use crate::packet::Packet;
use crate::table::hash::digest;
use crate::table::recent;
use crate::table::word::Word;
use crate::wire::ipv4::Protocol;
use xdp_common::limits::{HOST_PEER_BUCKETS, HOST_PEER_TICKS, IKE_PORT, NATT_PORT};
use xdp_common::slot::{self, host_peer, session};
use xdp_common::{Class, Config, Direction, meta};

/// Two CPUs read the clock at different moments: an entry may be one tick younger than the packet
/// that asks for it.
const AHEAD: u16 = 1;

/// True when the host has sent something to a peer of its own lately. Otherwise the table has nothing
/// to say. Then the server's next hop is cached ([`meta::SERVER_HOP`]), and what uses it does not even
/// ask.
#[inline(always)]
pub fn in_use<E: Env>(env: &E, config: &Config, jiffies: u64) -> bool {
    env.meta(meta::HOST_PEER_LAST_TICK)
        .is_some_and(|word| is_recent(config, jiffies, word.load()))
}

#[inline(always)]
fn is_recent(config: &Config, jiffies: u64, tick: u64) -> bool {
    let now = (jiffies >> config.tick_shift).wrapping_add(AHEAD.into());
    now.wrapping_sub(tick) <= u64::from(HOST_PEER_TICKS + AHEAD)
}

/// Whose a packet is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Owner {
    /// The server's.
    Server,
    /// The host's own, or of a host behind it.
    Host,
    /// Nothing shows it: both get it, and whose it is not does not know its SPI.
    Undecided,
}

/// Whose the packet at hand is. Two steps: what one keeps on the stack is not there while the other one
/// runs.
#[inline(always)]
pub(crate) fn owner_of_packet<E: Env>(env: &E, config: &Config, jiffies: u64) -> Owner {
    if is_from_host_peer(env, config, jiffies) {
        owner_by_server_tables(env, config, jiffies)
    } else {
        Owner::Server
    }
}

/// The packet at hand is inbound, from the address and the port of a peer of the host.
#[inline(never)]
fn is_from_host_peer<E: Env>(env: &E, config: &Config, jiffies: u64) -> bool {
    let Some(packet) = env.load_packet().and_then(Packet::unpack) else {
        return false;
    };
    // A later fragment has no ports: it follows its first one.
    packet.direction == Direction::Inbound
        && packet.class != Class::Fragment
        && is_known(env, config, packet.peer, ports(&packet), jiffies)
}

/// Whose the packet at hand is, which comes from a peer of the host.
#[inline(never)]
fn owner_by_server_tables<E: Env>(env: &E, config: &Config, jiffies: u64) -> Owner {
    match env.load_packet().and_then(Packet::unpack) {
        Some(packet) => owner_by_tables(env, config, &packet, jiffies),
        None => Owner::Server,
    }
}

/// True when a fragment without ports may come from a peer of the host. UDP shows no ports, so that any
/// such peer may have sent it.
#[inline(never)]
pub(super) fn may_send_fragments<E: Env>(
    env: &E,
    config: &Config,
    packet: &Packet,
    jiffies: u64,
) -> bool {
    in_use(env, config, jiffies)
        && (packet.protocol != Protocol::ESP || is_known(env, config, packet.peer, 0, jiffies))
}

/// True when a packet that an ICMP error quotes is one that the host sent to a peer of its own.
#[inline(always)]
pub(crate) fn has_sent_quoted<E: Env>(
    env: &E,
    config: &Config,
    quoted: &Packet,
    jiffies: u64,
) -> bool {
    is_known(env, config, quoted.peer, ports(quoted), jiffies)
        && owner_of_quoted(env, config, quoted, jiffies) == Owner::Host
}

#[inline(never)]
fn owner_of_quoted<E: Env>(env: &E, config: &Config, quoted: &Packet, jiffies: u64) -> Owner {
    owner_by_tables(env, config, quoted, jiffies)
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
fn owner_by_tables<E: Env>(env: &E, config: &Config, packet: &Packet, _jiffies: u64) -> Owner {
    if FlowKey::of(packet, config).is_some_and(|flow| flow.find(env).is_some()) {
        return Owner::Server;
    }
    let Some(session) = find_session(env, config, packet.peer) else {
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

/// True when the table has an entry that is young enough. The whole entry is compared: part of a
/// digest and of a time must not decide whose packet it is.
#[inline(always)]
fn is_known<E: Env>(env: &E, config: &Config, peer: [u8; 4], ports: u32, jiffies: u64) -> bool {
    let Some((bucket, digest)) = place(env, config, peer, ports) else {
        return false;
    };
    let now = recent::short_tick(config, jiffies).wrapping_add(AHEAD);
    let [high, low] = slot::peer_words(peer);
    recent::recall(bucket, digest, now, HOST_PEER_TICKS + AHEAD).is_some_and(|details| {
        details[0] == high
            && details[1] == low
            && details[2] & 0xffff_ffff == u64::from(ports)
            && is_recent(config, jiffies, details[2] >> 32)
    })
}

/// The bucket and the digest of an entry.
#[inline(always)]
fn place<'e, E: Env>(
    env: &'e E,
    config: &Config,
    peer: [u8; 4],
    ports: u32,
) -> Option<(&'e recent::Bucket<E::Word>, u64)> {
    let digest = digest(&config.secret, [u32::from_ne_bytes(peer), ports]);
    let bucket = env.host_peer_bucket(recent::index(digest, HOST_PEER_BUCKETS - 1))?;
    Some((bucket, digest))
}

/// Remembers a peer of the host.
#[inline(always)]
pub(crate) fn remember<E: Env>(env: &E, config: &Config, peer: [u8; 4], ports: u32, jiffies: u64) {
    let Some((bucket, digest)) = place(env, config, peer, ports) else {
        return;
    };
    let short_tick = recent::short_tick(config, jiffies);
    let tick = jiffies >> config.tick_shift;
    // Once a tick, so that a busy tunnel of the host does not write to shared memory with each packet.
    if recent::recall(bucket, digest, short_tick, 0).is_none() {
        let [high, low] = slot::peer_words(peer);
        let details = [high, low, tick << 32 | u64::from(ports)];
        recent::remember(bucket, digest, short_tick, details);
    }
    if let Some(word) = env.meta(meta::HOST_PEER_LAST_TICK)
        && word.load() != tick
    {
        word.store(tick);
        // Inbound packets of no known flow have to come by this table, and not by a cached route.
        if let Some(hop) = env.meta(meta::SERVER_HOP) {
            hop.store(0);
        }
    }
}
