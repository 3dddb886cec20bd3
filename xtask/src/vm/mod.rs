//! `cargo xtask vm`: runs a command under a stock Debian kernel in QEMU, without KVM, and ends with its
//! exit status.

use std::{
    env,
    fs::{self, File},
    path::{Path, PathBuf},
    process,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};

use crate::{shell, workspace::Workspace};

mod contents;
mod cpio;
mod fetch;
mod kernel;
mod machine;
pub(crate) mod suite;
mod tools;

use contents::Contents;
use kernel::Kernel;
pub(crate) use kernel::Series;
use machine::Machine;
use tools::{Tools, on_path};

const INIT: &str = include_str!("init.sh");

/// What runs, and how.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The kernel
    #[arg(long)]
    pub(crate) kernel: Series,
    /// Give a prompt in the guest instead of running the command (`exit` ends it, Ctrl-A X kills it)
    #[arg(long, conflicts_with_all = ["output", "timeout"])]
    pub(crate) shell: bool,
    /// One CPU whose clock counts instructions (1 ns each): two runs are equal
    #[arg(long)]
    pub(crate) deterministic: bool,
    /// Write here what the guest has written to $IKENAT_OUTPUT
    #[arg(long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// Copy this file or directory into the guest, to the same path (repeatable)
    #[arg(long, value_name = "PATH")]
    pub(crate) with: Vec<PathBuf>,
    /// Set a variable in the guest (repeatable)
    #[arg(long, value_name = "NAME=VALUE")]
    pub(crate) env: Vec<String>,
    /// Add this to the kernel's command line
    #[arg(long, value_name = "OPTIONS")]
    pub(crate) append: Option<String>,
    /// MiB of memory
    #[arg(long, default_value_t = 3072, value_name = "MIB")]
    pub(crate) memory: u32,
    /// Take the guest for dead after so many seconds
    #[arg(long, default_value_t = 900, value_name = "SECONDS")]
    pub(crate) timeout: u64,
    /// A program of this machine and its arguments; it is copied into the guest with its libraries
    #[arg(last = true, value_name = "COMMAND")]
    pub(crate) command: Vec<String>,
}

impl Arguments {
    /// Whether the tests are meant: there is neither a command nor a prompt.
    pub(crate) fn mean_the_tests(&self) -> Result<bool> {
        if self.shell || !self.command.is_empty() {
            return Ok(false);
        }
        let given = self.deterministic || self.output.is_some() || self.append.is_some();
        if given || !self.with.is_empty() || !self.env.is_empty() {
            bail!("failed to find a command to run: put it last, behind `--`");
        }
        Ok(true)
    }
}

/// Runs the command and returns its exit status.
pub(crate) fn run(workspace: &Workspace, arguments: &Arguments) -> Result<u8> {
    let (tools, kernel) = prepare(workspace, arguments.kernel)?;
    let scratch = Scratch::new(workspace)?;
    let machine = Machine {
        tools: &tools,
        image: kernel.image(),
        dir: &scratch.0,
        memory: arguments.memory,
        deterministic: arguments.deterministic,
        append: arguments.append.as_deref().unwrap_or_default(),
        timeout: Duration::from_secs(arguments.timeout),
    };
    pack(&tools, &kernel, arguments, &machine.initramfs())?;
    if arguments.shell {
        return machine.prompt().map(|()| 0);
    }
    let report = machine.run()?;
    if let Some(to) = &arguments.output {
        fs::write(to, report.output)
            .with_context(|| format!("failed to write {}", to.display()))?;
    }
    Ok(report.status)
}

/// Finds or fetches what every run of a series needs, so that none has to.
pub(crate) fn fetch(workspace: &Workspace, series: Series) -> Result<()> {
    prepare(workspace, series).map(drop)
}

/// Finds or fetches what every run of a series needs; one process at a time.
fn prepare(workspace: &Workspace, series: Series) -> Result<(Tools, Kernel)> {
    let dir = workspace.target("vm");
    let failed = || format!("failed to lock {}", dir.display());
    fs::create_dir_all(&dir).with_context(failed)?;
    let lock = File::create(dir.join("lock")).with_context(failed)?;
    lock.lock().with_context(failed)?;
    let tools = Tools::find(workspace)?;
    let kernel = Kernel::find(workspace, &tools, series)?;
    Ok((tools, kernel))
}

/// Makes the initramfs.
fn pack(tools: &Tools, kernel: &Kernel, arguments: &Arguments, to: &Path) -> Result<()> {
    let here = env::current_dir().context("failed to find the current directory")?;
    let mut contents = Contents::new(tools)?;
    let modules = Path::new("/usr/lib/modules").join(kernel.release());
    contents.copy_tree(&kernel.modules(), &modules)?;
    contents.directory(&here);
    for path in &arguments.with {
        contents.host_tree(&here.join(path))?;
    }
    let command = match arguments.command.split_first() {
        Some((program, rest)) => {
            let program = if program.contains('/') {
                here.join(program)
            } else {
                on_path(program).with_context(|| format!("failed to find the program {program}"))?
            };
            contents.host(&program)?;
            let mut line = process::Command::new(program);
            line.args(rest);
            format!("exec {}\n", shell::line(&line))
        }
        None => String::new(),
    };
    let mut script = format!(
        "#!/bin/sh\ncd {} || exit\n",
        shell::quoted(&here.to_string_lossy())
    );
    for variable in &arguments.env {
        let Some((name, value)) = variable.split_once('=') else {
            bail!("--env {variable}: a variable is NAME=VALUE");
        };
        script.push_str(&format!("export {name}={}\n", shell::quoted(value)));
    }
    script.push_str(&command);
    contents.text(Path::new("/init"), INIT, 0o755);
    contents.text(Path::new("/vm/command"), &script, 0o755);
    contents.text(Path::new("/vm/directory"), &here.to_string_lossy(), 0o644);
    cpio::write(&contents.finish()?, to)
}

/// A directory of one run, removed with it.
struct Scratch(PathBuf);

impl Scratch {
    fn new(workspace: &Workspace) -> Result<Self> {
        let runs = workspace.target("vm/runs");
        remove_stale(&runs);
        let dir = runs.join(process::id().to_string());
        fs::create_dir_all(&dir).with_context(|| format!("failed to create {}", dir.display()))?;
        Ok(Self(dir))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What cannot be removed now is removed by the next run.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Removes what runs that were killed have left: each directory bears the number of its process.
fn remove_stale(runs: &Path) {
    for entry in fs::read_dir(runs).into_iter().flatten().flatten() {
        if !Path::new("/proc").join(entry.file_name()).exists() {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}
