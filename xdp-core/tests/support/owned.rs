//! A table that owns its slots.

use xdp_common::slot::WAYS;
use xdp_core::Word;
use xdp_core::table::{Arrays, Bucket, Slot};

/// A table in memory of its own.
pub(crate) struct Owned<W> {
    hot: Vec<Bucket<W>>,
    cold: Vec<Slot<W>>,
}

impl<W: Word> Owned<W> {
    /// A table of so many buckets, of words that are zero.
    pub(crate) fn new(buckets: usize, zero: impl Fn() -> W) -> Self {
        let slot = || std::array::from_fn(|_| zero());
        let bucket = |_| std::array::from_fn(|_| slot());
        Self {
            hot: (0..buckets).map(bucket).collect(),
            cold: (0..buckets * WAYS).map(|_| slot()).collect(),
        }
    }

    /// The table.
    pub(crate) fn arrays(&self) -> Arrays<'_, W> {
        Arrays::new(&self.hot, &self.cold)
    }
}
