//! The gate of layer A: the cost of a packet may rise by at most 1 % over the committed record.

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use crate::layer_a::{complete, label, name};
use crate::results::{Contestant, LayerA};

/// How far a figure may rise above its record.
const RISE: f64 = 1.01;

/// What ESP may cost with 256 services, as a multiple of one.
const SERVICES: f64 = 1.15;
/// And everything else. The aim is the same; inbound IKE takes 1.17, for an address is looked up three
/// times, of which the fast path discards one.
const SERVICES_BESIDE_ESP: f64 = 1.2;

/// Contestants in the record: ikenat, and those that show whether the harness itself has changed.
pub const CONTESTANTS: [Contestant; 6] = [
    Contestant::Cable,
    Contestant::Noop,
    Contestant::Pass,
    Contestant::Ikenat,
    Contestant::IkenatOneArmed,
    Contestant::IkenatServices,
];

/// Marginal instructions per packet, by the label of the row.
pub type Figures = BTreeMap<String, f64>;

/// The committed record. The cost is the same for the same sources on one kernel with objects of
/// one compiler: so there is a set of figures for each pair of kernel and compiler, and none
/// applies to another pair.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Record {
    /// Kernel release, then compiler.
    kernels: BTreeMap<String, BTreeMap<String, Figures>>,
}

impl Record {
    /// Reads it; a missing file is an empty record.
    ///
    /// # Errors
    /// The file is not a record.
    pub fn read(path: &Path) -> Result<Self> {
        if !path.exists() {
            return Ok(Self::default());
        }
        let failed = || format!("failed to read the record {}", path.display());
        let text = fs::read_to_string(path).with_context(failed)?;
        serde_json::from_str(&text).with_context(failed)
    }

    /// Writes it.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(self)?;
        fs::write(path, text + "\n").with_context(|| format!("failed to write {}", path.display()))
    }

    /// The figures recorded for a pair.
    #[must_use]
    pub fn figures(&self, kernel: &str, compiler: &str) -> Option<&Figures> {
        self.kernels.get(kernel)?.get(compiler)
    }

    /// Replaces the figures of a pair.
    pub fn put(&mut self, kernel: &str, compiler: &str, figures: Figures) {
        self.kernels
            .entry(kernel.to_owned())
            .or_default()
            .insert(compiler.to_owned(), figures);
    }
}

/// The figures of a measurement, and the rows without a figure because not everything arrived.
#[must_use]
pub fn figures(layer: &LayerA) -> (Figures, Vec<String>) {
    let mut figures = Figures::new();
    let mut without = Vec::new();
    for row in &layer.rows {
        let label = label(row.contestant, row.traffic, row.way);
        match row.marginal {
            Some(marginal) => {
                // A tenth of an instruction is the finest resolution that is above the noise.
                figures.insert(label, (marginal * 10.0).round() / 10.0);
            }
            None if row.contestant == Contestant::Cable && complete(row) => {}
            None => without.push(format!(
                "{label}: {} of {} packets arrived as they must",
                row.arrived, row.sent
            )),
        }
    }
    (figures, without)
}

/// Takes the lower figures of another boot. One row in ten has two levels, some instructions apart,
/// depending on where the ticks of the timer meet its packets; the lower level is the cost of a
/// packet.
pub fn keep_lower(figures: &mut Figures, other: &Figures) {
    for (label, figure) in figures {
        if let Some(lower) = other.get(label) {
            *figure = figure.min(*lower);
        }
    }
}

/// The gate's verdict on one row.
#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    /// The row.
    pub label: String,
    /// Whether the row passes.
    pub passes: bool,
    /// The reason as a sentence.
    pub text: String,
}

/// Compares figures with their record.
#[must_use]
pub fn judge(measured: &Figures, recorded: &Figures) -> Vec<Verdict> {
    let mut verdicts: Vec<Verdict> = measured
        .iter()
        .map(|(label, &now)| {
            let (mut passes, mut text) = compare(now, recorded.get(label).copied());
            if !passes && recorded.contains_key(label) && !is_ikenat(label) {
                passes = true;
                text.push_str("; this is not ikenat, so what changed is the harness");
            }
            Verdict {
                label: label.clone(),
                passes,
                text,
            }
        })
        .collect();
    for (label, before) in recorded {
        if !measured.contains_key(label) {
            verdicts.push(Verdict {
                label: label.clone(),
                passes: false,
                text: format!("recorded with {before:.1} instructions, and not measured; {MEANT}"),
            });
        }
    }
    verdicts
}

