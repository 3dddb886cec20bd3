//! Typed access to the maps. The only file of this crate with `unsafe`: the promise that a value is plain bytes, the
//! memory map, and the commands of bpf(2) that aya has not.
//!
//! It may not know what the words mean, nor where the maps are pinned.

#![expect(
    unsafe_code,
    reason = "aya::Pod, mmap and bpf(2) have no safe form here"
)]

use crate::error::{Error, Result, causes};
use aya::maps::MapData;
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use std::io;
use std::marker::PhantomData;
use std::os::fd::AsFd;
use std::path::Path;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering, fence};
use xdp_common::counters::{Counters, WORDS as COUNTER_WORDS};
use xdp_common::{Hook, cpu, slot};
use xdp_core::Word;
use xdp_core::table::{Bucket, Slot};

/// A value for aya: any type that bytemuck knows to be plain bytes.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub struct Bytes<T: bytemuck::Pod>(pub T);

// SAFETY: bytemuck::Pod asks for more than aya::Pod: no padding, no pointer, every bit pattern valid. The wrapper is
// transparent.
unsafe impl<T: bytemuck::Pod> aya::Pod for Bytes<T> {}

/// A word that is only looked at. Its memory cannot be written, so its writes do nothing.
#[repr(transparent)]
#[derive(Debug)]
pub struct Seen(AtomicU64);

impl Word for Seen {
    fn load(&self) -> u64 {
        // Only relaxed loads are allowed on memory that is mapped read-only; the fence makes it an acquire.
        let value = self.0.load(Ordering::Relaxed);
        fence(Ordering::Acquire);
        value
    }
    fn store(&self, _: u64) {}
    fn add(&self, _: u64) {}
    fn replace(&self, _: u64, _: u64) -> bool {
        false
    }
    fn publish(&self, _: u64) {}
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for super::Seen {}
    impl Sealed for std::sync::atomic::AtomicU64 {}
}

/// The two kinds of word that memory may be mapped as. Both are transparent over an `AtomicU64`.
pub trait Mapped: Word + sealed::Sealed {
    /// Whether the memory may be written.
    const WRITABLE: bool;
}

impl Mapped for AtomicU64 {
    const WRITABLE: bool = true;
}

impl Mapped for Seen {
    const WRITABLE: bool = false;
}

/// An array map's memory.
#[derive(Debug)]
pub struct Memory<W: Mapped> {
    base: NonNull<W>,
    words: usize,
    kind: PhantomData<W>,
}

impl<W: Mapped> Memory<W> {
    /// Maps the whole map.
    pub fn of(map: &MapData, name: &str) -> Result<Self> {
        let failed = |why: String| Error::Map {
            action: "map into memory",
            name: name.to_owned(),
            why,
        };
        let info = map.info().map_err(|error| failed(causes(&error)))?;
        // The kernel keeps values of an array eight bytes apart; all of ours are a multiple of that.
        let bytes = info.value_size() as usize * info.max_entries() as usize;
        let protection = if W::WRITABLE {
            ProtFlags::READ | ProtFlags::WRITE
        } else {
            ProtFlags::READ
        };
        // SAFETY: the kernel chooses a fresh address, so no other memory of ours is touched.
        let base = unsafe {
            mmap(
                std::ptr::null_mut(),
                bytes,
                protection,
                MapFlags::SHARED,
                map.fd().as_fd(),
                0,
            )
        };
        let base = base.map_err(|error| failed(error.to_string()))?;
        let base = NonNull::new(base.cast::<W>()).ok_or_else(|| failed("null".to_owned()))?;
        Ok(Self {
            base,
            words: bytes / size_of::<u64>(),
            kind: PhantomData,
        })
    }

    /// All words.
    pub fn words(&self) -> &[W] {
        // SAFETY: the mapping is page-aligned, this long, and lives until drop. Kernel and other processes write it at
        // the same time, which W, an AtomicU64, allows. A map never shrinks.
        unsafe { std::slice::from_raw_parts(self.base.as_ptr(), self.words) }
    }

    /// The words as slots of FLOW or SESSION.
    pub fn slots(&self) -> &[Slot<W>] {
        self.words().as_chunks::<{ slot::WORDS }>().0
    }

    /// The slots as buckets.
    pub fn buckets(&self) -> &[Bucket<W>] {
        self.slots().as_chunks::<{ slot::WAYS }>().0
    }
}

