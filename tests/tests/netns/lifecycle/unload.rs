//! `unload`: while a daemon runs, when its output is not read, and a clean-up that fails.

use std::fs;
use std::io::pipe;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use ikenat_tests::lab::Lab;
use ikenat_tests::lab::ikenat::{binary, usual_arguments};
use ikenat_tests::lab::netns::execute;
use ikenat_tests::lab::process::Process;
use ikenat_tests::suite::Scenario;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::instances::{OTHER_VIP, add_interfaces, start_in};
use crate::support::{attachments, everything_crosses, nothing_is_left, patience, sentence};

pub(crate) fn scenarios() -> Vec<Scenario> {
    const TOOLS: &[&str] = &["tc", "bpftool", "mkfifo"];
    let test = |name, test| Scenario::new(name, test).with_programs(TOOLS);
    vec![
        test("unload_by_force_ends_the_daemon_first", by_force),
        test("unload_by_force_kills_a_daemon_that_does_not_end", stuck),
        test("unload_by_force_spares_what_is_no_daemon", no_daemon).with_programs(&["flock"]),
        test("unload_by_force_spares_a_reused_process_id", reused_id).with_programs(&["flock"]),
        test("unload_that_is_not_read_removes_every_instance", unread),
        test(
            "a_clean_up_that_fails_does_not_hide_the_cause",
            hidden_cause,
        ),
    ]
}

/// A daemon as a process of its own, so that its end can be looked at.
fn daemon(lab: &Lab) -> Result<Process> {
    let mut command = lab.gateway.command(binary()?);
    command.args(usual_arguments());
    command.arg("--bpffs").arg(lab.bpffs());
    let mut process = Process::spawn(&mut command, lab.log("ikenat"))?;
    process.wait_for_log("ready: translating", Duration::from_secs(30))?;
    Ok(process)
}

fn by_force(lab: &Lab) -> Result<()> {
    let before = attachments(lab)?;
    for round in 0..3 {
        let mut daemon = daemon(lab)?;
        everything_crosses(lab)?;
        let said = execute(&mut lab.ikenat(&["unload", "--force"])?)?;
        ensure!(said.contains("detached 5 programs"), "{said}");
        let stopped = format!("stopped process {}", daemon.id());
        ensure!(said.contains(&stopped), "{stopped:?} is not in: {said}");
        let status = daemon.wait(Duration::from_secs(5))?;
        let log = daemon.log();
        ensure!(
            status.success() && log.contains("SIGTERM: the daemon ends"),
            "round {round}: it ended with {status}: {log}"
        );
        nothing_is_left(lab, &before)?;
        ensure!(!lab.bpffs().join("ikenat").exists(), "a directory is left");
    }
    Ok(())
}

fn stuck(lab: &Lab) -> Result<()> {
    let before = attachments(lab)?;
    let mut daemon = daemon(lab)?;
    daemon.signal(Signal::SIGSTOP)?;
    let said = execute(&mut lab.ikenat(&["unload", "--force"])?)?;
    ensure!(said.contains("killed process"), "{said}");
    let status = daemon.wait(patience(Duration::from_secs(5)))?;
    ensure!(
        status.signal() == Some(Signal::SIGKILL as i32),
        "it ended with {status}"
    );
    nothing_is_left(lab, &before)
}

/// `unload --force` fails with these words, ends no process and detaches nothing.
fn is_spared(lab: &Lab, process: &mut Process, words: &[&str]) -> Result<()> {
    let output = lab.ikenat(&["unload", "--force"])?.output()?;
    let id = process.id().to_string();
    sentence(&output, &[words, &[id.as_str(), "203.0.113.1"]].concat())?;
    ensure!(process.ended()?.is_none(), "process {id} was ended");
    everything_crosses(lab)
}

/// The directory that the lock of the instance is on.
fn lock_of(lab: &Lab) -> PathBuf {
    lab.bpffs().join("ikenat/locks/default")
}

/// An administrator's script that keeps daemons away, for example.
fn no_daemon(lab: &Lab) -> Result<()> {
    let before = attachments(lab)?;
    daemon(lab)?.kill()?;
    let mut command = Command::new("flock");
    command.arg("--no-fork").arg(lock_of(lab));
    command.args(["sh", "-c", "echo locked; exec sleep 60"]);
    let mut holder = Process::spawn(&mut command, lab.log("holder"))?;
    holder.wait_for_log("locked", Duration::from_secs(5))?;
    is_spared(lab, &mut holder, &["(sleep)", "not an ikenat daemon"])?;
    holder.kill()?;
    // Whoever holds it chooses its own name, and the administrator reads it.
    let program = lab.directory().join("x\u{1b}[2J\nok");
    fs::copy("/bin/sleep", &program).context("failed to copy sleep")?;
    let mut command = Command::new("flock");
    command.arg("--no-fork").arg(lock_of(lab));
    command.args(["sh", "-c", "echo locked; exec \"$0\" 60"]);
    let mut holder = Process::spawn(command.arg(&program), lab.log("holder"))?;
    holder.wait_for_log("locked", Duration::from_secs(5))?;
    is_spared(lab, &mut holder, &[r"(x\u001b[2J\u000aok)"])?;
    holder.kill()?;
    execute(&mut lab.ikenat(&["unload", "--force"])?)?;
    nothing_is_left(lab, &before)
}

