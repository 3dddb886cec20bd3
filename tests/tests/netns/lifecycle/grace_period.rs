//! Kernels that refuse membarrier(2), as all that were booted with `nohz_full=` do: the daemon starts,
//! restarts and expires as on any other.

use std::fs;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use ikenat_tests::lab::Lab;
use ikenat_tests::lab::ikenat::{Ikenat, binary, usual_arguments};
use ikenat_tests::lab::process::Process;
use ikenat_tests::lab::topology::WAN;
use ikenat_tests::suite::Scenario;
use xdp_common::slot::nexthop;
use xdp_core::Word;
use xdp_core::neighbour::table::DYING;
use xdp_user::tables::mmap::Tables;

use crate::check::{expect, findings_of};
use crate::faults::bpffs::directory;
use crate::support::{everything_crosses, patience};

/// Set by `cargo xtask vm` in a guest that it has booted with `nohz_full=1`.
const NOHZ_FULL: &str = "IKENAT_TEST_NOHZ_FULL";
/// Makes membarrier(2) fail with EINVAL.
const REFUSED: (&str, &str) = ("IKENAT_NO_MEMBARRIER", "1");

pub(crate) fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario::new("a_kernel_that_refuses_membarrier_expires_as_well", refused),
        Scenario::new("a_slow_grace_period_holds_up_no_reaction", slow),
        Scenario::new("the_daemon_lives_on@nohz_full", nohz_full)
            .alone()
            .only_with(
                NOHZ_FULL,
                "it needs a kernel with `nohz_full=` (`cargo xtask vm`)",
            ),
    ]
}

fn refused(lab: &Lab) -> Result<()> {
    life(lab, &[REFUSED])?;
    // It is chosen at each start.
    let ikenat = Ikenat::start(lab)?;
    let found = lab.status()?.grace_period;
    ensure!(
        found == "membarrier",
        "{found} is used, and membarrier works here"
    );
    ensure!(ikenat.terminate()?.success(), "it did not end well");
    Ok(())
}

/// Neighbours give up their entries all the time, each time behind a grace period; changes of links
/// are followed meanwhile.
fn slow(lab: &Lab) -> Result<()> {
    const GRACE: Duration = Duration::from_secs(3);
    let delay = GRACE.as_millis().to_string();
    let daemon = start(lab, &[("IKENAT_SLOW_MEMBARRIER", &delay)])?;
    let tables = Tables::<AtomicU64>::open(&directory(lab))?;
    let mut released = 0;
    for round in 0..6 {
        let (entry, _) = tables.nexthop.words().as_chunks::<{ nexthop::WORDS }>();
        let last = &entry[entry.len() - 1][nexthop::KEY];
        released += u32::from(Word::load(last) == 0);
        Word::store(last, DYING);
        // Somewhere within the grace period that follows.
        std::thread::sleep(Duration::from_millis(1_300));
        lab.gateway.run(&format!("ip link set {WAN} name up0"))?;
        let began = Instant::now();
        while daemon.log().matches("renamed to up0").count() <= round {
            ensure!(
                began.elapsed() < patience(GRACE / 3),
                "round {round}: not followed within {:?}:\n{}",
                began.elapsed(),
                daemon.log()
            );
            std::thread::sleep(Duration::from_millis(10));
        }
        lab.gateway.run(&format!("ip link set up0 name {WAN}"))?;
    }
    ensure!(released >= 1, "the neighbour was released {released} times");
    everything_crosses(lab)
}

/// Without this the test would pass on a kernel that ignores the option.
fn nohz_full(lab: &Lab) -> Result<()> {
    const FILE: &str = "/sys/devices/system/cpu/nohz_full";
    let cpus = fs::read_to_string(FILE).with_context(|| format!("failed to read {FILE}"))?;
    ensure!(cpus.trim() == "1", "the CPUs of `nohz_full=` are {cpus:?}");
    life(lab, &[])
}

/// A start, traffic, expiry, a kill and a restart.
fn life(lab: &Lab, environment: &[(&str, &str)]) -> Result<()> {
    let daemon = start(lab, environment)?;
    let status = lab.status()?;
    ensure!(
        status.grace_period == "map-update",
        "grace periods are by {}",
        status.grace_period
    );
    named(lab, environment)?;
    everything_crosses(lab)?;
    retired(lab)?;
    drop(daemon);
    let mut daemon = start(lab, environment).context("a restart")?;
    everything_crosses(lab).context("after the restart")?;
    let status = daemon.terminate(Duration::from_secs(10))?;
    ensure!(
        status.success(),
        "it ended with {status}:\n{}",
        daemon.log()
    );
    Ok(())
}

/// With a list of peers, whose next hops a start forgets behind a grace period.
fn start(lab: &Lab, environment: &[(&str, &str)]) -> Result<Process> {
    let mut command = lab.gateway.command(binary()?);
    command
        .args(usual_arguments())
        .args(["--except-peer", "192.0.2.0/24"]);
    command.arg("--bpffs").arg(lab.bpffs());
    command.envs(environment.iter().copied());
    let mut process = Process::spawn(&mut command, lab.log("ikenat"))?;
    process.wait_for_log("ready: translating", patience(Duration::from_secs(30)))?;
    Ok(process)
}

fn named(lab: &Lab, environment: &[(&str, &str)]) -> Result<()> {
    let mut command = lab.gateway.command(binary()?);
    command.arg("check").args(&usual_arguments()[1..]);
    command.arg("--bpffs").arg(lab.bpffs());
    command.envs(environment.iter().copied());
    let findings = findings_of(command)?;
    let words = ["membarrier fails", "Invalid argument"];
    expect(&findings, ("grace-period", None), "ok", &words).map(drop)
}

/// Waits until SPIs and peer have expired. What they had counted is in the totals afterwards.
fn retired(lab: &Lab) -> Result<()> {
    let counted = lab.stats()?;
    ensure!(!counted.spis.is_empty(), "there is no SPI to retire");
    // Longer than a silent SPI of a peer that is alive stays.
    lab.age_entries(3_700)?;
    let began = Instant::now();
    loop {
        let stats = lab.stats()?;
        stats.check_conservation()?;
        if stats.spis.is_empty() && stats.sessions.is_empty() {
            let retired = stats.totals.retired.inbound.packets;
            ensure!(
                retired == counted.totals.tracked.inbound.packets,
                "{retired} packets of {:?}",
                counted.totals
            );
            return Ok(());
        }
        ensure!(
            began.elapsed() < patience(Duration::from_secs(60)),
            "not everything was retired: {:?}, {:?}",
            stats.spis,
            stats.sessions
        );
        std::thread::sleep(Duration::from_millis(500));
    }
}
