//! `cargo xtask demo`: starts the lab, which shows a tunnel through the gateway.

use std::{os::unix::process::CommandExt as _, process::Command};

use anyhow::{Context as _, Result, bail};

use crate::workspace::{Workspace, is_root};

/// Refuses early what the lab could not do after minutes of building.
pub(crate) fn require_root() -> Result<()> {
    if !is_root() {
        bail!(
            "the demo makes network namespaces and loads BPF programs, which only root may do: \
             run it as root"
        );
    }
    Ok(())
}

/// Replaces this process by the lab. Returns only on failure.
pub(crate) fn run(workspace: &Workspace, keep: bool, args: &[String]) -> Result<()> {
    let lab = workspace.target("debug/ikenat-lab");
    let mut command = Command::new(&lab);
    command
        .arg("demo")
        .args(keep.then_some("--keep"))
        .args(args)
        .envs(workspace.lab_variables());
    // Replaces this process: Ctrl-C then reaches one process, and the prompt returns after its clean-up.
    let error = command.exec();
    Err(error).with_context(|| format!("failed to start {}", lab.display()))
}
