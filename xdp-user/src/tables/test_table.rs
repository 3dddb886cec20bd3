//! A table for tests, in memory of its own.

// The one of the tests of xdp-core.
#[path = "../../../xdp-core/tests/support/owned.rs"]
mod owned;

use owned::Owned;
use xdp_common::slot::{ADDRESS, KEY, Key, NUMBER, SPI_VIP, STATE, WAYS};
use xdp_core::Word;
use xdp_core::table::{Arrays, Halves};

/// A table that owns its slots, and into which keys can be written.
pub(crate) struct TestTable<W>(Owned<W>);

impl<W: Word + Default> TestTable<W> {
    /// A table of so many buckets.
    pub(crate) fn new(buckets: usize) -> Self {
        Self(Owned::new(buckets, W::default))
    }

    /// The table.
    pub(crate) fn arrays(&self) -> Arrays<'_, W> {
        self.0.arrays()
    }

    /// Writes a key into a slot, whose state becomes `state` with what the key and the slot add to it.
    pub(crate) fn put(&self, number: usize, state: u64, key: &Key) -> Halves<'_, W> {
        let slot = self.arrays().get(number).expect("a slot of the table");
        slot.hot[KEY].store(key.word);
        slot.hot[SPI_VIP].store(u64::from(key.spi) << 32);
        slot.hot[NUMBER].store(number as u64);
        for (word, value) in slot.cold[ADDRESS..].iter().zip(key.address) {
            word.store(value);
        }
        let place = ((number % WAYS) as u64) << 7;
        slot.hot[STATE].store(state | key.bits | place);
        slot
    }
}
