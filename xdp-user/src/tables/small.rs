//! The tables that are no arrays of slots, and the records of services and VIPs, as the daemon writes
//! them.

use crate::error::Result;
use crate::tables::mmap::{self, Memory};
use crate::tables::services::{SERVICE, VIP};
use std::path::Path;
use std::sync::atomic::AtomicU64;
use xdp_common::slot::recent::BUCKET_WORDS;
use xdp_core::table::recent::Bucket;

/// Their words.
#[derive(Debug)]
pub struct SmallTables<'w, W> {
    /// SERVICE.
    pub services: &'w [W],
    /// VIP.
    pub vips: &'w [W],
    /// HALF.
    pub halves: &'w [Bucket<W>],
    /// PIN.
    pub pins: &'w [Bucket<W>],
    /// FRAGMENT.
    pub fragments: &'w [Bucket<W>],
    /// HOSTPEER.
    pub host_peers: &'w [Bucket<W>],
}

impl<W> Clone for SmallTables<'_, W> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<W> Copy for SmallTables<'_, W> {}

/// The memory of their maps.
#[derive(Debug)]
pub struct SmallMemory {
    services: Memory<AtomicU64>,
    vips: Memory<AtomicU64>,
    halves: Memory<AtomicU64>,
    pins: Memory<AtomicU64>,
    fragments: Memory<AtomicU64>,
    host_peers: Memory<AtomicU64>,
}

impl SmallMemory {
    /// Maps the pinned maps of a directory.
    pub fn open(directory: &Path) -> Result<Self> {
        let memory = |name: &str| Memory::of(&mmap::open(&directory.join(name))?, name);
        Ok(Self {
            services: memory(SERVICE)?,
            vips: memory(VIP)?,
            halves: memory("HALF")?,
            pins: memory("PIN")?,
            fragments: memory("FRAGMENT")?,
            host_peers: memory("HOSTPEER")?,
        })
    }

    /// The words.
    pub fn tables(&self) -> SmallTables<'_, AtomicU64> {
        SmallTables {
            services: self.services.words(),
            vips: self.vips.words(),
            halves: buckets(&self.halves),
            pins: buckets(&self.pins),
            fragments: buckets(&self.fragments),
            host_peers: buckets(&self.host_peers),
        }
    }
}

fn buckets(memory: &Memory<AtomicU64>) -> &[Bucket<AtomicU64>] {
    memory.words().as_chunks::<BUCKET_WORDS>().0
}
