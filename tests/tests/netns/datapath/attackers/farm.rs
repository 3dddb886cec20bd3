//! What the daemon and `stats` cost with 25,000 tunnels whose 50,000 SPIs all send. The bounds are
//! loose, for a busy machine; the figures are printed. IKENAT_FARM_SECONDS=60 measures for a minute.

use std::fs;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use ikenat_tests::lab::Lab;
use nix::unistd::{Pid, SysconfVar, sysconf};

use super::{Siege, seconds_of, start};

const SECONDS: &str = "IKENAT_FARM_SECONDS";
const USUAL: u64 = 5;
const TUNNELS: u32 = 25_000;

/// The CPU time of a process in seconds, from /proc/PID/stat.
fn cpu_seconds(process: Pid) -> Result<f64> {
    const USER: usize = 11;
    let path = format!("/proc/{process}/stat");
    let text = fs::read_to_string(&path).with_context(|| format!("failed to read {path}"))?;
    // The name of the program is in parentheses, and may contain anything.
    let (_, fields) = text.rsplit_once(')').context("no name")?;
    let fields: Vec<&str> = fields.split_whitespace().collect();
    let ticks: u32 = fields[USER].parse::<u32>()? + fields[USER + 1].parse::<u32>()?;
    let rate = sysconf(SysconfVar::CLK_TCK)?.context("no clock ticks")?;
    Ok(f64::from(ticks) / f64::from(i32::try_from(rate)?))
}

/// The resident memory of a process without the tables, in KiB.
fn memory(process: Pid) -> Result<u64> {
    let path = format!("/proc/{process}/status");
    let text = fs::read_to_string(&path).with_context(|| format!("failed to read {path}"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    let number = line.and_then(|line| line.split_whitespace().next());
    Ok(number.context("no RssAnon")?.parse()?)
}

/// The longest of five runs.
fn stats_time(lab: &Lab, words: &[&str]) -> Result<Duration> {
    let mut longest = Duration::ZERO;
    for _ in 0..5 {
        let began = Instant::now();
        let status = lab.ikenat(words)?.stdout(Stdio::null()).status()?;
        ensure!(status.success(), "{words:?} ended with {status}");
        longest = longest.max(began.elapsed());
    }
    Ok(longest)
}

pub(super) fn farm(lab: &Lab) -> Result<()> {
    let seconds = seconds_of(SECONDS)?.unwrap_or(USUAL);
    let ikenat = start(lab)?;
    let mut siege = Siege::of(lab, &ikenat, TUNNELS)?;
    lab.gateway.enter(|| {
        siege.all_cross().context("the first packets")?;
        let (began, before) = (Instant::now(), cpu_seconds(siege.daemon)?);
        let mut rounds = 0;
        while began.elapsed() < Duration::from_secs(seconds) {
            siege.all_cross()?;
            rounds += 1;
        }
        let took = began.elapsed();
        let share = 100.0 * (cpu_seconds(siege.daemon)? - before) / took.as_secs_f64();
        siege.stats_are_right()?;
        let times = [&["stats", "--json"][..], &["stats"]].map(|words| stats_time(lab, words));
        let [json, text] = times;
        let (json, text) = (json?, text?);
        let tables: u64 = lab.status()?.tables.iter().map(|table| table.bytes).sum();
        println!(
            "{TUNNELS} tunnels, {} packets in {took:.1?}: the daemon takes {share:.2} % of a core and {} KiB beside {} MiB of tables; the longest `stats --json` takes {json:.0?}, `stats` {text:.0?}",
            u64::from(2 * TUNNELS) * rounds,
            memory(siege.daemon)?,
            tables >> 20,
        );
        ensure!(rounds > 0, "the SPIs did not send");
        ensure!(share < 20.0, "the daemon takes {share:.1} % of a core");
        ensure!(
            json.max(text) < Duration::from_secs(5),
            "`stats` takes {json:?} and {text:?}"
        );
        Ok(())
    })
}
