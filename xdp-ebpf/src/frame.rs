//! Packet pointers: the [`Frame`] of an XDP and of a tc context. One of the four files with `unsafe`.
//!
//! It may not know what the bytes mean. Pointers are derived anew from the context at every access and never kept: a
//! helper that changes the packet makes old ones invalid, and the verifier says so.

#![expect(unsafe_code, reason = "packet pointers")]

use crate::atomic::Shared;
use crate::maps::{self, SCRATCH_WORDS};
use crate::registers::{load, store, with_class};
use aya_ebpf::bindings::bpf_adj_room_mode::BPF_ADJ_ROOM_MAC;
use aya_ebpf::bindings::{__sk_buff, BPF_F_MARK_MANGLED_0, BPF_F_PSEUDO_HDR, xdp_md};
use aya_ebpf::helpers::{
    bpf_csum_diff, bpf_l4_csum_replace, bpf_skb_adjust_room, bpf_skb_change_tail,
    bpf_skb_load_bytes, bpf_skb_pull_data, bpf_skb_store_bytes,
};
#[cfg(feature = "without-perfmon")]
use aya_ebpf::helpers::{bpf_xdp_get_buff_len, bpf_xdp_load_bytes, bpf_xdp_store_bytes};
use aya_ebpf::programs::{TcContext, XdpContext};
use core::arch::asm;
use core::mem::offset_of;
use xdp_core::answer::{self, Answer};
use xdp_core::checksum::fold;
use xdp_core::wire::ethernet;
use xdp_core::{Frame, Word};

/// Where `struct xdp_md` has the packet's start and end.
const XDP_DATA: usize = offset_of!(xdp_md, data);
const XDP_DATA_END: usize = offset_of!(xdp_md, data_end);
/// Where `struct __sk_buff` has them.
const TC_DATA: usize = offset_of!(__sk_buff, data);
const TC_DATA_END: usize = offset_of!(__sk_buff, data_end);

