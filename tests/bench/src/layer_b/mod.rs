//! Layer B: the program alone on the real CPU (`BPF_PROG_TEST_RUN`), and the tables that it lives on.
//!
//! It may not know how results are kept or drawn. Rounds of all rows are interleaved in random order; a row's figure is
//! the median over the rounds with its quartiles.

mod gateway;
mod packets;
mod programs;
mod rounds;
mod sizes;
mod tables;
mod wrapper;

use crate::results::{BRow, LayerB, Traffic};
use anyhow::Result;

/// What to measure.
pub struct Options<'o> {
    /// Fewer rounds, shorter ones.
    pub quick: bool,
    /// Only rows whose label contains this.
    pub only: Option<String>,
    /// Called after every step: steps done, all steps, the name of the current one.
    pub progress: &'o (dyn Fn(usize, usize, &str) + Sync),
}

/// The numbers of flows that every table is measured with.
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

/// Measures everything that is wanted. Needs root; leaves nothing behind.
///
/// # Errors
/// The lab cannot be made, an object does not load, or a program has done something else than it was measured for.
pub fn run(options: &Options<'_>) -> Result<LayerB> {
    let mut results = LayerB {
        programs: programs::measure(options)?,
        tables: tables::measure(options)?,
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
    let mut labels = programs::labels().chain(tables::labels()).chain(sizes);
    labels.any(|label| label.contains(word))
}

/// A number of flows as people write it.
pub fn flows_text(flows: u64) -> String {
    match flows {
        flows if flows >= 1 << 20 && flows.is_multiple_of(1 << 20) => format!("{} M", flows >> 20),
        flows if flows >= 1 << 10 && flows.is_multiple_of(1 << 10) => format!("{} K", flows >> 10),
        flows => flows.to_string(),
    }
}

/// A name as it stands in the raw JSON.
fn name(value: impl serde::Serialize) -> String {
    let value = serde_json::to_value(value).unwrap_or_default();
    value.as_str().unwrap_or_default().to_owned()
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
    format!("{} {} {flows} {fate}", name(row.traffic), name(row.way))
}
