//! Layer C: end to end in network namespaces, from a generator through a gateway to a sink that
//! verifies what arrives.
//!
//! With veth, generator, gateway and sink run one after the other on the CPU that sends, in one
//! softirq. So the rate at saturation in packets per second is the inverse of the whole cost of a
//! packet, including generator and sink, and the ratio of two gateways is nearer to 1 than that of
//! their own costs (layer A has those). For the same reason nothing is lost at saturation unless
//! the gateway itself drops it; the load that a gateway can handle when packets arrive at their own
//! pace is the loss-free rate.
//!
//! The time is measured by the kernel: `BPF_PROG_TEST_RUN` returns the time that its packets took,
//! in whole nanoseconds per packet.

pub mod blocks;
pub mod paced;
mod plan;
mod statistics;

pub use crate::kinds::BASE;
pub use plan::label;

use anyhow::{Context, Result, bail, ensure};
use std::time::Duration;

use blocks::Scores;
use paced::{Effort, Paced};
use plan::{Group, NEEDED, PACED, PACED_LABEL};

use crate::contest::{Standing, Start};
use crate::kinds::Case;
use crate::order::{Random, go_first};
use crate::results::{CRow, Contestant, Interval, LayerC};
use crate::rig::Bench;

/// The twin's interval must lie between these, or the run is void.
const TWIN: (f64, f64) = (0.98, 1.02);

/// The selection of measurements.
pub struct Options<'o> {
    /// Fewer cases, fewer and shorter blocks.
    pub quick: bool,
    /// Only cases whose label contains this.
    pub only: Option<String>,
    /// The seed of the order of everything.
    pub seed: u64,
    /// Called after every step: completed steps, all steps, the name of the current one.
    pub progress: &'o (dyn Fn(usize, usize, &str) + Sync),
}

impl Options<'_> {
    /// The time for which a contestant sends in a block.
    const fn time(&self) -> Duration {
        Duration::from_millis(if self.quick { 25 } else { 60 })
    }

    const fn effort(&self) -> Effort {
        if self.quick {
            Effort {
                steps: 6,
                probe: 0.1,
                slices: 5,
                slice: 0.1,
            }
        } else {
            Effort {
                steps: 8,
                probe: 0.3,
                slices: 20,
                slice: 0.15,
            }
        }
    }
}

/// Completed steps and all steps.
struct Progress<'o> {
    done: usize,
    all: usize,
    tell: &'o (dyn Fn(usize, usize, &str) + Sync),
}

impl Progress<'_> {
    fn step(&mut self, what: &str) {
        self.done += 1;
        (self.tell)(self.done, self.all, what);
    }
}

/// The results of a run so far.
#[derive(Default)]
struct Found {
    layer: LayerC,
    /// The twin's ratios to ikenat, of all blocks of all cases.
    twins: Vec<f64>,
    /// Loss-free rates and latencies.
    paced: Vec<(Contestant, Paced)>,
}

/// Whether the label of any case contains this.
#[must_use]
pub fn has(word: &str, quick: bool) -> bool {
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    !plan::groups(quick, Some(word), cpus).is_empty()
}

/// Measures everything that is selected. Needs root; leaves nothing behind.
///
/// # Errors
/// The lab, the no-op redirect or ikenat cannot be set up, or the harness turns out to be broken.
pub fn run(options: &Options<'_>) -> Result<LayerC> {
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let groups = plan::groups(options.quick, options.only.as_deref(), cpus);
    if let (true, Some(word)) = (groups.is_empty(), &options.only) {
        bail!(
            "no case of layer C contains `{word}`; one is called `{}`",
            label(&BASE)
        );
    }
    let mut random = Random::new(options.seed);
    let mut progress = Progress {
        done: 0,
        all: groups.iter().map(|group| steps(group, options)).sum(),
        tell: options.progress,
    };
    let mut found = Found::default();
    found.layer.seed = options.seed;
    for group in &groups {
        one_group(group, options, &mut random, &mut progress, &mut found)?;
    }
    let Found {
        mut layer, twins, ..
    } = found;
    layer.twin = statistics::interval(&twins, &mut random).unwrap_or_default();
    layer.void = void(&layer);
    Ok(layer)
}

