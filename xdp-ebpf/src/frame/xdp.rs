//! The [`Frame`] of an XDP context, and the packet pointers that XDP and tc share. One of the six
//! files with `unsafe`.
//!
//! Invariant: every access derives its pointer from the context and no pointer is kept. A helper
//! that changes the packet invalidates older pointers, and the verifier rejects their use.

#![expect(unsafe_code, reason = "packet pointers")]

use crate::frame::asm::{load, store, with_class};
use aya_ebpf::bindings::xdp_md;
#[cfg(feature = "without-perfmon")]
use aya_ebpf::helpers::{bpf_xdp_get_buff_len, bpf_xdp_load_bytes, bpf_xdp_store_bytes};
use aya_ebpf::programs::XdpContext;
use core::arch::asm;
#[cfg(feature = "without-perfmon")]
use core::ffi::{c_long, c_void};
use core::mem::offset_of;
use xdp_common::Config;
use xdp_core::{Frame, Vips};

/// Offsets of the start and the end of the packet in `struct xdp_md`.
const XDP_DATA: usize = offset_of!(xdp_md, data);
const XDP_DATA_END: usize = offset_of!(xdp_md, data_end);

/// Reads a packet pointer from a context.
///
/// In assembly, since the field is a `u32` in C and a pointer for the verifier: the compiler
/// sometimes loads it, spills it and widens the copy, and from then on the verifier treats it as a
/// number.
#[inline(always)]
pub(crate) fn pointer<C, const FIELD: usize>(context: *const C) -> usize {
    let value: usize;
    // SAFETY: a load of a field of the kernel's own context. `readonly`: it does not move across a
    // helper, which may change the packet.
    unsafe {
        asm!(
            "{value} = *(u32 *)({context} + {field})",
            value = out(reg) value,
            context = in(reg) context,
            field = const FIELD,
            options(pure, readonly, nostack, preserves_flags)
        );
    }
    value
}

#[inline(always)]
pub(crate) fn bytes_at<const N: usize>(data: usize, end: usize, at: usize) -> Option<*mut [u8; N]> {
    let start = data + at;
    if start + N > end {
        return None;
    }
    // SAFETY: no packet is at address zero. Without this hint the compiler tests for it.
    unsafe { core::hint::assert_unchecked(start != 0) };
    Some(start as *mut [u8; N])
}

/// A copy of bytes of a packet on the stack, where words have to be aligned. The copy must not be
/// moved: a move would read its padding.
#[cfg(feature = "without-perfmon")]
#[repr(align(8))]
struct Aligned<const N: usize>([u8; N]);

/// Reads bytes that the helper `load` copies; it returns zero on success.
#[cfg(feature = "without-perfmon")]
#[inline(always)]
pub(crate) fn copy_out<const N: usize, R>(
    load: impl FnOnce(*mut c_void, u32) -> c_long,
    read: impl FnOnce(&[u8; N]) -> R,
) -> Option<R> {
    let mut copy = Aligned([0; N]);
    let loaded = load(copy.0.as_mut_ptr().cast(), N as u32);
    (loaded == 0).then(|| read(&copy.0))
}

/// Changes bytes: `load` copies them out of the packet, `store` copies them back.
#[cfg(feature = "without-perfmon")]
#[inline(always)]
pub(crate) fn copy_back<const N: usize, R>(
    load: impl FnOnce(*mut c_void, u32) -> c_long,
    store: impl FnOnce(*mut c_void, u32) -> c_long,
    write: impl FnOnce(&mut [u8; N]) -> R,
) -> Option<R> {
    let mut copy = Aligned([0; N]);
    if load(copy.0.as_mut_ptr().cast(), N as u32) != 0 {
        return None;
    }
    let result = write(&mut copy.0);
    (store(copy.0.as_mut_ptr().cast(), N as u32) == 0).then_some(result)
}

