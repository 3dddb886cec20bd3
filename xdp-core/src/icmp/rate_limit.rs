//! How many ICMP errors a peer may cause in a second: one word per bucket of peers (GCRA: the time at which the next
//! error would be due at the steady rate).
//!
//! It may not know what the errors say. Two CPUs that write one word at the same moment let one error more through.

use crate::env::Env;
use crate::table::hash::digest;
use crate::table::word::Word;
use xdp_common::Config;
use xdp_common::limits::{ICMP_BUCKETS, ICMP_BURST, ICMP_RATE};

/// Jiffies are too coarse for the rate: parts of one, as a shift.
const PARTS: u32 = 8;

/// Says whether one more error that concerns a peer may pass, and counts it. `reporter` is who reports, so that nobody uses
/// up the allowance of somebody else's reports; zero: we do.
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

/// Takes one token. A tick of `1 << tick_shift` jiffies is about a second.
#[inline(always)]
pub fn take_token<W: Word>(word: &W, tick_shift: u32, jiffies: u64) -> bool {
    let interval = (1 << ((tick_shift + PARTS) & 63)) / ICMP_RATE;
    let now = jiffies << PARTS;
    let due = word.load();
    let due = if due > now { due } else { now } + interval;
    // A moment far ahead can only be of another machine's time: memory that was not ours.
    if due - now > ICMP_BURST * interval {
        return false;
    }
    word.store(due);
    true
}
