//! Time as the dataplane counts it: jiffies, computed from the monotonic clock.
//!
//! The kernel derives its jiffies from `CLOCK_MONOTONIC`, so the two do not drift apart, and one
//! anchor, taken when the maps are created, is valid until the next boot.

use rustix::time::{ClockId, clock_gettime};

const NANOS: u64 = 1_000_000_000;
/// The tick rates that a kernel may be configured with (CONFIG_HZ; 500 in kernels for desktops).
const RATES: [u64; 5] = [100, 250, 300, 500, 1000];

/// `CLOCK_MONOTONIC` in nanoseconds.
pub fn monotonic() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    let seconds = u64::try_from(now.tv_sec).unwrap_or_default();
    let nanos = u64::try_from(now.tv_nsec).unwrap_or_default();
    seconds * NANOS + nanos
}

/// A moment on both clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// `jiffies_64`.
    pub jiffies: u64,
    /// `CLOCK_MONOTONIC` in nanoseconds.
    pub monotonic: u64,
}

/// Jiffies per second from two moments; `None` when they fit no kernel's rate.
pub fn rate(first: Moment, second: Moment) -> Option<u64> {
    let nanos = second.monotonic.checked_sub(first.monotonic)?;
    let jiffies = second.jiffies.checked_sub(first.jiffies)?;
    if nanos == 0 || jiffies == 0 {
        return None;
    }
    let measured = jiffies.saturating_mul(NANOS) / nanos;
    let nearest = RATES
        .into_iter()
        .min_by_key(|rate| measured.abs_diff(*rate))?;
    // One jiffy more or less in 100 ms is a tenth at 100 Hz.
    (measured.abs_diff(nearest) <= nearest / 5).then_some(nearest)
}

/// The shift for ticks of about one second: the power of two of jiffies that is nearest in
/// proportion.
pub fn tick_shift(rate: u64) -> u32 {
    let below = rate.max(1).ilog2();
    let low = 1_u64 << below;
    // rate / low < 2 * low / rate: the lower power of two is nearer.
    if rate * rate < 2 * low * low {
        below
    } else {
        below + 1
    }
}

/// Computes the jiffies of the present moment.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    rate: u64,
    anchor: Moment,
}

impl Clock {
    /// A clock with this many jiffies per second that showed `anchor`.
    pub const fn new(rate: u64, anchor: Moment) -> Self {
        Self { rate, anchor }
    }

    /// Jiffies per second.
    pub const fn rate(&self) -> u64 {
        self.rate
    }

    /// `jiffies_64` now.
    pub fn now(&self) -> u64 {
        self.at(monotonic())
    }

    /// The tick now, as the dataplane stamps it.
    #[expect(clippy::cast_possible_truncation, reason = "a tick is 32 bits")]
    pub fn tick(&self) -> u32 {
        (self.now() >> tick_shift(self.rate)) as u32
    }

    fn at(&self, monotonic: u64) -> u64 {
        let nanos = u128::from(monotonic.saturating_sub(self.anchor.monotonic));
        let passed = nanos * u128::from(self.rate) / u128::from(NANOS);
        self.anchor
            .jiffies
            .wrapping_add(u64::try_from(passed).unwrap_or(u64::MAX))
    }

    /// Whole seconds as jiffies.
    pub fn jiffies(&self, seconds: u32) -> u32 {
        u32::try_from(u64::from(seconds) * self.rate).unwrap_or(u32::MAX)
    }

    /// Jiffies as seconds.
    #[expect(clippy::cast_precision_loss, reason = "an age for people")]
    pub fn seconds(&self, jiffies: u64) -> f64 {
        jiffies as f64 / self.rate.max(1) as f64
    }

    /// The age of a 32-bit stamp. The computed time may lag behind a stamp by a jiffy or two: then
    /// the age is 0.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "stamps keep 32 bits of jiffies"
    )]
    pub fn age(&self, now: u64, stamp: u32) -> u32 {
        let age = (now as u32).wrapping_sub(stamp);
        let ahead = stamp.wrapping_sub(now as u32);
        if u64::from(ahead) < 10 * self.rate {
            0
        } else {
            age
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moment(jiffies: u64, milliseconds: u64) -> Moment {
        Moment {
            jiffies,
            monotonic: milliseconds * 1_000_000,
        }
    }

    #[test]
    fn rates_are_recognised_with_a_jiffy_more_or_less() {
        for (rate_hz, exact) in [(100, 10), (250, 25), (300, 30), (500, 50), (1000, 100)] {
            for jiffies in [exact - 1, exact, exact + 1] {
                assert_eq!(
                    rate(moment(7, 50), moment(7 + jiffies, 150)),
                    Some(rate_hz),
                    "{jiffies} jiffies in 100 ms"
                );
            }
        }
        assert_eq!(rate(moment(7, 50), moment(7, 150)), None);
        assert_eq!(rate(moment(7, 50), moment(7 + 37, 150)), None);
        assert_eq!(rate(moment(7, 50), moment(7 + 75, 150)), None);
    }

    #[test]
    fn a_tick_is_about_a_second() {
        for (rate, shift) in [
            (100, 7),
            (250, 8),
            (300, 8),
            (500, 9),
            (1000, 10),
            (1024, 10),
        ] {
            assert_eq!(tick_shift(rate), shift, "{rate} Hz");
        }
    }

    #[test]
    fn time_goes_on_from_the_anchor() {
        let clock = Clock::new(250, moment(4_294_667_296, 1_000));
        assert_eq!(clock.at(3_000_000_000), 4_294_667_296 + 500);
        assert_eq!(clock.jiffies(4), 1000);
        assert!((clock.seconds(125) - 0.5).abs() < 1e-9);
    }

    #[test]
    fn an_age_survives_the_wrap_of_32_bits_and_a_clock_that_lags() {
        let clock = Clock::new(250, moment(0, 0));
        let now = (1_u64 << 32) + 100;
        assert_eq!(clock.age(now, 50), 50);
        assert_eq!(clock.age(now, u32::MAX), 101);
        assert_eq!(clock.age(now, 102), 0, "two jiffies ahead");
        assert_eq!(clock.age(now, 100), 0);
    }
}
