//! The order of rounds and blocks, and the priority of the measuring threads.

use anyhow::{Context, Result};
use ikenat_tests::lab::netns::execute;
use std::process::Command;
use std::time::Duration;

/// SplitMix64 (Steele, Lea, Flood 2014).
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// Starts from a seed: the same seed gives the same numbers.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    pub const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`, which is not 0. The remainder's bias is 1 in 2^40 for a bound of
    /// millions.
    pub fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound as u64).unwrap_or_default()
    }

    /// The numbers below `length` in random order (Fisher and Yates).
    pub fn order(&mut self, length: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..length).collect();
        for last in (1..length).rev() {
            let other = self.below(last + 1);
            order.swap(last, other);
        }
        order
    }
}

/// Gives this thread, and those that it starts, priority over all ordinary ones: a measurement that
/// another process interrupts for a time slice is worthless.
///
/// # Errors
/// `chrt` (package util-linux) fails.
pub fn go_first() -> Result<()> {
    let thread = nix::unistd::gettid().to_string();
    execute(Command::new("chrt").args(["--fifo", "--pid", "1", &thread]))
        .context("failed to raise the priority of the measuring thread")?;
    Ok(())
}

/// Yields the CPU to other processes after a run that took this long. A thread that uses all of a
/// CPU for a second is stopped for a twentieth of it (the scheduler's fair server,
/// `sched_rt_runtime_us` on older kernels), in the middle of a run.
pub fn give_way(taken: Duration) {
    std::thread::sleep(taken / 10);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_has_everything_once() {
        let mut random = Random::new(1);
        let first = random.order(100);
        let second = random.order(100);
        assert_ne!(first, second);
        let mut sorted = first;
        sorted.sort_unstable();
        assert_eq!(sorted, (0..100).collect::<Vec<_>>());
    }
}
