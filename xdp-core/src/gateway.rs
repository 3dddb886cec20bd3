//! One packet from the first look to the last byte: classify, find the way out, count, rewrite.
//!
//! It may not know what XDP or tc are, only which of the two it runs for: they differ in what they can send.

use crate::Frame;
use crate::nat::{self, Ours};
use crate::nexthop::{self, Neighbour};
use crate::recent;
use crate::rewrite;
use crate::sequence::{Highest, NO_HOP};
use crate::table::{Buckets, Slot};
use crate::track::{self, FlowKey};
use crate::word::Word;
use xdp_common::slot::flow;
use xdp_common::{Class, Config, Direction, Hook, Reason, meta};

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
    /// `jiffies_64`.
    fn jiffies(&self) -> u64;
    /// Asks the FIB for the way of a packet from `source` to `destination` of this length.
    fn route(&self, source: [u8; 4], destination: [u8; 4], total_length: u16) -> Routed;
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

/// The way out, and what of it can be remembered.
struct Way {
    hop: Hop,
    /// MAC addresses; `None` in tc, where the kernel writes them.
    macs: Option<([u8; 6], [u8; 6])>,
    /// Index in NEXTHOP.
    index: u16,
}

/// Decides what becomes of a frame, and rewrites it when it is forwarded. On [`Verdict::Leave`] no byte has changed.
#[inline(always)]
pub fn process<F: Frame + ?Sized, E: Env>(
    frame: &mut F,
    env: &E,
    config: &Config,
    side: Side,
) -> Verdict {
    let ours = match nat::classify(frame, config, side, E::HOOK) {
        Ok(ours) => ours,
        Err(reason) => return Verdict::Leave(reason),
    };
    let jiffies = env.jiffies();
    if ours.class == Class::Fragment && !track::owns_fragment(env, config, &ours, jiffies) {
        return Verdict::Leave(Reason::OtherFragment);
    }
    let key = FlowKey::of(&ours, config);
    let flow = key.and_then(|key| key.find(env));
    let way = match way(env, config, &ours, flow, jiffies) {
        Ok(way) => way,
        Err(reason) => return Verdict::Leave(reason),
    };
    let tracked = match (key, flow) {
        (Some(_), Some(slot)) => {
            track::count_flow(slot, &ours, jiffies, way.index);
            true
        }
        (Some(key), None) => track::admit_flow(env, config, key, &ours, jiffies, way.index),
        (None, _) => track::count_session(frame, env, config, &ours, jiffies),
    };
    track::remember_fragment(env, config, &ours, jiffies);
    let written = rewrite::translate(frame, &ours, config)
        && way
            .macs
            .is_none_or(|(destination, source)| rewrite::address_frame(frame, destination, source));
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

/// Finds the way out: from the flow's next hop while it is fresh, else from the FIB.
#[inline(always)]
fn way<E: Env>(
    env: &E,
    config: &Config,
    ours: &Ours,
    flow: Option<&Slot<E::Word>>,
    jiffies: u64,
) -> Result<Way, Reason> {
    if E::HOOK == Hook::Xdp
        && let Some(way) = remembered(env, config, ours, flow, jiffies)
    {
        return Ok(way);
    }
    let (source, destination) = match ours.direction {
        Direction::Inbound => (ours.peer, config.server),
        // As the packet will look, so that policy routing for the VIP applies.
        Direction::Outbound => (config.vip, ours.peer),
    };
    let routed = env.route(source, destination, ours.total_length);
    match E::HOOK {
        Hook::Xdp => way_of_xdp(env, config, ours, routed, jiffies),
        Hook::Tc => way_of_tc(config, ours, routed),
    }
}

/// The next hop that the flow's packets took within the same tick.
#[inline(always)]
#[expect(
    clippy::cast_possible_truncation,
    reason = "jiffies are compared in 32 bits"
)]
fn remembered<E: Env>(
    env: &E,
    config: &Config,
    ours: &Ours,
    flow: Option<&Slot<E::Word>>,
    jiffies: u64,
) -> Option<Way> {
    let slot = flow?;
    let last = (slot[flow::LAST].load() >> 32) as u32;
    let shift = config.tick_shift & 31;
    if last >> shift != jiffies as u32 >> shift {
        return None;
    }
    let index = Highest(slot[flow::HIGHEST].load()).hop();
    if index == NO_HOP {
        return None;
    }
    let neighbour = nexthop::read(env.nexthop(u32::from(index))?)?;
    if neighbour.mtu != 0 && ours.total_length > neighbour.mtu {
        return None;
    }
    if !is_ready(env, config, neighbour.ifindex) {
        return None;
    }
    Some(Way {
        hop: Hop {
            ifindex: neighbour.ifindex,
            gateway: neighbour.gateway,
        },
        macs: Some((neighbour.destination, neighbour.source)),
        index,
    })
}

/// True when the egress takes frames from XDP.
#[inline(always)]
fn is_ready<E: Env>(env: &E, config: &Config, ifindex: u32) -> bool {
    let word = if ifindex == config.lan_ifindex {
        meta::READY_LAN
    } else if ifindex == config.wan_ifindex {
        meta::READY_WAN
    } else {
        return false;
    };
    env.meta(word).is_some_and(|word| word.load() != 0)
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
    if !is_ready(env, config, neighbour.ifindex) {
        return Err(Reason::EgressNotXdp);
    }
    let index = learn(env, config, &neighbour, jiffies)?;
    Ok(Way {
        hop: Hop {
            ifindex: neighbour.ifindex,
            gateway: neighbour.gateway,
        },
        macs: Some((neighbour.destination, neighbour.source)),
        index,
    })
}

/// Entries of NEXTHOP that are tried for one neighbour.
const PROBES: u32 = 4;

/// Writes the FIB's answer to NEXTHOP; its index, or [`NO_HOP`] when there is no room (then the FIB is asked for each
/// packet). Once in a while one packet goes through the neighbour layer instead: frames that XDP sends never confirm a
/// neighbour, so its MAC address would stay for ever.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "an index is below 65,535")]
fn learn<E: Env>(
    env: &E,
    config: &Config,
    neighbour: &Neighbour,
    jiffies: u64,
) -> Result<u16, Reason> {
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
            return Ok(index as u16);
        }
        probe += 1;
    }
    Ok(NO_HOP)
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
    // No index: XDP asks the FIB again at its next packet, so a change of route is not overlooked for a tick.
    Ok(Way {
        hop,
        macs: None,
        index: NO_HOP,
    })
}
