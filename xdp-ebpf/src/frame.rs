//! Packet pointers: the [`Frame`] of an XDP and of a tc context. One of the four files with `unsafe`.
//!
//! It may not know what the bytes mean. Pointers are derived anew from the context at every access and never kept: a
//! helper that changes the packet makes old ones invalid, and the verifier says so.

#![expect(unsafe_code, reason = "packet pointers")]

use aya_ebpf::bindings::{BPF_F_MARK_MANGLED_0, BPF_F_PSEUDO_HDR};
use aya_ebpf::helpers::{bpf_l4_csum_replace, bpf_skb_pull_data};
use aya_ebpf::programs::{TcContext, XdpContext};
use xdp_core::Frame;

#[inline(always)]
fn at<const N: usize>(data: usize, end: usize, at: usize) -> Option<*mut [u8; N]> {
    let start = data + at;
    if start + N > end {
        return None;
    }
    Some(start as *mut [u8; N])
}

/// A frame in XDP.
pub struct XdpFrame<'c>(&'c XdpContext);

impl<'c> XdpFrame<'c> {
    /// The frame of this context. The only one: two would alias.
    #[inline(always)]
    pub fn new(context: &'c mut XdpContext) -> Self {
        Self(context)
    }
}

impl Frame for XdpFrame<'_> {
    #[inline(always)]
    fn array<const N: usize>(&self, offset: usize) -> Option<&[u8; N]> {
        // SAFETY: checked against the end of the packet; nobody writes while `self` is borrowed.
        at(self.0.data(), self.0.data_end(), offset).map(|p| unsafe { &*p })
    }

    #[inline(always)]
    fn array_mut<const N: usize>(&mut self, offset: usize) -> Option<&mut [u8; N]> {
        // SAFETY: checked against the end of the packet; `self` is borrowed for as long as the reference lives.
        at(self.0.data(), self.0.data_end(), offset).map(|p| unsafe { &mut *p })
    }

    #[inline(always)]
    fn length(&self) -> usize {
        // Hidden from the compiler: it would conclude from a compare of lengths that a later pointer is in bounds and
        // drop the check that the verifier needs to see.
        core::hint::black_box(self.0.data_end() - self.0.data())
    }
}

/// Bytes at the start of a packet that the logic may look at: Ethernet, IPv4 with options, UDP, marker, IKE.
const HEADERS: u32 = 14 + 60 + 8 + 4 + 28;

/// A frame in tc.
pub struct TcFrame<'c>(&'c TcContext);

impl<'c> TcFrame<'c> {
    /// The frame of this context, with its headers in the linear part.
    #[inline(always)]
    pub fn new(context: &'c mut TcContext) -> Self {
        let length = context.len();
        let wanted = if length < HEADERS { length } else { HEADERS };
        // A failure leaves less to read, and the reader's checks see that.
        // SAFETY: the context is the kernel's own.
        let _ = unsafe { bpf_skb_pull_data(context.skb.skb, wanted) };
        Self(context)
    }
}

impl Frame for TcFrame<'_> {
    #[inline(always)]
    fn array<const N: usize>(&self, offset: usize) -> Option<&[u8; N]> {
        // SAFETY: as for XDP.
        at(self.0.data(), self.0.data_end(), offset).map(|p| unsafe { &*p })
    }

    #[inline(always)]
    fn array_mut<const N: usize>(&mut self, offset: usize) -> Option<&mut [u8; N]> {
        // SAFETY: as for XDP.
        at(self.0.data(), self.0.data_end(), offset).map(|p| unsafe { &mut *p })
    }

    /// The whole length: the linear part alone may be shorter than the packet.
    #[inline(always)]
    fn length(&self) -> usize {
        self.0.len() as usize
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
