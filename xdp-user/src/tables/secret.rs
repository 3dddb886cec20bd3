//! The key of the tables' hash, in a pinned map of its own, which only root can open: whoever knows
//! it can choose addresses and SPIs that fill one bucket.

use crate::error::Result;
use crate::tables::mmap::{self, Memory, ReadOnlyWord};
use std::path::Path;
use std::sync::atomic::AtomicU64;
use xdp_common::Secret;
use xdp_core::Word;

/// The name of the map.
pub const SECRET: &str = "SECRET";

/// Reads the key of the instance whose pins are in a directory.
pub fn read(directory: &Path) -> Result<Secret> {
    let map = mmap::open(&directory.join(SECRET))?;
    let memory = Memory::<ReadOnlyWord>::of(&map, SECRET)?;
    Ok(std::array::from_fn(|word| memory.words()[word].load()))
}

/// Writes the key of new tables.
pub(crate) fn write(directory: &Path, secret: &Secret) -> Result<()> {
    let map = mmap::open(&directory.join(SECRET))?;
    let memory = Memory::<AtomicU64>::of(&map, SECRET)?;
    for (word, value) in memory.words().iter().zip(secret) {
        Word::store(word, *value);
    }
    Ok(())
}
