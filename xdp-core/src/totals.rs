//! The totals of a hook in a CPU's block: what was forwarded by class, what was not by reason.
//!
//! It may not know how the block is found, nor what a packet is.

use crate::word::Word;
use xdp_common::counters::{self, Quantity};
use xdp_common::{Class, Direction, Hook, Reason, cpu};

/// Counts a packet that this hook does not forward.
#[inline(always)]
pub fn count_reason<W: Word>(block: &[W; cpu::WORDS], hook: Hook, reason: Reason) {
    add(block, cpu::counters(hook) + counters::reason(reason), 1);
}

/// The same, of a reason that comes out of memory: it is hidden from the compiler, which knows that there is a counter for
/// it. The verifier does not.
#[inline(always)]
pub fn count_any_reason<W: Word>(block: &[W; cpu::WORDS], hook: Hook, reason: Reason) {
    let at = core::hint::black_box(cpu::counters(hook) + counters::reason(reason));
    add(block, at, 1);
}

/// Counts a forwarded packet.
#[inline(always)]
pub fn count_class<W: Word>(
    block: &[W; cpu::WORDS],
    hook: Hook,
    (direction, class): (Direction, Class),
    bytes: u16,
    tracked: bool,
) {
    count_at(block, place(hook, direction, class), bytes, tracked);
}

/// Where the counters of a class begin.
#[inline(always)]
#[must_use]
pub const fn place(hook: Hook, direction: Direction, class: Class) -> usize {
    cpu::counters(hook) + counters::class(direction, class)
}

/// Counts a forwarded packet at its [`place`].
#[inline(always)]
pub fn count_at<W: Word>(block: &[W; cpu::WORDS], at: usize, bytes: u16, tracked: bool) {
    add(block, at + Quantity::Packets as usize, 1);
    add(block, at + Quantity::Bytes as usize, u64::from(bytes));
    if !tracked {
        add(block, at + Quantity::UntrackedPackets as usize, 1);
        add(
            block,
            at + Quantity::UntrackedBytes as usize,
            u64::from(bytes),
        );
    }
}

/// A plain add: nobody else writes these words.
#[inline(always)]
fn add<W: Word>(block: &[W; cpu::WORDS], at: usize, by: u64) {
    if let Some(word) = block.get(at) {
        word.store(word.load().wrapping_add(by));
    }
}
