//! The privileges of ikenat: two or three capabilities instead of root, and the capabilities that it
//! keeps.

use std::fs;
use std::os::unix::fs::chown;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ikenat_tests::kernel::{kernel_is_at_least, needs_no_perfmon};
use ikenat_tests::lab::Lab;
use ikenat_tests::lab::ikenat::{Ikenat, binary, usual_arguments};
use ikenat_tests::lab::netns::execute;
use ikenat_tests::lab::process::Process;
use ikenat_tests::lab::topology::PEER;
use ikenat_tests::suite::Scenario;

use crate::faults::devices::{plug_in, sides};
use crate::support::{attachments, everything_crosses, nothing_is_left};

pub(crate) fn scenarios() -> Vec<Scenario> {
    const TOOLS: &[&str] = &["tc", "bpftool", "setpriv"];
    vec![
        Scenario::new(
            "root_keeps_three_capabilities_and_gains_none",
            root_gives_up,
        ),
        Scenario::new("an_ordinary_user_with_capabilities_runs_it", ordinary_user)
            .with_programs(TOOLS),
        Scenario::new("it_runs_without_cap_perfmon", without_perfmon).with_programs(TOOLS),
        Scenario::new("an_ordinary_users_daemon_attaches_again", attaches_again)
            .with_programs(TOOLS),
    ]
}

/// `linux/capability.h`.
const NET_ADMIN: u64 = 1 << 12;
const PERFMON: u64 = 1 << 38;
const BPF: u64 = 1 << 39;

/// A user that does not exist on the host.
pub(super) const USER: u32 = 64_321;

const TWO: &str = "+bpf,+net_admin";
pub(super) const THREE: &str = "+bpf,+net_admin,+perfmon";

/// A mask of /proc/PID/status.
fn mask(status: &str, name: &str) -> Result<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let digits = line.with_context(|| format!("no {name} in {status}"))?;
    u64::from_str_radix(digits.trim_start_matches(':').trim(), 16)
        .with_context(|| format!("failed to read {name}{digits}"))
}

fn keeps_at_most(id: i32, kept: u64) -> Result<()> {
    let path = format!("/proc/{id}/status");
    let status = fs::read_to_string(&path).with_context(|| format!("failed to read {path}"))?;
    for (name, wanted) in [
        ("CapEff", kept),
        ("CapPrm", kept),
        ("CapBnd", kept),
        ("CapInh", 0),
        ("CapAmb", 0),
    ] {
        let found = mask(&status, name)?;
        ensure!(found == wanted, "{name} is {found:#x}, not {wanted:#x}");
    }
    ensure!(
        status.contains("NoNewPrivs:\t1"),
        "it could gain privileges: {status}"
    );
    Ok(())
}

/// The log says "ready" before the last capability goes.
fn soon_keeps(id: i32, kept: u64) -> Result<()> {
    let mut last = keeps_at_most(id, kept);
    for _ in 0..50 {
        if last.is_ok() {
            break;
        }
        std::thread::sleep(Duration::from_millis(50));
        last = keeps_at_most(id, kept);
    }
    last
}

