//! One packet from the first look to the last byte: classify, find the way out, count, rewrite.
//!
//! It may not know what XDP or tc are, only which of the two it runs for: they differ in what they can send.

use crate::Frame;
use crate::hop;
use crate::nat::{self, Ours};
use crate::nexthop::{self, Neighbour};
use crate::recent;
use crate::rewrite;
use crate::table::Buckets;
use crate::track;
use crate::word::Word;
use xdp_common::{Class, Config, Direction, Hook, Reason, cpu, meta};

/// Which interface a frame came in on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The clients' side.
    Wan,
    /// The server's side.
    Lan,
    /// A one-armed gateway: one interface for both.
    Both,
}

/// What the kernel's FIB says of a destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Routed {
    /// There is a way, and the neighbour's MAC is known.
    Neighbour(Neighbour),
    /// There is a way, but the neighbour has no MAC yet.
    Unresolved(Hop),
    /// The packet does not fit.
    TooBig,
    /// The destination is this host, or no unicast address: not forwarded.
    NotForwarded,
    /// There is no way.
    NoRoute,
    /// The device that it came from does not forward.
    ForwardingDisabled,
}

/// The way out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hop {
    /// Egress interface.
    pub ifindex: u32,
    /// The gateway, or the destination itself when it is on the link.
    pub gateway: [u8; 4],
}

/// The tables and the kernel, as one packet needs them.
pub trait Env {
    /// The kind of word.
    type Word: Word;
    /// FLOW and SESSION.
    type Buckets: Buckets<Word = Self::Word> + ?Sized;
    /// The hook that this environment sends with.
    const HOOK: Hook;

    /// FLOW.
    fn flows(&self) -> &Self::Buckets;
    /// SESSION.
    fn sessions(&self) -> &Self::Buckets;
    /// A bucket of HALF.
    fn half(&self, index: u32) -> Option<&recent::Bucket<Self::Word>>;
    /// A bucket of FRAGMENT.
    fn fragments(&self, index: u32) -> Option<&recent::Bucket<Self::Word>>;
    /// An entry of NEXTHOP.
    fn nexthop(&self, index: u32) -> Option<&nexthop::Entry<Self::Word>>;
    /// A word of META.
    fn meta(&self, index: usize) -> Option<&Self::Word>;
    /// The block of the CPU that this runs on.
    fn cpu(&self) -> Option<&[Self::Word; cpu::WORDS]>;
    /// `jiffies_64`.
    fn jiffies(&self) -> u64;
    /// Asks the FIB for the way of a packet from `source` to `destination` of this length.
    fn route(&self, source: [u8; 4], destination: [u8; 4], total_length: u16) -> Routed;
    /// Puts what is known of the packet away. In the kernel this is memory whose contents the verifier does not know: so
    /// it follows all that comes after once, and not once for each kind of packet and each way through its headers.
    fn put(&self, packed: nat::Packed);
    /// Takes it back.
    fn take(&self) -> Option<nat::Packed>;
    /// A peer has given its proof. For the log.
    fn established(&self, peer: [u8; 4], by: Direction);
}

/// What became of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Not forwarded by this hook; the reason says whether it is left alone or dropped.
    Leave(Reason),
    /// Rewritten: send it this way, and count it.
    Forward {
        /// The way out.
        hop: Hop,
        /// Which way it goes.
        direction: Direction,
        /// What it is.
        class: Class,
        /// IPv4 total length.
        bytes: u16,
        /// A table has counted it.
        tracked: bool,
    },
}

/// The way out, and what of it can be remembered. Plain numbers, all of them always written: the verifier sees to that
/// where one function hands them to another.
struct Way {
    hop: Hop,
    /// MAC addresses of neighbour and egress, as words; zero in tc, where the kernel writes them.
    destination: u64,
    source: u64,
    /// What the flow may remember of it; zero in tc, which asks for every packet.
    hop_word: u64,
}