/// Reads a packet pointer from a context.
///
/// In assembly, since the field is a `u32` in C and a pointer for the verifier: the compiler sometimes loads it, spills
/// it and widens the copy, and from then on the verifier takes it for a number.
#[inline(always)]
fn pointer<C, const FIELD: usize>(context: *const C) -> usize {
    let value: usize;
    // SAFETY: a load of a field of the kernel's own context. `readonly`: it does not move across a helper,
    // which may change the packet.
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
fn at<const N: usize>(data: usize, end: usize, at: usize) -> Option<*mut [u8; N]> {
    let start = data + at;
    if start + N > end {
        return None;
    }
    // SAFETY: a packet is nowhere at address zero. Without this the compiler tests for it.
    unsafe { core::hint::assert_unchecked(start != 0) };
    Some(start as *mut [u8; N])
}

/// Bytes of a packet that were copied to the stack, where words have to be aligned.
#[cfg(feature = "without-perfmon")]
#[repr(align(8))]
struct Aligned<const N: usize>([u8; N]);

/// The same number in another register, of which the compiler knows nothing.
#[cfg(feature = "without-perfmon")]
#[inline(always)]
fn hidden(number: u64) -> u64 {
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

/// A context that is put away on the stack until the fast path is left: in a register it would be in the way of all that
/// the fast path itself needs.
pub struct Kept(*mut xdp_md);

impl Default for Kept {
    /// Where a context will be kept.
    #[inline(always)]
    fn default() -> Self {
        Self(core::ptr::null_mut())
    }
}

impl Kept {
    /// Puts it away.
    #[inline(always)]
    pub fn put(&mut self, context: &XdpContext) {
        // SAFETY: a store to the stack; volatile, so that it stays one.
        unsafe { core::ptr::from_mut(&mut self.0).write_volatile(context.ctx) }
    }

    /// Takes it back.
    #[inline(always)]
    pub fn take(&self) -> XdpContext {
        // SAFETY: a load from the stack.
        XdpContext::new(unsafe { core::ptr::from_ref(&self.0).read_volatile() })
    }
}

/// A frame in XDP.
pub struct XdpFrame<'c>(&'c XdpContext);

impl<'c> XdpFrame<'c> {
    /// The frame of this context. The only one: two would alias.
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
}

impl Frame for XdpFrame<'_> {
    #[inline(always)]
    fn array<const N: usize>(&self, offset: usize) -> Option<&[u8; N]> {
        // SAFETY: checked against the end of the packet; nobody writes while `self` is borrowed.
        at(self.data(), self.data_end(), offset).map(|p| unsafe { &*p })
    }

    #[inline(always)]
    fn array_mut<const N: usize>(&mut self, offset: usize) -> Option<&mut [u8; N]> {
        // SAFETY: checked against the end of the packet; `self` is borrowed for as long as the reference lives.
        at(self.data(), self.data_end(), offset).map(|p| unsafe { &mut *p })
    }

    #[cfg(feature = "without-perfmon")]
    #[inline(always)]
    fn number(constant: u64) -> u64 {
        hidden(constant)
    }

    #[cfg(feature = "without-perfmon")]
    #[inline(always)]
    fn length(&self) -> usize {
        // SAFETY: the context is the kernel's own.
        unsafe { bpf_xdp_get_buff_len(self.0.ctx) as usize }
    }

    #[cfg(feature = "without-perfmon")]
    #[inline(always)]
    fn look<const N: usize, R>(&self, at: usize, read: impl FnOnce(&[u8; N]) -> R) -> Option<R> {
        let mut copy = Aligned([0; N]);
        let bytes = &mut copy.0;
        // SAFETY: the helper writes `N` bytes, or fails.
        let result = unsafe {
            bpf_xdp_load_bytes(self.0.ctx, at as u32, bytes.as_mut_ptr().cast(), N as u32)
        };
        (result == 0).then(|| read(bytes))
    }

    #[cfg(feature = "without-perfmon")]
    #[inline(always)]
    fn change<const N: usize, R>(
        &mut self,
        at: usize,
        write: impl FnOnce(&mut [u8; N]) -> R,
    ) -> Option<R> {
        let mut copy = Aligned([0; N]);
        let bytes = &mut copy.0;
        // SAFETY: the helpers read and write `N` bytes, or fail.
        unsafe {
            let place = bytes.as_mut_ptr().cast();
            if bpf_xdp_load_bytes(self.0.ctx, at as u32, place, N as u32) != 0 {
                return None;
            }
            let result = write(bytes);
            let place = bytes.as_mut_ptr().cast();
            (bpf_xdp_store_bytes(self.0.ctx, at as u32, place, N as u32) == 0).then_some(result)
        }
    }

    #[cfg(not(feature = "without-perfmon"))]
    #[inline(always)]
    fn length(&self) -> usize {
        let length: usize;
        // SAFETY: arithmetic alone. In assembly, since the compiler would conclude from a compare of lengths that a later
        // pointer is in bounds and drop the check that the verifier needs to see.
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
        // SAFETY: inside the array. In assembly, since the compiler takes unaligned words byte by byte.
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

/// Bytes at the start of a packet that the logic may look at: Ethernet, IPv4 with options, UDP, marker, IKE.
pub const HEADERS: u32 = 14 + 60 + 8 + 4 + 28;
/// The same of an ICMP error: Ethernet, IPv4 with options, ICMP, and of what it quotes IPv4 with options and eight bytes. What
/// is behind them is only summed, which reads it where it is.
pub const REPORTED: u32 = 14 + 60 + 8 + 60 + 8;

/// Bytes that `bpf_csum_diff` takes at once: more than 512 were refused before 6.13.
const CHUNK: usize = 512;
/// Bytes of a packet that are summed at most.
const SUMMED: usize = (SCRATCH_WORDS - 1) * 4;

/// The sum of a part of a packet. Out of line, so that the verifier goes through it once for each place that wants it.
#[inline(never)]
fn sum(skb: *mut __sk_buff, offset: usize, length: usize) -> Option<u16> {
    if !(2..=SUMMED).contains(&length) {
        return None;
    }
    // Hidden from the compiler, which knows that this changes nothing: where the verifier has lost what the compares say, it
    // sees what stands here.
    let length = (Shared::blur(core::hint::black_box(length - 2)) & (SUMMED - 1)) + 2;
    let scratch = maps::scratch()?;
    let start: *mut u8 = scratch.as_mut_ptr().cast();
    // SAFETY: `length` and the padding behind it are inside the scratch space.
    let loaded = unsafe {
        let loaded = bpf_skb_load_bytes(skb.cast(), offset as u32, start.cast(), length as u32);
        start.add(length).cast::<[u8; 3]>().write([0; 3]);
        loaded
    };
    if loaded != 0 {
        return None;
    }
    let mut left = (length + 3) & !3;
    let mut total = 0_u32;
    let mut done = 0;
    while done < SUMMED {
        let take = if left < CHUNK { left } else { CHUNK };
        // SAFETY: `done + CHUNK` is inside the scratch space.
        let added = unsafe {
            let from = start.add(done).cast();
            bpf_csum_diff(core::ptr::null_mut(), 0, from, take as u32, total)
        };
        total = added as u32;
        left -= take;
        done += CHUNK;
    }
    Some(u16::from_be(fold(u64::from(total))))
}

/// A frame in tc.
pub struct TcFrame<'c>(&'c TcContext);

impl<'c> TcFrame<'c> {
    /// The frame of this context. What is not in the linear part of the packet is not there yet: see [`Self::pull`].
    #[inline(always)]
    pub fn new(context: &'c mut TcContext) -> Self {
        Self(context)
    }

    /// Brings this many bytes, or all there are, into the linear part.
    #[inline(always)]
    pub fn pull(&mut self, bytes: u32) {
        let length = self.0.len();
        let wanted = if length < bytes { length } else { bytes };
        // A failure leaves less to read, and the reader's checks see that.
        // SAFETY: the context is the kernel's own.
        let _ = unsafe { bpf_skb_pull_data(self.0.skb.skb, wanted) };
    }

    /// Makes an ICMP error of the packet: cut behind the quote, room before it, its headers there.
    #[inline(always)]
    pub fn become_answer(&mut self, answer: &Answer) -> bool {
        let skb = self.0.skb.skb;
        let length = ethernet::LENGTH as u32 + u32::from(answer.quote);
        let room = answer::ROOM as i32;
        // SAFETY: the context is the kernel's own, and the helpers check every length.
        unsafe {
            bpf_skb_change_tail(skb, length, 0) == 0
                && bpf_skb_adjust_room(skb, room, BPF_ADJ_ROOM_MAC, 0) == 0
                && bpf_skb_store_bytes(
                    skb,
                    0,
                    answer.head.as_ptr().cast(),
                    answer.head.len() as u32,
                    0,
                ) == 0
        }
    }

    #[inline(always)]
    fn data(&self) -> usize {
        pointer::<_, TC_DATA>(self.0.skb.skb)
    }

    #[inline(always)]
    fn data_end(&self) -> usize {
        pointer::<_, TC_DATA_END>(self.0.skb.skb)
    }
}

impl Frame for TcFrame<'_> {
    #[inline(always)]
    fn array<const N: usize>(&self, offset: usize) -> Option<&[u8; N]> {
        // SAFETY: as for XDP.
        at(self.data(), self.data_end(), offset).map(|p| unsafe { &*p })
    }

    #[inline(always)]
    fn array_mut<const N: usize>(&mut self, offset: usize) -> Option<&mut [u8; N]> {
        // SAFETY: as for XDP.
        at(self.data(), self.data_end(), offset).map(|p| unsafe { &mut *p })
    }

    /// The whole length: the linear part alone may be shorter than the packet.
    #[inline(always)]
    fn length(&self) -> usize {
        self.0.len() as usize
    }

    #[cfg(feature = "without-perfmon")]
    #[inline(always)]
    fn number(constant: u64) -> u64 {
        hidden(constant)
    }

    #[cfg(feature = "without-perfmon")]
    #[inline(always)]
    fn look<const N: usize, R>(&self, at: usize, read: impl FnOnce(&[u8; N]) -> R) -> Option<R> {
        let mut copy = Aligned([0; N]);
        let bytes = &mut copy.0;
        // SAFETY: the helper writes `N` bytes, or fails.
        let result = unsafe {
            bpf_skb_load_bytes(
                self.0.skb.skb.cast(),
                at as u32,
                bytes.as_mut_ptr().cast(),
                N as u32,
            )
        };
        (result == 0).then(|| read(bytes))
    }

    #[cfg(feature = "without-perfmon")]
    #[inline(always)]
    fn change<const N: usize, R>(
        &mut self,
        at: usize,
        write: impl FnOnce(&mut [u8; N]) -> R,
    ) -> Option<R> {
        let skb = self.0.skb.skb;
        let mut copy = Aligned([0; N]);
        let bytes = &mut copy.0;
        // SAFETY: the helpers read and write `N` bytes, or fail.
        unsafe {
            let place = bytes.as_mut_ptr().cast();
            if bpf_skb_load_bytes(skb.cast(), at as u32, place, N as u32) != 0 {
                return None;
            }
            let result = write(bytes);
            let place = bytes.as_ptr().cast();
            (bpf_skb_store_bytes(skb, at as u32, place, N as u32, 0) == 0).then_some(result)
        }
    }

    /// Copied to where the verifier knows how far it may read, padded with zeroes, and summed by the kernel's helper.
    #[inline(always)]
    fn sum(&self, offset: usize, length: usize) -> Option<u16> {
        sum(self.0.skb.skb, offset, length)
    }

    /// The kernel knows whether the checksum is partial, complete or none; this helper is right in every case.
    #[inline(always)]
    fn update_udp_checksum(&mut self, offset: usize, old: [u8; 4], new: [u8; 4]) -> bool {
        // SAFETY: the context is the kernel's own; the helper checks the offset.
        let result = unsafe {
            bpf_l4_csum_replace(
                self.0.skb.skb,
                offset as u32,
                u64::from(u32::from_ne_bytes(old)),
                u64::from(u32::from_ne_bytes(new)),
                u64::from(BPF_F_PSEUDO_HDR | BPF_F_MARK_MANGLED_0) | 4,
            )
        };
        result == 0
    }
}
