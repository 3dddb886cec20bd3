//! The rate limit for ICMP errors: how many a peer may cause in a second, in one word per bucket of
//! peers (GCRA: the time at which the next error would be due at the steady rate).
//!
//! Two CPUs that write one word at the same moment let one more error through.

use crate::env::Env;
use crate::table::hash::digest;
use crate::table::word::Word;
use xdp_common::Config;
use xdp_common::limits::{ICMP_BUCKETS, ICMP_BURST, ICMP_RATE};

/// Jiffies are too coarse for the rate: the time is kept in fractions of one, by this shift.
const PARTS: u32 = 8;

/// Decides whether one more error that concerns a peer may pass, and counts it. `reporter` is the
/// address that reports, so that no reporter uses up the allowance of another one; zero: ikenat
/// itself reports.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "the low bits are meant")]
pub fn allow<E: Env>(
    env: &E,
    config: &Config,
    peer: [u8; 4],
    reporter: [u8; 4],
    jiffies: u64,
) -> bool {
    let words = [u32::from_ne_bytes(peer), u32::from_ne_bytes(reporter)];
    let bucket = digest(&config.secret, words) as u32 & (ICMP_BUCKETS - 1);
    match env.icmp_bucket(bucket) {
        Some(word) => take_token(word, config.tick_shift, jiffies),
        None => false,
    }
}

/// Takes one token; false when there is none. A tick of `1 << tick_shift` jiffies is about a
/// second.
#[inline(always)]
pub fn take_token<W: Word>(word: &W, tick_shift: u32, jiffies: u64) -> bool {
    let interval = (1 << ((tick_shift + PARTS) & 63)) / ICMP_RATE;
    let now = jiffies << PARTS;
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
