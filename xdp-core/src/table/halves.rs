//! The two arrays of FLOW and SESSION: buckets of hot halves, and cold halves by the number of their
//! slot.

use crate::table::word::Word;
use xdp_common::slot::{WAYS, WORDS};

/// The words of one half of a slot.
pub type Slot<W> = [W; WORDS];
/// One value of the map of hot halves.
pub type Bucket<W> = [Slot<W>; WAYS];

/// A table. The number of buckets is a power of two; a look-up may return `None` only beyond it.
pub trait Buckets {
    /// The kind of word.
    type Word: Word;
    /// The bucket at an index.
    fn bucket(&self, index: u32) -> Option<&Bucket<Self::Word>>;
    /// The cold half of a slot, by the slot's number.
    fn cold(&self, number: u32) -> Option<&Slot<Self::Word>>;
}

/// Both halves of a slot.
#[derive(Debug)]
pub struct Halves<'t, W> {
    /// The hot one, with the state.
    pub hot: &'t Slot<W>,
    /// The cold one.
    pub cold: &'t Slot<W>,
}

impl<W> Clone for Halves<'_, W> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<W> Copy for Halves<'_, W> {}

/// A table in the memory of this process.
#[derive(Debug)]
pub struct Arrays<'t, W> {
    hot: &'t [Bucket<W>],
    cold: &'t [Slot<W>],
}

impl<W> Clone for Arrays<'_, W> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<W> Copy for Arrays<'_, W> {}

impl<'t, W> Arrays<'t, W> {
    /// The table of these two arrays.
    pub const fn new(hot: &'t [Bucket<W>], cold: &'t [Slot<W>]) -> Self {
        Self { hot, cold }
    }

    /// Number of buckets minus one, if there is any.
    pub fn mask(self) -> Option<u32> {
        u32::try_from(self.hot.len()).ok()?.checked_sub(1)
    }

    /// The hot halves of all slots.
    pub const fn hot(self) -> &'t [Slot<W>] {
        self.hot.as_flattened()
    }

    /// The slot with this number.
    pub fn get(self, number: usize) -> Option<Halves<'t, W>> {
        Some(Halves {
            hot: self.hot().get(number)?,
            cold: self.cold.get(number)?,
        })
    }

    /// All slots, in the order of their numbers.
    pub fn iter(self) -> impl Iterator<Item = Halves<'t, W>> {
        let pairs = self.hot().iter().zip(self.cold);
        pairs.map(|(hot, cold)| Halves { hot, cold })
    }
}

impl<W: Word> Buckets for Arrays<'_, W> {
    type Word = W;
    fn bucket(&self, index: u32) -> Option<&Bucket<W>> {
        self.hot.get(index as usize)
    }
    fn cold(&self, number: u32) -> Option<&Slot<W>> {
        self.cold.get(number as usize)
    }
}
