//! The entry points, and what becomes of a verdict.

#[cfg(not(feature = "without-perfmon"))]
mod losses;
mod tc;
mod xdp;

use xdp_common::{Hook, Outcome, Reason};
use xdp_core::{NextHop, Verdict, counters};
use xdp_ebpf::maps;

/// What an entry point does with a frame.
pub(super) enum Action {
    /// Send it to this next hop.
    Redirect(NextHop),
    /// Answer its sender with an ICMP error.
    Answer(Reason, u16),
    /// Leave it to the next program or the stack.
    Pass,
    /// Drop it.
    Drop,
}

#[inline(always)]
pub(super) fn count_reason(hook: Hook, reason: Reason) {
    if let Some(block) = maps::cpu_block() {
        counters::count_reason(block, hook, reason);
    }
}

/// Counts the outcome for a frame and returns the action.
#[inline(always)]
pub(super) fn count(hook: Hook, verdict: Verdict) -> Action {
    match verdict {
        Verdict::Forward {
            hop,
            direction,
            class,
            bytes,
            tracked,
        } => {
            if let Some(block) = maps::cpu_block() {
                counters::count_any_class(block, hook, (direction, class), bytes, tracked);
            }
            Action::Redirect(hop)
        }
        // Counted when the answer has been built.
        Verdict::Answer { reason, mtu } => Action::Answer(reason, mtu),
        Verdict::NotForwarded(reason) => {
            if let Some(block) = maps::cpu_block() {
                counters::count_any_reason(block, hook, reason);
            }
            match reason.outcome() {
                Outcome::Punted | Outcome::Slow => Action::Pass,
                Outcome::Dropped | Outcome::Answered => Action::Drop,
            }
        }
    }
}