/// Decides what becomes of a frame, and rewrites it when it is forwarded. On [`Verdict::Leave`] no byte has changed.
#[inline(always)]
pub fn process<F: Frame + ?Sized, E: Env>(
    frame: &mut F,
    env: &E,
    config: &Config,
    side: Side,
) -> Verdict {
    if let Some(reason) = examine(frame, env, config, side) {
        return Verdict::Leave(reason);
    }
    let jiffies = env.jiffies();
    let mut way = Way {
        hop: Hop {
            ifindex: 0,
            gateway: [0; 4],
        },
        destination: 0,
        source: 0,
        hop_word: 0,
    };
    // Every step takes the packet anew, so that nothing of it is kept on the stack while another function runs.
    if let Some(reason) = find_way(env, config, jiffies, &mut way) {
        return Verdict::Leave(reason);
    }
    let tracked = track::track(frame, env, config, jiffies, way.hop_word);
    let Some(ours) = env.take().and_then(Ours::unpack) else {
        return Verdict::Leave(Reason::Malformed);
    };
    let written = rewrite::translate(frame, &ours, config)
        && (E::HOOK == Hook::Tc || rewrite::address_frame(frame, way.destination, way.source));
    if !written {
        return Verdict::Leave(Reason::Unwritable);
    }
    Verdict::Forward {
        hop: way.hop,
        direction: ours.direction,
        class: ours.class,
        bytes: ours.total_length,
        tracked,
    }
}

/// Looks at the headers and puts away what they say; or the reason why the packet is not forwarded.
#[inline(never)]
fn examine<F: Frame + ?Sized, E: Env>(
    frame: &F,
    env: &E,
    config: &Config,
    side: Side,
) -> Option<Reason> {
    match nat::classify(frame, config, side, E::HOOK) {
        Ok(ours) => {
            env.put(ours.pack());
            None
        }
        Err(reason) => Some(reason),
    }
}

/// Says whether a fragment is ours, and asks the FIB for the way out.
// Out of line: what the helper needs on the stack is not there while other functions run.
#[inline(never)]
fn find_way<E: Env>(env: &E, config: &Config, jiffies: u64, way: &mut Way) -> Option<Reason> {
    let Some(ours) = &env.take().and_then(Ours::unpack) else {
        return Some(Reason::Malformed);
    };
    if ours.class == Class::Fragment && !track::owns_fragment(env, config, ours, jiffies) {
        return Some(Reason::OtherFragment);
    }
    if E::HOOK == Hook::Xdp
        && let Some(found) = remembered(env, config, ours, jiffies)
    {
        *way = found;
        return None;
    }
    let (source, destination) = match ours.direction {
        Direction::Inbound => (ours.peer, config.server),
        // As the packet will look, so that policy routing for the VIP applies.
        Direction::Outbound => (config.vip, ours.peer),
    };
    let routed = env.route(source, destination, ours.total_length);
    let found = match E::HOOK {
        Hook::Xdp => way_of_xdp(env, config, ours, routed, jiffies),
        Hook::Tc | Hook::Egress => way_of_tc(config, ours, routed),
    };
    match found {
        Ok(found) => {
            *way = found;
            None
        }
        Err(reason) => Some(reason),
    }
}

/// The way that a packet before this one took, while it counts.
#[inline(always)]
fn remembered<E: Env>(env: &E, config: &Config, ours: &Ours, jiffies: u64) -> Option<Way> {
    // Hidden from the compiler, which knows that it is 0 or 1: the verifier does not.
    let leg = &config.legs[core::hint::black_box(ours.direction as usize) & 1];
    let egress = egress_word(env, config, leg.egress)?;
    let hop_word = track::next_hop(env, config, ours, jiffies)?;
    let destination = hop::mac(hop_word, hop::stamp(config, egress, jiffies))?;
    (ours.total_length <= cpu::egress_mtu(egress)).then_some(Way {
        hop: Hop {
            ifindex: leg.egress,
            gateway: [0; 4],
        },
        destination,
        source: leg.source_mac,
        hop_word,
    })
}

