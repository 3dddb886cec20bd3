//! Joins the boots of layer A: totals side by side, margins, and the difference between two boots.

use anyhow::{Result, ensure};

use crate::layer_a::{self, complete, label};
use crate::results::{ARow, Contestant, LayerA, Traffic};

/// The largest permitted difference between two boots in the total of a row.
pub const APART: f64 = 0.005;

/// Joins boots: totals side by side, margins from their means, and the difference between them.
///
/// # Errors
/// They did not measure the same rows.
pub fn join(boots: Vec<LayerA>) -> Result<LayerA> {
    let mut boots = boots.into_iter();
    let mut all = boots.next().unwrap_or_default();
    for boot in boots {
        ensure!(
            boot.kernel == all.kernel,
            "failed to join two boots: one has kernel {}, the other {}",
            all.kernel,
            boot.kernel
        );
        ensure!(
            boot.rows.len() == all.rows.len(),
            "failed to join two boots: one has {} rows, the other {}",
            all.rows.len(),
            boot.rows.len()
        );
        for (row, other) in all.rows.iter_mut().zip(boot.rows) {
            add(row, other)?;
        }
    }
    let cables: Vec<ARow> = all
        .rows
        .iter()
        .filter(|row| row.contestant == Contestant::Cable)
        .cloned()
        .collect();
    for row in &mut all.rows {
        row.marginal = marginal(row, &cables);
        all.largest_difference = all.largest_difference.max(difference(row));
    }
    Ok(all)
}

fn add(row: &mut ARow, other: ARow) -> Result<()> {
    ensure!(
        (row.contestant, row.traffic, row.way) == (other.contestant, other.traffic, other.way),
        "failed to join two boots: one measured {} where the other measured {}",
        label(row.contestant, row.traffic, row.way),
        label(other.contestant, other.traffic, other.way),
    );
    row.totals.extend(&other.totals);
    // Boots send different numbers of packets, as many as their runs need to agree. The numbers of
    // a boot that has lost packets are kept.
    if !complete(&other) {
        (row.sent, row.arrived) = (other.sent, other.arrived);
    }
    Ok(())
}

/// The cost of a row beyond its cable; `None` where not everything arrived.
fn marginal(row: &ARow, cables: &[ARow]) -> Option<f64> {
    // Packets that are not forwarded have no sink, so the cost of their generator alone is not
    // known. The cable of IKE replaces it, since its packets are generated in the same way.
    let traffic = match row.traffic {
        Traffic::OtherPort | Traffic::NotIpv4 => Traffic::Ike,
        other @ (Traffic::EspInUdp
        | Traffic::EspInUdpChecksum
        | Traffic::Esp
        | Traffic::Ike
        | Traffic::Keepalive
        | Traffic::Mix) => other,
    };
    let cable = cables
        .iter()
        .find(|cable| cable.traffic == traffic && cable.way == row.way)?;
    (row.contestant != Contestant::Cable && complete(row) && complete(cable))
        .then(|| mean(row) - mean(cable))
}

#[expect(clippy::cast_precision_loss, reason = "a handful of boots")]
fn mean(row: &ARow) -> f64 {
    row.totals.iter().sum::<f64>() / row.totals.len() as f64
}

fn difference(row: &ARow) -> f64 {
    let low = row.totals.iter().copied().fold(f64::INFINITY, f64::min);
    let high = row.totals.iter().copied().fold(0.0, f64::max);
    if low > 0.0 { high / low - 1.0 } else { 0.0 }
}

