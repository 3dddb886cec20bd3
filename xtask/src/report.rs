//! Runs commands that print results like a test binary, counts the results, and prints the summary of all
//! parts. A skip is not a pass: each is listed with its reason.

use std::{
    fmt::Write as _,
    io::{self, Read as _},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

use crate::shell::{self, seconds};

/// What the test binaries of one part reported.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    passed: u64,
    failed: u64,
    ignored: u64,
    /// `name: reason` of each ignored test.
    skips: Vec<String>,
    failures: Vec<String>,
}

impl Counts {
    /// Whether no test ran, not even as ignored.
    pub(crate) fn is_empty(&self) -> bool {
        self.passed + self.failed + self.ignored == 0
    }

    /// Reads one line of a test binary, in the form of libtest or of libtest-mimic.
    pub(crate) fn read(&mut self, line: &str) {
        if let Some(result) = line.strip_prefix("test result: ") {
            self.passed += number_before(result, " passed");
            self.failed += number_before(result, " failed");
            self.ignored += number_before(result, " ignored");
        } else if let Some((name, outcome)) = line
            .strip_prefix("test ")
            .and_then(|test| test.split_once(" ... "))
        {
            let name = name.trim_end();
            if let Some(rest) = outcome.strip_prefix("ignored") {
                // The repository's own test binaries put the reason in the name.
                let named = name
                    .strip_suffix(']')
                    .and_then(|name| name.split_once(" [ignored: "));
                let (name, why) = named.unwrap_or((name, reason(rest)));
                self.skips.push(format!("{name}: {why}"));
            } else if outcome.starts_with("FAILED") {
                self.failures.push(name.to_owned());
            }
        }
    }
}

fn number_before(text: &str, word: &str) -> u64 {
    text.split_once(word)
        .and_then(|(head, _)| head.rsplit(' ').next()?.parse().ok())
        .unwrap_or(0)
}

/// libtest writes `, reason`, libtest-mimic ` (reason)`.
fn reason(rest: &str) -> &str {
    let rest = rest.trim();
    let text = rest
        .strip_prefix(", ")
        .or_else(|| rest.strip_prefix('(')?.strip_suffix(')'));
    text.filter(|text| !text.is_empty())
        .unwrap_or("no reason given")
}

/// How one part ended.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// It ran: whether its command succeeded, and what its tests said.
    Ran { ok: bool, counts: Counts },
    /// It could not run.
    Skipped { reason: String },
}

/// All parts of a run, in order.
#[derive(Debug)]
pub(crate) struct Summary {
    started: Instant,
    parts: Vec<(String, Outcome, Duration)>,
}

impl Summary {
    /// Nothing ran yet since `started`.
    pub(crate) fn new(started: Instant) -> Self {
        Self {
            started,
            parts: Vec::new(),
        }
    }

    /// Adds a part, and prints its line.
    pub(crate) fn add(&mut self, name: &str, outcome: Outcome, took: Duration) {
        println!("== {}", part_line(name, &outcome, took));
        self.parts.push((name.to_owned(), outcome, took));
    }

    /// Whether anything failed.
    pub(crate) fn failed(&self) -> bool {
        self.totals().1 > 0
    }

    /// Passed, failed, skipped. A part that fails without a failed test (it did not compile, a binary died,
    /// a check found something) counts as one failure.
    fn totals(&self) -> (u64, u64, u64) {
        let mut totals = (0, 0, 0);
        for (_, outcome, _) in &self.parts {
            match outcome {
                Outcome::Ran { ok, counts } => {
                    totals.0 += counts.passed;
                    totals.1 += counts.failed.max(u64::from(!ok));
                    totals.2 += counts.ignored;
                }
                Outcome::Skipped { .. } => totals.2 += 1,
            }
        }
        totals
    }

    /// The parts, every failure and skip, the time, and the totals as the last line.
    pub(crate) fn text(&self) -> String {
        let mut text = String::from("\nSummary\n");
        for (name, outcome, took) in &self.parts {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "  {}", part_line(name, outcome, *took));
            if let Outcome::Ran { counts, .. } = outcome {
                for failure in &counts.failures {
                    let _ = writeln!(text, "    failed: {failure}");
                }
                for skip in &counts.skips {
                    let _ = writeln!(text, "    skipped: {skip}");
                }
            }
        }
        let _ = writeln!(text, "elapsed: {}", seconds(self.started.elapsed()));
        let (passed, failed, skipped) = self.totals();
        let _ = write!(text, "{passed} passed, {failed} failed, {skipped} skipped");
        text
    }
}

fn part_line(name: &str, outcome: &Outcome, took: Duration) -> String {
    match outcome {
        Outcome::Skipped { reason } => format!("skipped: {name} ({reason})"),
        Outcome::Ran { ok, counts } => {
            let word = if *ok { "passed" } else { "FAILED" };
            let mut line = format!("{word}: {name}, {}", seconds(took));
            if !counts.is_empty() {
                let Counts {
                    passed,
                    failed,
                    ignored,
                    ..
                } = counts;
                let _ = write!(
                    line,
                    " ({passed} passed, {failed} failed, {ignored} skipped)"
                );
            }
            line
        }
    }
}

