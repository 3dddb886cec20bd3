//! Figures derived from rows: means, medians, which rows are compared, and when a row scores
//! nothing.

use crate::results::{ARow, BRow, CRow, Contestant, Direction, Interval, LayerC, Traffic};
use std::collections::BTreeMap;

use super::words;

/// The twin's interval must lie between these, or the run is void.
pub(super) const TWIN: (f64, f64) = (0.98, 1.02);

/// The properties that compared rows of layer C share: traffic, direction, frame, flows, CPUs.
pub(super) type Case = (Traffic, Direction, u32, u64, u32);

/// Mean; `None` without figures.
pub(super) fn mean(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

/// Median; `None` without figures.
pub(super) fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => None,
        odd if odd % 2 == 1 => Some(sorted[middle]),
        _ => Some(f64::midpoint(sorted[middle - 1], sorted[middle])),
    }
}

/// Minimum and maximum.
pub(super) fn range(values: &[f64]) -> Option<(f64, f64)> {
    let low = values.iter().copied().min_by(f64::total_cmp)?;
    let high = values.iter().copied().max_by(f64::total_cmp)?;
    Some((low, high))
}

/// `over / under`, where the ratio is meaningful.
pub(super) fn quotient(over: Option<f64>, under: Option<f64>) -> Option<f64> {
    let (over, under) = (over?, under?);
    (under > 0.0 && over.is_finite()).then(|| over / under)
}

/// Every packet of the row arrived intact.
pub(super) const fn scores(row: &ARow) -> bool {
    row.sent > 0 && row.arrived == row.sent
}

/// Total instructions per packet; `None` for a row that scores nothing.
pub(super) fn total(row: &ARow) -> Option<f64> {
    if scores(row) { mean(&row.totals) } else { None }
}

/// Instructions per packet beyond generator and sink; `None` for a row that scores nothing.
pub(super) fn marginal(row: &ARow) -> Option<f64> {
    if scores(row) { row.marginal } else { None }
}

/// The rows of layer A that are compared with each other, contestants in order.
pub(super) fn groups(rows: &[ARow]) -> BTreeMap<(Traffic, Direction), Vec<&ARow>> {
    let mut groups: BTreeMap<_, Vec<&ARow>> = BTreeMap::new();
    for row in rows {
        groups.entry((row.traffic, row.way)).or_default().push(row);
    }
    for rows in groups.values_mut() {
        rows.sort_by_key(|row| row.contestant);
    }
    groups
}

/// The row with which the others of a group are compared: the no-op redirect, or the program that
/// only passes for traffic that ikenat does not handle.
pub(super) fn yardstick<'a>(rows: &[&'a ARow]) -> Option<&'a ARow> {
    let find = |who| rows.iter().copied().find(|row| row.contestant == who);
    let handled = !matches!(rows.first()?.traffic, Traffic::OtherPort | Traffic::NotIpv4);
    if handled {
        find(Contestant::Noop)
    } else {
        find(Contestant::Pass).or_else(|| find(Contestant::Noop))
    }
}

/// The group of layer A that the plot and the summary show: the one with most contestants; of
/// several, the first.
pub(super) fn main_group(rows: &[ARow]) -> Option<Vec<&ARow>> {
    groups(rows)
        .into_values()
        .rev()
        .max_by_key(|rows| rows.iter().filter(|row| scores(row)).count())
}

/// The table entry that the packets of a row of layer B find.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fate {
    /// A flow or a session.
    Hit,
    /// A flow with an old next hop, so that each packet causes a FIB lookup.
    Stale,
    /// No flow.
    Miss,
    /// ikenat does not handle them.
    NotHandled,
}

impl Fate {
    /// In a word.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Stale => "hit, stale",
            Self::Miss => "miss",
            Self::NotHandled => "not handled",
        }
    }
}

/// The table entry that the packets of a row of layer B find. Only flows, which ESP has, remember a
/// next hop.
pub(super) const fn fate(row: &BRow) -> Fate {
    match row.traffic {
        Traffic::OtherPort | Traffic::NotIpv4 => Fate::NotHandled,
        Traffic::EspInUdp | Traffic::EspInUdpChecksum | Traffic::Esp if row.hit && !row.fresh => {
            Fate::Stale
        }
        Traffic::EspInUdp
        | Traffic::EspInUdpChecksum
        | Traffic::Esp
        | Traffic::Ike
        | Traffic::Keepalive
        | Traffic::Mix => {
            if row.hit {
                Fate::Hit
            } else {
                Fate::Miss
            }
        }
    }
}

/// The case of a row of layer C.
pub(super) const fn case(row: &CRow) -> Case {
    (row.traffic, row.way, row.frame, row.flows, row.cores)
}

/// A case in words.
pub(super) fn case_name((traffic, way, frame, flows, cores): Case) -> String {
    format!(
        "{}, {} · {} · {} · {}",
        words::traffic(traffic),
        words::way(way),
        words::plural(u64::from(frame), "byte"),
        words::plural(flows, "flow"),
        words::plural(u64::from(cores), "core"),
    )
}

/// The rows of layer C that are compared with each other, contestants in order.
pub(super) fn cases(rows: &[CRow]) -> BTreeMap<Case, Vec<&CRow>> {
    let mut cases: BTreeMap<_, Vec<&CRow>> = BTreeMap::new();
    for row in rows {
        cases.entry(case(row)).or_default().push(row);
    }
    for rows in cases.values_mut() {
        rows.sort_by_key(|row| row.contestant);
    }
    cases
}

/// The case of layer C that plots and summary show: the one with most rows that `tell` something;
/// of several, the one from which the others differ in one parameter each, and the first of those.
pub(super) fn main_case(rows: &[CRow], tell: fn(&CRow) -> bool) -> Option<(Case, Vec<&CRow>)> {
    let cases = cases(rows);
    let known: Vec<Case> = cases.keys().copied().collect();
    let central = |a: Case| {
        let like = |b: &Case| {
            [a.0 == b.0, a.1 == b.1, a.2 == b.2, a.3 == b.3, a.4 == b.4]
                .into_iter()
                .filter(|&same| same)
                .count()
        };
        known.iter().map(like).sum::<usize>()
    };
    cases.into_iter().rev().max_by_key(|(case, rows)| {
        let telling = rows.iter().filter(|row| tell(row)).count();
        (telling, central(*case))
    })
}

/// Packets per second: the median of the blocks. Corrupted packets score zero, whatever the blocks
/// contain.
pub(super) fn score(row: &CRow) -> Option<f64> {
    if row.wrong > 0 {
        Some(0.0)
    } else {
        median(&row.blocks)
    }
}

/// The ratio to the no-op redirect of a row that scores.
pub(super) fn ratio(row: &CRow) -> Option<Interval> {
    if row.wrong > 0 { None } else { row.ratio }
}

/// Why layer C does not count: the reason in the run, or a twin that left its bounds.
pub(super) fn void(layer: &LayerC) -> Option<String> {
    let outside = layer.twin.median > 0.0 && (layer.twin.low < TWIN.0 || layer.twin.high > TWIN.1);
    let bounds = || {
        format!(
            "the twin's interval {} leaves [0.98, 1.02]",
            words::interval(&layer.twin)
        )
    };
    layer.void.clone().or_else(|| outside.then(bounds))
}

/// The warning for a run whose layer C is void.
pub(super) fn void_sentence(layer: Option<&LayerC>) -> Option<String> {
    let reason = void(layer?)?;
    Some(format!(
        "VOID: layer C of this run does not count: {reason}. Its figures must not be quoted."
    ))
}
