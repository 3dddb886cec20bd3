//! The slots of FLOW and SESSION: how a slot is found, claimed, published, retired and freed. The
//! dataplane, the daemon and `stats` use one algorithm on the same memory.
//!
//! A table is an array of buckets of four slots. A key has two buckets. It is put into the first
//! one while that has three free slots or more, else into the one with more free slots. A look-up
//! reads both, the first one first, so at most eight slots are compared.
//!
//! Measured on the host (`cargo test -p xdp-core --test table -- --nocapture load`): up to a load
//! of 0.4 every one of 65,536 keys finds a slot, at the limit of one half all but about three
//! (eight linear probes left 330 of as many), at 0.7 all but 370. Always choosing the emptier
//! bucket would lose none to two at one half, and costs 4 % with a million flows, since more keys
//! are in the bucket that is read last.
//!
//! The life cycle of a slot, and which program may make which change:
//!
//! ```text
//! free    --compare-and-swap-->            claimed   dataplane
//! claimed --key, cold words, exchange-->   live      the same CPU
//! live    --compare-and-swap-->            dying     daemon only
//! dying   --grace period-->                freeing   daemon only
//! freeing --zeroes, exchange-->            free      daemon only
//! ```
//!
//! 1. Only one CPU gets a free slot: the compare-and-swap names the whole state word, including the
//!    generation.
//! 2. No program reads a claimed slot. A reader that sees it live sees its key: the exchange that
//!    publishes it is a full barrier.
//! 3. Two CPUs may insert one key at the same moment, into two slots. Both stay live, each counts
//!    its part, and readers add up by key. Nothing is lost. (Preventing it would need a lock, which
//!    an attacker could aim at.)
//! 4. A program that found a slot live may still count into it after it is dying, but not beyond
//!    the grace period (`membarrier(MEMBARRIER_CMD_GLOBAL)` waits for all running programs). So
//!    after it the counters are final, and no program can write into the slot's next life.
//! 5. A program that comes later does not find a dying slot and inserts the key into another one;
//!    the sum over both is right.
//! 6. Freeing announces itself in the state before it zeroes the words, and exchanges the state
//!    with the next generation afterwards. So a reader that reads the state before and after the
//!    other words knows whether they belong together (loom found that the announcement is needed),
//!    and a slot that a killed daemon left in between is finished by the next one.

use crate::table::word::Word;
use xdp_common::slot::{self, KEY, KEY_WORDS, Key, STATE, WAYS, WORDS};

/// The words of one slot.
pub type Slot<W> = [W; WORDS];
/// One value of the map.
pub type Bucket<W> = [Slot<W>; WAYS];

/// The state of a slot: the low seven bits of its state word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// All words but this one are zero.
    Free,
    /// A CPU is writing its key.
    Claimed,
    /// Found by look-ups and counted into.
    Live,
    /// No longer found; its counters become final after a grace period.
    Dying,
    /// Its counters have been added up; its words are being zeroed.
    Freeing,
}

const FREE: u64 = 0;
const CLAIMED: u64 = 1;
const LIVE: u64 = 2;
const DYING: u64 = 3;
const FREEING: u64 = 4;
const STATE_MASK: u64 = 0x7f;
/// Index of the slot in its bucket, written when it is claimed.
const INDEX_SHIFT: u32 = 7;
const INDEX_MASK: u64 = 0x180;
/// Kind of the key: see [`xdp_common::slot::kind`].
const KIND_SHIFT: u32 = 9;
const KIND_MASK: u64 = 0x1e00;
const GENERATION_ONE: u64 = 0x2000;
const GENERATION_MASK: u64 = !(GENERATION_ONE - 1);

impl State {
    /// The state in a state word.
    #[inline(always)]
    pub const fn of(word: u64) -> Self {
        match word & STATE_MASK {
            FREE => Self::Free,
            CLAIMED => Self::Claimed,
            LIVE => Self::Live,
            DYING => Self::Dying,
            _ => Self::Freeing,
        }
    }
}