/// The gate's report in the format of test results, which `cargo xtask` counts.
pub struct Report {
    /// A line for each row, and the totals.
    pub text: String,
    /// True if a figure has risen or is missing.
    pub failed: bool,
}

/// Compares a measurement with the record. Without a record for the pair of kernel and compiler all
/// rows are skipped, and reported as skipped.
#[must_use]
pub fn report(
    kernel: &str,
    compiler: &str,
    measured: &Figures,
    without: &[String],
    recorded: Option<&Figures>,
) -> Report {
    let mut lines = vec![format!("layer A: kernel {kernel}, {compiler}")];
    let mut counts = [0; 3];
    let mut add = |name: &str, outcome: &str, at: usize| {
        lines.push(format!("test {name} ... {outcome}"));
        counts[at] += 1;
    };
    match recorded {
        None => {
            for (label, figure) in measured {
                add(
                    label,
                    &format!(
                        "ignored, {figure:.1} instructions, no record for kernel {kernel} and {compiler}"
                    ),
                    2,
                );
            }
        }
        Some(recorded) => {
            let verdicts = judge(measured, recorded);
            for Verdict {
                label,
                passes,
                text,
            } in verdicts.into_iter().chain(judge_services(measured))
            {
                let (word, at) = if passes { ("ok", 0) } else { ("FAILED", 1) };
                add(&label, &format!("{word}: {text}"), at);
            }
        }
    }
    for row in without {
        add(row, "FAILED: it has no figure", 1);
    }
    let [passed, failed, ignored] = counts;
    let word = if failed > 0 { "FAILED" } else { "ok" };
    lines.push(format!(
        "test result: {word}. {passed} passed; {failed} failed; {ignored} ignored\n"
    ));
    Report {
        text: lines.join("\n"),
        failed: failed > 0,
    }
}

/// Whether 256 services cost little more than one: a verdict for each of their rows.
#[must_use]
pub fn judge_services(measured: &Figures) -> Vec<Verdict> {
    let many = format!("{} ", name(Contestant::IkenatServices));
    let one = format!("{} ", name(Contestant::Ikenat));
    let rows = measured.iter().filter_map(|(label, now)| {
        let case = label.strip_prefix(&many)?;
        let times = now / measured.get(&format!("{one}{case}"))?;
        let limit = if case.starts_with("esp") {
            SERVICES
        } else {
            SERVICES_BESIDE_ESP
        };
        Some(Verdict {
            label: format!("{label}, against one service"),
            passes: times <= limit,
            text: format!("{times:.3} times one service, at most {limit:.2} times is accepted"),
        })
    });
    rows.collect()
}

/// Whether a row is ikenat's. The others show the cost of the harness: they are recorded and shown,
/// and a rise in them is no failure.
fn is_ikenat(label: &str) -> bool {
    [
        Contestant::Ikenat,
        Contestant::IkenatOneArmed,
        Contestant::IkenatServices,
    ]
    .into_iter()
    .any(|own| label.starts_with(&format!("{} ", name(own))))
}

/// The instructions for an intended rise.
const MEANT: &str = "if that is meant, run `cargo xtask bench --layer a --record` and commit the file with the change";

fn compare(now: f64, before: Option<f64>) -> (bool, String) {
    let Some(before) = before else {
        let text = format!("{now:.1} instructions, and no record of this row; {MEANT}");
        return (false, text);
    };
    let change = (now / before - 1.0) * 100.0;
    let figures = format!("{now:.1} instructions, recorded {before:.1}, {change:+.2} %");
    if now > before * RISE {
        return (
            false,
            format!("{figures}: more than 1 % above the record; {MEANT}"),
        );
    }
    if now * RISE < before {
        return (
            true,
            format!("{figures}: better; `cargo xtask bench --layer a --record` keeps it so"),
        );
    }
    (true, figures)
}

#[cfg(test)]
#[path = "gate_tests.rs"]
mod tests;