/// What the dataplane knows of an egress; `None`: it takes no frames from XDP.
#[inline(always)]
fn egress_word<E: Env>(env: &E, config: &Config, ifindex: u32) -> Option<u64> {
    let word = if ifindex == config.lan_ifindex {
        cpu::EGRESS_LAN
    } else if ifindex == config.wan_ifindex {
        cpu::EGRESS_WAN
    } else {
        return None;
    };
    let word = env.cpu()?[word].load();
    (word != 0).then_some(word)
}

/// What the FIB's other answers mean for a packet of ours.
#[inline(always)]
fn refusal(direction: Direction, routed: Routed) -> Reason {
    match (direction, routed) {
        (_, Routed::TooBig) => Reason::TooBig,
        // It would be passed up as the gateway's own.
        (Direction::Inbound, Routed::ForwardingDisabled) => Reason::ForwardingDisabledInbound,
        (Direction::Inbound, _) => Reason::NoRoute,
        (Direction::Outbound, Routed::ForwardingDisabled) => Reason::ForwardingDisabled,
        // The server's talk with the gateway, or with nobody: the kernel knows what to answer.
        (Direction::Outbound, _) => Reason::NotByWan,
    }
}

/// Outbound is ours only when the route leaves by the WAN.
#[inline(always)]
fn leaves_right(config: &Config, direction: Direction, ifindex: u32) -> bool {
    direction == Direction::Inbound || ifindex == config.wan_ifindex
}

#[inline(always)]
fn way_of_xdp<E: Env>(
    env: &E,
    config: &Config,
    ours: &Ours,
    routed: Routed,
    jiffies: u64,
) -> Result<Way, Reason> {
    let neighbour = match routed {
        Routed::Neighbour(neighbour) => neighbour,
        Routed::Unresolved(hop) if leaves_right(config, ours.direction, hop.ifindex) => {
            return Err(Reason::NeighbourUnresolved);
        }
        Routed::Unresolved(_) => return Err(Reason::NotByWan),
        Routed::TooBig | Routed::NotForwarded | Routed::NoRoute | Routed::ForwardingDisabled => {
            return Err(refusal(ours.direction, routed));
        }
    };
    if !leaves_right(config, ours.direction, neighbour.ifindex) {
        return Err(Reason::NotByWan);
    }
    let Some(egress) = egress_word(env, config, neighbour.ifindex) else {
        return Err(Reason::EgressNotXdp);
    };
    confirm(env, config, &neighbour, jiffies)?;
    let outbound = ours.direction == Direction::Outbound;
    let hop_word = hop::of(config, outbound, egress, &neighbour, jiffies);
    if !outbound && let Some(word) = env.meta(meta::SERVER_HOP) {
        word.store(hop_word);
    }
    Ok(Way {
        hop: Hop {
            ifindex: neighbour.ifindex,
            gateway: neighbour.gateway,
        },
        destination: neighbour.destination,
        source: neighbour.source,
        hop_word,
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
            && nexthop::claim(entry, neighbour)
        {
            nexthop::write(entry, neighbour);
            let tick = (jiffies >> config.tick_shift) as u32;
            if nexthop::due(entry, tick, config.confirm_ticks) {
                return Err(Reason::NeighbourConfirm);
            }
            return Ok(());
        }
        probe += 1;
    }
    Ok(())
}

#[inline(always)]
fn way_of_tc(config: &Config, ours: &Ours, routed: Routed) -> Result<Way, Reason> {
    let hop = match routed {
        Routed::Neighbour(neighbour) => Hop {
            ifindex: neighbour.ifindex,
            gateway: neighbour.gateway,
        },
        Routed::Unresolved(hop) => hop,
        Routed::TooBig | Routed::NotForwarded | Routed::NoRoute | Routed::ForwardingDisabled => {
            return Err(refusal(ours.direction, routed));
        }
    };
    if !leaves_right(config, ours.direction, hop.ifindex) {
        return Err(Reason::NotByWan);
    }
    Ok(Way {
        hop,
        destination: 0,
        source: 0,
        hop_word: 0,
    })
}
