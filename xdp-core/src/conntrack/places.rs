//! The entries of PIN in their buckets: which is found, and which gives way to a new one.
//!
//! In the first ways of a bucket a connection that is proven is displaced by another proven one alone. Entries
//! are replaced by compare-and-swap, so what another CPU has written meanwhile stays.

use crate::table::recent::{self, Bucket, Details};
use crate::table::word::Word;
use xdp_common::limits::PIN_CONNECTION_TICKS;
use xdp_common::slot::recent::{DETAILS, DETAILS_WORDS, DIGEST, WORDS};
use xdp_common::slot::{WAYS, pin};

/// The last of the details of an entry.
const WORD: usize = DETAILS + 2;

/// How many ticks the clock of another CPU may be ahead, or this one have stood still between reading the clock
/// and the entry, as that of a virtual machine does: an entry of the future would be the oldest of all.
const AHEAD: u16 = 256;

/// Whether an entry of a connection is young enough.
#[inline(always)]
const fn counts(named: u64, fresh: u64) -> bool {
    age(named, fresh) <= PIN_CONNECTION_TICKS + AHEAD
}

/// The age of an entry in ticks and [`AHEAD`].
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "16 bits of tick are kept")]
const fn age(named: u64, fresh: u64) -> u16 {
    (fresh as u16)
        .wrapping_sub(named as u16)
        .wrapping_add(AHEAD)
}

/// Only in the first ways of a bucket is a proven connection not displaced by claims: the others stay
/// free for those of others, however many connections somebody has.
const PROVEN_WAYS: usize = 2;

/// The rank of an entry that has the same digest ...
const OWN: usize = 1 << 40;
/// ... of an empty one ...
const EMPTY: usize = 1 << 39;
/// ... and of one that gives way to a proven connection before others that are proven. Its age is less.
const NOT_PROVEN: usize = 1 << 38;

/// How readily an entry gives way to a new one, given its word with the digest, and its last one; zero: it stays.
#[inline(always)]
const fn rank((named, word): (u64, u64), number: usize, fresh: u64, is_proven: bool) -> usize {
    // Of several that are equally old the digest chooses: see `recent::remember`.
    let tie = (fresh >> recent::TIE_SHIFT) as usize ^ number;
    let age = (age(named, fresh) as usize + 1) * WAYS + tie;
    let is_own = recent::is_of(named, fresh);
    let rank = if is_own {
        OWN | age
    } else if named >> recent::TICK_BITS == 0 {
        EMPTY | age
    } else {
        age
    };
    if number >= PROVEN_WAYS {
        return if is_proven { 0 } else { rank };
    }
    let is_protected = pin::has(word, pin::PROVEN) == 1 && counts(named, fresh);
    match (is_protected && !is_own, is_proven) {
        (false, true) => rank | NOT_PROVEN,
        // Of proven ones, too, the oldest gives way: otherwise the first ones would keep all places.
        (false, false) | (true, true) => rank,
        (true, false) => 0,
    }
}

/// The rank of the entry at a way, and its word with the digest.
#[inline(always)]
fn rank_at<W: Word>(bucket: &Bucket<W>, way: usize, fresh: u64, is_proven: bool) -> (usize, u64) {
    let at = way * WORDS;
    let named = bucket[at + DIGEST].load();
    let word = bucket[at + WORD].load();
    (rank((named, word), way, fresh, is_proven), named)
}

