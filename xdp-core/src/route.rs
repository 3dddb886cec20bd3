//! The way out of a packet: the one that is remembered, or what the kernel's FIB says, and what its answers mean.
//!
//! It may not know how a packet is classified, counted or written.

use crate::conntrack::session;
use crate::env::{Env, FibResult, NextHop};
use crate::neighbour::cached_hop;
use crate::neighbour::table::{self as neighbour_table, Neighbour};
use crate::packet::Packet;
use crate::table::word::Word;
use xdp_common::limits::INTERFACES;
use xdp_common::{Config, Direction, Hook, Reason, cpu, meta};

/// The way out, and what of it can be remembered. Plain numbers, all of them always written: the verifier sees to that
/// where one function hands them to another.
pub(crate) struct Way {
    pub(crate) hop: NextHop,
    /// MAC addresses of neighbour and egress, as words; zero in tc, where the kernel writes them.
    pub(crate) destination: u64,
    pub(crate) source: u64,
    /// What the flow may remember of it; zero in tc, which asks for every packet.
    pub(crate) hop_word: u64,
    /// MTU of a way that is too narrow.
    pub(crate) mtu: u16,
}

impl Way {
    /// To the host's own stack.
    pub(crate) const STACK: Self = Self::of_tc(NextHop::STACK);

    /// In tc, where the kernel writes MAC addresses and nothing is remembered.
    const fn of_tc(hop: NextHop) -> Self {
        Self {
            hop,
            destination: 0,
            source: 0,
            hop_word: 0,
            mtu: 0,
        }
    }
}

/// In XDP: the way that a packet before this one took, while it counts. True: there is one.
#[inline(never)]
pub(crate) fn recall_way<E: Env>(env: &E, config: &Config, jiffies: u64, way: &mut Way) -> bool {
    if E::HOOK != Hook::Xdp {
        return false;
    }
    let found = env
        .take()
        .and_then(Packet::unpack)
        .and_then(|packet| remembered(env, config, &packet, jiffies));
    match found {
        Some(found) => {
            *way = found;
            true
        }
        None => false,
    }
}

/// Asks the FIB for the way out.
// Out of line: what the helper needs on the stack is not there while other functions run.
#[inline(never)]
pub(crate) fn find_way<E: Env>(
    env: &E,
    config: &Config,
    jiffies: u64,
    way: &mut Way,
) -> Option<Reason> {
    let Some(packet) = &env.take().and_then(Packet::unpack) else {
        return Some(Reason::Malformed);
    };
    let found = match E::HOOK {
        Hook::Xdp => way_of_xdp(env, config, packet, ask(env, config, packet), jiffies),
        Hook::Tc => way_of_tc(env, config, packet, way),
        // The kernel has found it already.
        Hook::Egress => Ok(Way::STACK),
    };
    match found {
        Ok(found) => {
            *way = found;
            None
        }
        Err(reason) => Some(reason),
    }
}

/// Asks the FIB for the way of a packet as it will look, so that policy routing for the VIP applies.
#[inline(always)]
fn ask<E: Env>(env: &E, config: &Config, packet: &Packet) -> FibResult {
    let (source, destination) = match packet.direction {
        Direction::Inbound => (packet.peer, config.server),
        Direction::Outbound => (config.vip, packet.peer),
    };
    env.route(source, destination, packet.total_length)
}

#[inline(always)]
fn remembered<E: Env>(env: &E, config: &Config, packet: &Packet, jiffies: u64) -> Option<Way> {
    let direction = E::Word::hide(packet.direction as usize) & 1;
    let leg = &config.legs[direction];
    // That of the direction, without a branch.
    let egress = env.cpu()?[cpu::EGRESS_LAN * (1 - direction)].load();
    let hop_word = session::next_hop(env, config, packet, jiffies)?;
    let destination = cached_hop::mac(hop_word, cached_hop::stamp(config, egress, jiffies))?;
    (packet.total_length <= cpu::egress_mtu(egress)).then_some(Way {
        hop: NextHop {
            ifindex: leg.egress,
            gateway: [0; 4],
        },
        destination,
        source: leg.source_mac,
        hop_word,
        mtu: 0,
    })
}

/// What the dataplane knows of an egress; `None`: it takes no frames from XDP.
#[inline(always)]
fn egress_word<E: Env>(env: &E, config: &Config, ifindex: u32) -> Option<u64> {
    let (wan, lan) = (
        place_of(&config.wans, ifindex),
        place_of(&config.lans, ifindex),
    );
    let place = match (wan, lan) {
        (0, 0) => return None,
        // One that is both has the same word twice.
        (0, lan) => cpu::EGRESS_LAN + lan - 1,
        (wan, _) => cpu::EGRESS_WAN + wan - 1,
    };
    let word = env.cpu()?[E::Word::hide(place) & (cpu::COUNTERS - 1)].load();
    (word != 0).then_some(word)
}

/// The place of an interface among those of a side, counted from one; 0: it is not there. In arithmetic alone: the verifier
/// would follow each branch of a search to the end of the program.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "a place is small")]
fn place_of(interfaces: &[u32; INTERFACES], ifindex: u32) -> usize {
    let mut found = 0;
    let mut place = 0;
    while place < INTERFACES {
        // All ones when they are the same; hidden from the compiler, which would make a branch of it.
        let same = u64::from(interfaces[place] ^ ifindex).wrapping_sub(1);
        found += (core::hint::black_box(same) >> 63) * (place as u64 + 1);
        place += 1;
    }
    found as usize
}

