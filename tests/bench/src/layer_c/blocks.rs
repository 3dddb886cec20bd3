//! Blocks at saturation: in each, every contestant of a case runs once, in random order.
//!
//! It may not know which cases there are, nor who the contestants are but for the two that the others are compared with.
//! Machines have moods that last for seconds. Contestants of one block share them; so figures are compared inside a
//! block only.

use anyhow::{Context, Result, ensure};
use std::time::Duration;

use super::statistics::interval;
use crate::contest::Standing;
use crate::kinds::Case;
use crate::order::{Random, give_way};
use crate::results::{CRow, Contestant};
use crate::wire::Outcome;

/// Packets that show how long a run will take.
const PROBE: u32 = 19_200;
/// A multiple of this is sent: whole batches.
const BATCH: u32 = 64;

/// A run sends many packets of each of so many flows.
const FEW: u32 = 1024;

/// What one contestant has shown in one case.
struct Score {
    contestant: Contestant,
    /// Packets of a run.
    packets: u32,
    /// Packets per second, block by block.
    rates: Vec<f64>,
    wrong: u64,
    lost: u64,
    sent: u64,
    gaps: u64,
}

/// The scores of one case.
pub struct Scores {
    case: Case,
    of: Vec<Score>,
}

impl Scores {
    /// Nothing yet.
    #[must_use]
    pub const fn new(case: Case) -> Self {
        Self {
            case,
            of: Vec::new(),
        }
    }

    /// The case.
    #[must_use]
    pub const fn case(&self) -> Case {
        self.case
    }

    /// Makes the flows of the case known to contestants that have just been set up, and sees how many packets of each
    /// fill the time of a run. The contestants are the same every time.
    ///
    /// # Errors
    /// The kernel refuses a run.
    pub fn begin(&mut self, standings: &mut [Standing], time: Duration) -> Result<()> {
        for standing in standings {
            let contestant = standing.contestant;
            standing
                .warm_up(&self.case)
                .with_context(|| format!("failed to warm {contestant:?} up"))?;
            let probe = standing.run(&self.case, PROBE)?;
            let packets = filling(&probe, time);
            match self
                .of
                .iter_mut()
                .find(|score| score.contestant == contestant)
            {
                Some(score) => score.packets = packets,
                None => self.of.push(Score {
                    contestant,
                    packets,
                    rates: Vec::new(),
                    wrong: 0,
                    lost: 0,
                    sent: 0,
                    gaps: 0,
                }),
            }
        }
        Ok(())
    }

    /// Runs every contestant once.
    ///
    /// # Errors
    /// The kernel refuses a run.
    pub fn block(&mut self, standings: &mut [Standing], random: &mut Random) -> Result<()> {
        for i in random.order(standings.len()) {
            let standing = &mut standings[i];
            let mut scores = self.of.iter_mut();
            let score = scores.find(|score| score.contestant == standing.contestant);
            let score =
                score.context("failed to find a contestant's score: it was not warmed up")?;
            let before = settle(standing, &self.case)?;
            let outcome = standing.run(&self.case, score.packets)?;
            give_way(before + outcome.elapsed);
            score.rates.push(outcome.rate());
            score.wrong += outcome.wrongs();
            score.lost += outcome.lost();
            score.sent += outcome.sent;
            score.gaps += outcome.gaps;
        }
        Ok(())
    }

    /// The twin's ratio to ikenat in each block where both delivered something.
    pub(super) fn twins(&self) -> Vec<f64> {
        let (twin, ikenat) = (
            self.rates(Contestant::IkenatTwin),
            self.rates(Contestant::Ikenat),
        );
        ratios(&twin, &ikenat)
    }

    /// The rates that count: none of somebody who delivered wrong bytes.
    fn rates(&self, who: Contestant) -> Vec<f64> {
        let score = self.of.iter().find(|score| score.contestant == who);
        score.map(counted).unwrap_or_default()
    }

    /// The rows of the result.
    ///
    /// # Errors
    /// The no-op redirect has lost or spoilt packets: then the harness is broken, and no figure means anything.
    pub fn rows(&self, random: &mut Random) -> Result<Vec<CRow>> {
        let noop = self.rates(Contestant::Noop);
        let mut rows = Vec::new();
        for score in &self.of {
            let is_noop = score.contestant == Contestant::Noop;
            ensure!(
                !is_noop || score.wrong == 0,
                "{} packets came out of the no-op redirect otherwise than they must: the harness is broken",
                score.wrong
            );
            let blocks = counted(score);
            let ratio = interval(&ratios(&blocks, &noop), random).filter(|_| !is_noop);
            rows.push(CRow {
                contestant: score.contestant,
                traffic: self.case.traffic,
                way: self.case.way,
                frame: u32::try_from(self.case.frame)?,
                flows: self.case.flows.into(),
                cores: self.case.cores,
                blocks,
                wrong: score.wrong,
                lost: score.lost,
                sent: score.sent,
                gaps: score.gaps,
                ratio,
                lossless: None,
                latency: None,
            });
        }
        Ok(rows)
    }
}

/// Sends once over all flows when there are many, and says how long it took. While others ran, seconds have passed; under
/// this load a gateway would have seen each flow in less than one, and knows for instance its next hop still.
fn settle(standing: &mut Standing, case: &Case) -> Result<Duration> {
    if case.flows <= FEW {
        return Ok(Duration::ZERO);
    }
    let packets = (case.flows / case.cores).next_multiple_of(BATCH);
    Ok(standing.run(case, packets)?.elapsed)
}

/// Zeroes for one who delivered wrong bytes, however many were right.
fn counted(score: &Score) -> Vec<f64> {
    if score.wrong > 0 {
        vec![0.0; score.rates.len()]
    } else {
        score.rates.clone()
    }
}

/// Block by block, where the one below delivered something.
fn ratios(over: &[f64], under: &[f64]) -> Vec<f64> {
    let pairs = over.iter().zip(under);
    pairs
        .filter(|(_, under)| **under > 0.0)
        .map(|(over, under)| over / under)
        .collect()
}

/// How many packets fill this time, estimated from a short run: at least as many as it had.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "some millions"
)]
fn filling(probe: &Outcome, time: Duration) -> u32 {
    let times = time.as_secs_f64() / probe.elapsed.as_secs_f64().max(1e-6);
    let packets = (f64::from(PROBE) * times.max(1.0)) as u32;
    packets.next_multiple_of(BATCH)
}
