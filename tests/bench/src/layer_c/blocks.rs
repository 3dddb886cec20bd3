//! Blocks at saturation: in each block every contestant of a case runs once, in random order.
//!
//! The speed of a machine varies over seconds. Contestants of one block share the same conditions,
//! so figures are compared only inside a block.

use anyhow::{Context, Result, ensure};
use std::time::Duration;

use super::statistics::interval;
use crate::contest::Standing;
use crate::kinds::Case;
use crate::order::{Random, give_way};
use crate::results::{CRow, Contestant};
use crate::wire::Outcome;

/// Packets of the run that estimates how long a run will take.
const PROBE: u32 = 19_200;
/// The number of packets is a multiple of this: whole batches.
const BATCH: u32 = 64;

/// With up to this many flows, a run sends many packets of each flow.
const FEW: u32 = 1024;

/// The results of one contestant in one case.
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

    /// Makes the flows of the case known to contestants that have just been set up, and determines
    /// how many packets of each take the time of a run. The contestants are the same every time.
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

    /// The rates that count: none of a contestant that delivered corrupted packets.
    fn rates(&self, who: Contestant) -> Vec<f64> {
        let score = self.of.iter().find(|score| score.contestant == who);
        score.map(counted).unwrap_or_default()
    }

    /// The rows of the result.
    ///
    /// # Errors
    /// The no-op redirect has lost or corrupted packets: then the harness is broken, and no figure
    /// is valid.
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

/// Sends once over all flows when there are many, and returns how long it took. Seconds have passed
/// while other contestants ran. Under this load a gateway would have seen each flow in less than
/// one second, and would still know for instance its next hop.
fn settle(standing: &mut Standing, case: &Case) -> Result<Duration> {
    if case.flows <= FEW {
        return Ok(Duration::ZERO);
    }
    let packets = (case.flows / case.cores).next_multiple_of(BATCH);
    Ok(standing.run(case, packets)?.elapsed)
}

/// Zeroes for a contestant that delivered corrupted packets, however many were intact.
fn counted(score: &Score) -> Vec<f64> {
    if score.wrong > 0 {
        vec![0.0; score.rates.len()]
    } else {
        score.rates.clone()
    }
}

/// The ratios block by block, where the denominator is not zero.
fn ratios(over: &[f64], under: &[f64]) -> Vec<f64> {
    let pairs = over.iter().zip(under);
    pairs
        .filter(|(_, under)| **under > 0.0)
        .map(|(over, under)| over / under)
        .collect()
}

/// The number of packets that take this time, estimated from a short run: at least as many as that
/// run had.
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