/// What the FIB's other answers mean for a packet of ours.
#[inline(always)]
pub(crate) fn refusal(direction: Direction, routed: FibResult) -> Reason {
    match (direction, routed) {
        (_, FibResult::TooBig(_)) => Reason::TooBig,
        // It would be passed up as the gateway's own.
        (Direction::Inbound, FibResult::ForwardingDisabled) => Reason::ForwardingDisabledInbound,
        (Direction::Inbound, _) => Reason::NoRoute,
        (Direction::Outbound, FibResult::ForwardingDisabled) => Reason::ForwardingDisabled,
        // The server's talk with the gateway, or with nobody: the kernel knows what to answer.
        (Direction::Outbound, _) => Reason::NotByWan,
    }
}

/// Outbound is ours only when the route leaves by a WAN.
#[inline(always)]
pub(crate) fn leaves_right(config: &Config, direction: Direction, ifindex: u32) -> bool {
    direction == Direction::Inbound || place_of(&config.wans, ifindex) != 0
}

#[inline(always)]
fn way_of_xdp<E: Env>(
    env: &E,
    config: &Config,
    packet: &Packet,
    routed: FibResult,
    jiffies: u64,
) -> Result<Way, Reason> {
    let neighbour = match routed {
        FibResult::Neighbour(neighbour) => neighbour,
        FibResult::Unresolved(hop) if leaves_right(config, packet.direction, hop.ifindex) => {
            return Err(Reason::NeighbourUnresolved);
        }
        FibResult::Unresolved(_) => return Err(Reason::NotByWan),
        FibResult::TooBig(_)
        | FibResult::NotForwarded
        | FibResult::NoRoute
        | FibResult::ForwardingDisabled => {
            return Err(refusal(packet.direction, routed));
        }
    };
    if !leaves_right(config, packet.direction, neighbour.ifindex) {
        return Err(Reason::NotByWan);
    }
    let Some(egress) = egress_word(env, config, neighbour.ifindex) else {
        return Err(Reason::EgressNotXdp);
    };
    confirm(env, config, &neighbour, jiffies)?;
    let outbound = packet.direction == Direction::Outbound;
    let hop_word = cached_hop::of::<E::Word>(config, outbound, egress, &neighbour, jiffies);
    if !outbound && let Some(word) = env.meta(meta::SERVER_HOP) {
        word.store(hop_word);
    }
    Ok(Way {
        hop: NextHop::to(&neighbour),
        destination: neighbour.destination,
        source: neighbour.source,
        hop_word,
        mtu: 0,
    })
}

/// Entries of NEXTHOP that are tried for one neighbour.
const PROBES: u32 = 4;

/// Writes the FIB's answer to NEXTHOP. Once in a while one packet goes through the neighbour layer instead: frames that
/// XDP sends never confirm a neighbour, so its MAC address would stay for ever.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "a tick has 32 bits")]
fn confirm<E: Env>(
    env: &E,
    config: &Config,
    neighbour: &Neighbour,
    jiffies: u64,
) -> Result<(), Reason> {
    let mut probe = 0;
    while probe < PROBES {
        let index = neighbour.hash().wrapping_add(probe) & (xdp_common::limits::NEXTHOPS - 1);
        if let Some(entry) = env.nexthop(index)
            && neighbour_table::claim(entry, neighbour)
        {
            neighbour_table::write(entry, neighbour);
            let tick = (jiffies >> config.tick_shift) as u32;
            if neighbour_table::due(entry, tick, config.confirm_ticks) {
                return Err(Reason::NeighbourConfirm);
            }
            return Ok(());
        }
        probe += 1;
    }
    Ok(())
}

#[inline(always)]
fn way_of_tc<E: Env>(
    env: &E,
    config: &Config,
    packet: &Packet,
    way: &mut Way,
) -> Result<Way, Reason> {
    let inbound = packet.direction == Direction::Inbound;
    if inbound && config.server_is_local != 0 {
        return Ok(Way::STACK);
    }
    let hop = match ask(env, config, packet) {
        FibResult::TooBig(_) if packet.ttl <= 1 => return Err(expired(config, packet)),
        FibResult::TooBig(mtu) => {
            way.mtu = mtu;
            return cut(config, packet);
        }
        FibResult::Neighbour(neighbour) => NextHop::to(&neighbour),
        FibResult::Unresolved(hop) => hop,
        routed @ (FibResult::NotForwarded | FibResult::NoRoute | FibResult::ForwardingDisabled) => {
            return Err(refusal(packet.direction, routed));
        }
    };
    if !leaves_right(config, packet.direction, hop.ifindex) {
        return Err(Reason::NotByWan);
    }
    if packet.ttl <= 1 {
        return Err(expired(config, packet));
    }
    Ok(Way::of_tc(hop))
}

/// The TTL ends here.
#[inline(always)]
fn expired(config: &Config, packet: &Packet) -> Reason {
    if packet.direction == Direction::Inbound || has_answer(config) {
        Reason::TimeExceeded
    } else {
        Reason::TtlExpired
    }
}

/// True when there is an address that our answers to the server can come from. Else they are left to the kernel.
#[inline(always)]
const fn has_answer(config: &Config) -> bool {
    u32::from_ne_bytes(config.lan_address) != 0
}

/// A packet larger than its way: the kernel fragments it, inbound after the translation and outbound before. Where nobody
/// may, its sender is told.
#[inline(always)]
const fn cut(config: &Config, packet: &Packet) -> Result<Way, Reason> {
    match (packet.direction, packet.dont_fragment) {
        (Direction::Inbound, true) => Err(Reason::FragmentationNeeded),
        (Direction::Outbound, true) if has_answer(config) => Err(Reason::FragmentationNeeded),
        (Direction::Outbound, true) => Err(Reason::TooBig),
        (Direction::Inbound, false) => Ok(Way::STACK),
        // With a source of its own, an address of this host, the kernel would take it for a martian.
        (Direction::Outbound, false) => Err(Reason::ToFragment),
    }
}
