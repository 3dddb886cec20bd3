//! At a pace: the highest rate that loses next to nothing, and the latency at half of it.
//!
//! It may not know who the contestants are. Bursts come at fixed times, as from a network card that interrupts once for
//! several packets, and wait in a queue of limited length while the CPU is still busy with earlier ones. What finds the
//! queue full is lost. A packet's age begins when its burst was due, so its time in the queue counts, and so does the
//! time that it takes to generate the burst.

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
/// Packets that the queue holds: a common size of a network card's ring.
pub const QUEUE: u32 = 1024;
/// The loss that a rate may have.
pub const LOSS: f64 = 1e-4;

/// The rates that are tried, as shares of the rate at saturation.
const RANGE: (f64, f64) = (0.2, 1.1);
/// A rate that fails is tried again, since the machine may have been busy with something else.
const TRIES: usize = 3;

/// How long it takes.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// Halvings of the range.
    pub steps: u32,
    /// Seconds of one probe of a rate.
    pub probe: f64,
    /// Runs whose ages are added up.
    pub slices: u32,
    /// Seconds of such a run.
    pub slice: f64,
}

/// What one contestant has shown.
pub struct Paced {
    range: (f64, f64),
    /// Highest rate with a loss below [`LOSS`], packets per second.
    pub lossless: Option<f64>,
    ages: Box<[u64; BUCKETS]>,
    wrong: u64,
}

impl Paced {
    /// Before the first run.
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

    /// Packets that arrived otherwise than they must. Then there is no rate.
    #[must_use]
    pub const fn wrong(&self) -> u64 {
        self.wrong
    }
}

/// Measures contestants that have been warmed up. They take turns, in random order.
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
            // Nothing is lost for waiting too long: it shall be seen how long that is.
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

/// The share of the packets that were due and did not arrive as they must.
#[must_use]
#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
pub fn loss(outcome: &Outcome) -> f64 {
    let due = outcome.sent + outcome.missed;
    1.0 - outcome.arrived as f64 / due as f64
}

/// Sends at a rate for some time.
///
/// # Errors
/// The kernel refuses the run, or the generator cannot wait as long as it should.
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
