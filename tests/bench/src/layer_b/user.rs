//! User space with full tables: `ikenat stats`, and the passes of expiry, of which the daemon makes
//! one a second.

use super::Options;
use super::gateway::{self, PEER, SPI, fill};
use super::rounds::spread;
use crate::results::BUser;
use anyhow::{Context, Result, ensure};
use ikenat_tests::bpf::tables::SlotTable;
use ikenat_tests::lab::ikenat::{Ikenat, binary};
use ikenat_tests::lab::topology::with_lab;
use ikenat_tests::lab::{Lab, Options as LabOptions};
use std::process::{Command, Stdio};
use std::sync::atomic::AtomicU64;
use std::time::Instant;
use xdp_common::slot::{self, Key, WAYS, flow, session};
use xdp_common::{Class, Direction, Secret, limits, meta};
use xdp_core::Word;
use xdp_core::table::Arrays;
use xdp_user::tables::clock::{Clock, Moment, monotonic};
use xdp_user::tables::expiry::{Expiry, SLICES};
use xdp_user::tables::grace::GracePeriod;
use xdp_user::tables::mmap::Tables;
use xdp_user::tables::reclaim::{Reclaimed, TableWords};
use xdp_user::tables::secret;

/// Flows in the tables: of 25,000 and of 500,000 tunnels.
const FLOWS: [u32; 2] = [50_000, 1_000_000];

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Work {
    /// `ikenat stats` with these arguments.
    Stats(&'static [&'static str]),
    /// Expiry when every flow had packets a moment ago.
    AllAlive,
    /// Expiry when everything is old.
    AllOld,
}

const WORK: [(&str, Work); 5] = [
    ("stats --json", Work::Stats(&["--json"])),
    ("stats", Work::Stats(&[])),
    (
        "stats --peer",
        Work::Stats(&["--json", "--peer", "10.0.0.1"]),
    ),
    ("expiry, all alive", Work::AllAlive),
    ("expiry, all old", Work::AllOld),
];

fn label(work: &str, flows: u32) -> String {
    format!("user {work} {flows}")
}

/// The labels of all rows.
pub(super) fn labels() -> impl Iterator<Item = String> {
    let of = |flows| WORK.iter().map(move |(name, _)| label(name, flows));
    FLOWS.into_iter().flat_map(of)
}

/// Measures the selected rows.
///
/// # Errors
/// See [`super::run`].
pub(super) fn measure(options: &Options<'_>) -> Result<Vec<BUser>> {
    let mut rows = Vec::new();
    let all = FLOWS.len() * WORK.len();
    for flows in FLOWS {
        let wanted = WORK
            .iter()
            .filter(|(name, _)| options.wants(&label(name, flows)));
        for (name, work) in wanted {
            let text = label(name, flows);
            (options.progress)(rows.len(), all, &text);
            let failed = || format!("failed to measure {text}");
            let milliseconds = match work {
                Work::Stats(arguments) => {
                    stats(flows, arguments, options.rounds()).with_context(failed)?
                }
                Work::AllAlive => expiry(flows, 0).with_context(failed)?,
                // Older than a silent flow of a live session may be.
                Work::AllOld => expiry(flows, 2 * limits::IDLE_SECS_FLOW_OF_LIVE_SESSION)
                    .with_context(failed)?,
            };
            rows.push(BUser {
                work: (*name).to_owned(),
                flows: flows.into(),
                milliseconds: spread(&milliseconds),
                longest: milliseconds.into_iter().fold(0.0, f64::max),
            });
        }
    }
    Ok(rows)
}

fn peer(flow: u32) -> [u8; 4] {
    (PEER + flow / 2).to_be_bytes()
}

fn key(flow: u32) -> Key {
    let direction = Direction::ALL[flow as usize % 2];
    slot::flow_key(peer(flow), SPI + flow, Class::EspInUdp, direction, 0)
}

/// Fills both tables. Every entry was last seen at `seen`, in jiffies.
fn fill_both(
    flows: Arrays<'_, AtomicU64>,
    sessions: Arrays<'_, AtomicU64>,
    secret: &Secret,
    (number, seen): (u32, u64),
) -> Result<()> {
    let without = fill(flows, secret, (0..number).map(key), |slot| {
        let port = u64::from(limits::NATT_PORT);
        for (word, value) in [
            (&slot.hot[flow::PACKETS], 1_000),
            (&slot.hot[flow::BYTES], 100_000),
            (&slot.hot[flow::SEEN], seen << 32 | 1_000),
            (&slot.cold[flow::FIRST_SEEN], seen.saturating_sub(10_000)),
            (&slot.cold[flow::FIRST], 1 << 32 | port),
        ] {
            Word::store(word, value);
        }
    });
    let keys = (0..number)
        .step_by(2)
        .map(|flow| slot::session_key(peer(flow), 0));
    let others = fill(sessions, secret, keys, |slot| {
        Word::store(&slot.hot[session::LAST_SEEN], seen & 0xffff_ffff);
        Word::store(&slot.hot[session::SPIS], 1);
    });
    let most = u64::from(number) / 1_000;
    ensure!(
        without <= most && others <= most,
        "{without} flows and {others} sessions of {number} flows found no slot"
    );
    Ok(())
}