impl<W: Mapped> Drop for Memory<W> {
    fn drop(&mut self) {
        // SAFETY: base and length are those of the mapping, and nobody holds a reference into it any more. A failure
        // leaves it mapped, which harms nobody.
        let _ = unsafe { munmap(self.base.as_ptr().cast(), self.words * size_of::<u64>()) };
    }
}

/// Opens a pinned map.
pub fn open(path: &Path) -> Result<MapData> {
    MapData::from_pin(path).map_err(|error| Error::Map {
        action: "open",
        name: path.display().to_string(),
        why: causes(&error),
    })
}

/// The maps of an instance that are read through memory.
#[derive(Debug)]
pub struct Tables<W: Mapped> {
    /// FLOW.
    pub flow: Memory<W>,
    /// SESSION.
    pub session: Memory<W>,
    /// HALF.
    pub half: Memory<W>,
    /// FRAGMENT.
    pub fragment: Memory<W>,
    /// NEXTHOP.
    pub nexthop: Memory<W>,
    /// META.
    pub meta: Memory<W>,
    /// CPU.
    pub cpu: Memory<W>,
}

impl<W: Mapped> Tables<W> {
    /// Maps the pinned maps of a directory.
    pub fn open(directory: &Path) -> Result<Self> {
        let memory = |name: &str| Memory::of(&open(&directory.join(name))?, name);
        Ok(Self {
            flow: memory("FLOW")?,
            session: memory("SESSION")?,
            half: memory("HALF")?,
            fragment: memory("FRAGMENT")?,
            nexthop: memory("NEXTHOP")?,
            meta: memory("META")?,
            cpu: memory("CPU")?,
        })
    }

    /// A word of META.
    pub fn meta(&self, index: usize) -> &W {
        &self.meta.words()[index]
    }

    /// The blocks of all CPUs.
    pub fn cpus(&self) -> &[[W; cpu::WORDS]] {
        self.cpu.words().as_chunks().0
    }

    /// The word of an egress, by its place in a block: the same in every one.
    pub fn egress(&self, place: usize) -> u64 {
        self.cpus().first().map_or(0, |block| block[place].load())
    }

    /// Writes the word of an egress into every block.
    pub fn set_egress(&self, place: usize, word: u64) {
        for block in self.cpus() {
            block[place].store(word);
        }
    }

    /// The counters of each hook, summed over all CPUs.
    pub fn counters(&self) -> [Counters; Hook::ALL.len()] {
        Hook::ALL.map(|hook| {
            let mut sum = [0_u64; COUNTER_WORDS];
            for block in self.cpus() {
                for (total, part) in sum.iter_mut().zip(&block[cpu::counters(hook)..]) {
                    *total = total.wrapping_add(part.load());
                }
            }
            sum
        })
    }
}

/// `BPF_PROG_QUERY`.
const PROG_QUERY: libc::c_int = 16;
/// `BPF_TCX_INGRESS`; that of egress is the next one.
const TCX_INGRESS: u32 = 46;

/// The part of `union bpf_attr` that `BPF_PROG_QUERY` reads and writes.
#[derive(Default)]
#[repr(C)]
struct Query {
    ifindex: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    program_ids: u64,
    count: u32,
    padding: u32,
    rest: [u64; 4],
}

/// The ids of the programs in one of the tcx hooks of an interface. aya looks at the programs as well, which takes
/// CAP_SYS_ADMIN.
pub(crate) fn tcx_programs(index: u32, egress: bool) -> io::Result<Vec<u32>> {
    /// `BPF_MPROG_MAX`: more do not fit into a hook.
    const MOST: u32 = 64;
    let mut ids = [0_u32; MOST as usize];
    let mut query = Query {
        ifindex: index,
        attach_type: TCX_INGRESS + u32::from(egress),
        program_ids: ids.as_mut_ptr().expose_provenance() as u64,
        count: MOST,
        ..Query::default()
    };
    // SAFETY: the size is that of the attribute, the pointer in it is to as many ids as it says, and both live until the
    // call returns.
    let done = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            PROG_QUERY,
            &raw mut query,
            size_of::<Query>(),
        )
    };
    if done != 0 {
        return Err(io::Error::last_os_error());
    }
    let found = ids.iter().take(query.count as usize);
    Ok(found.copied().collect())
}
