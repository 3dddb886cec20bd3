//! Layer B: the program alone on the real CPU (`BPF_PROG_TEST_RUN`), and its tables.
//!
//! Rounds of all rows are interleaved in random order; the figure of a row is the median over the
//! rounds with its quartiles.

mod against;
mod cases;
mod gateway;
mod misses;
mod older;
mod packets;
mod print;
mod programs;
mod rounds;
mod sizes;
mod tables;
mod user;
mod walk;
mod wrapper;

pub use misses::serve;
pub use print::print;

use crate::results::{BRow, LayerB, Traffic, Walk};
use anyhow::Result;
use std::path::PathBuf;

/// The selection of measurements.
pub struct Options<'o> {
    /// Fewer and shorter rounds.
    pub quick: bool,
    /// Only rows whose label contains this.
    pub only: Option<String>,
    /// Measure this older object as well, in turns with that of this build, and nothing else.
    pub against: Option<PathBuf>,
    /// Called after every step: completed steps, all steps, the name of the current one.
    pub progress: &'o (dyn Fn(usize, usize, &str) + Sync),
}

/// The numbers of flows with which every table is measured.
const FLOWS: [u64; 4] = [1, 1 << 10, 1 << 16, 1 << 20];

impl Options<'_> {
    fn wants(&self, label: &str) -> bool {
        self.only.as_ref().is_none_or(|word| label.contains(word))
    }

    fn rounds(&self) -> usize {
        if self.quick { 5 } else { 15 }
    }

    /// Packets of one measurement.
    fn packets(&self) -> u32 {
        if self.quick { 100_000 } else { 200_000 }
    }
}

/// Measures everything that is selected. Needs root; leaves nothing behind.
///
/// # Errors
/// The lab cannot be made, an object does not load, or a program did something other than what was
/// to be measured.
pub fn run(options: &Options<'_>) -> Result<LayerB> {
    if let Some(path) = &options.against {
        let (against, misses) = against::measure(options, path)?;
        return Ok(LayerB {
            against,
            misses,
            ..LayerB::default()
        });
    }
    let (programs, misses) = programs::measure(options)?;
    let mut results = LayerB {
        programs,
        misses,
        tables: tables::measure(options)?,
        user: user::measure(options)?,
        ..LayerB::default()
    };
    if options.wants("memory") {
        (options.progress)(0, 2, "memory");
        results.memory = sizes::memory()?;
    }
    if options.wants("loads") {
        (options.progress)(1, 2, "loads");
        results.loads = sizes::loads();
    }
    (options.progress)(2, 2, "sizes");
    Ok(results)
}

/// Whether the label of any row contains this.
#[must_use]
pub fn has(word: &str) -> bool {
    let sizes = ["memory", "loads"].map(str::to_owned);
    let mut labels = programs::labels()
        .chain(tables::labels())
        .chain(user::labels())
        .chain(sizes);
    labels.any(|label| label.contains(word))
}

/// A number of flows in the usual notation.
pub fn flows_text(flows: u64) -> String {
    match flows {
        flows if flows >= 1 << 20 && flows.is_multiple_of(1 << 20) => format!("{} M", flows >> 20),
        flows if flows >= 1 << 10 && flows.is_multiple_of(1 << 10) => format!("{} K", flows >> 10),
        flows => flows.to_string(),
    }
}

/// A name as in the raw JSON.
fn name(value: impl serde::Serialize) -> String {
    let value = serde_json::to_value(value).unwrap_or_default();
    value.as_str().unwrap_or_default().to_owned()
}

/// The end of a row's label.
fn walk_text(walk: Walk) -> &'static str {
    match walk {
        Walk::Random => "",
        Walk::Trains => ", trains",
        Walk::Zipf => ", zipf",
    }
}

/// A row of the dataplane in words.
pub fn row_text(row: &BRow) -> String {
    let punt = matches!(row.traffic, Traffic::OtherPort | Traffic::NotIpv4);
    let fate = match (row.hit, row.fresh) {
        _ if punt => "punt",
        (true, true) => "hit",
        (true, false) if packets::is_esp(row.traffic) => "hit, stale",
        (true, false) => "hit",
        (false, _) => "miss",
    };
    let flows = flows_text(row.flows);
    let walk = walk_text(row.walk);
    format!(
        "{} {} {flows} {fate}{walk}",
        name(row.traffic),
        name(row.way)
    )
}