/// An array of buckets. The number of buckets is a power of two; `bucket` may return `None` only
/// beyond it.
pub trait Buckets {
    /// The kind of word.
    type Word: Word;
    /// The bucket at an index.
    fn bucket(&self, index: u32) -> Option<&Bucket<Self::Word>>;
}

impl<W: Word> Buckets for [Bucket<W>] {
    type Word = W;
    fn bucket(&self, index: u32) -> Option<&Bucket<W>> {
        self.get(index as usize)
    }
}

/// The buckets in which a key may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    hash: u64,
    mask: u32,
}

impl Place {
    /// The place of a hash in a table of `mask + 1` buckets. In a table of one bucket both choices
    /// are the same.
    #[inline(always)]
    pub const fn new(hash: u64, mask: u32) -> Self {
        Self { hash, mask }
    }

    /// The two buckets, the first choice first.
    pub const fn buckets(self) -> [u32; 2] {
        [self.first(), self.second()]
    }

    /// The bucket that is read first.
    #[inline(always)]
    #[expect(
        clippy::cast_possible_truncation,
        reason = "parts of the hash are meant"
    )]
    pub const fn first(self) -> u32 {
        self.hash as u32 & self.mask
    }

    /// The other bucket.
    #[inline(always)]
    #[expect(
        clippy::cast_possible_truncation,
        reason = "parts of the hash are meant"
    )]
    pub const fn second(self) -> u32 {
        // Odd, so never zero: the second bucket differs from the first, and each is the other's
        // second.
        let step = ((self.hash >> 32) as u32 ^ (self.hash as u32).rotate_left(7)) | 1;
        (self.first() ^ step) & self.mask
    }
}

/// The state word of a key's live slot, without generation and index.
#[inline(always)]
const fn live_word(key: &Key) -> u64 {
    slot::kind(key) << KIND_SHIFT | LIVE
}

#[inline(always)]
fn matches<W: Word>(slot: &Slot<W>, live: u64, key: &Key) -> bool {
    // State and kind first, whatever the generation: what is then read from a live slot belongs to
    // it. With the kind, one more word is the whole key for IPv4.
    slot[STATE].load() & (KIND_MASK | STATE_MASK) == live && slot[KEY].load() == key[0]
}

/// The slot of a bucket that holds the key.
#[inline(always)]
fn find_in<'t, W: Word>(bucket: &'t Bucket<W>, live: u64, key: &Key) -> Option<&'t Slot<W>> {
    let [a, b, c, d] = bucket;
    if matches(a, live, key) {
        Some(a)
    } else if matches(b, live, key) {
        Some(b)
    } else if matches(c, live, key) {
        Some(c)
    } else if matches(d, live, key) {
        Some(d)
    } else {
        None
    }
}

/// The same slot, but by an index loaded from memory: otherwise the verifier would follow the code
/// after this once for each of the four.
#[inline(always)]
fn reload_by_index<'t, W: Word>(bucket: &'t Bucket<W>, found: &Slot<W>) -> Option<&'t Slot<W>> {
    bucket.get(((found[STATE].load() & INDEX_MASK) >> INDEX_SHIFT) as usize)
}

/// The live slot of a key.
#[inline(always)]
pub fn find<'t, B: Buckets + ?Sized>(
    buckets: &'t B,
    place: Place,
    key: &Key,
) -> Option<&'t Slot<B::Word>> {
    let bucket = buckets.bucket(place.first())?;
    if let Some(slot) = find_in(bucket, live_word(key), key) {
        return reload_by_index(bucket, slot);
    }
    let bucket = buckets.bucket(place.second())?;
    reload_by_index(bucket, find_in(bucket, live_word(key), key)?)
}

