//! The comparison of two runs, row by row, as ratios, and which differences are only noise.

use super::figures::{self, quotient};
use super::join::join;
use super::layer_a::is_ikenat;
use super::layer_b::{self, kind, kind_name};
use super::section::{Block, Row, Section, Table, figures as number, words as column};
use super::words;
use crate::results::{
    ARow, BLoad, CRow, Conditions, Contestant, Interval, LayerA, LayerB, LayerC, Run, Spread,
};

/// The conditions in which two runs do not differ, as far as is known.
const SAME: &str = "no difference shown";

/// The section of the comparison.
pub(super) fn section(now: &Run, before: &Run) -> Section {
    let mut lead: Vec<Block> = Vec::new();
    for (run, name) in [(now, "Now"), (before, "Before")] {
        lead.extend(
            figures::void_sentence(run.c.as_ref())
                .map(|text| Block::Loud(format!("{name}: {text}"))),
        );
    }
    lead.push(Block::Text(format!(
        "Now: {}. Before: {}.",
        identity(&now.conditions),
        identity(&before.conditions)
    )));
    lead.extend(differences(now, before));
    lead.push(Block::Text(
        "Ratios are now/before. Layer A: below one is better, and what is not larger than the difference between two \
         boots is no difference. Layer B: below one is better, and where the quartiles overlap no difference is shown. \
         Layer C: above one is better; the verdict goes by the ratio to the no-op redirect, and where the intervals \
         overlap no difference is shown."
            .to_owned(),
    ));
    let mut rest = Vec::new();
    rest.extend(layer("A", now.a.as_ref(), before.a.as_ref(), layer_a));
    rest.extend(layer("B", now.b.as_ref(), before.b.as_ref(), layer_b));
    rest.extend(layer("C", now.c.as_ref(), before.c.as_ref(), layer_c));
    Section {
        id: "compare",
        title: "Now against before".to_owned(),
        lead,
        rest,
    }
}

fn identity(conditions: &Conditions) -> String {
    let said = |text: &str| {
        if text.is_empty() {
            "unknown".to_owned()
        } else {
            text.to_owned()
        }
    };
    format!(
        "{}, commit {}",
        said(&conditions.date),
        said(&conditions.commit)
    )
}

/// The differences that make times of the two runs incomparable.
fn differences(now: &Run, before: &Run) -> Option<Block> {
    let (n, b) = (&now.conditions, &before.conditions);
    let kernel = |run: &Run| run.a.as_ref().map(|a| a.kernel.clone());
    let both = kernel(now).zip(kernel(before));
    let differs: Vec<&str> = [
        ("kernel", n.kernel != b.kernel),
        (
            "kernel of layer A",
            both.is_some_and(|(now, before)| now != before),
        ),
        ("CPU", n.cpu != b.cpu),
        ("number of CPUs", n.cpus != b.cpus),
        ("mitigations", n.mitigations != b.mitigations),
        ("--quick", n.quick != b.quick),
    ]
    .into_iter()
    .filter_map(|(name, differs)| differs.then_some(name))
    .collect();
    let text = format!(
        "The two runs differ in: {}. What follows then compares conditions as well as code.",
        differs.join(", ")
    );
    (!differs.is_empty()).then_some(Block::Loud(text))
}

fn layer<T>(
    name: &str,
    now: Option<&T>,
    before: Option<&T>,
    compare: fn(&T, &T) -> Vec<Block>,
) -> Vec<Block> {
    let only = |side: &str| {
        vec![Block::Text(format!(
            "Layer {name} is only in the run {side}."
        ))]
    };
    match (now, before) {
        (Some(now), Some(before)) => compare(now, before),
        (Some(_), None) => only("now"),
        (None, Some(_)) => only("before"),
        (None, None) => vec![Block::Text(format!("Layer {name} is in neither run."))],
    }
}

/// `better`, `worse`, or neither.
fn verdict(differs: bool, better: bool) -> String {
    match (differs, better) {
        (false, _) => SAME.to_owned(),
        (true, true) => "better".to_owned(),
        (true, false) => "worse".to_owned(),
    }
}

