//! The [`Frame`] of an skb in tc, and the conversion of a packet into an ICMP error. One of the
//! six files with `unsafe`.
//!
//! Only the linear part of an skb can be read directly: the rest has to be pulled first.

#![expect(unsafe_code, reason = "packet pointers")]

use crate::atomic::Shared;
use crate::frame::xdp::{accessors, bytes_at, pointer};
#[cfg(feature = "without-perfmon")]
use crate::frame::xdp::{copy_back, copy_out, opaque};
use crate::maps::{self, SCRATCH_WORDS};
use aya_ebpf::bindings::bpf_adj_room_mode::BPF_ADJ_ROOM_MAC;
use aya_ebpf::bindings::{__sk_buff, BPF_F_MARK_MANGLED_0, BPF_F_PSEUDO_HDR};
use aya_ebpf::helpers::{
    bpf_csum_diff, bpf_l4_csum_replace, bpf_skb_adjust_room, bpf_skb_change_tail,
    bpf_skb_load_bytes, bpf_skb_pull_data, bpf_skb_store_bytes,
};
use aya_ebpf::programs::TcContext;
#[cfg(feature = "without-perfmon")]
use core::ffi::{c_long, c_void};
use core::mem::offset_of;
use xdp_core::checksum::fold;
use xdp_core::icmp::error::{self, IcmpError};
use xdp_core::wire::ethernet;
use xdp_core::{Frame, Vips, Word};

/// Offsets of the start and the end of the packet in `struct __sk_buff`.
const TC_DATA: usize = offset_of!(__sk_buff, data);
const TC_DATA_END: usize = offset_of!(__sk_buff, data_end);

/// Bytes at the start of a packet that the packet logic may read: Ethernet, IPv4 with options, TCP with
/// options, and the prefix of a stream. UDP, Non-ESP Marker and IKE are shorter.
pub const HEADER_BYTES: u32 = 14 + 60 + 60 + 6;
/// The same for an ICMP error: Ethernet, IPv4 with options, ICMP, and of the quoted packet IPv4
/// with options and UDP, a Non-ESP Marker and an SPI of IKE, or TCP up to its checksum. The bytes behind
/// them are only summed, which needs no pull.
pub const ICMP_ERROR_BYTES: u32 = 14 + 60 + 8 + 60 + 20;

/// Bytes that `bpf_csum_diff` gets at once: before 6.13 more than 512 were refused.
const CHUNK: usize = 512;
/// The most bytes of a packet that are summed.
const SUMMED: usize = (SCRATCH_WORDS - 1) * 4;

/// No sum: one has 16 bits.
const NO_SUM: u64 = u64::MAX;

/// The checksum over a part of a packet, or [`NO_SUM`]. A global function, so that the verifier goes
/// through its loops once: see [`crate::steps`].
#[unsafe(no_mangle)]
extern "C" fn ikenat_sum(skb: *mut __sk_buff, offset: u64, length: u64) -> u64 {
    sum(skb, offset as usize, length as usize).map_or(NO_SUM, u64::from)
}

#[inline(always)]
fn sum(skb: *mut __sk_buff, offset: usize, length: usize) -> Option<u16> {
    if !(2..=SUMMED).contains(&length) {
        return None;
    }
    // Bounds that the verifier sees even where it has lost the result of the comparisons.
    let length = (Shared::opaque(length - 2) & (SUMMED - 1)) + 2;
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

/// The type of a packet to this host (`linux/if_packet.h`).
const PACKET_HOST: u32 = 0;

/// A frame in tc.
pub struct TcFrame<'c>(&'c TcContext);

impl<'c> TcFrame<'c> {
    /// The frame of this context. Bytes outside the linear part are not readable yet: see
    /// [`Self::pull`].
    #[inline(always)]
    pub fn new(context: &'c mut TcContext) -> Self {
        Self(context)
    }

    /// Pulls this many bytes, or the whole packet if it is shorter, into the linear part.
    #[inline(always)]
    pub fn pull(&mut self, bytes: u32) {
        let length = self.0.len();
        let wanted = if length < bytes { length } else { bytes };
        // If this fails, fewer bytes are readable, and the bounds checks of the reader notice it.
        // SAFETY: the context is the kernel's own.
        let _ = unsafe { bpf_skb_pull_data(self.0.skb.skb, wanted) };
    }

    /// Turns the packet into an ICMP error: cuts it after the quote, makes room before it, and
    /// writes the new headers there.
    #[inline(always)]
    pub fn become_icmp_error(&mut self, answer: &IcmpError) -> bool {
        let skb = self.0.skb.skb;
        let length = ethernet::LENGTH as u32 + u32::from(answer.quote);
        let room = error::ADDED_LENGTH as i32;
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

    #[cfg(feature = "without-perfmon")]
    #[inline(always)]
    fn load_bytes(&self, at: usize, to: *mut c_void, size: u32) -> c_long {
        // SAFETY: the caller gives the helper as much room as it may fill.
        unsafe { bpf_skb_load_bytes(self.0.skb.skb.cast(), at as u32, to, size) }
    }

    #[cfg(feature = "without-perfmon")]
    #[inline(always)]
    fn store_bytes(&self, at: usize, from: *mut c_void, size: u32) -> c_long {
        // SAFETY: the caller gives the helper as many bytes as it may read.
        unsafe { bpf_skb_store_bytes(self.0.skb.skb, at as u32, from, size, 0) }
    }
}

impl Vips for TcFrame<'_> {}

impl Frame for TcFrame<'_> {
    accessors!();

    /// The length of the whole packet, of which the linear part may be only the beginning.
    #[inline(always)]
    fn length(&self) -> usize {
        self.0.len() as usize
    }

    /// The kernel has compared the destination with the MAC address that the device has now
    /// (`eth_type_trans`), or that of the bridge, bond or VLAN on top of it.
    #[inline(always)]
    fn is_to_host(&self) -> Option<bool> {
        // SAFETY: the context is the kernel's own.
        Some(unsafe { (*self.0.skb.skb).pkt_type } == PACKET_HOST)
    }

    /// Copies the bytes to the scratch space, which has bounds that the verifier knows, pads them
    /// with zeroes, and sums them with the kernel's helper.
    #[inline(always)]
    fn sum(&self, offset: usize, length: usize) -> Option<u16> {
        u16::try_from(ikenat_sum(self.0.skb.skb, offset as u64, length as u64)).ok()
    }

    #[inline(always)]
    fn update_udp_checksum(&mut self, offset: usize, old: [u8; 4], new: [u8; 4]) -> bool {
        let zero_is_none = BPF_F_MARK_MANGLED_0;
        update_checksum(self.0, offset, [old, new], zero_is_none)
    }

    #[inline(always)]
    fn update_tcp_checksum(&mut self, offset: usize, old: [u8; 4], new: [u8; 4]) -> bool {
        update_checksum(self.0, offset, [old, new], 0)
    }
}

/// The kernel knows whether the checksum is partial, complete or none; this helper handles every case.
#[inline(always)]
fn update_checksum(
    context: &TcContext,
    offset: usize,
    [old, new]: [[u8; 4]; 2],
    zero_is_none: u32,
) -> bool {
    // SAFETY: the context is the kernel's own; the helper checks the offset.
    let result = unsafe {
        bpf_l4_csum_replace(
            context.skb.skb,
            offset as u32,
            u64::from(u32::from_ne_bytes(old)),
            u64::from(u32::from_ne_bytes(new)),
            u64::from(BPF_F_PSEUDO_HDR | zero_is_none) | 4,
        )
    };
    result == 0
}
