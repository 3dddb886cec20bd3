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

/// Counts a forwarded packet.
#[inline(always)]
pub fn count_class<W: Word>(
    block: &[W; cpu::WORDS],
    hook: Hook,
    (direction, class): (Direction, Class),
    bytes: u16,
    tracked: bool,
) {
    let at = cpu::counters(hook) + counters::class(direction, class);
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