/// /proc/locks names the process that took a lock, even when that one has ended, its child holds the
/// lock, and its number belongs to another process.
fn reused_id(lab: &Lab) -> Result<()> {
    let before = attachments(lab)?;
    daemon(lab)?.kill()?;
    // It has the name of a daemon, of another instance perhaps.
    let program = lab.directory().join("ikenat");
    fs::copy("/bin/sleep", &program).context("failed to copy sleep")?;
    for _ in 0..20 {
        let (holder, taker) = lock_of_the_dead(lab)?;
        let Some(mut stranger) = with_id(lab, &program, taker)? else {
            continue;
        };
        is_spared(lab, &mut stranger, &["does not hold"])?;
        drop(holder);
        stranger.kill()?;
        // It is no child of this process that could be waited for: it ends when it gets a CPU.
        execute(
            Command::new("flock")
                .args(["-w", "10"])
                .arg(lock_of(lab))
                .arg("true"),
        )?;
        execute(&mut lab.ikenat(&["unload", "--force"])?)?;
        return nothing_is_left(lab, &before);
    }
    bail!("other processes have got the number each time")
}

/// A process that holds the lock, and the number of the one that took it and has ended.
fn lock_of_the_dead(lab: &Lab) -> Result<(Orphan, i32)> {
    let mut command = Command::new("flock");
    // In a session of its own, because a process group holds its number as well.
    command.arg(lock_of(lab)).arg("setsid");
    command.args(["sh", "-c", "echo $$ locked; exec sleep 60"]);
    let mut taker = Process::spawn(&mut command, lab.log("holder"))?;
    taker.wait_for_log("locked", Duration::from_secs(5))?;
    let log = taker.log();
    let holder: i32 = log.split(' ').next().unwrap_or_default().parse()?;
    let holder = Orphan(Pid::from_raw(holder));
    taker.kill()?;
    Ok((holder, taker.id()))
}

/// A process whose parent has ended. It is killed when this is dropped.
struct Orphan(Pid);

impl Drop for Orphan {
    fn drop(&mut self) {
        _ = kill(self.0, Signal::SIGKILL);
    }
}

/// Starts a program that sleeps, with this process id. `None`: a process or a thread of another test
/// has it.
fn with_id(lab: &Lab, program: &Path, id: i32) -> Result<Option<Process>> {
    for _ in 0..200 {
        fs::write("/proc/sys/kernel/ns_last_pid", (id - 1).to_string())
            .context("failed to set the next process id")?;
        // What starts at this moment beside it takes numbers as well.
        let mut process = Process::spawn(Command::new(program).arg("60"), lab.log("stranger"))?;
        if process.id() == id {
            return Ok(Some(process));
        }
        process.kill()?;
        if Path::new("/proc").join(id.to_string()).exists() {
            return Ok(None);
        }
    }
    Ok(None)
}

fn unread(lab: &Lab) -> Result<()> {
    add_interfaces(&lab.gateway)?;
    let before = attachments(lab)?;
    daemon(lab)?.kill()?;
    start_in(lab, &lab.gateway, OTHER_VIP)?.kill()?;
    let (reader, writer) = pipe().context("failed to open a pipe")?;
    drop(reader);
    let output = lab.ikenat(&["unload"])?.stdout(writer).output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success() && said.is_empty(), "{said}");
    nothing_is_left(lab, &before)
}

/// The BPF file system becomes read-only while a start reads an object, which is then no object.
fn hidden_cause(lab: &Lab) -> Result<()> {
    let before = attachments(lab)?;
    let object = lab.directory().join("object");
    execute(Command::new("mkfifo").arg(&object))?;
    let mut command = lab.gateway.command(binary()?);
    command.args(usual_arguments());
    command.arg("--bpffs").arg(lab.bpffs());
    command.env("IKENAT_OBJECT", &object);
    let mut process = Process::spawn(&mut command, lab.log("ikenat"))?;
    // Opening a FIFO to write waits until somebody reads it.
    let mut writer = fs::OpenOptions::new();
    let writer = writer.write(true).open(&object).context("no reader")?;
    let remount = |how: &str| {
        let how = format!("remount,{how}");
        execute(Command::new("mount").args(["-o", &how]).arg(lab.bpffs()))
    };
    remount("ro")?;
    fs::write(&object, "no object").context("failed to write")?;
    drop(writer);
    let status = process.wait(Duration::from_secs(30));
    remount("rw")?;
    let (status, log) = (status?, process.log());
    ensure!(
        status.code() == Some(1) && log.contains("failed to load the eBPF object"),
        "it ended with {status}: {log}"
    );
    // The clean-up is said, and is not what the start failed of.
    ensure!(log.contains("Read-only file system"), "{log}");
    let last = log.lines().last().unwrap_or_default();
    ensure!(!last.contains("Read-only"), "the last line is: {last}");
    lab.unload()?;
    nothing_is_left(lab, &before)
}
