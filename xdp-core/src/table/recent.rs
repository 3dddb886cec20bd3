//! The buckets of HALF, PIN, FRAGMENT and HOSTPEER: small buckets that remember a digest for a limited time
//! and overwrite the oldest (in HOSTPEER: that has not been answered).
//!
//! An entry is one word (48 bits of a keyed digest, 16 bits of time), so it is written and read
//! whole: no lock, no claim, no expiry, no daemon. Two CPUs that write one index at the same moment
//! lose one entry, which costs a statistic; in HALF it may hide that an SPI went to two addresses. The details
//! after the word may be torn, so what is decided by them has to show that it belongs to the digest; the rest is
//! for display. In PIN, `conntrack::places` writes.

use crate::table::word::Word;
use xdp_common::Config;
use xdp_common::slot::WAYS;
use xdp_common::slot::recent::{BUCKET_WORDS, DETAILS, DETAILS_WORDS, DIGEST, WORDS};

/// One value of the map: four ways.
pub type Bucket<W> = [W; BUCKET_WORDS];
/// Details of an entry.
pub type Details = [u64; DETAILS_WORDS];

/// The bits of the digest that a word keeps.
const KEPT: u64 = !0xffff;

/// Two CPUs read the clock at different moments: an entry may be one tick younger than the packet
/// that asks for it.
pub const AHEAD: u16 = 1;

/// The age of an entry plus [`AHEAD`], so that it is never negative.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "16 bits of tick are kept")]
const fn age(word: u64, tick: u16) -> u16 {
    tick.wrapping_add(AHEAD).wrapping_sub(word as u16)
}

/// How many of them are of the tick.
pub const TICK_BITS: u32 = KEPT.trailing_zeros();

/// The word of an entry with digest and tick.
#[inline(always)]
#[must_use]
pub const fn named(digest: u64, tick: u16) -> u64 {
    digest & KEPT | tick as u64
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
    let way = way_for(bucket, digest, tick);
    write(bucket, way, digest, tick, details);
}

/// The way for a digest: its own, else that of the oldest entry.
#[inline(always)]
pub fn way_for<W: Word>(bucket: &Bucket<W>, digest: u64, tick: u16) -> usize {
    let mut victim = 0;
    let mut highest = 0;
    let mut way = 0;
    while way < WAYS {
        let word = bucket[way * WORDS + DIGEST].load();
        if is_of(word, digest) {
            victim = way;
            break;
        }
        let age = if word == 0 { u16::MAX } else { age(word, tick) };
        // The digest chooses among equally old ways. Otherwise all entries of one tick would overwrite
        // the same one, and few packets would displace a victim's.
        let rank = u64::from(age) * WAYS as u64 + (digest >> TIE_SHIFT ^ way as u64);
        if rank > highest {
            highest = rank;
            victim = way;
        }
        way += 1;
    }
    victim
}

/// The two highest bits of a digest are the number of a way; its bucket does not depend on them.
pub const TIE_SHIFT: u32 = 62;
const _: () = assert!(WAYS == 4);

/// Whether an entry's word is that of a digest.
#[inline(always)]
pub const fn is_of(word: u64, digest: u64) -> bool {
    difference(word, digest) == 0
}

/// In what bits an entry's word differs from that of a digest, as a number below 2^48.
#[inline(always)]
pub const fn difference(word: u64, digest: u64) -> u64 {
    (word ^ digest) >> TICK_BITS
}

/// Writes an entry to a way of a bucket.
#[inline(always)]
pub fn write<W: Word>(bucket: &Bucket<W>, way: usize, digest: u64, tick: u16, details: Details) {
    let at = (W::opaque_to_verifier(way) % WAYS) * WORDS;
    bucket[at + DETAILS].store(details[0]);
    bucket[at + DETAILS + 1].store(details[1]);
    bucket[at + DETAILS + 2].store(details[2]);
    bucket[at + DIGEST].store(named(digest, tick));
}

/// The details of a digest that was remembered at most `limit` ticks ago.
#[inline(always)]
pub fn recall<W: Word>(bucket: &Bucket<W>, digest: u64, tick: u16, limit: u16) -> Option<Details> {
    let at = find(bucket, digest, tick, limit)?;
    Some([
        bucket[at].load(),
        bucket[at + 1].load(),
        bucket[at + 2].load(),
    ])
}

/// The place of these details in the bucket.
#[inline(always)]
pub fn find<W: Word>(bucket: &Bucket<W>, digest: u64, tick: u16, limit: u16) -> Option<usize> {
    let mut way = 0;
    while way < WAYS {
        let word = bucket[way * WORDS + DIGEST].load();
        if word != 0 && is_of(word, digest) && age(word, tick) <= limit + AHEAD {
            break;
        }
        way += 1;
    }
    if way == WAYS {
        return None;
    }
    Some((W::opaque_to_verifier(way) % WAYS) * WORDS + DETAILS)
}
