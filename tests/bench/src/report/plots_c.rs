//! The plots of layer C: rates, ratios, rates by the number of flows, and latencies.

use super::chart::{Axis, Head, Line, Series, lines, rows};
use super::figures::{self, Case};
use super::plots::{class, linear, look};
use super::svg::{Drawing, Shape};
use super::words;
use crate::results::{CRow, Contestant, LayerC};
use std::collections::BTreeMap;

/// The axis for rates up to this one.
fn rate_axis(highest: f64) -> Axis {
    if highest >= 1e6 {
        linear("million packets/s", 1e6)
    } else if highest >= 1e3 {
        linear("thousand packets/s", 1e3)
    } else {
        linear("packets/s", 1.0)
    }
}

/// The second line of a plot of layer C: the case, the meaning of the marks, and whether it is
/// void.
fn about(layer: &LayerC, case: &str, marks: &str) -> String {
    let void = if figures::void(layer).is_some() {
        "VOID: this run does not count. "
    } else {
        ""
    };
    format!("{void}{case}. {marks}")
}

/// Packets per second of the main case.
pub(super) fn rates(layer: &LayerC) -> Option<Drawing> {
    let (case, group) = figures::main_case(&layer.rows, |row| !row.blocks.is_empty())?;
    let lines: Vec<Line> = group
        .iter()
        .map(|row| {
            let score = figures::score(row);
            let text = match (row.wrong > 0, score) {
                (true, _) => "WRONG: 0".to_owned(),
                (false, Some(score)) => words::rate(score),
                (false, None) => "no block".to_owned(),
            };
            Line {
                label: words::contestant(row.contestant).to_owned(),
                bars: vec![(class(row.contestant), score.unwrap_or(0.0))],
                whisker: figures::range(&row.blocks).filter(|_| row.wrong == 0),
                text,
                points: Vec::new(),
            }
        })
        .collect();
    let highest = group
        .iter()
        .flat_map(|row| &row.blocks)
        .copied()
        .fold(0.0, f64::max);
    let marks = "Median of the blocks, lowest and highest block. More are better.";
    let head = Head {
        title: "Packets per second at saturation".to_owned(),
        about: about(layer, &figures::case_name(case), marks),
        legend: Vec::new(),
    };
    Some(rows(&head, &rate_axis(highest), None, &lines))
}

/// Their ratios to the no-op redirect.
pub(super) fn ratios(layer: &LayerC) -> Option<Drawing> {
    let (case, group) = figures::main_case(&layer.rows, |row| !row.blocks.is_empty())?;
    let lines: Vec<Line> = group
        .iter()
        .filter_map(|row| {
            let ratio = figures::ratio(row)?;
            Some(Line {
                label: words::contestant(row.contestant).to_owned(),
                whisker: Some((ratio.low, ratio.high)),
                points: vec![(Shape::Circle, class(row.contestant), ratio.median)],
                text: words::interval(&ratio),
                bars: Vec::new(),
            })
        })
        .collect();
    let marks = "Median of the per-block ratios and its 95 % interval; the broken line is the no-op redirect.";
    let head = Head {
        title: "Packets per second against the no-op redirect".to_owned(),
        about: about(layer, &figures::case_name(case), marks),
        legend: Vec::new(),
    };
    (!lines.is_empty()).then(|| {
        rows(
            &head,
            &linear("ratio to the no-op redirect", 1.0),
            Some(1.0),
            &lines,
        )
    })
}

/// The largest set of rows that differ only in contestant and number of flows, where there are
/// several such numbers.
fn flows_of(layer: &LayerC) -> Option<(Case, BTreeMap<Contestant, Vec<&CRow>>)> {
    let mut families: BTreeMap<Case, Vec<&CRow>> = BTreeMap::new();
    for row in layer
        .rows
        .iter()
        .filter(|row| row.contestant != Contestant::IkenatTwin)
    {
        let (traffic, way, frame, _, cores) = figures::case(row);
        families
            .entry((traffic, way, frame, 0, cores))
            .or_default()
            .push(row);
    }
    let several = |rows: &[&CRow]| rows.iter().any(|row| row.flows != rows[0].flows);
    let families = families.into_iter().filter(|(_, rows)| several(rows)).rev();
    let (case, rows) = families.max_by_key(|(_, rows)| rows.len())?;
    let mut by_contestant: BTreeMap<Contestant, Vec<&CRow>> = BTreeMap::new();
    for row in rows {
        by_contestant.entry(row.contestant).or_default().push(row);
    }
    Some((case, by_contestant))
}

/// Packets per second over the number of flows.
pub(super) fn rates_by_flows(layer: &LayerC) -> Option<Drawing> {
    let ((traffic, way, frame, _, cores), contestants) = flows_of(layer)?;
    let highest = contestants
        .values()
        .flatten()
        .flat_map(|row| &row.blocks)
        .copied()
        .fold(0.0, f64::max);
    let series: Vec<Series> = contestants
        .into_iter()
        .map(|(who, rows)| {
            let (shape, class, dashed) = look(who);
            let points = rows.into_iter().filter_map(|row| {
                let score = figures::score(row)?;
                let ends = figures::range(&row.blocks)
                    .filter(|_| row.wrong == 0)
                    .unwrap_or((score, score));
                Some((row.flows, score, ends))
            });
            Series {
                name: words::contestant(who).to_owned(),
                shape,
                class,
                dashed,
                points: points.collect(),
            }
        })
        .collect();
    let case = format!(
        "{}, {} · {} · {}",
        words::traffic(traffic),
        words::way(way),
        words::plural(u64::from(frame), "byte"),
        words::plural(u64::from(cores), "core")
    );
    let head = Head {
        title: "Packets per second, by number of flows".to_owned(),
        about: about(
            layer,
            &case,
            "Median, lowest and highest block. More are better.",
        ),
        legend: Vec::new(),
    };
    Some(lines(&head, &rate_axis(highest), "flows", &series))
}

/// Percentiles of the latency.
pub(super) fn latencies(layer: &LayerC) -> Option<Drawing> {
    let with = |row: &CRow| row.latency.is_some() && row.wrong == 0;
    let (case, group) = figures::main_case(&layer.rows, with)?;
    let lines: Vec<Line> = group
        .iter()
        .filter(|row| with(row))
        .filter_map(|row| {
            let latency = row.latency?;
            let class = class(row.contestant);
            let points = [
                (Shape::Circle, latency.p50),
                (Shape::Diamond, latency.p99),
                (Shape::Triangle, latency.p999),
            ];
            Some(Line {
                label: words::contestant(row.contestant).to_owned(),
                whisker: Some((latency.p50, latency.p999)),
                points: points.map(|(shape, value)| (shape, class, value)).into(),
                text: words::latency(&latency),
                bars: Vec::new(),
            })
        })
        .collect();
    let marks = "At half of each contestant's own loss-free rate. Lower is better.";
    let head = Head {
        title: "Latency from generator to sink".to_owned(),
        about: about(layer, &figures::case_name(case), marks),
        legend: [
            (Shape::Circle, "p50"),
            (Shape::Diamond, "p99"),
            (Shape::Triangle, "p99.9"),
        ]
        .map(|(shape, name)| (shape, "ink", name.to_owned()))
        .into(),
    };
    let axis = Axis {
        label: "µs, logarithmic".to_owned(),
        factor: 1e3,
        logarithmic: true,
    };
    (!lines.is_empty()).then(|| rows(&head, &axis, None, &lines))
}
