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
//! claimed --key, cold half, exchange-->    live      the same CPU
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
//! 7. A slot has two halves and one state, in the hot half. The cold half is written while the slot is
//!    claimed and zeroed while it is freeing, so all of the above holds for it too.

use crate::table::halves::{Bucket, Buckets, Halves, Slot};
use crate::table::word::Word;
use xdp_common::slot::{ADDRESS, Contents, KEY, KEY_BITS, Key, NUMBER, SPI_VIP, STATE, WAYS};

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
const GENERATION_ONE: u64 = 1 << 22;
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

#[inline(always)]
fn matches<W: Word>(slot: &Slot<W>, key: &Key) -> bool {
    // State, kind and service first, whatever the generation: what is then read from a live slot
    // belongs to it. With them, one more word is the whole key for IPv4.
    slot[STATE].load() & (KEY_BITS | STATE_MASK) == key.bits | LIVE
        && slot[KEY].load() == key.word
        && (key.is_exact() || slot[SPI_VIP].load() >> 32 == u64::from(key.spi))
}

/// The slot of a bucket that holds the key.
#[inline(always)]
fn find_in<'t, W: Word>(bucket: &'t Bucket<W>, key: &Key) -> Option<&'t Slot<W>> {
    let [a, b, c, d] = bucket;
    if matches(a, key) {
        Some(a)
    } else if matches(b, key) {
        Some(b)
    } else if matches(c, key) {
        Some(c)
    } else if matches(d, key) {
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

/// Whether a slot has the key's address. Where [`KEY`] is a digest, two addresses may have the same.
#[inline(always)]
fn has_address<B: Buckets + ?Sized>(buckets: &B, slot: &Slot<B::Word>, key: &Key) -> bool {
    key.is_exact()
        || buckets.cold(slot[NUMBER].low()).is_some_and(|cold| {
            cold[ADDRESS].load() == key.address[0] && cold[ADDRESS + 1].load() == key.address[1]
        })
}

/// The live slot of a key.
#[inline(always)]
pub fn find<'t, B: Buckets + ?Sized>(
    buckets: &'t B,
    place: Place,
    key: &Key,
) -> Option<&'t Slot<B::Word>> {
    let bucket = buckets.bucket(place.first())?;
    let found = match find_in(bucket, key) {
        Some(slot) => reload_by_index(bucket, slot)?,
        None => {
            let bucket = buckets.bucket(place.second())?;
            reload_by_index(bucket, find_in(bucket, key)?)?
        }
    };
    has_address(buckets, found, key).then_some(found)
}

/// The live slot of a key in one of its buckets. For the fast path, which reads one after the
/// other, and has so little code after it that the verifier may follow it once for each slot. It does
/// not compare the address where [`KEY`] is a digest of it. `key` makes the key once the bucket is
/// there: what only the comparison needs takes no register before.
#[inline(always)]
pub fn find_at<B: Buckets + ?Sized>(
    buckets: &B,
    index: u32,
    key: impl FnOnce() -> Key,
) -> Option<&Slot<B::Word>> {
    let bucket = buckets.bucket(index)?;
    find_in(bucket, &key())
}

#[inline(always)]
fn free_slots<W: Word>(bucket: &Bucket<W>) -> usize {
    bucket
        .iter()
        .filter(|slot| slot[STATE].load() & STATE_MASK == FREE)
        .count()
}

#[inline(always)]
fn claim_in<W: Word>(bucket: &Bucket<W>, bits: u64) -> Option<&Slot<W>> {
    let claimed = (0..).zip(bucket).find_map(|(way, slot)| {
        let old = slot[STATE].load();
        let claimed = old & GENERATION_MASK | bits | way << INDEX_SHIFT | CLAIMED;
        let taken = old & STATE_MASK == FREE && slot[STATE].replace(old, claimed);
        taken.then_some(slot)
    })?;
    reload_by_index(bucket, claimed)
}

