//! Statistics of layer C: medians, their bootstrap intervals, and percentiles of a histogram.

use crate::order::Random;
use crate::results::{Interval, Latency};
use ikenat_bench_abi::traffic::{BUCKETS, age};

/// Number of bootstrap samples.
const RESAMPLES: usize = 4000;

/// The median; `None` without figures. Reorders the figures.
fn median(values: &mut [f64]) -> Option<f64> {
    if values.is_empty() {
        return None;
    }
    let odd = values.len() % 2 == 1;
    let (low, &mut middle, _) = values.select_nth_unstable_by(values.len() / 2, f64::total_cmp);
    if odd {
        return Some(middle);
    }
    let below = low.iter().copied().max_by(f64::total_cmp);
    Some(f64::midpoint(below.unwrap_or(middle), middle))
}

/// The median and its 95 % interval by the percentile bootstrap (Efron 1979); `None` without
/// figures.
pub(super) fn interval(values: &[f64], random: &mut Random) -> Option<Interval> {
    let whole = median(&mut values.to_vec())?;
    let mut drawn = vec![0.0; values.len()];
    let mut medians = Vec::with_capacity(RESAMPLES);
    for _ in 0..RESAMPLES {
        for value in &mut drawn {
            *value = values[random.below(values.len())];
        }
        medians.extend(median(&mut drawn));
    }
    medians.sort_by(f64::total_cmp);
    Some(Interval {
        median: whole,
        low: medians[RESAMPLES / 40],
        high: medians[RESAMPLES - 1 - RESAMPLES / 40],
    })
}

/// The age below which this share of the packets is. Ages are known to an eighth of a power of two;
/// inside such an interval an even distribution is assumed.
#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
fn percentile(ages: &[u64; BUCKETS], share: f64) -> f64 {
    let all: u64 = ages.iter().sum();
    let rank = all as f64 * share;
    let mut below = 0.0;
    for (bucket, &count) in ages.iter().enumerate() {
        let count = count as f64;
        if count > 0.0 && below + count >= rank {
            let (from, to) = (age(bucket) as f64, age(bucket + 1) as f64);
            return from + (to - from) * ((rank - below) / count);
        }
        below += count;
    }
    f64::NAN
}

/// The percentiles that the report shows; `None` for an empty histogram.
pub(super) fn latency(ages: &[u64; BUCKETS]) -> Option<Latency> {
    ages.iter().any(|&count| count > 0).then(|| Latency {
        p50: percentile(ages, 0.5),
        p99: percentile(ages, 0.99),
        p999: percentile(ages, 0.999),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use ikenat_bench_abi::traffic::bucket;

    #[test]
    fn the_interval_holds_the_median_and_shrinks() {
        let mut random = Random::new(7);
        let mut draw = |count| {
            let values: Vec<f64> = (0..count)
                .map(|_| 1.0 + random.below(1000) as f64 / 10_000.0)
                .collect();
            interval(&values, &mut random).expect("there are figures")
        };
        let (few, many) = (draw(11), draw(1001));
        for one in [few, many] {
            assert!(one.low <= one.median && one.median <= one.high, "{one:?}");
        }
        assert!(many.high - many.low < (few.high - few.low) / 2.0);
        assert!(many.low < 1.05 && many.high > 1.045, "{many:?}");
    }

    #[test]
    fn an_even_number_of_figures_has_a_median_between_two() {
        assert_eq!(median(&mut [4.0, 1.0, 3.0, 2.0]), Some(2.5));
        assert_eq!(median(&mut [9.0, 1.0, 3.0]), Some(3.0));
        assert_eq!(median(&mut []), None);
    }

    #[test]
    fn percentiles_find_the_slow_ones() {
        let mut ages = [0; BUCKETS];
        ages[bucket(1_000)] = 980;
        ages[bucket(50_000)] = 19;
        ages[bucket(1_000_000)] = 1;
        let latency = latency(&ages).expect("there are packets");
        let near = |value: f64, wanted: f64| (value / wanted - 1.0).abs() < 0.13;
        assert!(near(latency.p50, 1_000.0), "{latency:?}");
        assert!(near(latency.p99, 50_000.0), "{latency:?}");
        assert!(near(latency.p999, 50_000.0), "{latency:?}");
        ages[bucket(1_000_000)] = 3;
        assert!(percentile(&ages, 0.999) > 900_000.0);
        assert!(super::latency(&[0; BUCKETS]).is_none());
    }
}
