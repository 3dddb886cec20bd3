//! A named network namespace: creation, commands inside it, deletion.
//!
//! Commands enter it with `nsenter --net`, never with `ip netns exec`, which mounts a new /sys and
//! so hides bpffs.

use std::ffi::OsStr;
use std::fs::File;
use std::process::Command;

use anyhow::{Context, Result, anyhow, bail};
use nix::sched::{CloneFlags, setns};

use super::cleanup;

/// A network namespace, deleted when dropped.
#[derive(Debug)]
pub struct Namespace {
    name: String,
}

impl Namespace {
    /// Makes the namespace of the lab `unique` that plays `role`.
    pub(crate) fn create(unique: &str, role: &str) -> Result<Self> {
        let name = cleanup::namespace_name(unique, role);
        cleanup::remember_namespace(&name);
        let namespace = Self { name };
        execute(Command::new("ip").args(["netns", "add", &namespace.name]))?;
        // Router solicitations and neighbour discovery would show up in every capture.
        namespace.run("sysctl -qw net.ipv6.conf.all.disable_ipv6=1")?;
        namespace.run("sysctl -qw net.ipv6.conf.default.disable_ipv6=1")?;
        namespace.run("ip link set lo up")?;
        Ok(namespace)
    }

    /// Its name, as `ip netns list` shows it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The file that stands for it.
    pub fn path(&self) -> String {
        format!("/run/netns/{}", self.name)
    }

    /// The shell command that runs a command in it.
    pub fn entry(&self) -> String {
        format!("nsenter --net={}", self.path())
    }

    /// A command that will run inside.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.path())).arg(program);
        command
    }

    /// Runs a line of words (no quoting) inside and returns what it printed.
    pub fn run(&self, line: &str) -> Result<String> {
        let mut words = line.split_whitespace();
        let program = words.next().context("failed to run an empty command")?;
        execute(self.command(program).args(words))
    }

    /// Runs a shell script inside and returns what it printed.
    pub fn shell(&self, script: &str) -> Result<String> {
        execute(self.command("sh").args(["-euc", script]))
    }

    /// Runs `work` on a thread inside: the sockets it makes belong to this namespace wherever they
    /// are used afterwards.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        let path = self.path();
        let inside = || {
            let file = File::open(&path).with_context(|| format!("failed to open {path}"))?;
            setns(&file, CloneFlags::CLONE_NEWNET)
                .with_context(|| format!("failed to enter {path}"))?;
            work()
        };
        std::thread::scope(|scope| match scope.spawn(inside).join() {
            Ok(outcome) => outcome,
            Err(panic) => std::panic::resume_unwind(panic),
        })
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        cleanup::remove_namespace(&self.name);
    }
}

/// Runs a command to its end; what it wrote to stderr becomes the error.
pub fn execute(command: &mut Command) -> Result<String> {
    let shown = shown(command);
    let output = command
        .output()
        .map_err(|error| anyhow!(error).context(format!("failed to start `{shown}`")))?;
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        bail!(
            "`{shown}` ended with {}:\n{}{}",
            output.status,
            stderr.trim_end(),
            stdout.trim_end()
        );
    }
    Ok(stdout)
}

/// The command as one would type it.
pub(crate) fn shown(command: &Command) -> String {
    let mut words = vec![command.get_program().to_string_lossy().into_owned()];
    words.extend(
        command
            .get_args()
            .map(|word| word.to_string_lossy().into_owned()),
    );
    words.join(" ")
}
