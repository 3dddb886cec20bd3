//! Order and statistics of the rounds of layer B.

use crate::results::Spread;
use anyhow::Result;

pub(super) use crate::order::{Random, go_first};

/// A floor that is this much above the lowest one shows that another process was active.
const DISTURBED: f64 = 1.1;
/// How often a disturbed sample is repeated.
const ATTEMPTS: usize = 4;

/// The samples of a row so far.
#[derive(Clone, Debug)]
pub(super) struct Samples {
    lowest_floor: f64,
    taken: Vec<f64>,
}

impl Samples {
    /// Nothing yet.
    pub(super) const fn new() -> Self {
        Self {
            lowest_floor: f64::INFINITY,
            taken: Vec::new(),
        }
    }

    /// Takes a sample: the cost of a program beyond its floor, which is measured before and after
    /// it. `measure` returns the floor, the whole and the floor again.
    ///
    /// The floor is the same work every time. When it takes longer, the machine was busy with
    /// something else, and the sample is repeated. The least disturbed one counts.
    pub(super) fn take(&mut self, mut measure: impl FnMut() -> Result<[f64; 3]>) -> Result<()> {
        let mut best: Option<(f64, f64)> = None;
        for _ in 0..ATTEMPTS {
            let [before, whole, after] = measure()?;
            self.lowest_floor = self.lowest_floor.min(before).min(after);
            let worse = before.max(after);
            if best.is_none_or(|(floor, _)| worse < floor) {
                best = Some((worse, whole - f64::midpoint(before, after)));
            }
            if worse <= self.lowest_floor * DISTURBED {
                break;
            }
        }
        self.taken.extend(best.map(|(_, sample)| sample));
        Ok(())
    }

    /// Median and quartiles.
    pub(super) fn spread(&self) -> Spread {
        spread(&self.taken)
    }
}

/// Median and quartiles.
pub(super) fn spread(samples: &[f64]) -> Spread {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = |quarter: usize| {
        let last = sorted.len().saturating_sub(1);
        sorted.get(last * quarter / 4).copied().unwrap_or(f64::NAN)
    };
    Spread {
        median: at(2),
        low: at(1),
        high: at(3),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context;

    #[test]
    fn a_disturbed_sample_is_taken_again() -> Result<()> {
        let mut samples = Samples::new();
        let mut script = [[10.0, 50.0, 10.0], [20.0, 90.0, 10.0], [10.0, 51.0, 10.0]].into_iter();
        let mut measure = || script.next().context("too many attempts");
        samples.take(&mut measure)?;
        samples.take(&mut measure)?;
        assert_eq!(samples.taken, [40.0, 41.0]);
        let mut busy = || Ok([20.0, 90.0, 20.0]);
        samples.take(&mut busy)?;
        assert_eq!(samples.taken, [40.0, 41.0, 70.0]);
        Ok(())
    }

    #[test]
    fn quartiles_are_where_they_belong() {
        let spread = spread(&[9.0, 1.0, 5.0, 3.0, 7.0]);
        assert_eq!((spread.low, spread.median, spread.high), (3.0, 5.0, 7.0));
    }
}