/// The live slot of a key in one of its buckets. For the fast path, which reads one after the
/// other, and has so little code after it that the verifier may follow it once for each slot.
#[inline(always)]
pub fn find_at<'t, B: Buckets + ?Sized>(
    buckets: &'t B,
    index: u32,
    key: &Key,
) -> Option<&'t Slot<B::Word>> {
    find_in(buckets.bucket(index)?, live_word(key), key)
}

#[inline(always)]
fn free_slots<W: Word>(bucket: &Bucket<W>) -> usize {
    bucket
        .iter()
        .filter(|slot| slot[STATE].load() & STATE_MASK == FREE)
        .count()
}

#[inline(always)]
fn claim_in<W: Word>(bucket: &Bucket<W>, live: u64) -> Option<(&Slot<W>, u64)> {
    (0..).zip(bucket).find_map(|(way, slot)| {
        let old = slot[STATE].load();
        let claimed = old & GENERATION_MASK | live & !STATE_MASK | way << INDEX_SHIFT | CLAIMED;
        let taken = old & STATE_MASK == FREE && slot[STATE].replace(old, claimed);
        taken.then_some((slot, claimed))
    })
}

/// Puts a key into a free slot, calls `fill` to write the other words, and publishes the slot.
/// `None`: both buckets are full.
///
/// Call it after [`find`] has found nothing.
#[inline(always)]
pub fn insert<'t, B: Buckets + ?Sized>(
    buckets: &'t B,
    place: Place,
    key: &Key,
    fill: impl FnOnce(&Slot<B::Word>),
) -> Option<&'t Slot<B::Word>> {
    let live = live_word(key);
    let first = buckets.bucket(place.first())?;
    let second = buckets.bucket(place.second())?;
    let free = free_slots(first);
    let (better, other) = if free >= 3 || free >= free_slots(second) {
        (first, second)
    } else {
        (second, first)
    };
    let (slot, claimed) = match claim_in(better, live) {
        Some(found) => found,
        None => claim_in(other, live)?,
    };
    let mut i = 0;
    while i < KEY_WORDS {
        slot[KEY + i].store(key[i]);
        i += 1;
    }
    fill(slot);
    slot[STATE].publish(claimed & !STATE_MASK | LIVE);
    Some(slot)
}

/// Makes a live slot dying, if its state word is still `seen`. The daemon only; a grace period must
/// follow before its counters are final.
pub fn retire<W: Word>(slot: &Slot<W>, seen: u64) -> bool {
    State::of(seen) == State::Live && slot[STATE].replace(seen, seen & !STATE_MASK | DYING)
}

/// Zeroes a dying slot and frees it, or finishes what a killed daemon began. The daemon only, after
/// the grace period and after its counters have been added up.
pub fn free<W: Word>(slot: &Slot<W>) {
    let state = slot[STATE].load();
    match State::of(state) {
        State::Dying | State::Freeing => slot[STATE].publish(state & !STATE_MASK | FREEING),
        State::Free | State::Claimed | State::Live => return,
    }
    for word in &slot[KEY..] {
        word.store(0);
    }
    let next = (state & GENERATION_MASK).wrapping_add(GENERATION_ONE) & GENERATION_MASK;
    slot[STATE].publish(next | FREE);
}

/// A copy of a live or dying slot whose words belong together, or `None` when the slot is free or
/// has been reused meanwhile.
pub fn snapshot<W: Word>(slot: &Slot<W>) -> Option<[u64; WORDS]> {
    let state = slot[STATE].load();
    if !matches!(State::of(state), State::Live | State::Dying) {
        return None;
    }
    let mut words = [0; WORDS];
    for (copy, word) in words.iter_mut().zip(slot) {
        *copy = word.load();
    }
    let after = slot[STATE].load();
    // Live may have become dying in between: still the same life.
    let same_life = after & !STATE_MASK == state & !STATE_MASK
        && matches!(State::of(after), State::Live | State::Dying);
    same_life.then_some(words)
}
