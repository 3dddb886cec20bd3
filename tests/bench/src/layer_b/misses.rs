//! One cache miss on which the next one depends: a chain of pointers through an array as large as the
//! hot halves of a table, in pages of 4 KiB and of 2 MiB. It is measured between the rounds of the
//! dataplane, and is the unit of what many flows cost.
//!
//! The chain is in a process of its own, since a page's size is chosen for a whole process.

use super::rounds::{Random, spread};
use super::{FLOWS, flows_text};
use crate::results::BMiss;
use anyhow::{Context, Result, bail, ensure};
use std::hint::black_box;
use std::io::{BufRead as _, BufReader, Write as _, stdin, stdout};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Instant;
use xdp_common::slot::WORDS;

/// The sizes of a page.
const PAGES: [u64; 2] = [4 << 10, 2 << 20];
/// Steps of one measurement.
const STEPS: u32 = 100_000;
/// The glibc's setting that asks for huge pages (glibc 2.35).
const HUGE: (&str, &str) = ("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1");

/// A cache line: the place of the next one, and what fills it.
#[derive(Clone)]
#[repr(align(64))]
struct Line(usize);

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Case {
    /// Flows of the table that is as large as the array.
    flows: u64,
    /// Size of a page.
    page: u64,
}

impl Case {
    pub(super) fn label(self) -> String {
        let page = if self.page == PAGES[0] {
            "4 KiB"
        } else {
            "2 MiB"
        };
        format!("cache miss {} {page}", flows_text(self.flows))
    }

    /// A table has two slots a flow.
    const fn bytes(self) -> u64 {
        2 * self.flows * (WORDS * size_of::<u64>()) as u64
    }
}

/// All cases.
pub(super) fn cases() -> Vec<Case> {
    let many = FLOWS.into_iter().filter(|flows| *flows >= 1 << 16);
    many.flat_map(|flows| PAGES.map(|page| Case { flows, page }))
        .collect()
}

/// Those for slots of 64 bytes and, as those of twice as many flows, of 128 bytes: what an older object
/// had.
pub(super) fn cases_of_both() -> Vec<Case> {
    let one = cases();
    let both = one.iter().flat_map(|case| {
        [1, 2].map(|times| Case {
            flows: times * case.flows,
            ..*case
        })
    });
    both.collect()
}

/// A chain that is being measured.
pub(super) struct Chain {
    /// What it is.
    pub case: Case,
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    samples: Vec<f64>,
}

impl Chain {
    /// Starts a process with a chain. `None`: the kernel gives no pages of this size.
    ///
    /// # Errors
    /// It does not start.
    pub(super) fn new(case: Case) -> Result<Option<Self>> {
        let program = std::env::current_exe().context("failed to find this program")?;
        let mut command = Command::new(program);
        command.args(["chain", &case.bytes().to_string(), &case.page.to_string()]);
        if case.page == PAGES[1] {
            command.env(HUGE.0, HUGE.1);
        }
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("failed to start a chain of pointers")?;
        let pipes = child.stdin.take().zip(child.stdout.take());
        let (input, output) = pipes.context("failed to talk to a chain of pointers")?;
        let mut this = Self {
            case,
            child,
            input,
            output: BufReader::new(output),
            samples: Vec::new(),
        };
        let huge: u64 = this.line()?.parse().context("failed to read its pages")?;
        let is_right = if case.page == PAGES[1] {
            // All but what stands before the first and after the last boundary.
            huge + 2 * PAGES[1] >= case.bytes()
        } else {
            huge == 0
        };
        Ok(is_right.then_some(this))
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        ensure!(!line.is_empty(), "the chain of pointers has ended");
        Ok(line.trim().to_owned())
    }

    /// One round.
    ///
    /// # Errors
    /// The process has ended.
    pub(super) fn round(&mut self) -> Result<()> {
        writeln!(self.input)?;
        let sample = self.line()?.parse().context("failed to read a time")?;
        self.samples.push(sample);
        Ok(())
    }

    pub(super) fn result(&self) -> BMiss {
        BMiss {
            flows: self.case.flows,
            bytes: self.case.bytes(),
            page: self.case.page,
            nanoseconds: spread(&self.samples),
        }
    }
}

impl Drop for Chain {
    fn drop(&mut self) {
        // It has no state that a signal could damage; the error would be that it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The process: makes the chain, writes how many bytes of it are in huge pages, and then for each
/// line that it reads the nanoseconds of a step.
///
/// # Errors
/// The array is too small, or a pipe is closed.
pub fn serve(bytes: u64, page: u64) -> Result<()> {
    if page == PAGES[0] {
        nix::sys::prctl::set_thp_disable(true).context("failed to refuse huge pages")?;
    }
    let lines = usize::try_from(bytes)? / size_of::<Line>();
    if lines < 2 {
        bail!("{bytes} bytes are too few for a chain");
    }
    let chain = chain(lines);
    let huge = if page == PAGES[0] { 0 } else { huge_bytes()? };
    let mut out = stdout();
    writeln!(out, "{huge}")?;
    let mut at = 0;
    for line in stdin().lines() {
        line?;
        let began = Instant::now();
        for _ in 0..STEPS {
            at = chain[at].0;
        }
        let nanoseconds = began.elapsed().as_secs_f64() * 1e9;
        at = black_box(at);
        writeln!(out, "{}", nanoseconds / f64::from(STEPS))?;
    }
    Ok(())
}

/// One cycle through all lines in random order (Sattolo).
fn chain(lines: usize) -> Vec<Line> {
    let mut chain: Vec<Line> = (0..lines).map(Line).collect();
    let mut random = Random::new(13);
    for last in (1..lines).rev() {
        let other = random.below(last);
        let place = chain[last].0;
        chain[last].0 = chain[other].0;
        chain[other].0 = place;
    }
    chain
}

/// Bytes of this process in huge pages.
fn huge_bytes() -> Result<u64> {
    const PATH: &str = "/proc/self/smaps_rollup";
    let text = std::fs::read_to_string(PATH).with_context(|| format!("failed to read {PATH}"))?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("AnonHugePages:"));
    let number = line.and_then(|line| line.trim().strip_suffix(" kB"));
    let kilobytes: u64 = number.context("failed to find AnonHugePages")?.parse()?;
    Ok(kilobytes << 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_visits_every_line_before_the_first_one_again() {
        let chain = chain(1000);
        let mut at = 0;
        for step in 1..=1000 {
            at = chain[at].0;
            assert_eq!(at == 0, step == 1000, "{step}");
        }
    }

    #[test]
    fn an_array_is_as_large_as_the_hot_halves_of_a_table() {
        let sizes: Vec<u64> = cases().into_iter().map(Case::bytes).collect();
        assert_eq!(sizes, [8 << 20, 8 << 20, 128 << 20, 128 << 20]);
        assert_eq!(size_of::<Line>(), 64);
    }
}
