//! The maps of an instance as slices of words: mapped into memory, or copied where this user may
//! only read the pins.

#![expect(unsafe_code, reason = "aya::Pod and mmap have no safe form here")]

use crate::error::{Error, Result, causes, is_denied, word};
use crate::tables::bpf_syscall::{lookup_batch, open_for_reading};
use crate::tables::reclaim::TableWords;
use aya::maps::MapData;
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use std::io;
use std::os::fd::AsFd as _;
use std::path::Path;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering, fence};
use xdp_common::counters::{Counters, WORDS as COUNTER_WORDS};
use xdp_common::{Hook, Secret, cpu, slot};
use xdp_core::Word;
use xdp_core::table::{Arrays, Bucket, Slot};

/// A value for aya: any type that bytemuck knows to be plain bytes.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub struct Bytes<T: bytemuck::Pod>(pub T);

// SAFETY: bytemuck::Pod asks for more than aya::Pod: no padding, no pointer, every bit pattern
// valid. The wrapper is transparent.
unsafe impl<T: bytemuck::Pod> aya::Pod for Bytes<T> {}

/// A word that is only read. Its memory cannot be written, so its writes do nothing.
#[repr(transparent)]
#[derive(Debug)]
pub struct ReadOnlyWord(AtomicU64);

impl Word for ReadOnlyWord {
    fn load(&self) -> u64 {
        // Only relaxed loads are allowed on memory that is mapped read-only; the fence makes this
        // one an acquire.
        let value = self.0.load(Ordering::Relaxed);
        fence(Ordering::Acquire);
        value
    }
    fn store(&self, _: u64) {}
    fn add(&self, _: u64) {}
    fn add_to_half<const N: usize>(_: &[Self; N], _: usize, _: u32) {}
    fn replace(&self, _: u64, _: u64) -> bool {
        false
    }
    fn publish(&self, _: u64) {}
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for super::ReadOnlyWord {}
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

impl Mapped for ReadOnlyWord {
    const WRITABLE: bool = false;
}

/// An array map's memory.
#[derive(Debug)]
pub struct Memory<W: Mapped>(Words<W>);

/// Where the words are.
#[derive(Debug)]
enum Words<W> {
    /// In the map itself.
    Mapped { base: NonNull<W>, words: usize },
    /// In a copy.
    Copied(Vec<W>),
}

fn map_failed(action: &'static str, name: &str) -> impl Fn(String) -> Error {
    let name = name.to_owned();
    move |why| Error::Map {
        action,
        name: name.clone(),
        why,
    }
}

/// Number and size of a map's values. The kernel aligns the values of an array to eight bytes;
/// ikenat's values are a multiple of that, so there are no gaps.
fn size(map: &MapData) -> Result<(usize, usize), String> {
    let info = map.info().map_err(|error| causes(&error))?;
    Ok((info.max_entries() as usize, info.value_size() as usize))
}

impl<W: Mapped> Memory<W> {
    /// Maps the whole map.
    pub fn of(map: &MapData, name: &str) -> Result<Self> {
        let failed = map_failed("map into memory", name);
        let (values, bytes) = size(map).map_err(&failed)?;
        let bytes = values * bytes;
        let protection = if W::WRITABLE {
            ProtFlags::READ | ProtFlags::WRITE
        } else {
            ProtFlags::READ
        };
        // SAFETY: the kernel chooses an unused address, so no other memory of this process is
        // touched.
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
        let words = bytes / size_of::<u64>();
        Ok(Self(Words::Mapped { base, words }))
    }

    /// All words.
    pub fn words(&self) -> &[W] {
        match &self.0 {
            // SAFETY: the mapping is page-aligned, this long, and lives until drop. The kernel and
            // other processes write to it at the same time, which W, an AtomicU64, allows. A map
            // never shrinks.
            Words::Mapped { base, words } => unsafe {
                std::slice::from_raw_parts(base.as_ptr(), *words)
            },
            Words::Copied(words) => words,
        }
    }

    /// The words as halves of slots of FLOW or SESSION.
    pub fn slots(&self) -> &[Slot<W>] {
        self.words().as_chunks::<{ slot::WORDS }>().0
    }