/// Slots for so many entries, of which half may be in use.
const fn slots(entries: u32) -> u32 {
    (2 * entries).next_power_of_two()
}

/// Milliseconds of each run of the command, from its start to its end.
fn stats(flows: u32, arguments: &[&str], rounds: usize) -> Result<Vec<f64>> {
    let mut times = Vec::new();
    with_lab(LabOptions::default(), |lab| {
        let sizes = [slots(flows), slots(flows / 2)].map(|slots| slots.to_string());
        let sizes = ["--flow-slots", &sizes[0], "--session-slots", &sizes[1]];
        let _ikenat = Ikenat::start_with(lab, &sizes)?;
        fill_instance(lab, flows)?;
        for _ in 0..rounds {
            let mut command = Command::new(binary()?);
            command.arg("stats").args(arguments);
            command
                .arg("--bpffs")
                .arg(lab.bpffs())
                .stdout(Stdio::null());
            let began = Instant::now();
            let status = command.status().context("failed to start ikenat")?;
            times.push(milliseconds(began));
            ensure!(status.success(), "`stats` ended with {status}");
        }
        Ok(())
    })?;
    Ok(times)
}

fn milliseconds(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1_000.0
}

fn fill_instance(lab: &Lab, flows: u32) -> Result<()> {
    let directory = lab.pins();
    let tables = Tables::<AtomicU64>::open(&directory)?;
    let word = |at: usize| Word::load(tables.meta(at));
    let anchor = Moment {
        jiffies: word(meta::JIFFIES),
        monotonic: word(meta::MONOTONIC),
    };
    let now = Clock::new(word(meta::HZ), anchor).now();
    let secret = secret::read(&directory)?;
    fill_both(
        tables.flow.arrays(),
        tables.session.arrays(),
        &secret,
        (flows, now),
    )?;
    Word::store(tables.meta(meta::FLOW_ENTRIES), flows.into());
    Word::store(tables.meta(meta::SESSION_ENTRIES), (flows / 2).into());
    Ok(())
}

/// Milliseconds of each pass over tables whose entries were last seen this many seconds ago, in two
/// rounds through all slices if they are alive, and in one if they are old.
fn expiry(flows: u32, age: u32) -> Result<Vec<f64>> {
    const RATE: u64 = 250;
    let ways = u32::try_from(WAYS)?;
    let table = |entries: u32| SlotTable::new(slots(entries) / ways);
    let (flow_table, session_table) = (table(flows), table(flows / 2));
    let words: Vec<AtomicU64> = (0..meta::WORDS).map(|_| AtomicU64::new(0)).collect();
    let now = Moment {
        jiffies: 1 << 31,
        monotonic: monotonic(),
    };
    let seen = now.jiffies - u64::from(age) * RATE;
    let secret = gateway::secret(7);
    fill_both(
        flow_table.arrays(),
        session_table.arrays(),
        &secret,
        (flows, seen),
    )?;
    Word::store(&words[meta::FLOW_ENTRIES], flows.into());
    let grace = GracePeriod::choose()?;
    let mut expiry = Expiry::new(Clock::new(RATE, now), limits::IDLE_SECS);
    let mut times = Vec::new();
    let mut freed = Reclaimed::default();
    for _ in 0..if age == 0 { 2 * SLICES } else { SLICES } {
        let tables = TableWords {
            flows: flow_table.arrays(),
            sessions: session_table.arrays(),
            meta: &words,
            secret: &secret,
        };
        let began = Instant::now();
        freed += expiry.pass(tables, || grace.wait())?;
        times.push(milliseconds(began));
    }
    let expected = if age == 0 {
        0
    } else {
        u64::from(flows) * 999 / 1_000
    };
    ensure!(
        freed.flows as u64 >= expected && (age > 0 || freed.flows == 0),
        "{} of {flows} flows expired, not {expected}",
        freed.flows
    );
    Ok(times)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pass_over_live_entries_frees_none_and_one_over_old_entries_all() -> Result<()> {
        assert_eq!(expiry(1_000, 0)?.len(), 2 * SLICES);
        assert_eq!(
            expiry(1_000, 2 * limits::IDLE_SECS_FLOW_OF_LIVE_SESSION)?.len(),
            SLICES
        );
        Ok(())
    }
}
