//! Daemons and readers that stop, die, run twice or see the clock jump: the dataplane is not
//! affected.

use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use ikenat_tests::lab::Lab;
use ikenat_tests::lab::ikenat::{Ikenat, binary, usual_arguments};
use ikenat_tests::lab::load::Load;
use ikenat_tests::lab::netns::execute;
use ikenat_tests::lab::process::Process;
use ikenat_tests::suite::Scenario;
use nix::sys::signal::Signal;
use nix::unistd::Pid;

use crate::faults::bpffs::directory;
use crate::support::{PROGRAMS, attachments, everything_crosses, pins, tenth_rate};

pub(crate) fn scenarios() -> Vec<Scenario> {
    let load = |name, test| Scenario::new(name, test).alone();
    vec![
        load("of_daemons_that_start_at_once_one_wins", at_once).with_programs(&["tc", "bpftool"]),
        load("stopped_or_killed_readers_lose_no_packet", readers),
        load("a_stopped_daemon_loses_no_packet", stopped),
        load(
            "a_daemon_with_another_clock_expires_no_live_entry",
            other_clock,
        )
        .with_programs(&["unshare"]),
        load("a_jump_of_the_wall_clock_loses_no_packet", wall_clock)
            .with_programs(&["date"])
            .only_with("IKENAT_TEST_WALL_CLOCK", "it sets this machine's clock"),
        Scenario::new("there_is_a_block_for_every_cpu_that_may_come", cpus)
            .with_programs(&["bpftool"]),
    ]
}

fn race(lab: &Lab, round: usize) -> Result<Process> {
    const RUNNERS: usize = 4;
    let mut running = Vec::new();
    for runner in 0..RUNNERS {
        let mut command = lab.gateway.command(binary()?);
        command
            .args(usual_arguments())
            .arg("--bpffs")
            .arg(lab.bpffs());
        running.push(Process::spawn(
            &mut command,
            lab.log(&format!("race-{round}-{runner}")),
        )?);
    }
    let began = Instant::now();
    let mut losers = 0;
    while losers < RUNNERS - 1 {
        ensure!(
            began.elapsed() < Duration::from_secs(30),
            "{} of {RUNNERS} still run",
            running.len()
        );
        std::thread::sleep(Duration::from_millis(20));
        let mut left = Vec::new();
        for mut process in running {
            let Some(status) = process.ended()? else {
                left.push(process);
                continue;
            };
            let log = process.log();
            ensure!(
                status.code() == Some(1)
                    && !log.contains("panicked")
                    && log.contains("instance default"),
                "a loser ended with {status}: {log}"
            );
            losers += 1;
        }
        running = left;
    }
    let mut winner = running.pop().context("no daemon won")?;
    winner.wait_for_log("ready: translating", Duration::from_secs(30))?;
    Ok(winner)
}

fn at_once(lab: &Lab) -> Result<()> {
    let before = attachments(lab)?;
    // With nothing there yet.
    for round in 0..3 {
        let mut winner = race(lab, round)?;
        let status = lab.status()?;
        ensure!(
            status.attached.len() == PROGRAMS && status.attached.iter().all(|one| one.alive),
            "{:?}",
            status.attached
        );
        everything_crosses(lab)?;
        winner.kill()?;
        lab.unload()?;
        ensure!(attachments(lab)? == before && pins(&lab.bpffs())?.is_empty());
    }
    // And to take over what a dead one has left.
    Ikenat::start(lab)?.kill()?;
    let load = Load::start(lab, tenth_rate()?, tenth_rate()?)?;
    for round in 3..6 {
        race(lab, round)?.kill()?;
        load.flows()?;
    }
    let transfer = load.finish()?;
    println!("four daemons at once, three times: {transfer}");
    transfer.check_counted(&lab.stats()?)
}

fn readers(lab: &Lab) -> Result<()> {
    let _ikenat = Ikenat::start(lab)?;
    let load = Load::start(lab, tenth_rate()?, tenth_rate()?)?;
    // A `stats --watch` is stopped in the middle of its output.
    let mut watching =
        Process::spawn(&mut lab.ikenat(&["stats", "--watch"])?, lab.log("watching"))?;
    watching.wait_for_log("0xc0de0001", Duration::from_secs(10))?;
    watching.signal(Signal::SIGSTOP)?;
    // One whose reader does not read: the pipe is full after a while, or its output is lost.
    let mut blocked = lab
        .ikenat(&["stats", "--watch", "--json"])?
        .stdout(Stdio::piped())
        .stdin(Stdio::null())
        .spawn()
        .context("failed to start ikenat")?;
    // And many readers that die at any moment.
    let mut killed = 0;
    for round in 0..60_u64 {
        let mut reader = lab
            .ikenat(&[if round % 2 == 0 { "stats" } else { "status" }])?
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("failed to start ikenat")?;
        std::thread::sleep(Duration::from_micros(round * 150));
        reader.kill().context("failed to kill a reader")?;
        killed += u32::from(!reader.wait()?.success());
    }
    ensure!(killed > 10, "only {killed} were killed in time");
    load.flows()?;
    let pid = Pid::from_raw(i32::try_from(blocked.id())?);
    nix::sys::signal::kill(pid, Signal::SIGKILL)?;
    blocked.wait()?;
    watching.kill()?;
    let transfer = load.finish()?;
    println!("{killed} readers killed, one stopped, one blocked: {transfer}");
    transfer.check_counted(&lab.stats()?)
}