    /// The hot halves as buckets.
    pub fn buckets(&self) -> &[Bucket<W>] {
        self.slots().as_chunks::<{ slot::WAYS }>().0
    }
}

// SAFETY: the memory is reached through shared references to its words alone, which other threads
// may use because W may be shared. It is unmapped once, by its owner, on whichever thread.
unsafe impl<W: Mapped + Sync> Send for Memory<W> {}
// SAFETY: as above.
unsafe impl<W: Mapped + Sync> Sync for Memory<W> {}

/// What CPU has.
impl<W: Mapped> Memory<W> {
    /// The blocks of all CPUs.
    pub fn blocks(&self) -> &[[W; cpu::WORDS]] {
        self.chunks()
    }

    /// Records of so many words.
    pub(crate) fn chunks<const N: usize>(&self) -> &[[W; N]] {
        self.words().as_chunks().0
    }

    /// The word of an egress, by its index in a block. It is the same in every block.
    pub fn egress(&self, index: usize) -> u64 {
        self.blocks().first().map_or(0, |block| block[index].load())
    }

    /// The counters of each hook, summed over all CPUs.
    pub fn counters(&self) -> [Counters; Hook::ALL.len()] {
        Hook::ALL.map(|hook| {
            let mut sum = [0_u64; COUNTER_WORDS];
            for block in self.blocks() {
                for (total, part) in sum.iter_mut().zip(&block[cpu::counters(hook)..]) {
                    *total = total.wrapping_add(part.load());
                }
            }
            sum
        })
    }
}

impl<W: Mapped> Drop for Memory<W> {
    fn drop(&mut self) {
        if let Words::Mapped { base, words } = &self.0 {
            // SAFETY: base and length are those of the mapping, and no reference into it is left. A
            // failure leaves it mapped, which does no harm.
            let _ = unsafe { munmap(base.as_ptr().cast(), words * size_of::<u64>()) };
        }
    }
}

/// An open pin, as far as this user may open it.
enum Pin {
    /// For reading and writing, which mapping needs.
    Open(MapData),
    /// For reading alone.
    ForReading(MapData),
}

fn open_pin(path: &Path, name: &str) -> Result<Pin> {
    match MapData::from_pin(path) {
        Ok(map) => Ok(Pin::Open(map)),
        Err(error) if is_denied(&error) => {
            let denied = |error: io::Error| Error::NotReadable {
                path: path.to_path_buf(),
                why: word(&error),
            };
            let map = MapData::from_fd(open_for_reading(path).map_err(denied)?);
            let map = map.map_err(|error| map_failed("read", name)(causes(&error)));
            map.map(Pin::ForReading)
        }
        Err(error) => Err(map_failed("open", &path.display().to_string())(causes(
            &error,
        ))),
    }
}

/// The size of a pinned map, without mapping or reading it.
pub(crate) fn pinned_bytes(path: &Path, name: &str) -> Result<u64> {
    let (Pin::Open(map) | Pin::ForReading(map)) = open_pin(path, name)?;
    let (values, bytes) = size(&map).map_err(map_failed("examine", name))?;
    Ok((values * bytes) as u64)
}

impl Memory<ReadOnlyWord> {
    /// Maps a pinned map into memory, or copies it where this user may only read the pin: the
    /// kernel maps no descriptor that is open for reading alone (`do_mmap` clears VM_SHARED, and
    /// `bpf_map_mmap` requires it).
    pub fn read(path: &Path, name: &str) -> Result<Self> {
        match open_pin(path, name)? {
            Pin::Open(map) => Self::of(&map, name),
            Pin::ForReading(map) => {
                let words = copy(&map).map_err(map_failed("read", name))?;
                let words = words.into_iter().map(|word| ReadOnlyWord(word.into()));
                Ok(Self(Words::Copied(words.collect())))
            }
        }
    }

    /// The same of a map that only its owner may read; `None` for other users.
    pub fn read_if_allowed(path: &Path, name: &str) -> Result<Option<Self>> {
        match Self::read(path, name) {
            Err(Error::NotReadable { .. }) => Ok(None),
            read => read.map(Some),
        }
    }

    /// Whether this is a copy, which does not change any more.
    pub(super) const fn is_copy(&self) -> bool {
        matches!(self.0, Words::Copied(_))
    }

