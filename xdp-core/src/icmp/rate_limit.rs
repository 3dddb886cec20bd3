//! The rate limit for ICMP errors: how many a peer may cause in a second, in one word per bucket of
//! peers (GCRA: the time at which the next error would be due at the steady rate).
//!
//! Whoever forges addresses can exhaust buckets: those of a peer by packets in its name and by errors
//! about it, and those of any number of peers that do not exist. So each origin has a part of the
//! buckets, half of it for peers with a session, and all that concerns one peer has a few of these.
//!
//! Two CPUs that write one word at the same moment let one more error through.

use crate::conntrack::session::session_of;
use crate::env::Env;
use crate::table::hash::{digest, short_digest};
use crate::table::word::Word;
use xdp_common::limits::{ICMP_BUCKETS, ICMP_BUCKETS_PER_PEER, ICMP_BURST, ICMP_RATE};
use xdp_common::{Config, Direction, Reason};

/// Jiffies are too coarse for the rate: the time is kept in fractions of one, by this shift.
const FRACTION_BITS: u32 = 8;

/// Where errors come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// ikenat's own, about a packet in this direction, for this reason: packets whose TTL expires
    /// can be forged at will, from any number of addresses, and take nothing from path MTU discovery
    /// in the same direction.
    Own(Direction, Reason),
    /// Translated ones in this direction, and the address that reports: no reporter uses up the
    /// allowance of another one.
    Reporter(Direction, [u8; 4]),
}

impl Origin {
    /// The buckets of this origin: the first, and how many. Reporters outside have half of all,
    /// because any number of them can be forged.
    #[inline(always)]
    const fn buckets(self) -> (u32, u32) {
        const EIGHTH: u32 = ICMP_BUCKETS / 8;
        match self {
            Self::Own(direction, reason) => {
                let half = EIGHTH / 2 * (reason as u32 == Reason::TimeExceeded as u32) as u32;
                (EIGHTH * direction as u32 + half, EIGHTH / 2)
            }
            Self::Reporter(Direction::Outbound, _) => (2 * EIGHTH, 2 * EIGHTH),
            Self::Reporter(Direction::Inbound, _) => (4 * EIGHTH, 4 * EIGHTH),
        }
    }
}

/// Decides whether one more error that concerns a peer may pass, and counts it.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "the low bits are meant")]
pub fn allow<E: Env>(
    env: &E,
    config: &Config,
    (service, peer): (u16, [u8; 4]),
    origin: Origin,
    jiffies: u64,
) -> bool {
    let reporter = match origin {
        Origin::Own(..) => [0; 4],
        Origin::Reporter(_, reporter) => reporter,
    };
    let (first, count) = origin.buckets();
    let half = count / 2;
    let first = first + half * u32::from(session_of(env, config, service, peer).is_some());
    let of_peer = digest(&config.secret, [u32::from_ne_bytes(peer)]) as u32;
    let of_reporter = short_digest(&config.secret, u32::from_ne_bytes(reporter));
    // The reporters of one peer share those that differ in the lowest bits.
    let bucket = of_peer ^ of_reporter & (ICMP_BUCKETS_PER_PEER - 1);
    match env.icmp_bucket(first + (bucket & (half - 1))) {
        Some(word) => take_token(word, config.tick_shift, jiffies),
        None => false,
    }
}

/// Takes one token; false when there is none. A tick of `1 << tick_shift` jiffies is about a
/// second.
#[inline(always)]
pub fn take_token<W: Word>(word: &W, tick_shift: u32, jiffies: u64) -> bool {
    let interval = (1 << ((tick_shift + FRACTION_BITS) & 63)) / ICMP_RATE;
    let now = jiffies << FRACTION_BITS;
    let due = word.load();
    let due = if due > now { due } else { now } + interval;
    // Beyond the burst. A time far ahead can only come from another machine's clock: memory that
    // ikenat has not written.
    if due - now > ICMP_BURST * interval {
        return false;
    }
    word.store(due);
    true
}
