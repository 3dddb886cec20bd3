//! Layer A from outside: boots emulated machines that measure it, and reads their results. The
//! command that boots a machine comes from the caller.

use anyhow::{Context, Result, bail, ensure};
use std::collections::VecDeque;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, PoisonError};

use crate::results::LayerA;

/// Lines of a machine's output that an error includes.
const TAIL: usize = 30;

/// A machine to boot.
pub struct Boot<'b> {
    /// The command that boots it, word by word, without the command that runs in it.
    pub command: &'b [String],
    /// The file for its figures, which is removed afterwards.
    pub output: PathBuf,
    /// The arguments of `guest-a`, which select the measurements.
    pub arguments: Vec<String>,
}

impl Boot<'_> {
    /// Boots the machine and waits for its figures. `progress` gets the number of completed steps,
    /// the number of all steps, and the name of the current one.
    ///
    /// # Errors
    /// The machine does not boot, or the command in it fails: the error contains the end of its
    /// output.
    pub fn run(&self, progress: &(dyn Fn(usize, usize, &str) + Sync)) -> Result<LayerA> {
        let this = std::env::current_exe().context("failed to find this program")?;
        let (program, words) = self
            .command
            .split_first()
            .context("failed to find the command that boots a machine: use `cargo xtask bench`")?;
        let mut command = Command::new(program);
        command
            .args(words)
            .arg("--output")
            .arg(&self.output)
            .arg("--")
            .arg(&this)
            .arg("guest-a")
            .args(&self.arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let child = command
            .spawn()
            .with_context(|| format!("failed to start {program}"))?;
        let file = Removed(&self.output);
        let (status, said) = watch(Machine(child), progress)?;
        ensure!(
            status.success(),
            "layer A failed in the emulated machine ({status}); the end of its output:\n{said}"
        );
        let text = fs::read_to_string(file.0)
            .with_context(|| format!("failed to read {}", file.0.display()))?;
        serde_json::from_str(&text).with_context(|| {
            format!(
                "failed to understand what layer A wrote to {}",
                file.0.display()
            )
        })
    }
}

/// A file that is removed when this is dropped.
struct Removed<'f>(&'f Path);

impl Drop for Removed<'_> {
    fn drop(&mut self) {
        // It does not exist when the machine has failed.
        let _ = fs::remove_file(self.0);
    }
}

/// A running machine, killed when dropped.
struct Machine(Child);

impl Drop for Machine {
    fn drop(&mut self) {
        // Both fail only when the process has already ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Reports the progress; returns the exit status and the last lines of the other output.
fn watch(
    mut machine: Machine,
    progress: &(dyn Fn(usize, usize, &str) + Sync),
) -> Result<(ExitStatus, String)> {
    let (Some(out), Some(err)) = (machine.0.stdout.take(), machine.0.stderr.take()) else {
        bail!("failed to read along with the machine");
    };
    let said = Mutex::new(VecDeque::new());
    let keep = |line: String| {
        let mut said = said.lock().unwrap_or_else(PoisonError::into_inner);
        said.push_back(line);
        if said.len() > TAIL {
            said.pop_front();
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(|| lines(err, &keep));
        lines(out, &|line| match steps(&line) {
            Some((done, all, what)) => progress(done, all, what),
            None => keep(line),
        });
    });
    let status = machine.0.wait().context("failed to wait for the machine")?;
    let said = said.into_inner().unwrap_or_else(PoisonError::into_inner);
    Ok((status, Vec::from(said).join("\n")))
}

fn lines(from: impl Read, each: &dyn Fn(String)) {
    let mut from = BufReader::new(from);
    let mut line = Vec::new();
    while from.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
        each(String::from_utf8_lossy(&line).trim_end().to_owned());
        line.clear();
    }
}

/// The line by which `guest-a` reports its progress.
#[must_use]
pub fn progress_line(done: usize, all: usize, what: &str) -> String {
    format!("progress {done} {all} {what}")
}

fn steps(line: &str) -> Option<(usize, usize, &str)> {
    let mut words = line.strip_prefix("progress ")?.splitn(3, ' ');
    Some((
        words.next()?.parse().ok()?,
        words.next()?.parse().ok()?,
        words.next()?,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A command instead of a machine. `sh -c` gets what `run` appends as `$0`, `$1`, ...
    fn boot(name: &str, script: &str) -> Result<LayerA> {
        let directory = std::env::temp_dir();
        let output = directory.join(format!("ikenat-boot-{name}-{}", std::process::id()));
        let command = ["sh", "-c", script].map(str::to_owned);
        let boot = Boot {
            command: &command,
            output: output.clone(),
            arguments: vec!["--after=7".to_owned()],
        };
        let layer = boot.run(&|_, _, _| ());
        assert!(!output.exists());
        layer
    }

    #[test]
    fn progress_is_understood() {
        let line = progress_line(2, 9, "nft esp inbound");
        assert_eq!(steps(&line), Some((2, 9, "nft esp inbound")));
        assert_eq!(steps("in progress 1 2 x"), None);
    }

    #[test]
    fn figures_come_back() -> Result<()> {
        // $0 --output, $1 the file, $2 --, $3 this program, $4 guest-a, $5 its argument.
        let json = r#"{"kernel":"'"$4$5"'","rows":[],"largest_difference":0,"missing":[]}"#;
        let layer = boot("good", &format!("echo progress 1 1 x; echo '{json}' > $1"))?;
        assert_eq!(layer.kernel, "guest-a--after=7");
        Ok(())
    }

    #[test]
    fn a_failure_shows_what_the_machine_said() {
        let error = boot("bad", "echo aloud; echo the reason >&2; exit 3");
        let text = format!("{:#}", error.map(drop).expect_err("it fails"));
        assert!(text.contains("exit status: 3"), "{text}");
        assert!(
            text.contains("the reason") && text.contains("aloud"),
            "{text}"
        );
        let error = boot("rubbish", "echo '{' > $1").map(drop);
        let text = format!("{:#}", error.expect_err("it is not JSON"));
        assert!(text.contains("failed to understand"), "{text}");
    }
}