fn root_gives_up(lab: &Lab) -> Result<()> {
    let ikenat = Ikenat::start(lab)?;
    soon_keeps(ikenat.id(), NET_ADMIN | BPF | PERFMON)?;
    everything_crosses(lab)?;
    // The periodic maintenance works with the remaining capabilities: netlink, and a filter that is
    // restored.
    drop(ikenat);
    lab.unload()?;
    let ikenat = Ikenat::start_with(lab, &["--tc", "clsact"])?;
    soon_keeps(ikenat.id(), NET_ADMIN | BPF | PERFMON)?;
    lab.gateway.run("tc qdisc del dev wan0 clsact")?;
    for _ in 0..100 {
        if crate::support::one_filter_each(lab).is_ok() {
            break;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    crate::support::one_filter_each(lab).context("5 s after it was removed")
}

/// What the user owns: a copy of ikenat that it may execute, and a directory in the BPF file
/// system.
pub(super) struct Place {
    pub(super) ikenat: PathBuf,
    pub(super) bpffs: PathBuf,
}

pub(super) fn prepare(lab: &Lab) -> Result<Place> {
    let ikenat = lab.directory().join("ikenat-for-others");
    fs::copy(binary()?, &ikenat).context("failed to copy ikenat")?;
    let bpffs = lab.bpffs().join("theirs");
    fs::create_dir(&bpffs).context("failed to create a directory")?;
    chown(&bpffs, Some(USER), Some(USER)).context("failed to give a directory away")?;
    Ok(Place { ikenat, bpffs })
}

impl Place {
    /// ikenat as that user with these capabilities, in the gateway.
    pub(super) fn command(&self, lab: &Lab, capabilities: &str) -> Command {
        let mut command = lab.gateway.command("setpriv");
        command
            .arg(format!("--reuid={USER}"))
            .arg(format!("--regid={USER}"))
            .arg("--clear-groups")
            .arg(format!("--inh-caps=-all,{capabilities}"))
            .arg(format!("--ambient-caps=-all,{capabilities}"))
            .arg(format!("--bounding-set=-all,{capabilities}"))
            .arg(&self.ikenat);
        command
    }

    fn run(&self, lab: &Lab, capabilities: &str, more: &[&str]) -> Command {
        let mut command = self.command(lab, capabilities);
        command.args(usual_arguments()).args(more);
        command.arg("--bpffs").arg(&self.bpffs);
        command
    }

    fn start(&self, lab: &Lab, more: &[&str]) -> Result<Process> {
        self.start_as(lab, THREE, more)
    }

    fn start_as(&self, lab: &Lab, capabilities: &str, more: &[&str]) -> Result<Process> {
        let mut command = self.run(lab, capabilities, more);
        let mut process = Process::spawn(&mut command, lab.log("theirs"))?;
        process.wait_for_log("ready: translating", Duration::from_secs(30))?;
        Ok(process)
    }

    pub(super) fn ask(&self, lab: &Lab, verb: &str) -> Result<String> {
        let mut command = self.command(lab, THREE);
        execute(command.arg(verb).arg("--bpffs").arg(&self.bpffs))
    }
}

fn ordinary_user(lab: &Lab) -> Result<()> {
    let before = attachments(lab)?;
    let place = prepare(lab)?;
    let mut backends = vec!["clsact"];
    if kernel_is_at_least((6, 6))? {
        backends.push("tcx");
    }
    for backend in backends {
        let more = ["--tc", backend];
        let mut process = place.start(lab, &more)?;
        soon_keeps(process.id(), NET_ADMIN | BPF | PERFMON)?;
        everything_crosses(lab).context("as an ordinary user")?;
        process.kill()?;
        everything_crosses(lab).context("without its daemon")?;
        // The next start takes over what there is, though it may not list programs.
        let mut process = place.start(lab, &more)?;
        let log = process.log();
        ensure!(
            log.matches("replaced the program on").count() == 5
                && log.contains("counters continue"),
            "{log}"
        );
        let status = place.ask(lab, "status")?;
        ensure!(
            status.matches(backend).count() == 3 && !status.contains("DEAD"),
            "{status}"
        );
        process.terminate(Duration::from_secs(10))?;
        let unloaded = place.ask(lab, "unload")?;
        ensure!(unloaded.contains("detached 5 programs"), "{unloaded}");
        nothing_is_left(lab, &before)?;
    }
    Ok(())
}

fn attaches_again(lab: &Lab) -> Result<()> {
    let place = prepare(lab)?;
    let mut process = place.start(lab, &["--group", &USER.to_string()])?;
    soon_keeps(process.id(), NET_ADMIN | BPF | PERFMON)?;
    everything_crosses(lab)?;
    comes_back(lab, &place, &mut process)?;
    process.terminate(Duration::from_secs(10))?;
    place.ask(lab, "unload").map(drop)
}

/// With the capabilities left after the start: an interface returns, and a next hop is probed.
fn comes_back(lab: &Lab, place: &Place, process: &mut Process) -> Result<()> {
    for side in sides(lab) {
        let before = process.log().matches("ready again").count();
        side.peer.run(&format!("ip link del {PEER}"))?;
        let gone = format!("{}: interface is gone", side.port);
        process.wait_for_log(&gone, Duration::from_secs(30))?;
        plug_in(lab, &side)?;
        for _ in 0..300 {
            if process.log().matches("ready again").count() > before {
                break;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        everything_crosses(lab).with_context(|| process.log())?;
        let (status, log) = (place.ask(lab, "status")?, process.log());
        ensure!(!status.contains("DEAD"), "{status}\n{log}");
        // Messages must not name the pins by the path of a descriptor.
        ensure!(!log.contains("/proc/self/fd"), "{log}");
    }
    Ok(())
}

/// Without CAP_PERFMON ikenat loads programs that the verifier can bound, which needs 6.17. An
/// older kernel accepts only the usual programs, and only with its speculation mitigations off.
fn without_perfmon(lab: &Lab) -> Result<()> {
    let place = prepare(lab)?;
    if !needs_no_perfmon()? {
        return refused_without_perfmon(lab, &place);
    }
    let before = attachments(lab)?;
    let more = ["--log-sessions", "--group", &USER.to_string()];
    let mut process = place.start_as(lab, TWO, &more)?;
    let log = process.log();
    ensure!(log.matches("CAP_PERFMON").count() == 1, "{log}");
    soon_keeps(process.id(), NET_ADMIN | BPF)?;
    everything_crosses(lab)?;
    process.wait_for_log("the server sends it ESP", Duration::from_secs(10))?;
    comes_back(lab, &place, &mut process).context("an interface")?;
    process.kill()?;
    everything_crosses(lab).context("without its daemon")?;
    const UNCOUNTED: &str = "lost after the redirect are not counted";
    ensure!(place.ask(lab, "status")?.contains(UNCOUNTED));
    // Programs of the other kind take the tables over, and back.
    for capabilities in [THREE, TWO] {
        let mut process = place.start_as(lab, capabilities, &[])?;
        let log = process.log();
        ensure!(
            log.contains("counters continue")
                && log.contains("CAP_PERFMON") == (capabilities == TWO),
            "{log}"
        );
        everything_crosses(lab).with_context(|| format!("with {capabilities}"))?;
        let uncounted = place.ask(lab, "status")?.contains(UNCOUNTED);
        ensure!(uncounted == (capabilities == TWO), "with {capabilities}");
        process.terminate(Duration::from_secs(10))?;
    }
    place.ask(lab, "unload")?;
    nothing_is_left(lab, &before)
}

fn refused_without_perfmon(lab: &Lab, place: &Place) -> Result<()> {
    let before = attachments(lab)?;
    let line = fs::read_to_string("/proc/cmdline").context("failed to read /proc/cmdline")?;
    ensure!(!line.contains("mitigations=off"), "not asked here: {line}");
    let mut process = Process::spawn(&mut place.run(lab, TWO, &[]), lab.log("theirs"))?;
    let status = process.wait(Duration::from_secs(30))?;
    let log = process.log();
    ensure!(
        !status.success() && log.contains("CAP_PERFMON") && log.lines().count() == 1,
        "it ended with {status}: {log}"
    );
    nothing_is_left(lab, &before)
}