fn layer_a(now: &LayerA, before: &LayerA) -> Vec<Block> {
    let noise = now.largest_difference.max(before.largest_difference);
    let joined = join(&now.rows, &before.rows, |row: &ARow| {
        (row.traffic, row.way, row.contestant)
    });
    let head = [
        "total before",
        "now",
        "ratio",
        "marginal before",
        "now",
        "ratio",
    ]
    .map(number);
    let head = std::iter::once(column("contestant"))
        .chain(head)
        .chain([column("verdict")])
        .collect();
    let about = format!(
        "Layer A, instructions per packet. Two boots differ by {}.",
        words::percent(noise)
    );
    let mut table = Table::new(about, head);
    let mut group = None;
    for ((traffic, way, who), now, before) in &joined.both {
        if group.replace((traffic, way)) != Some((traffic, way)) {
            table.rows.push(Row::Group(format!(
                "{}, {}",
                words::traffic(*traffic),
                words::way(*way)
            )));
        }
        let mut cells = vec![words::contestant(*who).to_owned()];
        cells.extend(instructions(now, before, noise));
        table.rows.push(Row::Cells {
            cells,
            highlighted: is_ikenat(*who),
        });
    }
    let name = |(traffic, way, who): &_| {
        format!(
            "{} ({}, {})",
            words::contestant(*who),
            words::traffic(*traffic),
            words::way(*way)
        )
    };
    with(table, joined.alone("Rows of layer A", name))
}

/// Totals, marginal costs and the verdict.
fn instructions(now: &ARow, before: &ARow, noise: f64) -> Vec<String> {
    let totals = [figures::total(before), figures::total(now)];
    let marginals = [figures::marginal(before), figures::marginal(now)];
    let ratio = |[before, now]: [Option<f64>; 2]| quotient(now, before);
    let mut cells = Vec::new();
    for pair in [totals, marginals] {
        cells.extend(pair.map(|value| words::maybe(value, words::figure)));
        cells.push(words::maybe(ratio(pair), words::ratio));
    }
    cells.push(
        match (ratio(totals), figures::scores(now), figures::scores(before)) {
            (_, false, _) => "scores nothing now".to_owned(),
            (_, _, false) => "scored nothing before".to_owned(),
            (Some(ratio), _, _) => verdict((ratio - 1.0).abs() > noise, ratio < 1.0),
            (None, _, _) => words::NONE.to_owned(),
        },
    );
    cells
}

/// The table, if it has rows, before the sentences.
fn with(table: Table, sentences: Vec<Block>) -> Vec<Block> {
    let mut blocks = Vec::new();
    if !table.rows.is_empty() {
        blocks.push(Block::Table(table));
    }
    blocks.extend(sentences);
    blocks
}

fn layer_b(now: &LayerB, before: &LayerB) -> Vec<Block> {
    let head = |unit: &str| {
        let [before, now] = ["before", "now"].map(|when| format!("{unit} {when}"));
        let figures = ["flows", &before, &now, "ratio"].map(number);
        std::iter::once(column("row"))
            .chain(figures)
            .chain([column("verdict")])
            .collect()
    };
    let mut blocks = Vec::new();
    let joined = join(&now.programs, &before.programs, |row| {
        (kind(row), row.flows)
    });
    let mut table = Table::new("Layer B, the dataplane.", head("ns"));
    for ((kind, flows), now, before) in &joined.both {
        table.push(times(
            kind_name(*kind),
            *flows,
            &now.nanoseconds,
            &before.nanoseconds,
        ));
    }
    blocks.extend(with(
        table,
        joined.alone("Rows of layer B", |(kind, flows): &(layer_b::Kind, u64)| {
            format!("{}, {}", kind_name(*kind), words::plural(*flows, "flow"))
        }),
    ));
    let joined = join(&now.tables, &before.tables, |row| {
        (row.table.clone(), row.flows)
    });
    let mut table = Table::new("Layer B, tables alone.", head("ns"));
    for ((name, flows), now, before) in &joined.both {
        table.push(times(
            name.clone(),
            *flows,
            &now.nanoseconds,
            &before.nanoseconds,
        ));
    }
    let name = |(name, flows): &(String, u64)| format!("{name}, {}", words::plural(*flows, "flow"));
    blocks.extend(with(table, joined.alone("Tables of layer B", name)));
    blocks.extend(memory_and_loads(now, before));
    let joined = join(&now.user, &before.user, |row| (row.work.clone(), row.flows));
    let mut table = Table::new("Layer B, user space.", head("ms"));
    for ((work, flows), now, before) in &joined.both {
        table.push(times(
            work.clone(),
            *flows,
            &now.milliseconds,
            &before.milliseconds,
        ));
    }
    blocks.extend(with(table, joined.alone("User space", name)));
    blocks
}

