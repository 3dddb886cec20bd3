//! An atomic 64-bit word: `AtomicU64` on the host, intrinsics in the kernel, loom's type in its
//! tests.

#[cfg(not(target_arch = "bpf"))]
use core::sync::atomic::{AtomicU64, Ordering};

/// A 64-bit word in memory that several CPUs and user space share.
///
/// Every read-modify-write is a full barrier, as BPF atomics that return a value are.
/// [`Word::load`] and [`Word::store`] order nothing by themselves beyond what the architecture
/// gives.
pub trait Word {
    /// Reads the word.
    fn load(&self) -> u64;
    /// Reads its low half.
    #[expect(clippy::cast_possible_truncation, reason = "the half is meant")]
    fn low(&self) -> u32 {
        self.load() as u32
    }
    /// Writes the word. For words whose races are harmless, or that no other CPU can see yet.
    fn store(&self, value: u64);
    /// Writes both halves of the word, separately where that is cheaper: a reader may see only one
    /// of them written.
    fn store_halves(&self, high: u32, low: u32) {
        self.store(u64::from(high) << 32 | u64::from(low));
    }
    /// Adds, wrapping.
    fn add(&self, value: u64);
    /// Adds to the half of a word, wrapping: nothing is carried into the other half. The number is that
    /// of the word times two, plus one for the upper half; bits beyond the last word are not used.
    fn add_to_half<const N: usize>(words: &[Self; N], number: usize, value: u32)
    where
        Self: Sized,
    {
        let word = &words[number / 2 % N];
        let shift = 32 * (number & 1);
        loop {
            let old = word.load();
            let kept = old & (0xffff_ffff << (32 - shift));
            let sum = (old >> shift).wrapping_add(u64::from(value)) & 0xffff_ffff;
            if word.replace(old, kept | sum << shift) {
                return;
            }
        }
    }
    /// Replaces `old` by `new`; true when it did.
    fn replace(&self, old: u64, new: u64) -> bool;
    /// Writes the word with a full barrier before and after.
    fn publish(&self, value: u64);
    /// The same number, in a form from which the index of a word is computed. Without CAP_PERFMON
    /// the verifier requires that it is the same on every path to an instruction, or known on none.
    #[inline(always)]
    fn opaque_to_verifier(place: usize) -> usize {
        place
    }
    /// The same, hidden from the compiler as well: it knows that the number is small enough and
    /// would omit the bound that the verifier needs.
    #[inline(always)]
    fn opaque(place: usize) -> usize {
        Self::opaque_to_verifier(core::hint::black_box(place))
    }
}

// On the BPF target this type has loads and stores only; `xdp-ebpf` defines its own word.
#[cfg(not(target_arch = "bpf"))]
impl Word for AtomicU64 {
    #[inline(always)]
    fn load(&self) -> u64 {
        Self::load(self, Ordering::Acquire)
    }
    #[inline(always)]
    fn store(&self, value: u64) {
        // Release, like a plain store in the kernel after the full barrier of a read-modify-write.
        Self::store(self, value, Ordering::Release);
    }
    #[inline(always)]
    fn add(&self, value: u64) {
        self.fetch_add(value, Ordering::Relaxed);
    }
    #[inline(always)]
    fn replace(&self, old: u64, new: u64) -> bool {
        self.compare_exchange(old, new, Ordering::AcqRel, Ordering::Acquire)
            .is_ok()
    }
    #[inline(always)]
    fn publish(&self, value: u64) {
        self.swap(value, Ordering::AcqRel);
    }
}