fn stopped(lab: &Lab) -> Result<()> {
    let ikenat = Ikenat::start(lab)?;
    let load = Load::start(lab, tenth_rate()?, tenth_rate()?)?;
    let pid = Pid::from_raw(ikenat.id());
    nix::sys::signal::kill(pid, Signal::SIGSTOP)?;
    std::thread::sleep(Duration::from_secs(4));
    lab.gateway.run("ip neighbour flush all")?;
    load.flows()?;
    nix::sys::signal::kill(pid, Signal::SIGCONT)?;
    std::thread::sleep(Duration::from_secs(1));
    load.flows()?;
    let transfer = load.finish()?;
    println!("the daemon stopped for 4 s: {transfer}");
    transfer.check_counted(&lab.stats()?)?;
    ensure!(ikenat.terminate()?.success());
    Ok(())
}

/// In a time namespace whose monotonic clock is far ahead of the one by which the tables were made.
fn other_clock(lab: &Lab) -> Result<()> {
    const DAYS: &str = "1000000";
    Ikenat::start(lab)?.kill()?;
    let load = Load::start(lab, tenth_rate()?, tenth_rate()?)?;
    let mut command = lab.gateway.command("unshare");
    command
        .args(["--time", "--monotonic", DAYS, "--fork"])
        .arg(binary()?);
    command
        .args(usual_arguments())
        .arg("--bpffs")
        .arg(lab.bpffs());
    let mut daemon = Process::spawn(&mut command, lab.log("ikenat"))?;
    daemon.wait_for_log("ready: translating", Duration::from_secs(30))?;
    // The first pass is made at once, and looks at everything.
    std::thread::sleep(Duration::from_secs(3));
    load.flows()?;
    let mut command = Command::new("unshare");
    command
        .args(["--time", "--monotonic", DAYS, "--fork"])
        .arg(binary()?);
    let text = execute(
        command
            .args(["stats", "--json", "--bpffs"])
            .arg(lab.bpffs()),
    )?;
    ensure!(text.contains("0xc0de0001"), "{text}");
    let transfer = load.finish()?;
    println!("a daemon whose clock is eleven days ahead: {transfer}");
    // Nothing was expired: an entry would have lost its first packets to the retired ones.
    transfer.check_counted(&lab.stats()?)
}

/// Only the log has a wall clock.
fn wall_clock(lab: &Lab) -> Result<()> {
    let ikenat = Ikenat::start(lab)?;
    let load = Load::start(lab, tenth_rate()?, tenth_rate()?)?;
    load.flows()?;
    let jump = |seconds: &str| execute(Command::new("date").args(["--set", seconds]));
    jump("+3 hours")?;
    std::thread::sleep(Duration::from_secs(2));
    let ahead = load.flows();
    jump("-3 hours")?;
    ahead?;
    jump("-3 hours")?;
    std::thread::sleep(Duration::from_secs(2));
    let behind = load.flows();
    jump("+3 hours")?;
    behind?;
    ensure!(lab.status()?.attached.iter().all(|one| one.alive));
    let transfer = load.finish()?;
    println!("the wall clock jumped by three hours: {transfer}");
    transfer.check_counted(&lab.stats()?)?;
    ensure!(ikenat.terminate()?.success());
    Ok(())
}

/// CPUs that are offline, or not yet present, have their counter block: a program that later runs
/// on one of them can count.
fn cpus(lab: &Lab) -> Result<()> {
    let _ikenat = Ikenat::start(lab)?;
    let possible = fs::read_to_string("/sys/devices/system/cpu/possible")?;
    let last = possible
        .trim()
        .rsplit(['-', ','])
        .next()
        .unwrap_or_default();
    let possible = last.parse::<u64>().context("the possible CPUs")? + 1;
    let map = execute(
        Command::new("bpftool")
            .args(["--json", "map", "show", "pinned"])
            .arg(directory(lab).join("CPU")),
    )?;
    let map: serde_json::Value = serde_json::from_str(&map)?;
    ensure!(
        map["max_entries"].as_u64() == Some(possible),
        "{possible} CPUs are possible: {map}"
    );
    Ok(())
}