/// The reason why two boots do not agree; `None` when they do. The kernel's own methods have timers
/// (flowtable scans its table every second, conntrack does likewise), which meet other packets in
/// each boot: their difference is printed, and only a difference of the yardsticks or of ikenat is
/// an error.
#[must_use]
pub fn disagreement(layer: &LayerA) -> Option<String> {
    let worst = layer
        .rows
        .iter()
        .filter(|row| layer_a::is_needed(row.contestant))
        .max_by(|one, other| difference(one).total_cmp(&difference(other)))?;
    (difference(worst) > APART).then(|| {
        format!(
            "two boots of layer A differ by {:.2} % in {}: {:?} instructions; 0.5 % is the limit",
            difference(worst) * 100.0,
            label(worst.contestant, worst.traffic, worst.way),
            worst.totals
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::Direction;

    fn row(contestant: Contestant, traffic: Traffic, way: Direction, total: f64) -> ARow {
        ARow {
            contestant,
            traffic,
            way,
            totals: vec![total],
            marginal: None,
            sent: 10,
            arrived: 10,
        }
    }

    fn boot(totals: [f64; 3]) -> LayerA {
        let way = Direction::Inbound;
        LayerA {
            kernel: "6.12".to_owned(),
            rows: vec![
                row(Contestant::Cable, Traffic::Ike, way, totals[0]),
                row(Contestant::Noop, Traffic::Ike, way, totals[1]),
                row(Contestant::Pass, Traffic::NotIpv4, way, totals[2]),
            ],
            ..LayerA::default()
        }
    }

    #[test]
    fn margins_are_what_is_more_than_the_cable() -> Result<()> {
        let layer = join(vec![
            boot([1000.0, 1400.0, 1100.0]),
            boot([1002.0, 1404.0, 1100.0]),
        ])?;
        let marginal: Vec<_> = layer.rows.iter().map(|row| row.marginal).collect();
        assert_eq!(marginal, [None, Some(401.0), Some(99.0)]);
        assert!((layer.largest_difference - 4.0 / 1400.0).abs() < 1e-9);
        assert_eq!(disagreement(&layer), None);
        Ok(())
    }

    #[test]
    fn boots_that_differ_are_named() -> Result<()> {
        let layer = join(vec![
            boot([1000.0, 1400.0, 1100.0]),
            boot([1000.0, 1408.0, 1100.0]),
        ])?;
        let text = disagreement(&layer).unwrap_or_default();
        assert!(
            text.contains("noop ike inbound") && text.contains("0.57 %"),
            "{text}"
        );
        Ok(())
    }

    #[test]
    fn who_lost_something_has_no_margin() -> Result<()> {
        let mut lossy = boot([1000.0, 1400.0, 1100.0]);
        lossy.rows[1].arrived = 9;
        let layer = join(vec![boot([1000.0, 1400.0, 1100.0]), lossy])?;
        assert_eq!((layer.rows[1].arrived, layer.rows[1].marginal), (9, None));
        let mut cable = boot([1000.0, 1400.0, 1100.0]);
        cable.rows[0].arrived = 9;
        assert!(
            join(vec![cable])?
                .rows
                .iter()
                .all(|row| row.marginal.is_none())
        );
        Ok(())
    }

    #[test]
    fn boots_may_send_as_often_as_they_need() -> Result<()> {
        let mut longer = boot([1000.0, 1400.0, 1100.0]);
        (longer.rows[1].sent, longer.rows[1].arrived) = (20, 20);
        let layer = join(vec![boot([1000.0, 1400.0, 1100.0]), longer])?;
        assert_eq!(layer.rows[1].marginal, Some(400.0));
        Ok(())
    }

    #[test]
    fn different_boots_are_refused() {
        let good = || boot([1.0, 2.0, 3.0]);
        let mut kernel = good();
        kernel.kernel = "6.1".to_owned();
        let mut fewer = good();
        fewer.rows.pop();
        let mut other = good();
        other.rows[2].traffic = Traffic::OtherPort;
        for (bad, word) in [
            (kernel, "kernel"),
            (fewer, "2"),
            (other, "pass other-port inbound"),
        ] {
            let error = join(vec![good(), bad]).map(drop).expect_err(word);
            assert!(error.to_string().contains(word), "{error}");
            assert!(
                error.to_string().starts_with("failed to join two boots"),
                "{error}"
            );
        }
    }
}
