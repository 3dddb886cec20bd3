//! The buckets of HALF and FRAGMENT: small buckets that remember a digest for a limited time and
//! overwrite the oldest.
//!
//! An entry is one word (35 bits of a keyed digest, 13 bits of a value that belongs to it, 16 bits
//! of time), so it is written and read whole: no lock, no claim, no expiry, no daemon. Two CPUs
//! that write one index at the same moment lose one entry, which costs a statistic. The details
//! after the word are only for display and may be torn; nothing is decided by them.

use crate::table::word::Word;
use xdp_common::Config;
use xdp_common::slot::recent::{DETAILS, DETAILS_WORDS, DIGEST, WORDS};
use xdp_common::slot::{self, WAYS};

/// One value of the map: four ways.
pub type Bucket<W> = [W; slot::WORDS];
/// Details of an entry, for display.
pub type Details = [u64; DETAILS_WORDS];

/// The bits of the digest that a word keeps.
const KEPT: u64 = !0x1fff_ffff;
const VALUE_SHIFT: u32 = 16;
const VALUE: u64 = 0x1fff;

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

/// Remembers a digest with a value (13 bits): in its own entry if it has one, else in place of the
/// oldest.
#[inline(always)]
pub fn remember<W: Word>(bucket: &Bucket<W>, digest: u64, value: u16, tick: u16, details: Details) {
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
    let value = (u64::from(value) & VALUE) << VALUE_SHIFT;
    bucket[at + DIGEST].store(digest & KEPT | value | u64::from(tick));
    bucket[at + DETAILS].store(details[0]);
    bucket[at + DETAILS + 1].store(details[1]);
    bucket[at + DETAILS + 2].store(details[2]);
}

/// The value of a digest that was remembered at most `limit` ticks ago.
#[inline(always)]
pub fn recall<W: Word>(bucket: &Bucket<W>, digest: u64, tick: u16, limit: u16) -> Option<u16> {
    let mut index = 0;
    while index < WAYS {
        let word = bucket[index * WORDS + DIGEST].load();
        if word != 0 && (word ^ digest) & KEPT == 0 && age(word, tick) <= limit {
            return Some((word >> VALUE_SHIFT & VALUE) as u16);
        }
        index += 1;
    }
    None
}