/// Writes an entry of PIN to its own place, else to an empty one, else to that of the oldest. It displaces no
/// connection that is proven, unless it is that of another one: then the two change places.
#[inline(always)]
pub fn put<W: Word>(bucket: &Bucket<W>, fresh: u64, details: Details) {
    let is_proven = pin::has(details[DETAILS_WORDS - 1], pin::PROVEN) == 1;
    let (mut highest, mut number) = (0, 0);
    while number < WAYS {
        let (rank, _) = rank_at(bucket, number, fresh, is_proven);
        // Without CAP_PERFMON the verifier would follow each rank by itself.
        highest = W::opaque(if rank > highest { rank } else { highest });
        number += 1;
    }
    // The tie shows which way it is.
    let way = W::opaque(highest ^ (fresh >> recent::TIE_SHIFT) as usize) % WAYS;
    let (rank, named) = rank_at(bucket, way, fresh, is_proven);
    let at = way * WORDS;
    let before: Details = [
        bucket[at + DETAILS].load(),
        bucket[at + DETAILS + 1].load(),
        bucket[at + WORD].load(),
    ];
    if rank != highest || !replace(bucket, at, (named, fresh), details) || !is_proven {
        return;
    }
    // Where it was as a claim.
    let at = place::<W>(find(bucket, PROVEN_WAYS, fresh));
    let claim = bucket[at + DIGEST].load();
    if recent::is_of(claim, fresh) && at >= PROVEN_WAYS * WORDS {
        replace(bucket, at, (claim, named), before);
    }
}

/// Writes an entry in place of the one that has been read; false: another CPU has written there meanwhile.
#[inline(always)]
fn replace<W: Word>(
    bucket: &Bucket<W>,
    at: usize,
    (before, named): (u64, u64),
    details: Details,
) -> bool {
    let is_replaced = bucket[at + DIGEST].replace(before, named);
    if is_replaced {
        bucket[at + WORD].store(details[2]);
        bucket[at + DETAILS + 1].store(details[1]);
        // Last: whoever reads the owner first reads the word that belongs to it.
        bucket[at + DETAILS].store(details[0]);
    }
    is_replaced
}

/// Where an entry of this number begins.
#[inline(always)]
fn place<W: Word>(way: usize) -> usize {
    (W::opaque(way) % WAYS) * WORDS
}

/// The entry of a connection, or zeros.
#[derive(Debug)]
pub struct Own {
    way: usize,
    /// The word with the digest; zero if there is none with this digest.
    named: u64,
    /// The last word.
    word: u64,
    /// The last word if the entry counts, else zero.
    pub before: u64,
}

impl Own {
    /// Reads it.
    #[inline(always)]
    #[must_use]
    pub fn read<W: Word>(bucket: &Bucket<W>, fresh: u64, owner: u64) -> Self {
        let way = find(bucket, 0, fresh);
        let at = place::<W>(way);
        let named = bucket[at + DIGEST].load();
        // Before the word: see `replace`.
        let is_of_owner = bucket[at + DETAILS].load() == owner;
        let word = bucket[at + WORD].load();
        let is_own = recent::is_of(named, fresh);
        // Not chosen by a branch: without CAP_PERFMON the verifier would refuse what is found by the number
        // in it.
        let is_valid = W::opaque(usize::from(is_own && is_of_owner && counts(named, fresh)));
        Self {
            way,
            named: if is_own { named } else { 0 },
            word,
            before: word * is_valid as u64,
        }
    }

    /// Writes the next word of a connection to its entry; its time is now, if it refreshes. False: it has none,
    /// or not where it belongs: it needs a new one ([`put`]).
    #[inline(always)]
    pub fn update<W: Word>(
        &self,
        bucket: &Bucket<W>,
        fresh: u64,
        owner: u64,
        (now, refreshes): (u64, bool),
    ) -> bool {
        let named = if refreshes { fresh } else { self.named };
        if now == self.before && named == self.named {
            return true;
        }
        if self.named == 0 || (pin::has(now, pin::PROVEN) == 1 && self.way >= PROVEN_WAYS) {
            return false;
        }
        let at = place::<W>(self.way);
        // As they were read: what another CPU has written meanwhile stays.
        if bucket[at + DIGEST].replace(self.named, named)
            && bucket[at + WORD].replace(self.word, now)
        {
            bucket[at + DETAILS + 1].store(0);
            bucket[at + DETAILS].store(owner);
        }
        true
    }
}

/// The number of the way with this digest, the first one from `way` on.
#[inline(always)]
fn find<W: Word>(bucket: &Bucket<W>, mut way: usize, fresh: u64) -> usize {
    while way < WAYS {
        if recent::is_of(bucket[way * WORDS + DIGEST].load(), fresh) {
            break;
        }
        way += 1;
    }
    W::opaque(way)
}
