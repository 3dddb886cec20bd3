//! The trait [`Frame`], through which the packet logic reads and writes bytes: arrays of a fixed
//! size at a checked offset.
//!
//! Slices with a run-time length are not offered: the verifier rejects them. Offsets that depend on
//! the packet have functions of their own: without CAP_PERFMON the verifier accepts no pointer into
//! a packet that a variable was added to.

use crate::vip::Vips;

/// A frame, from the first byte of its Ethernet header.
pub trait Frame: Vips {
    /// The `N` bytes at `at`, a constant, or `None` when the frame is shorter.
    fn array<const N: usize>(&self, at: usize) -> Option<&[u8; N]>;
    /// The same, for writing.
    fn array_mut<const N: usize>(&mut self, at: usize) -> Option<&mut [u8; N]>;
    /// The length of the frame in bytes.
    fn length(&self) -> usize;

    /// Whether the frame was sent to this host, where the kernel has decided about that already.
    /// `None` in XDP: only the MAC address shows it.
    #[inline(always)]
    fn is_to_host(&self) -> Option<bool> {
        None
    }

    /// Reads `N` bytes at an offset that depends on the packet. `None`: the frame is shorter.
    #[inline(always)]
    fn with_bytes<const N: usize, R>(
        &self,
        at: usize,
        read: impl FnOnce(&[u8; N]) -> R,
    ) -> Option<R> {
        self.array(at).map(read)
    }

    /// Changes `N` bytes at an offset that depends on the packet. `None`: the frame is shorter.
    #[inline(always)]
    fn with_bytes_mut<const N: usize, R>(
        &mut self,
        at: usize,
        write: impl FnOnce(&mut [u8; N]) -> R,
    ) -> Option<R> {
        self.array_mut(at).map(write)
    }

    /// The same number. Where one of several constants is chosen, the compiler prefers to choose
    /// between their addresses in memory; this makes it choose between the numbers. See
    /// [`crate::Word::opaque_to_verifier`].
    #[inline(always)]
    fn opaque(constant: u64) -> u64 {
        constant
    }

    /// The same for an address.
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "what was 32 bits is again")]
    fn opaque_address(address: [u8; 4]) -> [u8; 4] {
        (Self::opaque(u32::from_ne_bytes(address).into()) as u32).to_ne_bytes()
    }

    /// Two bytes at `AT`, as the machine loads them. The dataplane has one instruction for it,
    /// where the compiler, which must assume the worst alignment, would load them byte by byte.
    #[inline(always)]
    fn get16<const AT: usize, const N: usize>(bytes: &[u8; N]) -> u16 {
        u16::from_ne_bytes([bytes[AT], bytes[AT + 1]])
    }

    /// Four bytes.
    #[inline(always)]
    fn get32<const AT: usize, const N: usize>(bytes: &[u8; N]) -> u32 {
        u32::from_ne_bytes(core::array::from_fn(|i| bytes[AT + i]))
    }

    /// Eight bytes.
    #[inline(always)]
    fn get64<const AT: usize, const N: usize>(bytes: &[u8; N]) -> u64 {
        u64::from_ne_bytes(core::array::from_fn(|i| bytes[AT + i]))
    }

    /// Writes the low two bytes of a value at `AT`, as the machine stores them.
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "16 bits are written")]
    fn put16<const AT: usize, const N: usize>(bytes: &mut [u8; N], value: u32) {
        bytes[AT..AT + 2].copy_from_slice(&(value as u16).to_ne_bytes());
    }

    /// Four bytes.
    #[inline(always)]
    fn put32<const AT: usize, const N: usize>(bytes: &mut [u8; N], value: u32) {
        bytes[AT..AT + 4].copy_from_slice(&value.to_ne_bytes());
    }

    /// Eight bytes.
    #[inline(always)]
    fn put64<const AT: usize, const N: usize>(bytes: &mut [u8; N], value: u64) {
        bytes[AT..AT + 8].copy_from_slice(&value.to_ne_bytes());
    }

    /// The sum of `length` bytes from `at` on as big-endian words, folded and not complemented; an
    /// odd last byte is the high half of a word (RFC 1071). `None`: the frame ends before, or there
    /// are too many. tc implements it itself: loops over a packet are the most expensive code for
    /// the verifier.
    fn sum(&self, at: usize, length: usize) -> Option<u16> {
        let mut total = 0;
        let mut done = 0;
        while done + 1 < length {
            total += u64::from(self.with_bytes(at + done, |word| u16::from_be_bytes(*word))?);
            done += 2;
        }
        if done < length {
            let [last] = self.with_bytes(at + done, |last| *last)?;
            total += u64::from(last) << 8;
        }
        Some(crate::checksum::fold(total))
    }

    /// Updates the UDP checksum at `at` for an address that changed from `old` to `new`; false when
    /// it is not there. tc implements it itself, since only the kernel knows whether the sum is
    /// still partial.
    #[inline(always)]
    fn update_udp_checksum(&mut self, at: usize, old: [u8; 4], new: [u8; 4]) -> bool {
        let delta = crate::checksum::Delta::new().replace4(old, new);
        self.with_bytes_mut::<2, _>(at, |field| *field = delta.udp_field(*field))
            .is_some()
    }

    /// The same for a TCP checksum, in which zero has no meaning of its own.
    #[inline(always)]
    fn update_tcp_checksum(&mut self, at: usize, old: [u8; 4], new: [u8; 4]) -> bool {
        let delta = crate::checksum::Delta::new().replace4(old, new);
        self.with_bytes_mut::<2, _>(at, |field| *field = delta.ip_field(*field))
            .is_some()
    }
}

/// Changes the two bytes at `at`, and returns their old and their new value.
#[inline(always)]
pub(crate) fn update_field<F: Frame + ?Sized>(
    frame: &mut F,
    at: usize,
    change: impl Fn([u8; 2]) -> [u8; 2],
) -> Option<([u8; 2], [u8; 2])> {
    frame.with_bytes_mut::<2, _>(at, |field| {
        let old = *field;
        *field = change(old);
        (old, *field)
    })
}

impl Vips for [u8] {}

impl Frame for [u8] {
    fn array<const N: usize>(&self, at: usize) -> Option<&[u8; N]> {
        self.get(at..)?.first_chunk()
    }

    fn array_mut<const N: usize>(&mut self, at: usize) -> Option<&mut [u8; N]> {
        self.get_mut(at..)?.first_chunk_mut()
    }

    fn length(&self) -> usize {
        self.len()
    }
}
