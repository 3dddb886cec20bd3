//! The orders in which packets visit the flows.

use super::rounds::Random;
use super::wrapper::Instrument;
use crate::results::Walk;
use anyhow::{Context, Result, ensure};
use aya::maps::{Array, MapData};

/// Packets of a flow in a row, in trains.
pub(super) const TRAIN: u32 = 8;
/// Flows that are drawn before the first round, for an order that is not computed per packet: more than
/// a round has packets.
const DRAWS: u32 = 1 << 18;

/// The wrapper for a walk, if it needs one of its own.
///
/// # Errors
/// The kernel refuses it.
pub(super) fn wrapper(walk: Walk, flows: u64) -> Result<Option<Instrument>> {
    if walk != Walk::Zipf {
        return Ok(None);
    }
    let mut wrapper = Instrument::restore(DRAWS)?;
    let mut map: Array<&mut MapData, u64> = wrapper.map_mut("DRAWS")?.try_into()?;
    let mut sequences = vec![0_u32; usize::try_from(flows)?];
    for (place, flow) in (0..DRAWS).zip(zipf(flows)) {
        let sequence = &mut sequences[flow as usize];
        *sequence += 1;
        let drawn = u64::from(*sequence) << 32 | u64::from(flow);
        map.set(place, drawn, 0).context("failed to fill DRAWS")?;
    }
    Ok(Some(wrapper))
}

/// What the plan needs for a walk: packets in a row, and draws, each less one.
pub(super) const fn of_plan(walk: Walk) -> (u32, u32) {
    match walk {
        Walk::Random => (0, 0),
        Walk::Trains => (TRAIN - 1, 0),
        Walk::Zipf => (0, DRAWS - 1),
    }
}

/// Random flows. The k-th has the weight 1/k (Zipf's law with the exponent 1).
fn zipf(flows: u64) -> impl Iterator<Item = u32> {
    let mut sum = 0.0;
    let sums: Vec<f64> = (1..=flows)
        .map(|rank| {
            sum += weight(rank);
            sum
        })
        .collect();
    let mut random = Random::new(17);
    std::iter::repeat_with(move || {
        // The upper 53 bits, which a float holds exactly.
        #[expect(clippy::cast_precision_loss, reason = "53 bits")]
        let share = (random.next() >> 11) as f64 / (1_u64 << 53) as f64;
        let flow = sums.partition_point(|below| *below <= share * sum);
        u32::try_from(flow.min(sums.len() - 1)).unwrap_or_default()
    })
}

#[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
fn weight(rank: u64) -> f64 {
    1.0 / rank as f64
}

/// Checks that the flows were visited as a walk does, by the packets that each flow has counted.
///
/// # Errors
/// They were not.
pub(super) fn check(walk: Walk, flows: u64, counted: &[u64]) -> Result<()> {
    let packets: u64 = counted.iter().sum();
    let visited = counted.iter().filter(|count| **count > 0).count() as u64;
    let most = counted.iter().copied().max().unwrap_or_default();
    let right = match walk {
        // A period visits every flow once.
        Walk::Random => most <= packets / flows + 1,
        // The first train and the last one may have been cut.
        Walk::Trains => {
            counted
                .iter()
                .filter(|count| *count % u64::from(TRAIN) > 0)
                .count()
                <= 2
        }
        Walk::Zipf => {
            let sum: f64 = (1..=flows).map(weight).sum();
            #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
            let share = most as f64 / packets as f64 * sum;
            (0.9..1.1).contains(&share)
        }
    };
    ensure!(
        right && packets > 0,
        "{packets} packets visited {visited} of {flows} flows, one of them {most} times"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(flows: u64, packets: usize) -> Vec<u64> {
        let mut counts = vec![0; usize::try_from(flows).expect("few")];
        for flow in zipf(flows).take(packets) {
            counts[flow as usize] += 1;
        }
        counts
    }

    #[test]
    fn the_kth_flow_has_a_kth_of_the_packets_of_the_first() {
        let counts = counts(1024, 200_000);
        for (k, expected) in [(1, 26_640.0), (2, 13_320.0), (10, 2_664.0), (100, 266.4)] {
            let share = counts[k - 1] as f64 / expected;
            let spread = 4.0 / f64::sqrt(expected);
            assert!(
                (share - 1.0).abs() < spread,
                "{k}: {} packets",
                counts[k - 1]
            );
        }
        assert!(counts[1023] > 0);
    }

    #[test]
    fn a_walk_is_recognised_by_what_the_flows_count() {
        let zipf = counts(1024, 100_000);
        let random = vec![100; 1024];
        let trains: Vec<u64> = (0..1024)
            .map(|flow| if flow < 125 { 8 } else { 0 })
            .collect();
        let all = [
            (Walk::Random, random),
            (Walk::Trains, trains),
            (Walk::Zipf, zipf),
        ];
        for (walk, counted) in &all {
            for (other, _) in &all {
                let outcome = check(*other, 1024, counted);
                assert_eq!(outcome.is_ok(), other == walk, "{walk:?} as {other:?}");
            }
        }
    }
}
