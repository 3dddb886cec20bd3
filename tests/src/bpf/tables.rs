//! What happens to the tables between two packets: a flow's next hop is remembered, expires or gets
//! lost.

use std::sync::atomic::{AtomicU64, Ordering};

use super::host::Tables;
use crate::lab::frames::Mac;
use xdp_common::cpu;
use xdp_common::slot::recent::BUCKET_WORDS;
use xdp_common::slot::{Contents, WAYS, flow};
use xdp_core::Word;
use xdp_core::table::{Arrays, Bucket, Buckets, Slot as Half};

/// The words of both halves of a live slot.
pub type Slot = Contents;

/// The words of a bucket of PIN.
pub type PinBucket = [u64; BUCKET_WORDS];

/// FLOW or SESSION in memory of its own.
pub struct SlotTable {
    hot: Vec<Bucket<AtomicU64>>,
    cold: Vec<Half<AtomicU64>>,
}

impl SlotTable {
    /// A table of so many buckets without entries.
    pub fn new(buckets: u32) -> Self {
        let buckets = buckets as usize;
        Self {
            hot: (0..buckets).map(|_| Bucket::default()).collect(),
            cold: (0..buckets * WAYS).map(|_| Half::default()).collect(),
        }
    }

    /// The table.
    pub fn arrays(&self) -> Arrays<'_, AtomicU64> {
        Arrays::new(&self.hot, &self.cold)
    }

    /// The words of both halves of all live slots.
    pub fn live(&self) -> Vec<Slot> {
        let slots = self.arrays().iter();
        slots.filter_map(xdp_core::table::snapshot).collect()
    }

    /// All words of all slots.
    fn words(&self) -> Vec<u64> {
        let hot = self.arrays().hot().as_flattened();
        let words = hot.iter().chain(self.cold.as_flattened());
        words.map(Word::load).collect()
    }
}

impl Buckets for SlotTable {
    type Word = AtomicU64;
    fn bucket(&self, index: u32) -> Option<&Bucket<AtomicU64>> {
        self.hot.get(index as usize)
    }
    fn cold(&self, number: u32) -> Option<&Half<AtomicU64>> {
        self.cold.get(number as usize)
    }
}

/// The state of a flow's next hop. Its MAC address is one that the FIB never gives: the bytes that
/// leave show where the address came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hop {
    /// Remembered and valid.
    Remembered(Mac),
    /// Remembered, but not valid any more.
    Expired(Mac),
    /// Not remembered.
    Unknown,
}

impl Hop {
    /// The word for it, in place of a valid one: the MAC address in bits 16 to 63, in the lower
    /// bits the stamp under which it is valid, whose upper bit is always set.
    pub fn word(self, valid: u64) -> u64 {
        let stamp = valid & 0xffff;
        let of = |[a, b, c, d, e, f]: Mac| u64::from_le_bytes([0, 0, a, b, c, d, e, f]);
        match self {
            Self::Remembered(mac) => of(mac) | stamp,
            Self::Expired(mac) => of(mac) | (stamp.wrapping_sub(1) & 0xffff) | 0x8000,
            Self::Unknown => 0,
        }
    }
}

impl Tables {
    /// Sets the MTU that XDP knows of an egress: the first WAN is at [`cpu::EGRESS_WAN`], the first
    /// LAN at [`cpu::EGRESS_LAN`].
    pub fn set_egress_mtu(&self, place: usize, mtu: u16) {
        Word::store(&self.cpu[place], cpu::egress(mtu, 1));
    }

    /// Rules look at more than the packets of a session have in common.
    pub fn set_not_shared(&self, place: usize) {
        let word = Word::load(&self.cpu[place]) | cpu::NOT_SHARED;
        Word::store(&self.cpu[place], word);
    }

    /// XDP knows that an egress accepts no frames from it.
    pub fn close_egress(&self, place: usize) {
        Word::store(&self.cpu[place], 0);
    }

    /// The places of the buckets for ICMP errors that have been used since the last call.
    pub fn take_used_icmp_buckets(&self) -> Vec<usize> {
        let words = self.limit.iter().enumerate();
        words
            .filter(|(_, word)| word.swap(0, Ordering::Relaxed) != 0)
            .map(|(place, _)| place)
            .collect()
    }

    /// The words of each table whose entries have places by the hash, with its name.
    pub fn hashed(&self) -> [(&'static str, Vec<u64>); 7] {
        let load = |words: &[AtomicU64]| words.iter().map(Word::load).collect();
        [
            ("FLOW", self.flows.words()),
            ("SESSION", self.sessions.words()),
            ("HALF", load(self.half.as_flattened())),
            ("FRAGMENT", load(self.fragments.as_flattened())),
            ("PIN", load(self.pins.as_flattened())),
            ("HOSTPEER", load(self.host_peers.as_flattened())),
            ("LIMIT", load(&self.limit)),
        ]
    }

    /// The buckets of PIN.
    pub fn pins(&self) -> Vec<PinBucket> {
        (0..self.pins.len()).map(|index| self.pin(index)).collect()
    }

    /// One of them.
    ///
    /// # Panics
    /// There is none with this index.
    pub fn pin(&self, index: usize) -> PinBucket {
        self.pins[index].each_ref().map(Word::load)
    }

    /// Changes the hop words of all flows.
    pub fn change_hops(&self, mut change: impl FnMut(u64) -> u64) {
        for slot in self.flows.arrays().iter() {
            if xdp_core::table::snapshot(slot).is_some() {
                let word = &slot.hot[flow::HOP];
                Word::store(word, change(Word::load(word)));
            }
        }
    }
}
