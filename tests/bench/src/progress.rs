//! A progress bar over all parts of a run, with the remaining time; plain lines where the output is
//! not a terminal.

use std::io::{IsTerminal, Write};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Characters of the bar.
const WIDTH: usize = 24;
/// Characters of the description: with the rest, a line of 80.
const WHAT: usize = 36;
/// The shortest interval between plain lines.
const APART: Duration = Duration::from_secs(10);

/// A part, and about how many seconds it takes.
pub type Part = (&'static str, f64);

/// The progress of a run.
pub struct Progress {
    parts: Vec<Part>,
    terminal: bool,
    state: Mutex<State>,
}

struct State {
    started: Instant,
    part: usize,
    /// Progress within the current part.
    share: f64,
    printed: Option<Instant>,
}

impl Progress {
    /// Begins with the first part. The seconds only give the proportions of the parts; the
    /// remaining time is corrected by the time that has really passed.
    #[must_use]
    pub fn new(parts: Vec<Part>) -> Self {
        Self {
            parts,
            terminal: std::io::stderr().is_terminal(),
            state: Mutex::new(State {
                started: Instant::now(),
                part: 0,
                share: 0.0,
                printed: None,
            }),
        }
    }

    /// Begins the part of this name: those before it are complete.
    pub fn begin(&self, name: &str) {
        let mut state = self.state();
        if let Some(at) = self.parts.iter().position(|(part, _)| *part == name) {
            state.part = at;
        }
        state.share = 0.0;
        state.printed = None;
        self.tell(&mut state, "begins");
    }

    /// A share of the current part is complete.
    #[expect(clippy::cast_precision_loss, reason = "steps are few")]
    pub fn step(&self, done: usize, all: usize, what: &str) {
        let mut state = self.state();
        // Layers count some of their stages from zero again: the bar never moves backwards.
        state.share = state.share.max(done.min(all) as f64 / all.max(1) as f64);
        self.tell(&mut state, what);
    }

    /// Removes the bar, so that other output can follow.
    pub fn end(&self) {
        if self.terminal {
            eprint!("\r\x1b[K");
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, state: &mut State, what: &str) {
        if !self.terminal
            && state
                .printed
                .is_some_and(|printed| printed.elapsed() < APART)
        {
            return;
        }
        state.printed = Some(Instant::now());
        let line = line(
            &self.parts,
            state.part,
            state.share,
            state.started.elapsed(),
            what,
        );
        let mut stderr = std::io::stderr().lock();
        // A closed terminal does not end the run.
        let _ = if self.terminal {
            write!(stderr, "\r\x1b[K{line}")
        } else {
            writeln!(stderr, "{line}")
        };
        let _ = stderr.flush();
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a share of a bar"
)]
fn line(parts: &[Part], part: usize, share: f64, elapsed: Duration, what: &str) -> String {
    let all: f64 = parts.iter().map(|(_, seconds)| seconds).sum();
    let before: f64 = parts.iter().take(part).map(|(_, seconds)| seconds).sum();
    let (name, current) = parts.get(part).copied().unwrap_or_default();
    let done = current.mul_add(share, before);
    let whole = if all > 0.0 { done / all } else { 0.0 };
    let full = (whole * WIDTH as f64) as usize;
    let what: String = what.chars().take(WHAT).collect();
    format!(
        "[{}{}] {:>3.0} % {:>8} left  {name}: {what}",
        "#".repeat(full),
        "-".repeat(WIDTH.saturating_sub(full)),
        whole * 100.0,
        minutes(left(all, done, elapsed.as_secs_f64())),
    )
}

/// The remaining seconds: the estimate, corrected by the observed speed with a weight that grows
/// during the run.
fn left(all: f64, done: f64, elapsed: f64) -> f64 {
    let rate = if done > 0.0 { elapsed / done } else { 1.0 };
    let trust = if all > 0.0 {
        (done / all * 5.0).min(1.0)
    } else {
        0.0
    };
    (all - done).max(0.0) * trust.mul_add(rate - 1.0, 1.0)
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "whole seconds"
)]
fn minutes(seconds: f64) -> String {
    let seconds = seconds.ceil() as u64;
    format!("{}:{:02} min", seconds / 60, seconds % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARTS: [Part; 2] = [("layer A", 60.0), ("layer B", 40.0)];

    #[test]
    fn the_line_says_how_far_and_how_long() {
        let line = |part, share, seconds| {
            line(
                &PARTS,
                part,
                share,
                Duration::from_secs(seconds),
                "nft esp inbound",
            )
        };
        assert_eq!(
            line(0, 0.0, 0),
            "[------------------------]   0 % 1:40 min left  layer A: nft esp inbound"
        );
        // Half is complete in twice the time: the rest takes twice the time as well.
        assert_eq!(
            line(0, 5.0 / 6.0, 100),
            "[############------------]  50 % 1:40 min left  layer A: nft esp inbound"
        );
        assert!(line(1, 1.0, 100).starts_with("[########################] 100 % 0:00 min left"));
        assert!(line(1, 0.5, 100).chars().count() < 80);
    }

    #[test]
    fn nothing_to_do_takes_no_time() {
        assert_eq!(minutes(left(0.0, 0.0, 5.0)), "0:00 min");
    }
}
