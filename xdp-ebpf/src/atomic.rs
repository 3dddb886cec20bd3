//! The atomic word of the kernel programs. One of the six files with `unsafe`.
//!
//! `core::sync::atomic` has no compare-and-swap on the BPF target, so these are compiler
//! intrinsics; with `-C target-cpu=v3` they become `cmpxchg_64`, `lock +=` and `xchg_64`. Those
//! that return a value are full barriers (Documentation/bpf/standardization/instruction-set.rst,
//! "Atomic operations").

#![expect(
    unsafe_code,
    reason = "the only place where shared memory is read and written"
)]

use core::cell::UnsafeCell;
use core::intrinsics::{AtomicOrdering, atomic_cxchg, atomic_xadd, atomic_xchg};
use xdp_core::Word;

#[cfg(not(target_endian = "little"))]
compile_error!("Shared::low() reads the first half of a word");

/// A word in the value of a map.
#[repr(transparent)]
pub struct Shared(UnsafeCell<u64>);

// SAFETY: all access goes through the methods below, each of which is one BPF load, store or atomic
// instruction of eight bytes, aligned because every value of these maps is a multiple of eight
// bytes.
unsafe impl Sync for Shared {}

impl Word for Shared {
    #[inline(always)]
    fn load(&self) -> u64 {
        // SAFETY: the pointer comes from a reference. Volatile, since another CPU may write at any
        // time.
        unsafe { self.0.get().read_volatile() }
    }

    #[inline(always)]
    fn low(&self) -> u32 {
        // SAFETY: as for `load`; the memory of the word begins with its low half, since the target
        // is little-endian (checked above).
        unsafe { self.0.get().cast::<u32>().read_volatile() }
    }

    #[inline(always)]
    fn store(&self, value: u64) {
        // SAFETY: as for `load`.
        unsafe { self.0.get().write_volatile(value) }
    }

    #[inline(always)]
    fn store_halves(&self, high: u32, low: u32) {
        let halves = self.0.get().cast::<u32>();
        // SAFETY: as for `low`; both are inside the word.
        unsafe {
            halves.write_volatile(low);
            halves.add(1).write_volatile(high);
        }
    }

    #[inline(always)]
    fn add(&self, value: u64) {
        // SAFETY: the pointer is valid and aligned; the old value is not used, so this is
        // `lock +=`.
        unsafe {
            atomic_xadd::<u64, u64, { AtomicOrdering::Relaxed }>(self.0.get(), value);
        }
    }

    #[inline(always)]
    fn add_to_half<const N: usize>(words: &[Self; N], number: usize, value: u32) {
        const { assert!(N.is_power_of_two()) };
        let halves = UnsafeCell::raw_get(words.as_ptr().cast::<UnsafeCell<u32>>());
        // SAFETY: `N` words have `2 * N` halves, the lower one first. Those that are counted in are
        // written in no other way while they are shared. The old value is not used, so this is `lock +=`
        // of four bytes, which are aligned.
        unsafe {
            let half = halves.add(number & (2 * N - 1));
            atomic_xadd::<u32, u32, { AtomicOrdering::Relaxed }>(half, value);
        }
    }

    #[inline(always)]
    fn replace(&self, old: u64, new: u64) -> bool {
        // SAFETY: the pointer is valid and aligned.
        unsafe {
            atomic_cxchg::<u64, { AtomicOrdering::SeqCst }, { AtomicOrdering::SeqCst }>(
                self.0.get(),
                old,
                new,
            )
            .1
        }
    }

    #[cfg(feature = "without-perfmon")]
    #[inline(always)]
    fn opaque_to_verifier(place: usize) -> usize {
        let unknown = crate::helpers::jiffies();
        let mut place = place;
        // SAFETY: arithmetic only: two XORs with the same number, which is unknown to the verifier.
        unsafe {
            core::arch::asm!(
                "{place} ^= {unknown}",
                "{place} ^= {unknown}",
                place = inout(reg) place,
                unknown = in(reg) unknown,
                options(pure, nomem, nostack, preserves_flags)
            );
        }
        place
    }

    #[cfg(not(feature = "without-perfmon"))]
    #[inline(always)]
    fn opaque(place: usize) -> usize {
        let mut place = place;
        // SAFETY: one `mov`, where `black_box` would write to the stack and read from it. It has to be an
        // instruction (see `known` in maps.rs).
        unsafe {
            core::arch::asm!(
                "{place} = {place}",
                place = inout(reg) place,
                options(pure, nomem, nostack, preserves_flags)
            );
        }
        place
    }

    #[inline(always)]
    fn publish(&self, value: u64) {
        // SAFETY: the pointer is valid and aligned. The result goes through `black_box`, since
        // without a use of it the compiler would turn the exchange into a store, which orders
        // nothing.
        unsafe {
            core::hint::black_box(atomic_xchg::<u64, { AtomicOrdering::SeqCst }>(
                self.0.get(),
                value,
            ));
        }
    }
}
