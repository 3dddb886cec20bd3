//! A child process that never outlives its owner: on drop it is killed by its id and reaped. Its
//! output goes to a file, so that a failure can show it.

use std::fs::{self, File};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;

use super::cleanup;
use super::netns::shown;

const POLL: Duration = Duration::from_millis(10);

/// A running child with its log.
#[derive(Debug)]
pub struct Process {
    child: Child,
    pid: i32,
    command: String,
    log: PathBuf,
}

impl Process {
    /// Starts the command; stdout and stderr go to `log`.
    pub fn spawn(command: &mut Command, log: PathBuf) -> Result<Self> {
        let shown = shown(command);
        let file =
            File::create(&log).with_context(|| format!("failed to create {}", log.display()))?;
        let both = file.try_clone().context("failed to duplicate a log file")?;
        let child = command
            .stdin(Stdio::null())
            // Ctrl-C in the terminal must reach this process only, and a lab that is kept outlives
            // the terminal.
            .process_group(0)
            .stdout(file)
            .stderr(both)
            .spawn()
            .with_context(|| format!("failed to start `{shown}`"))?;
        let pid = i32::try_from(child.id()).context("failed to read a process id")?;
        cleanup::remember_process(pid);
        Ok(Self {
            child,
            pid,
            command: shown,
            log,
        })
    }

    /// Its process id.
    pub fn id(&self) -> i32 {
        self.pid
    }

    /// What it has written so far.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Where it writes.
    pub fn log_path(&self) -> &Path {
        &self.log
    }

    /// Its exit status if it has ended.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        let child = &mut self.child;
        let ended = |outcome: &std::io::Result<Option<ExitStatus>>| matches!(outcome, Ok(Some(_)));
        cleanup::reap_process(self.pid, || child.try_wait(), ended)
            .with_context(|| format!("failed to wait for `{}`", self.command))
    }

    /// Waits until its log contains `text`.
    pub fn wait_for_log(&mut self, text: &str, patience: Duration) -> Result<()> {
        let deadline = Instant::now() + patience;
        loop {
            if self.log().contains(text) {
                return Ok(());
            }
            if let Some(status) = self.ended()? {
                bail!(
                    "`{}` ended with {status} before it wrote {text:?}:\n{}",
                    self.command,
                    self.log()
                );
            }
            if Instant::now() > deadline {
                bail!(
                    "`{}` did not write {text:?} within {patience:?}:\n{}",
                    self.command,
                    self.log()
                );
            }
            std::thread::sleep(POLL);
        }
    }

    /// Waits for its end.
    pub fn wait(&mut self, patience: Duration) -> Result<ExitStatus> {
        let deadline = Instant::now() + patience;
        loop {
            if let Some(status) = self.ended()? {
                return Ok(status);
            }
            if Instant::now() > deadline {
                bail!(
                    "`{}` still runs after {patience:?}:\n{}",
                    self.command,
                    self.log()
                );
            }
            std::thread::sleep(POLL);
        }
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        kill(Pid::from_raw(self.pid), signal)
            .with_context(|| format!("failed to send {signal} to `{}`", self.command))
    }

    /// Asks it to end with SIGTERM and waits.
    pub fn terminate(&mut self, patience: Duration) -> Result<ExitStatus> {
        self.signal(Signal::SIGTERM)?;
        self.wait(patience)
    }

    /// Kills it without warning and waits.
    pub fn kill(&mut self) -> Result<ExitStatus> {
        self.signal(Signal::SIGKILL)?;
        self.wait(Duration::from_secs(5))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let child = &mut self.child;
        let pid = Pid::from_raw(self.pid);
        let end = || {
            // It signals the group, because a shell may have started others; but once the process
            // has been reaped, its id may belong to another process.
            if matches!(child.try_wait(), Ok(None)) {
                let _ = killpg(pid, Signal::SIGKILL);
            }
            let _ = child.wait();
        };
        cleanup::reap_process(self.pid, end, |()| true);
    }
}