/// Prints the summary; fails when a part did.
pub(crate) fn finish(summary: &Summary) -> Result<()> {
    println!("{}", summary.text());
    if summary.failed() {
        // The summary has the last word on stdout; the error would only repeat it.
        std::process::exit(1);
    }
    Ok(())
}

/// Runs a command that prints results like a test binary, and adds them to the summary.
pub(crate) fn run(
    name: &str,
    mut command: Command,
    filter: Option<&str>,
    summary: &mut Summary,
) -> Result<()> {
    println!("== {name}: {}", shell::line(&command));
    let started = Instant::now();
    let (ok, counts) = streamed(&mut command, &mut io::stdout())?;
    if filter.is_some() && ok && counts.is_empty() {
        bail!("no test has {} in its name", filter.unwrap_or_default());
    }
    summary.add(name, Outcome::Ran { ok, counts }, started.elapsed());
    Ok(())
}

/// Runs with standard output passed on as it comes and read along.
fn streamed(command: &mut Command, terminal: &mut impl io::Write) -> Result<(bool, Counts)> {
    let text = shell::line(command);
    let failed = || format!("failed to run `{text}`");
    let mut child = command
        .stdout(Stdio::piped())
        .spawn()
        .with_context(failed)?;
    let mut from = child.stdout.take().with_context(failed)?;
    let mut counts = Counts::default();
    let mut line = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        let size = from.read(&mut chunk).with_context(failed)?;
        if size == 0 {
            break;
        }
        // A reader that has gone (`| head`) does not end the tests, which clean up after themselves.
        let _ = terminal
            .write_all(&chunk[..size])
            .and_then(|()| terminal.flush());
        for byte in &chunk[..size] {
            if *byte == b'\n' {
                counts.read(&String::from_utf8_lossy(&line));
                line.clear();
            } else {
                line.push(*byte);
            }
        }
    }
    let status = child.wait().with_context(failed)?;
    Ok((status.success(), counts))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(lines: &str) -> Counts {
        let mut counts = Counts::default();
        lines.lines().for_each(|line| counts.read(line));
        counts
    }

    #[test]
    fn both_harnesses_are_understood() {
        let counts = read(
            "running 3 tests\n\
             test a::b ... ok\n\
             test c ... ignored, needs root\n\
             test result: ok. 1 passed; 0 failed; 1 ignored; 0 measured; 3 filtered out; finished in 0.00s\n\
             test netns_one     ... FAILED\n\
             test netns_two     ... ignored (the kernel has no ESP)\n\
             test three         ... ignored\n\
             test four [ignored: no such card [here]] ... ignored\n\
             test result: FAILED. 40 passed; 1 failed; 3 ignored; 0 measured; 0 filtered out; finished in 2.50s\n",
        );
        assert_eq!(
            counts,
            Counts {
                passed: 41,
                failed: 1,
                ignored: 4,
                skips: vec![
                    "c: needs root".into(),
                    "netns_two: the kernel has no ESP".into(),
                    "three: no reason given".into(),
                    "four: no such card [here]".into()
                ],
                failures: vec!["netns_one".into()],
            }
        );
    }

    #[test]
    fn what_a_test_prints_is_not_a_result() {
        assert!(read("the test result: ok. 5 passed;\ntest x\nresult: 3 failed\n").is_empty());
    }

    #[test]
    fn the_last_line_adds_everything_up() {
        let mut summary = Summary::new(Instant::now());
        let second = Duration::from_secs(1);
        summary.add(
            "fmt",
            Outcome::Ran {
                ok: true,
                counts: Counts::default(),
            },
            second,
        );
        assert!(!summary.failed());
        let counts = read("test result: ok. 7 passed; 0 failed; 2 ignored; 0 measured\n");
        summary.add("tests", Outcome::Ran { ok: true, counts }, second);
        summary.add(
            "miri",
            Outcome::Skipped {
                reason: "not installed".into(),
            },
            second,
        );
        assert!(!summary.failed());
        assert_eq!(
            summary.text().lines().last(),
            Some("7 passed, 0 failed, 3 skipped")
        );
        // It did not compile: no test could say so.
        summary.add(
            "loom",
            Outcome::Ran {
                ok: false,
                counts: Counts::default(),
            },
            second,
        );
        assert!(summary.failed());
        assert_eq!(
            summary.text().lines().last(),
            Some("7 passed, 1 failed, 3 skipped")
        );
        assert!(summary.text().contains("skipped: miri (not installed)"));
    }

    #[test]
    fn output_is_read_along() {
        let mut command = Command::new("sh");
        command.args([
            "-c",
            "echo 'test result: ok. 2 passed; 0 failed; 0 ignored;'; exit 3",
        ]);
        // Not to the real output, where an outer run would count it.
        let mut shown = Vec::new();
        let (ok, counts) = streamed(&mut command, &mut shown).expect("sh starts");
        assert!(!ok);
        assert_eq!(shown, b"test result: ok. 2 passed; 0 failed; 0 ignored;\n");
        let mut expected = Counts::default();
        expected.read("test result: ok. 2 passed;");
        assert_eq!(counts, expected);
    }
}