    /// Leaves out the slots that were reused since these hot halves were copied, as a later copy of
    /// them shows: their words may belong to two entries, and so may the cold halves if they were copied
    /// in between. (`table::snapshot` reads the state of mapped slots twice.)
    pub(super) fn without_new_lives(mut self, later: &Self) -> Self {
        if let Words::Copied(words) = &mut self.0 {
            let (slots, _) = words.as_chunks_mut::<{ slot::WORDS }>();
            for (slot, later) in slots.iter_mut().zip(later.slots()) {
                if slot[slot::STATE].load() != later[slot::STATE].load() {
                    slot[slot::STATE] = ReadOnlyWord(AtomicU64::new(0));
                }
            }
        }
        self
    }
}

/// All values of an array, copied by the kernel.
fn copy(map: &MapData) -> Result<Vec<u64>, String> {
    let (values, bytes) = size(map)?;
    let mut words = vec![0_u64; values * bytes / size_of::<u64>()];
    match lookup_batch(map.fd().as_fd(), values, &mut words) {
        Ok(copied) if copied == values => Ok(words),
        Ok(copied) => Err(format!("{copied} of {values} values came")),
        Err(error) => Err(word(&error)),
    }
}

/// Opens a pinned map.
pub fn open(path: &Path) -> Result<MapData> {
    MapData::from_pin(path)
        .map_err(|error| map_failed("open", &path.display().to_string())(causes(&error)))
}

/// The two maps of FLOW or SESSION.
#[derive(Debug)]
pub struct SlotMemory<W: Mapped> {
    /// The hot halves.
    pub hot: Memory<W>,
    /// The cold halves.
    pub cold: Memory<W>,
}

impl<W: Mapped> SlotMemory<W> {
    /// The table.
    pub fn arrays(&self) -> Arrays<'_, W> {
        Arrays::new(self.hot.buckets(), self.cold.slots())
    }
}

impl SlotMemory<ReadOnlyWord> {
    /// Maps or copies the two maps of a table in a directory. The hot halves are copied before and after
    /// the cold ones, so that what belongs to two entries is left out.
    pub(super) fn read(directory: &Path, [hot, cold]: [&str; 2]) -> Result<Self> {
        let memory = |name: &str| Memory::read(&directory.join(name), name);
        let (first, cold) = (memory(hot)?, memory(cold)?);
        let hot = if first.is_copy() {
            first.without_new_lives(&memory(hot)?)
        } else {
            first
        };
        Ok(Self { hot, cold })
    }
}

/// The names of the two maps of FLOW: hot and cold halves.
pub const FLOW: [&str; 2] = ["FLOW", "FLOW_COLD"];
/// The same of SESSION.
pub const SESSION: [&str; 2] = ["SESSION", "SESSION_COLD"];

/// The maps of an instance that are read through memory.
#[derive(Debug)]
pub struct Tables<W: Mapped> {
    /// FLOW.
    pub flow: SlotMemory<W>,
    /// SESSION.
    pub session: SlotMemory<W>,
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
        let slots = |[hot, cold]: [&str; 2]| -> Result<_> {
            let (hot, cold) = (memory(hot)?, memory(cold)?);
            Ok(SlotMemory { hot, cold })
        };
        Ok(Self {
            flow: slots(FLOW)?,
            session: slots(SESSION)?,
            nexthop: memory("NEXTHOP")?,
            meta: memory("META")?,
            cpu: memory("CPU")?,
        })
    }

    /// What expiry works on.
    pub fn table_words<'w>(&'w self, secret: &'w Secret) -> TableWords<'w, W> {
        TableWords {
            flows: self.flow.arrays(),
            sessions: self.session.arrays(),
            meta: self.meta.words(),
            secret,
        }
    }

    /// A word of META.
    pub fn meta(&self, index: usize) -> &W {
        &self.meta.words()[index]
    }

    /// The blocks of all CPUs.
    pub fn cpus(&self) -> &[[W; cpu::WORDS]] {
        self.cpu.blocks()
    }

    /// The word of an egress, by its index in a block.
    pub fn egress(&self, index: usize) -> u64 {
        self.cpu.egress(index)
    }

    /// Writes the word of an egress into every block.
    pub fn set_egress(&self, index: usize, word: u64) {
        for block in self.cpus() {
            block[index].store(word);
        }
    }
}