/// Runs all set-ups of a group and adds up their results.
fn one_group(
    group: &Group,
    options: &Options<'_>,
    random: &mut Random,
    progress: &mut Progress<'_>,
    found: &mut Found,
) -> Result<()> {
    let mut scores: Vec<Scores> = group.cases.iter().copied().map(Scores::new).collect();
    for setup in 0..group.setups {
        let bench = Bench::new()?;
        let mut standings = set_up(group, &bench, setup > 0, &mut found.layer.missing, progress)?;
        // A separate thread gets the priority: processes that were started before, including the
        // daemons, keep theirs.
        let measured: Result<()> = std::thread::scope(|scope| {
            let work = || {
                go_first()?;
                blocks(
                    group,
                    &mut scores,
                    &mut standings,
                    options,
                    random,
                    progress,
                )?;
                if group.paced {
                    found.paced = pace(&mut standings, options, random, progress)?;
                }
                Ok(())
            };
            match scope.spawn(work).join() {
                Ok(measured) => measured,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        });
        measured?;
    }
    for scores in &scores {
        found.twins.extend(scores.twins());
        found.layer.rows.extend(scores.rows(random)?);
    }
    for (contestant, paced) in found.paced.drain(..) {
        enter(&mut found.layer.rows, contestant, &paced)?;
    }
    Ok(())
}

/// The number of steps of a group.
fn steps(group: &Group, options: &Options<'_>) -> usize {
    let effort = options.effort();
    let paced = if group.paced {
        (effort.steps + effort.slices) as usize
    } else {
        0
    };
    group.setups * (group.contestants.len() + group.cases.len() * (1 + group.blocks)) + paced
}

/// All contestants that can take part. `again`: those that could the first time must.
fn set_up(
    group: &Group,
    bench: &Bench,
    again: bool,
    missing: &mut Vec<(Contestant, String)>,
    progress: &mut Progress<'_>,
) -> Result<Vec<Standing>> {
    let mut standings = Vec::new();
    for &contestant in &group.contestants {
        progress.step(&format!("setting up {}", plan::name(contestant)));
        if missing.iter().any(|(who, _)| *who == contestant) {
            continue;
        }
        match Standing::on(bench, contestant, group.flows, Start::Daemon) {
            Ok(standing) => standings.push(standing),
            Err(error) if again || NEEDED.contains(&contestant) => {
                return Err(error.context(format!("failed to set {} up", plan::name(contestant))));
            }
            Err(error) => missing.push((contestant, brief(&error))),
        }
    }
    Ok(standings)
}

/// The line of an error that states why a contestant is missing.
fn brief(error: &anyhow::Error) -> String {
    let text = format!("{error:#}");
    let says = |line: &&str| line.chars().any(char::is_alphabetic);
    let lines: Vec<&str> = text.lines().map(str::trim).filter(says).collect();
    let named = lines.iter().skip(1).find(|line| line.contains("rror"));
    let line = named.or(lines.last()).copied().unwrap_or_default();
    line.chars().take(160).collect()
}

/// All cases of a group, their blocks in random order.
fn blocks(
    group: &Group,
    all: &mut [Scores],
    standings: &mut [Standing],
    options: &Options<'_>,
    random: &mut Random,
    progress: &mut Progress<'_>,
) -> Result<()> {
    for scores in &mut *all {
        scores.begin(standings, options.time())?;
        progress.step(&format!("warming up: {}", label(&scores.case())));
    }
    known(standings, &group.cases)?;
    let cases = all.len();
    for i in random.order(cases * group.blocks) {
        let scores = &mut all[i % cases];
        scores.block(standings, random)?;
        progress.step(&label(&scores.case()));
    }
    Ok(())
}

/// Fails unless ikenat has every flow of the cases in its table: a case of a million flows that
/// measures a thousand is worse than none.
fn known(standings: &[Standing], cases: &[Case]) -> Result<()> {
    let most = cases.iter().map(|case| case.flows).max();
    // Inbound flows and outbound ones: both are made known for every case, in either direction.
    let wanted = 2 * u64::from(most.unwrap_or_default());
    for standing in standings.iter().filter(|one| one.is_ikenat()) {
        let have = standing.flows()?;
        // One or two of 65,536 find no slot.
        ensure!(
            have + have / 1_000 >= wanted,
            "failed to warm {} up: it knows {have} flows of {wanted}",
            plan::name(standing.contestant)
        );
    }
    Ok(())
}

/// Loss-free rates and latencies of the base case.
fn pace(
    standings: &mut [Standing],
    options: &Options<'_>,
    random: &mut Random,
    progress: &mut Progress<'_>,
) -> Result<Vec<(Contestant, Paced)>> {
    let mut taking: Vec<&mut Standing> = standings
        .iter_mut()
        .filter(|one| PACED.contains(&one.contestant))
        .collect();
    for standing in &mut taking {
        standing.warm_up(&BASE)?;
    }
    let who: Vec<Contestant> = taking.iter().map(|one| one.contestant).collect();
    let paced = paced::measure(&mut taking, options.effort(), random, &mut |what| {
        progress.step(what);
    })
    .with_context(|| format!("failed to measure the {PACED_LABEL}"))?;
    Ok(who.into_iter().zip(paced).collect())
}

/// Enters the result into the contestant's row of the base case; the row is added if its blocks
/// were not selected.
fn enter(rows: &mut Vec<CRow>, contestant: Contestant, paced: &Paced) -> Result<()> {
    let frame = u32::try_from(BASE.frame)?;
    let at = rows.iter().position(|row| {
        row.contestant == contestant
            && (row.traffic, row.way, row.frame) == (BASE.traffic, BASE.way, frame)
            && (row.flows, row.cores) == (u64::from(BASE.flows), BASE.cores)
    });
    let at = at.unwrap_or_else(|| {
        rows.push(CRow {
            contestant,
            traffic: BASE.traffic,
            way: BASE.way,
            frame,
            flows: BASE.flows.into(),
            cores: BASE.cores,
            blocks: Vec::new(),
            wrong: 0,
            lost: 0,
            sent: 0,
            gaps: 0,
            ratio: None,
            lossless: None,
            latency: None,
        });
        rows.len() - 1
    });
    let row = &mut rows[at];
    row.lossless = paced.lossless;
    row.latency = paced.latency();
    if paced.wrong() > 0 {
        row.wrong += paced.wrong();
        row.blocks.fill(0.0);
    }
    Ok(())
}

/// Why the run does not count.
fn void(layer: &LayerC) -> Option<String> {
    let has_blocks = layer.rows.iter().any(|row| !row.blocks.is_empty());
    let Interval { median, low, high } = layer.twin;
    if !has_blocks {
        None
    } else if median <= 0.0 {
        Some("ikenat and its twin have nothing in common to compare: one of them delivered nothing right".to_owned())
    } else if low < TWIN.0 || high > TWIN.1 {
        Some(format!(
            "the twin's interval [{low:.4}, {high:.4}] leaves [{}, {}]: this machine was too busy, run it again",
            TWIN.0, TWIN.1
        ))
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer(low: f64, high: f64) -> LayerC {
        let mut rows = Vec::new();
        let paced = Paced::nothing();
        enter(&mut rows, Contestant::Ikenat, &paced).expect("a row");
        rows[0].blocks = vec![1.0];
        LayerC {
            rows,
            twin: Interval {
                median: f64::midpoint(low, high),
                low,
                high,
            },
            ..LayerC::default()
        }
    }

    #[test]
    fn a_twin_that_leaves_its_bounds_voids_the_run() {
        assert_eq!(void(&layer(0.99, 1.01)), None);
        for (low, high) in [(0.97, 1.0), (1.0, 1.03), (1.03, 1.04)] {
            assert!(void(&layer(low, high)).is_some(), "[{low}, {high}]");
        }
        assert!(void(&layer(0.0, 0.0)).is_some());
    }

    #[test]
    fn the_reason_why_somebody_is_missing_is_one_line() {
        let error = anyhow::anyhow!(
            "`nsenter nft` ended with 1:\n/dev/stdin:3: Error: Could not process rule: No such file\nadd flowtable\n^^^^"
        );
        assert_eq!(
            brief(&error),
            "/dev/stdin:3: Error: Could not process rule: No such file"
        );
        let error = anyhow::anyhow!("`sh` ended with 127:\nsh: 1: ipvsadm: not found");
        assert_eq!(brief(&error), "sh: 1: ipvsadm: not found");
    }
}
