//! The buckets of HALF and FRAGMENT: small buckets that remember a digest for a limited time and
//! overwrite the oldest.
//!
//! An entry is one word (48 bits of a keyed digest, 16 bits of time), so it is written and read
//! whole: no lock, no claim, no expiry, no daemon. Two CPUs that write one index at the same moment
//! lose one entry, which costs a statistic. The details before the word may be torn, so what is
//! decided by them has to show that it belongs to the digest; the rest is for display.

use crate::table::word::Word;
use xdp_common::Config;
use xdp_common::slot::recent::{DETAILS, DETAILS_WORDS, DIGEST, WORDS};
use xdp_common::slot::{self, WAYS};

/// One value of the map: four ways.
pub type Bucket<W> = [W; slot::WORDS];
/// Details of an entry.
pub type Details = [u64; DETAILS_WORDS];

/// The bits of the digest that a word keeps.
const KEPT: u64 = !0xffff;

#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "16 bits of tick are kept")]
const fn age(word: u64, tick: u16) -> u16 {
    tick.wrapping_sub(word as u16)
}

/// The current tick, as HALF and FRAGMENT store it.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "16 bits of tick are kept")]
pub const fn short_tick(config: &Config, jiffies: u64) -> u16 {
    (jiffies >> config.tick_shift) as u16
}

/// The index of a digest's bucket.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "the low bits are meant")]
pub const fn index(digest: u64, mask: u32) -> u32 {
    // The bits that the entry does not keep, combined with some that it keeps: a mask may need more
    // than 16.
    (digest ^ digest >> 32) as u32 & mask
}

/// Remembers a digest: in its own entry if it has one, else in place of the oldest.
#[inline(always)]
pub fn remember<W: Word>(bucket: &Bucket<W>, digest: u64, tick: u16, details: Details) {
    let mut victim = 0;
    let mut oldest = 0;
    let mut index = 0;
    while index < WAYS {
        let word = bucket[index * WORDS + DIGEST].load();
        if (word ^ digest) & KEPT == 0 {
            victim = index;
            break;
        }
        let age = if word == 0 { u16::MAX } else { age(word, tick) };
        if age > oldest {
            oldest = age;
            victim = index;
        }
        index += 1;
    }
    let at = (W::opaque_to_verifier(victim) % WAYS) * WORDS;
    bucket[at + DETAILS].store(details[0]);
    bucket[at + DETAILS + 1].store(details[1]);
    bucket[at + DETAILS + 2].store(details[2]);
    bucket[at + DIGEST].store(digest & KEPT | u64::from(tick));
}

/// The details of a digest that was remembered at most `limit` ticks ago.
#[inline(always)]
pub fn recall<W: Word>(bucket: &Bucket<W>, digest: u64, tick: u16, limit: u16) -> Option<Details> {
    let mut index = 0;
    while index < WAYS {
        let word = bucket[index * WORDS + DIGEST].load();
        if word != 0 && (word ^ digest) & KEPT == 0 && age(word, tick) <= limit {
            break;
        }
        index += 1;
    }
    if index == WAYS {
        return None;
    }
    let at = (W::opaque_to_verifier(index) % WAYS) * WORDS + DETAILS;
    Some([
        bucket[at].load(),
        bucket[at + 1].load(),
        bucket[at + 2].load(),
    ])
}
