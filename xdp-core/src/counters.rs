//! The totals of a hook in a CPU's block: forwarded packets by class, others by reason.

use crate::table::word::Word;
use xdp_common::counters::{self, Quantity};
use xdp_common::{Class, Direction, Hook, Reason, Untracked, cpu};

/// Counts a packet that this hook does not forward.
#[inline(always)]
pub fn count_reason<W: Word>(block: &[W; cpu::WORDS], hook: Hook, reason: Reason) {
    let place = W::opaque_to_verifier(counters::reason(reason));
    add(block, at(hook, place & REASONS), 1);
}

/// The same for a reason that is loaded from memory.
#[inline(always)]
pub fn count_any_reason<W: Word>(block: &[W; cpu::WORDS], hook: Hook, reason: Reason) {
    let place = W::opaque(counters::reason(reason));
    add(block, at(hook, place & REASONS), 1);
}

/// Counts why a forwarded packet got no entry.
#[inline(always)]
pub fn count_untracked<W: Word>(block: &[W; cpu::WORDS], hook: Hook, cause: Untracked) {
    let place = W::opaque_to_verifier(counters::untracked(cause));
    add(block, at(hook, place & REASONS), 1);
}

/// Counts a forwarded segment with which a stream of IKE over TCP begins.
#[inline(always)]
pub fn count_stream<W: Word>(block: &[W; cpu::WORDS], hook: Hook, direction: Direction) {
    let place = W::opaque(counters::stream(direction));
    add(block, at(hook, place & REASONS), 1);
}

/// Counts a forwarded packet whose class and direction are constants at the call.
#[inline(always)]
pub fn count_class<W: Word>(
    block: &[W; cpu::WORDS],
    hook: Hook,
    (direction, class): (Direction, Class),
    bytes: u16,
    tracked: bool,
) {
    let at = at(hook, counters::class(direction, class));
    count_at(block, at, bytes, tracked);
}

/// The same for a class and a direction that are loaded from memory.
#[inline(always)]
pub fn count_any_class<W: Word>(
    block: &[W; cpu::WORDS],
    hook: Hook,
    (direction, class): (Direction, Class),
    bytes: u16,
    tracked: bool,
) {
    let place = W::opaque(counters::class(direction, class));
    count_at(block, at(hook, place & CLASSES), bytes, tracked);
}

/// Masks that leave every number unchanged and show the verifier that it is small enough: for a
/// reason's counter, and for the first of a class's four.
const REASONS: usize = counters::WORDS - 1;
const CLASSES: usize = counters::WORDS - 4;
const _: () = assert!(counters::WORDS.is_power_of_two());
const _: () = assert!(counters::class(Direction::Outbound, Class::Tcp) & !CLASSES == 0);
const _: () = assert!(Quantity::UntrackedBytes as usize == 3);

/// The index of a hook's counter in the block.
#[inline(always)]
const fn at(hook: Hook, place: usize) -> usize {
    cpu::counters(hook) + place
}

#[inline(always)]
fn count_at<W: Word>(block: &[W; cpu::WORDS], at: usize, bytes: u16, tracked: bool) {
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

/// A plain add: only this CPU writes these words.
#[inline(always)]
fn add<W: Word>(block: &[W; cpu::WORDS], at: usize, by: u64) {
    if let Some(word) = block.get(at) {
        word.store(word.load().wrapping_add(by));
    }
}
