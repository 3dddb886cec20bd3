//! Starts that are wanted to report their steps, or to die at one of them.

use std::fmt::Display;
use std::os::unix::process::ExitStatusExt as _;
use std::time::Duration;

use anyhow::{Result, ensure};
use ikenat_tests::lab::process::Process;

/// The variable that says what a start is wanted to do (`xdp_user::failpoints`).
pub(crate) const WISH: &str = "IKENAT_FAIL_AT";
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
const KILLED: i32 = 9;

/// The steps that a start passes until it is ready, if its wish is `list`. Leaves it attached and its
/// daemon dead.
pub(crate) fn steps_of(mut process: Process) -> Result<Vec<String>> {
    process.wait_for_log("ready: translating", PATIENCE)?;
    process.kill()?;
    let log = process.log();
    let lines = log
        .lines()
        .filter_map(|line| line.strip_prefix("failpoint "));
    let names = lines.filter_map(|line| Some(line.split_once(": ")?.1.to_owned()));
    let steps: Vec<String> = names.collect();
    ensure!(
        !steps.is_empty(),
        "this ikenat has no failpoints: test the one that `cargo xtask build` makes"
    );
    Ok(steps)
}

/// Waits until a start has died at its step of this number or name.
pub(crate) fn died_at(mut process: Process, at: impl Display) -> Result<()> {
    let status = process.wait(PATIENCE)?;
    let log = process.log();
    let (by_number, by_name) = (format!("failpoint {at}: "), format!(": {at}"));
    let is_it = |line: &str| {
        line.starts_with(&by_number) || line.starts_with("failpoint ") && line.ends_with(&by_name)
    };
    ensure!(
        status.signal() == Some(KILLED) && log.lines().any(is_it),
        "it ended with {status}: {log}"
    );
    Ok(())
}

/// Waits until a start has failed because a step was to fail.
pub(crate) fn failed(mut process: Process) -> Result<()> {
    let status = process.wait(PATIENCE)?;
    let log = process.log();
    ensure!(
        status.code() == Some(1) && log.contains("a test wants it to fail"),
        "it ended with {status}: {log}"
    );
    Ok(())
}