/// The same number in another register, opaque to the compiler.
#[cfg(feature = "without-perfmon")]
#[inline(always)]
pub(crate) fn opaque(number: u64) -> u64 {
    let same: u64;
    // SAFETY: a copy.
    unsafe {
        asm!(
            "{same} = {number}",
            same = lateout(reg) same,
            number = in(reg) number,
            options(pure, nomem, nostack, preserves_flags)
        );
    }
    same
}

/// The accessors of [`Frame`] that both frames have in common. The frame has `data` and `data_end`,
/// and without CAP_PERFMON `load_bytes` and `store_bytes`.
macro_rules! accessors {
    () => {
        #[inline(always)]
        fn array<const N: usize>(&self, offset: usize) -> Option<&[u8; N]> {
            // SAFETY: checked against the end of the packet; nothing writes while `self` is
            // borrowed.
            bytes_at(self.data(), self.data_end(), offset).map(|p| unsafe { &*p })
        }

        #[inline(always)]
        fn array_mut<const N: usize>(&mut self, offset: usize) -> Option<&mut [u8; N]> {
            // SAFETY: checked against the end of the packet; `self` is borrowed for as long as the
            // reference lives.
            bytes_at(self.data(), self.data_end(), offset).map(|p| unsafe { &mut *p })
        }

        #[cfg(feature = "without-perfmon")]
        #[inline(always)]
        fn opaque(constant: u64) -> u64 {
            opaque(constant)
        }

        #[cfg(feature = "without-perfmon")]
        #[inline(always)]
        fn with_bytes<const N: usize, R>(
            &self,
            at: usize,
            read: impl FnOnce(&[u8; N]) -> R,
        ) -> Option<R> {
            copy_out(|to, size| self.load_bytes(at, to, size), read)
        }

        #[cfg(feature = "without-perfmon")]
        #[inline(always)]
        fn with_bytes_mut<const N: usize, R>(
            &mut self,
            at: usize,
            write: impl FnOnce(&mut [u8; N]) -> R,
        ) -> Option<R> {
            copy_back(
                |to, size| self.load_bytes(at, to, size),
                |from, size| self.store_bytes(at, from, size),
                write,
            )
        }
    };
}

pub(crate) use accessors;

/// A context that is saved on the stack until the fast path ends: kept in a register, it would take
/// that register from the fast path.
pub struct SavedContext(*mut xdp_md);

impl Default for SavedContext {
    /// An empty place for a context.
    #[inline(always)]
    fn default() -> Self {
        Self(core::ptr::null_mut())
    }
}

impl SavedContext {
    /// Saves the context.
    #[inline(always)]
    pub fn save(&mut self, context: &XdpContext) {
        // SAFETY: a store to the stack; volatile, so that it stays one.
        unsafe { core::ptr::from_mut(&mut self.0).write_volatile(context.ctx) }
    }

    /// Loads the context.
    #[inline(always)]
    pub fn restore(&self) -> XdpContext {
        // SAFETY: a load from the stack.
        XdpContext::new(unsafe { core::ptr::from_ref(&self.0).read_volatile() })
    }
}

/// A frame in XDP.
pub struct XdpFrame<'c, const SEVERAL: bool = false>(&'c XdpContext);

impl<'c> XdpFrame<'c> {
    /// The frame of a program that knows of no VIPs, or of one.
    #[inline(always)]
    pub fn plain(context: &'c mut XdpContext) -> Self {
        Self(context)
    }
}

impl<const SEVERAL: bool> Vips for XdpFrame<'_, SEVERAL> {
    #[inline(always)]
    fn has_several(_: &Config) -> bool {
        SEVERAL
    }
}

impl<'c, const SEVERAL: bool> XdpFrame<'c, SEVERAL> {
    /// The frame of this context. Only one at a time: two would alias.
    #[inline(always)]
    pub fn new(context: &'c mut XdpContext) -> Self {
        Self(context)
    }

    #[inline(always)]
    fn data(&self) -> usize {
        pointer::<_, XDP_DATA>(self.0.ctx)
    }

    #[inline(always)]
    fn data_end(&self) -> usize {
        pointer::<_, XDP_DATA_END>(self.0.ctx)
    }

