//! One packet from the first look to the last byte: classify, find the way out, count, rewrite.
//!
//! It may not know what XDP or tc are, only which of the two it runs for: they differ in what they can send.

use crate::Frame;
use crate::limit;
use crate::nat::{self, Ours};
use crate::nexthop::{self, Neighbour};
use crate::recent;
use crate::rewrite;
use crate::table::Buckets;
use crate::track;
use crate::way::{Way, find_way, recall_way};
use crate::word::Word;
use xdp_common::{Class, Config, Direction, Hook, Outcome, Reason, config, cpu};

/// Which interface a frame came in on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The clients' side.
    Wan,
    /// The server's side.
    Lan,
    /// A one-armed gateway: one interface for both.
    Both,
    /// On the way out by a WAN.
    Out,
}

/// What the kernel's FIB says of a destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Routed {
    /// There is a way, and the neighbour's MAC is known.
    Neighbour(Neighbour),
    /// There is a way, but the neighbour has no MAC yet.
    Unresolved(Hop),
    /// The packet does not fit: the way's MTU.
    TooBig(u16),
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
    /// Egress interface; 0: the host's own stack.
    pub ifindex: u32,
    /// The gateway, or the destination itself when it is on the link.
    pub gateway: [u8; 4],
}

impl Hop {
    /// The host's own stack: it routes, counts the TTL down and fragments, or delivers to a server on this host.
    pub const STACK: Self = Self {
        ifindex: 0,
        gateway: [0; 4],
    };

    /// The way to a neighbour.
    #[inline(always)]
    #[must_use]
    pub const fn to(neighbour: &Neighbour) -> Self {
        Self {
            ifindex: neighbour.ifindex,
            gateway: neighbour.gateway,
        }
    }

    /// True for [`Hop::STACK`].
    #[inline(always)]
    #[must_use]
    pub const fn is_stack(&self) -> bool {
        self.ifindex == 0
    }
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
    /// What PEERS says of a peer ([`xdp_common::config::EXCEPT`], [`xdp_common::config::DENY`]).
    fn listed(&self, peer: [u8; 4]) -> Option<u32>;
    /// A token bucket for ICMP errors.
    fn limit(&self, index: u32) -> Option<&Self::Word>;
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
    /// Not forwarded: its sender is to be told why ([`crate::answer`]). No byte has changed.
    Answer {
        /// What is to be said: [`Reason::TimeExceeded`] or [`Reason::FragmentationNeeded`].
        reason: Reason,
        /// MTU of the way, for the latter.
        mtu: u16,
    },
    /// Rewritten (unless this is a dry run): send it this way, and count it.
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

/// Decides what becomes of a frame, and rewrites it when it is forwarded. On [`Verdict::Leave`] no byte has changed.
#[inline(always)]
pub fn process<F: Frame + ?Sized, E: Env>(
    frame: &mut F,
    env: &E,
    config: &Config,
    side: Side,
) -> Verdict {
    let is_fragment = match examine(frame, env, config, side) {
        Seen::Whole => false,
        Seen::Fragment => true,
        Seen::Left(reason) => {
            if reason == Reason::OtherPort {
                note_foreign(frame, env, config, side);
            }
            return Verdict::Leave(reason);
        }
    };
    let jiffies = env.jiffies();
    let mut way = Way::STACK;
    // Every step takes the packet anew, so that nothing of it is kept on the stack while another function runs.
    if is_fragment && let Some(reason) = refuse_fragment(env, config, jiffies) {
        return Verdict::Leave(reason);
    }
    if !recall_way(env, config, jiffies, &mut way)
        && let Some(reason) = find_way(env, config, jiffies, &mut way)
    {
        return stay(env, config, reason, way.mtu, jiffies);
    }
    let tracked = track::track(frame, env, config, jiffies, way.hop_word);
    let Some(ours) = env.take().and_then(Ours::unpack) else {
        return Verdict::Leave(Reason::Malformed);
    };
    if config.dry_run == 0 {
        // The stack counts the TTL down itself.
        let ttl = ours.ttl.wrapping_sub(u8::from(!way.hop.is_stack()));
        let written = rewrite::translate(frame, &ours, ttl, config)
            && (E::HOOK != Hook::Xdp || rewrite::address_frame(frame, way.destination, way.source));
        if !written {
            return Verdict::Leave(Reason::Unwritable);
        }
    }
    Verdict::Forward {
        hop: way.hop,
        direction: ours.direction,
        class: ours.class,
        bytes: ours.total_length,
        tracked,
    }
}

/// Remembers the first fragment of a datagram that is not ours.
#[inline(never)]
fn note_foreign<F: Frame + ?Sized, E: Env>(frame: &F, env: &E, config: &Config, side: Side) {
    if let Some(first) = nat::foreign_fragment(frame, config, side) {
        track::remember_foreign(env, config, &first, env.jiffies());
    }
}

/// Says of a fragment without ports whether it is ours.
#[inline(never)]
fn refuse_fragment<E: Env>(env: &E, config: &Config, jiffies: u64) -> Option<Reason> {
    let ours = env.take().and_then(Ours::unpack)?;
    track::refuse_fragment(env, config, &ours, jiffies)
}

/// What becomes of a packet that has no way: its sender is told, when there is something to tell, somebody to be told, and
/// not too much was told already.
#[inline(always)]
fn stay<E: Env>(env: &E, config: &Config, reason: Reason, mtu: u16, jiffies: u64) -> Verdict {
    if E::HOOK != Hook::Tc || reason.outcome() != Outcome::Answered {
        return Verdict::Leave(reason);
    }
    let Some(ours) = env.take().and_then(Ours::unpack) else {
        return Verdict::Leave(Reason::Malformed);
    };
    // RFC 1122 section 3.2.2: no error about a fragment other than the first.
    let told = ours.offset == 0 && limit::allow(env, config, ours.peer, [0; 4], jiffies);
    if told {
        Verdict::Answer { reason, mtu }
    } else {
        Verdict::Leave(Reason::IcmpLimited)
    }
}

/// What the headers say.
enum Seen {
    /// Ours, as it is.
    Whole,
    /// A fragment without ports: perhaps ours.
    Fragment,
    /// Not forwarded.
    Left(Reason),
}

/// Looks at the headers and puts away what they say.
#[inline(never)]
fn examine<F: Frame + ?Sized, E: Env>(frame: &F, env: &E, config: &Config, side: Side) -> Seen {
    let ours = match nat::classify(frame, config, side, E::HOOK) {
        Ok(ours) => ours,
        Err(reason) => return Seen::Left(reason),
    };
    env.put(ours.pack());
    match listed(env, config, ours.peer) {
        Some(reason) => Seen::Left(reason),
        None if ours.class == Class::Fragment => Seen::Fragment,
        None => Seen::Whole,
    }
}

/// The reason why a peer's packets are not forwarded, if a list names it.
#[inline(always)]
pub(crate) fn listed<E: Env>(env: &E, config: &Config, peer: [u8; 4]) -> Option<Reason> {
    if config.lists == 0 {
        return None;
    }
    match env.listed(peer)? {
        config::EXCEPT => Some(Reason::ExceptPeer),
        config::DENY => Some(Reason::Denied),
        _ => None,
    }
}
