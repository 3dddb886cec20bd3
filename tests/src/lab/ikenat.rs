//! `ikenat` as a user runs it: a process that is started, queried and stopped, through its
//! arguments and its output.

use std::path::PathBuf;
use std::process::{Command, ExitStatus};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde::de::DeserializeOwned;
use xdp_user::config::instance_name;

use super::json::{InstanceStats, InstanceStatus, Stats, Status};
use super::links::target_directory;
use super::netns::{Namespace, execute};
use super::process::Process;
use super::topology::{LAN, Lab, SERVER, VIP, WAN};

/// Names the binary to test.
const BINARY: &str = "IKENAT_BIN";
/// Logged once the programs are attached.
const READY: &str = "ready: ";
/// Loading and verifying takes well below this, also on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// The binary, from `IKENAT_BIN` or from where cargo builds.
pub fn binary() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os(BINARY).map(PathBuf::from) {
        ensure!(
            path.is_file(),
            "{BINARY} names {}, which is not a file",
            path.display()
        );
        return Ok(path);
    }
    let program = std::env::current_exe().context("failed to find the running program")?;
    let beside = program
        .ancestors()
        .skip(1)
        .take(2)
        .map(|directory| directory.join("ikenat"));
    let target = target_directory()?;
    let built = ["release", "debug"].map(|profile| target.join(profile).join("ikenat"));
    beside
        .chain(built)
        .find(|path| path.is_file())
        .with_context(|| {
            format!(
                "no ikenat in {}: run `cargo xtask build`, or name it in {BINARY}",
                target.display()
            )
        })
}

/// A running daemon; killed when dropped, its programs stay.
#[derive(Debug)]
pub struct Ikenat {
    process: Process,
}

impl Ikenat {
    /// Starts `ikenat run` in the gateway and waits until it is ready.
    pub fn start(lab: &Lab) -> Result<Self> {
        Self::start_with(lab, &[])
    }

    /// The same with more arguments.
    pub fn start_with(lab: &Lab, more: &[&str]) -> Result<Self> {
        let usual = usual_arguments();
        let words: Vec<&str> = usual
            .iter()
            .map(String::as_str)
            .chain(more.iter().copied())
            .collect();
        Self::run(lab, &lab.gateway, "ikenat", &words)
    }

    /// Starts it without regard to `ip_forward`.
    pub fn start_as_it_is(lab: &Lab) -> Result<Self> {
        let usual = usual_arguments();
        let words: Vec<&str> = usual.iter().map(String::as_str).collect();
        Self::spawn(lab, &lab.gateway, "ikenat", &words)
    }

    /// Starts it with other arguments in any namespace, logs to a file of this name, and waits
    /// until it is ready.
    pub fn run(lab: &Lab, namespace: &Namespace, log: &str, words: &[&str]) -> Result<Self> {
        // `ikenat` does not start without forwarding: on a host without `ip_forward`, forwarding
        // was turned off after the start.
        let forwards = namespace.run("sysctl -n net.ipv4.ip_forward")?;
        namespace.run("sysctl -qw net.ipv4.ip_forward=1")?;
        let started = Self::spawn(lab, namespace, log, words);
        namespace.run(&format!(
            "sysctl -qw net.ipv4.ip_forward={}",
            forwards.trim()
        ))?;
        started
    }

    fn spawn(lab: &Lab, namespace: &Namespace, log: &str, words: &[&str]) -> Result<Self> {
        let mut command = namespace.command(binary()?);
        command.args(words).arg("--bpffs").arg(lab.bpffs());
        let mut process = Process::spawn(&mut command, lab.log(log))?;
        process.wait_for_log(READY, PATIENCE)?;
        Ok(Self { process })
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// Its process id.
    pub fn id(&self) -> i32 {
        self.process.id()
    }

    /// Ends it as systemd does.
    pub fn terminate(mut self) -> Result<ExitStatus> {
        self.process.terminate(Duration::from_secs(10))
    }

    /// Kills it without warning.
    pub fn kill(mut self) -> Result<()> {
        self.process.kill()?;
        Ok(())
    }
}

/// The arguments of `run` for this lab, without `--bpffs`.
pub fn usual_arguments() -> Vec<String> {
    let (vip, server) = (VIP.to_string(), SERVER.to_string());
    [
        "run", "--wan", WAN, "--lan", LAN, "--vip", &vip, "--server", &server,
    ]
    .map(str::to_owned)
    .to_vec()
}

impl Lab {
    /// `ikenat VERB... --bpffs DIR`, from outside the gateway, as from any shell.
    pub fn ikenat(&self, words: &[&str]) -> Result<Command> {
        let mut command = Command::new(binary()?);
        command.args(words).arg("--bpffs").arg(self.bpffs());
        Ok(command)
    }

    /// Where the instance of the usual arguments has its pins.
    pub fn pins(&self) -> PathBuf {
        self.bpffs().join("ikenat").join(instance_name::DEFAULT)
    }

    fn ask<T: DeserializeOwned>(&self, verb: &str) -> Result<T> {
        let text = execute(&mut self.ikenat(&[verb, "--json"])?)?;
        serde_json::from_str(&text)
            .with_context(|| format!("failed to read `{verb} --json`: {text}"))
    }

    /// The counters of the one instance.
    pub fn stats(&self) -> Result<InstanceStats> {
        let stats: Stats = self.ask("stats")?;
        only(stats.instances).context("failed to read `stats`")
    }

    /// The same of the SPIs and peers that are chosen by these words.
    pub fn stats_with(&self, words: &[&str]) -> Result<InstanceStats> {
        let mut all = vec!["stats", "--json"];
        all.extend(words);
        let text = execute(&mut self.ikenat(&all)?)?;
        let stats: Stats = serde_json::from_str(&text).context("failed to read `stats`")?;
        only(stats.instances).context("failed to read `stats`")
    }

    /// The state of all instances.
    pub fn all_status(&self) -> Result<Vec<InstanceStatus>> {
        let status: Status = self.ask("status")?;
        Ok(status.instances)
    }

    /// The state of the one instance.
    pub fn status(&self) -> Result<InstanceStatus> {
        let status: Status = self.ask("status")?;
        only(status.instances).context("failed to read `status`")
    }

    /// Removes programs and pins.
    pub fn unload(&self) -> Result<()> {
        execute(&mut self.ikenat(&["unload"])?)?;
        Ok(())
    }
}

fn only<T>(mut instances: Vec<T>) -> Result<T> {
    match (instances.pop(), instances.len()) {
        (Some(one), 0) => Ok(one),
        (Some(_), others) => bail!("there are {} instances instead of one", others + 1),
        (None, _) => bail!("there is no instance"),
    }
}