    #[cfg(feature = "without-perfmon")]
    #[inline(always)]
    fn load_bytes(&self, at: usize, to: *mut c_void, size: u32) -> c_long {
        // SAFETY: the caller gives the helper as much room as it may fill.
        unsafe { bpf_xdp_load_bytes(self.0.ctx, at as u32, to, size) }
    }

    #[cfg(feature = "without-perfmon")]
    #[inline(always)]
    fn store_bytes(&self, at: usize, from: *mut c_void, size: u32) -> c_long {
        // SAFETY: the caller gives the helper as many bytes as it may read.
        unsafe { bpf_xdp_store_bytes(self.0.ctx, at as u32, from, size) }
    }
}

impl<const SEVERAL: bool> Frame for XdpFrame<'_, SEVERAL> {
    accessors!();

    #[cfg(feature = "without-perfmon")]
    #[inline(always)]
    fn length(&self) -> usize {
        // SAFETY: the context is the kernel's own.
        unsafe { bpf_xdp_get_buff_len(self.0.ctx) as usize }
    }

    #[cfg(not(feature = "without-perfmon"))]
    #[inline(always)]
    fn length(&self) -> usize {
        let length: usize;
        // SAFETY: arithmetic only. In assembly, since from a comparison of lengths the compiler
        // would conclude that a later pointer is in bounds, and drop the check that the verifier
        // needs to see.
        unsafe {
            asm!(
                "{length} -= {start}",
                length = inout(reg) self.data_end() => length,
                start = in(reg) self.data(),
                options(pure, nomem, nostack, preserves_flags)
            );
        }
        length
    }

    #[inline(always)]
    fn get16<const AT: usize, const N: usize>(bytes: &[u8; N]) -> u16 {
        const { assert!(AT + 2 <= N) };
        // SAFETY: inside the array. In assembly, since the compiler loads unaligned words byte by
        // byte.
        let value = unsafe { with_class!(load!("u16", bytes, AT)) };
        // SAFETY: two bytes were loaded, and the rest of the register is zero.
        unsafe { core::hint::assert_unchecked(value <= 0xffff) };
        value as u16
    }

    #[inline(always)]
    fn get32<const AT: usize, const N: usize>(bytes: &[u8; N]) -> u32 {
        const { assert!(AT + 4 <= N) };
        // SAFETY: as above.
        unsafe { with_class!(load!("u32", bytes, AT)) }
    }

    #[inline(always)]
    fn get64<const AT: usize, const N: usize>(bytes: &[u8; N]) -> u64 {
        const { assert!(AT + 8 <= N) };
        let value: u64;
        // SAFETY: as above.
        unsafe {
            asm!(
                "{value} = *(u64 *)({bytes} + {at})",
                value = out(reg) value,
                bytes = in(reg) bytes.as_ptr(),
                at = const AT,
                options(pure, readonly, nostack, preserves_flags)
            );
        }
        value
    }

    #[inline(always)]
    fn put16<const AT: usize, const N: usize>(bytes: &mut [u8; N], value: u32) {
        const { assert!(AT + 2 <= N) };
        // SAFETY: as above; the array is borrowed to be written.
        unsafe { with_class!(store!("u16", bytes, AT, value)) };
    }

    #[inline(always)]
    fn put32<const AT: usize, const N: usize>(bytes: &mut [u8; N], value: u32) {
        const { assert!(AT + 4 <= N) };
        // SAFETY: as above.
        unsafe { with_class!(store!("u32", bytes, AT, value)) };
    }

    #[inline(always)]
    fn put64<const AT: usize, const N: usize>(bytes: &mut [u8; N], value: u64) {
        const { assert!(AT + 8 <= N) };
        // SAFETY: as above.
        unsafe {
            asm!(
                "*(u64 *)({bytes} + {at}) = {value}",
                value = in(reg) value,
                bytes = in(reg) bytes.as_mut_ptr(),
                at = const AT,
                options(nostack, preserves_flags)
            );
        }
    }
}