fn times(name: String, flows: u64, now: &Spread, before: &Spread) -> Vec<String> {
    let apart = now.low > before.high || now.high < before.low;
    let ratio = quotient(Some(now.median), Some(before.median));
    vec![
        name,
        words::grouped(flows),
        words::spread(before),
        words::spread(now),
        words::maybe(ratio, words::ratio),
        verdict(apart, now.median < before.median),
    ]
}

fn memory_and_loads(now: &LayerB, before: &LayerB) -> Vec<Block> {
    let joined = join(&now.memory, &before.memory, |row| row.flows);
    let head = ["flows", "bytes before", "bytes now", "ratio"]
        .map(number)
        .into();
    let mut table = Table::new("Layer B, memory.", head);
    for (flows, now, before) in &joined.both {
        let ratio = quotient(Some(now.bytes as f64), Some(before.bytes as f64));
        table.push(vec![
            words::grouped(*flows),
            words::grouped(before.bytes),
            words::grouped(now.bytes),
            words::maybe(ratio, words::ratio),
        ]);
    }
    let mut blocks = with(
        table,
        joined.alone("Memory", |flows| words::plural(*flows, "flow")),
    );
    // The load is a figure that was entered by hand: its bits serve as its key.
    let joined = join(&now.loads, &before.loads, |row: &BLoad| {
        (row.kind.clone(), row.load.to_bits(), row.keys)
    });
    let head = ["load", "offered", "without slot before", "now", "ratio"].map(number);
    let head = std::iter::once(column("keys")).chain(head).collect();
    let mut table = Table::new("Layer B, keys without a slot.", head);
    for ((kind, _, keys), now, before) in &joined.both {
        let ratio = quotient(
            Some(now.without_slot as f64),
            Some(before.without_slot as f64),
        );
        table.push(vec![
            kind.clone(),
            words::percent(now.load),
            words::grouped(*keys),
            words::grouped(before.without_slot),
            words::grouped(now.without_slot),
            words::maybe(ratio, words::ratio),
        ]);
    }
    let name = |(kind, load, keys): &(String, u64, u64)| {
        format!(
            "{} of the slots ({} keys, {kind})",
            words::percent(f64::from_bits(*load)),
            words::grouped(*keys)
        )
    };
    blocks.extend(with(table, joined.alone("Loads", name)));
    blocks
}

fn layer_c(now: &LayerC, before: &LayerC) -> Vec<Block> {
    let joined = join(&now.rows, &before.rows, |row| {
        (figures::case(row), row.contestant)
    });
    let head = ["before", "now", "ratio", "× no-op before", "× no-op now"].map(number);
    let head = std::iter::once(column("contestant"))
        .chain(head)
        .chain([column("verdict")])
        .collect();
    let mut table = Table::new("Layer C, packets per second.", head);
    let mut group = None;
    for ((case, who), now, before) in &joined.both {
        if group.replace(case) != Some(case) {
            table.rows.push(Row::Group(figures::case_name(*case)));
        }
        let scores = [figures::score(before), figures::score(now)];
        let ratios = [figures::ratio(before), figures::ratio(now)];
        let mut cells = vec![words::contestant(*who).to_owned()];
        cells.extend(scores.map(|score| words::maybe(score, words::rate)));
        cells.push(words::maybe(quotient(scores[1], scores[0]), words::ratio));
        cells.extend(ratios.map(|ratio| {
            ratio.map_or_else(|| words::NONE.to_owned(), |ratio| words::interval(&ratio))
        }));
        cells.push(end_to_end(now, before, ratios));
        table.rows.push(Row::Cells {
            cells,
            highlighted: is_ikenat(*who),
        });
    }
    let name = |(case, who): &(figures::Case, _)| {
        format!(
            "{} ({})",
            words::contestant(*who),
            figures::case_name(*case)
        )
    };
    with(table, joined.alone("Rows of layer C", name))
}

fn end_to_end(now: &CRow, before: &CRow, ratios: [Option<Interval>; 2]) -> String {
    if now.wrong > 0 {
        return "WRONG: zero now".to_owned();
    }
    if before.wrong > 0 {
        return "was wrong before".to_owned();
    }
    if now.contestant == Contestant::Noop {
        return "the yardstick".to_owned();
    }
    let [Some(before), Some(now)] = ratios else {
        return "no ratio".to_owned();
    };
    verdict(
        now.low > before.high || now.high < before.low,
        now.median > before.median,
    )
}
