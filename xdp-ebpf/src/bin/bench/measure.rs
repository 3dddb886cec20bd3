//! The walk over the flows, for the programs for measurements: every flow once per period, in an
//! order that no cache can predict, or several packets in a row of each.

use ikenat_bench_abi::measure::{Next, Plan, state};
use xdp_core::Word as _;
use xdp_ebpf::atomic::Shared;
use xdp_ebpf::helpers;

/// The state that persists from run to run. Only one CPU measures at a time.
pub(crate) type State = [Shared; state::WORDS];

/// Steps to the next flow.
///
/// The walk is a linear congruential generator modulo 2^64 (the constants are Knuth's, MMIX): its
/// low k bits alone form one modulo 2^k with a full period.
#[expect(
    clippy::cast_possible_truncation,
    reason = "the low 32 bits of a counter are meant"
)]
#[inline(always)]
pub(crate) fn next(state: &State, plan: &Plan) -> Next {
    let mut walk = state[state::WALK].load();
    let count = state[state::SEQUENCE].load();
    state[state::SEQUENCE].store(count + 1);
    let count = count as u32;
    if count & plan.train == 0 {
        walk = walk
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        state[state::WALK].store(walk);
    }
    // A flow comes once in a period, or one train of it.
    let bits = plan.train_bits & 31;
    let period = count >> (plan.flow_bits & 31) >> bits;
    let sequence = (period << bits | count & plan.train) + 1;
    of_flow(plan, walk as u32 & plan.flow_mask, sequence)
}

/// The packet of a flow.
#[inline(always)]
pub(crate) const fn of_flow(plan: &Plan, flow: u32, sequence: u32) -> Next {
    Next {
        peer: plan.peer.wrapping_add(flow),
        spi: plan.spi.wrapping_add(flow),
        sequence,
    }
}

/// Counts the run, as the last step before the measured program.
///
/// The exchange is a full barrier. After it the bytes of the packet are in the cache, as a device
/// leaves them, and not in the store buffer, from which a wider or a shifted load could not be
/// forwarded. The measurement also begins only after the previous instructions have completed, as
/// it is between the packets of a driver.
#[inline(always)]
pub(crate) fn begin(state: &State, plan: &Plan) {
    let runs = state[state::RUNS].load() + 1;
    if runs == 1 {
        state[state::BEGAN].store(helpers::nanoseconds());
    }
    if runs == plan.runs {
        state[state::ENDED].store(helpers::nanoseconds());
    }
    state[state::RUNS].publish(runs);
}
