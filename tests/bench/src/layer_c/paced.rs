//! Measurements at a pace: the highest loss-free rate (a loss below 1e-4), and the latency at half
//! of it.
//!
//! Bursts come at fixed times, as from a network card that interrupts once for several packets, and
//! wait in a queue of limited length while the CPU is still busy with earlier ones. Packets that
//! find the queue full are lost. The age of a packet begins when its burst was due, so it includes
//! the time in the queue and the time to generate the burst.

use anyhow::Result;
use ikenat_bench_abi::traffic::BUCKETS;

use super::statistics;
use crate::contest::Standing;
use crate::kinds::BASE;
use crate::kinds::Case;
use crate::order::{Random, give_way};
use crate::results::Latency;
use crate::wire::{Outcome, Pacing};

/// Packets in a burst.
pub const BURST: u32 = 32;
/// Capacity of the queue in packets: a common size of a network card's ring.
pub const QUEUE: u32 = 1024;
/// The largest permitted loss of a rate.
pub const LOSS: f64 = 1e-4;

/// The range of rates to test, as shares of the rate at saturation.
const RANGE: (f64, f64) = (0.2, 1.1);
/// The most tests of a rate: a rate that fails is tested again, since the machine may have been
/// busy with other work.
const TRIES: usize = 3;

/// The durations of the measurement.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// Number of halvings of the range.
    pub steps: u32,
    /// Duration of one probe of a rate in seconds.
    pub probe: f64,
    /// Number of runs over which the ages are added up.
    pub slices: u32,
    /// Duration of such a run in seconds.
    pub slice: f64,
}

/// The results of one contestant.
pub struct Paced {
    range: (f64, f64),
    /// Highest rate with a loss below [`LOSS`], packets per second.
    pub lossless: Option<f64>,
    ages: Box<[u64; BUCKETS]>,
    wrong: u64,
}

impl Paced {
    /// The state before the first run.
    #[must_use]
    pub fn nothing() -> Self {
        Self {
            range: (0.0, 0.0),
            lossless: None,
            ages: Box::new([0; BUCKETS]),
            wrong: 0,
        }
    }

    /// Latency at half of the loss-free rate.
    #[must_use]
    pub fn latency(&self) -> Option<Latency> {
        statistics::latency(&self.ages)
    }

    /// Packets that arrived corrupted. If there are any, there is no rate.
    #[must_use]
    pub const fn wrong(&self) -> u64 {
        self.wrong
    }
}

/// Measures warmed-up contestants. They take turns, in random order.
///
/// # Errors
/// The kernel refuses a run, or the generator cannot keep the pace.
pub fn measure(
    standings: &mut [&mut Standing],
    effort: Effort,
    random: &mut Random,
    step: &mut dyn FnMut(&str),
) -> Result<Vec<Paced>> {
    let mut all = Vec::new();
    for standing in standings.iter_mut() {
        let saturation = standing.run(&BASE, 64_000)?.rate();
        all.push(Paced {
            range: (saturation * RANGE.0, saturation * RANGE.1),
            ..Paced::nothing()
        });
    }
    for _ in 0..effort.steps {
        for i in random.order(all.len()) {
            halve(standings[i], &mut all[i], effort)?;
        }
        step("loss-free rate");
    }
    let stamped = Case {
        stamped: true,
        ..BASE
    };
    for _ in 0..effort.slices {
        for i in random.order(all.len()) {
            let paced = &mut all[i];
            let Some(lossless) = paced.lossless else {
                continue;
            };
            // No packet is lost because of a long wait: the measurement has to show how long the
            // wait is.
            let outcome = at(
                standings[i],
                &stamped,
                lossless / 2.0,
                effort.slice,
                u32::MAX,
            )?;
            paced.wrong += outcome.wrongs();
            for (sum, age) in paced.ages.iter_mut().zip(outcome.ages.iter()) {
                *sum += age;
            }
        }
        step("latency");
    }
    for paced in &mut all {
        if paced.wrong > 0 {
            paced.lossless = None;
            paced.ages.fill(0);
        }
    }
    Ok(all)
}

/// One step of the bisection.
fn halve(standing: &mut Standing, paced: &mut Paced, effort: Effort) -> Result<()> {
    let rate = f64::midpoint(paced.range.0, paced.range.1);
    for _ in 0..TRIES {
        let outcome = at(standing, &BASE, rate, effort.probe, QUEUE)?;
        paced.wrong += outcome.wrongs();
        if loss(&outcome) < LOSS {
            paced.lossless = Some(rate);
            paced.range.0 = rate;
            return Ok(());
        }
    }
    paced.range.1 = rate;
    Ok(())
}

/// The share of the packets that were due and did not arrive intact.
#[must_use]
#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
pub fn loss(outcome: &Outcome) -> f64 {
    let due = outcome.sent + outcome.missed;
    1.0 - outcome.arrived as f64 / due as f64
}

/// Sends at a rate for some time.
///
/// # Errors
/// The kernel refuses the run, or the generator cannot wait as long as required.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "some millions"
)]
pub fn at(
    standing: &mut Standing,
    case: &Case,
    rate: f64,
    seconds: f64,
    queue: u32,
) -> Result<Outcome> {
    let packets = ((rate * seconds) as u32).next_multiple_of(BURST);
    let pacing = Pacing::Bursts {
        burst: BURST,
        rate,
        queue,
    };
    let outcome = standing.run_at(case, packets, pacing)?;
    give_way(outcome.elapsed);
    Ok(outcome)
}