/// Whether another address has the same digest as the key's, the same SPI and the rest. One of them
/// would be counted as the other.
#[inline(always)]
fn is_taken<B: Buckets + ?Sized>(buckets: &B, both: [&Bucket<B::Word>; 2], key: &Key) -> bool {
    let other = |bucket| find_in(bucket, key).is_some_and(|slot| !has_address(buckets, slot, key));
    !key.is_exact() && both.into_iter().any(other)
}

/// Puts a key into a free slot, calls `fill` to write the other words, and publishes the slot.
/// `None`: both buckets are full, or another address has the key's digest.
///
/// Call it after [`find`] has found nothing.
#[inline(always)]
pub fn insert<'t, B: Buckets + ?Sized>(
    buckets: &'t B,
    place: Place,
    key: &Key,
    fill: impl FnOnce(Halves<'_, B::Word>),
) -> Option<&'t Slot<B::Word>> {
    let numbers = place.buckets();
    let first = buckets.bucket(numbers[0])?;
    let second = buckets.bucket(numbers[1])?;
    if is_taken(buckets, [first, second], key) {
        return None;
    }
    let free = free_slots(first);
    let (better, other) = if free >= 3 || free >= free_slots(second) {
        ((first, numbers[0]), (second, numbers[1]))
    } else {
        ((second, numbers[1]), (first, numbers[0]))
    };
    let (hot, bucket) = match claim_in(better.0, key.bits) {
        Some(found) => (found, better.1),
        None => (claim_in(other.0, key.bits)?, other.1),
    };
    let claimed = hot[STATE].load();
    let way = (claimed & INDEX_MASK) >> INDEX_SHIFT;
    hot[NUMBER].store(u64::from(bucket) * WAYS as u64 + way);
    let Some(cold) = buckets.cold(hot[NUMBER].low()) else {
        hot[NUMBER].store(0);
        hot[STATE].publish(claimed & GENERATION_MASK | FREE);
        return None;
    };
    hot[KEY].store(key.word);
    hot[SPI_VIP].store(u64::from(key.spi) << 32);
    cold[ADDRESS].store(key.address[0]);
    cold[ADDRESS + 1].store(key.address[1]);
    fill(Halves { hot, cold });
    hot[STATE].publish(claimed & !STATE_MASK | LIVE);
    Some(hot)
}

/// Makes a live slot dying, if its state word is still `seen`. The daemon only; a grace period must
/// follow before its counters are final.
pub fn retire<W: Word>(slot: &Slot<W>, seen: u64) -> bool {
    State::of(seen) == State::Live && slot[STATE].replace(seen, seen & !STATE_MASK | DYING)
}

/// Zeroes both halves of a dying slot and frees it, or finishes what a killed daemon began. The daemon
/// only, after the grace period and after its counters have been added up.
pub fn free<W: Word>(slot: Halves<'_, W>) {
    let state = slot.hot[STATE].load();
    match State::of(state) {
        State::Dying | State::Freeing => slot.hot[STATE].publish(state & !STATE_MASK | FREEING),
        State::Free | State::Claimed | State::Live => return,
    }
    for word in slot.hot[STATE + 1..].iter().chain(slot.cold) {
        word.store(0);
    }
    let next = (state & GENERATION_MASK).wrapping_add(GENERATION_ONE) & GENERATION_MASK;
    slot.hot[STATE].publish(next | FREE);
}

/// A copy of a live or dying slot whose halves and words belong together, or `None` when the slot is
/// free or has been reused meanwhile.
pub fn snapshot<W: Word>(slot: Halves<'_, W>) -> Option<Contents> {
    let state = slot.hot[STATE].load();
    if !matches!(State::of(state), State::Live | State::Dying) {
        return None;
    }
    let contents = Contents {
        hot: slot.hot.each_ref().map(Word::load),
        cold: slot.cold.each_ref().map(Word::load),
    };
    let after = slot.hot[STATE].load();
    // Live may have become dying in between: still the same life.
    let same_life = after & !STATE_MASK == state & !STATE_MASK
        && matches!(State::of(after), State::Live | State::Dying);
    same_life.then_some(contents)
}
