//! `cargo xtask <command>`: builds, tests, measures and checks this repository.
//!
//! Invariant: it depends on no other crate of the workspace, because it builds their eBPF objects first.

use std::{process::ExitCode, time::Instant};

use anyhow::Result;
use clap::{Parser, Subcommand};

mod bench;
mod build;
mod ci;
mod demo;
mod elf;
mod layout;
mod packages;
mod report;
mod setup;
mod shell;
mod test;
mod toolchain;
mod vm;
mod workspace;

use report::Summary;
use setup::Toolchain;
use workspace::Workspace;

#[derive(Parser)]
#[command(
    name = "cargo xtask",
    bin_name = "cargo xtask",
    arg_required_else_help = true
)]
#[command(about = "Builds, tests and shows ikenat")]
struct Cli {
    #[command(subcommand)]
    command: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Find or install what the other commands need
    Setup,
    /// Build the eBPF objects and the binaries
    Build {
        /// Optimize the binaries (the objects always are)
        #[arg(long)]
        release: bool,
        /// Build the eBPF objects alone
        #[arg(long, conflicts_with = "release")]
        ebpf_only: bool,
    },
    /// Show an IKEv2 tunnel through the gateway, in network namespaces (root)
    Demo {
        /// Leave the lab running, and say how to enter it
        #[arg(long)]
        keep: bool,
        /// More arguments for the lab
        #[arg(last = true)]
        args: Vec<String>,
    },
    /// Run all tests, or those whose name contains a filter (also: gate, loom, miri, vm)
    Test {
        /// Parts of the names of tests; `gate`, `loom`, `miri` and `vm` choose those parts
        filter: Vec<String>,
        /// Run what takes minutes as well: the gateway's behaviour under stock kernels
        #[arg(long)]
        all: bool,
    },
    /// Measure what a packet costs, and write tables and a page (root)
    Bench(bench::Arguments),
    /// Run a command, or the tests, under a stock Debian kernel in QEMU, without KVM
    Vm(vm::Arguments),
    /// Check formatting, lints and documentation, then run all tests
    Ci,
}

fn main() -> ExitCode {
    match run(Instant::now()) {
        Ok(status) => status,
        Err(error) => {
            // Not as `main` would print it: a backtrace hides the sentence that helps.
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(started: Instant) -> Result<ExitCode> {
    let workspace = Workspace::find()?;
    match Cli::parse().command {
        Task::Vm(arguments) => {
            if !arguments.mean_the_tests()? {
                return vm::run(&workspace, &arguments).map(ExitCode::from);
            }
            objects(&workspace)?;
            build::binaries(&workspace, false)?;
            let mut summary = Summary::new(started);
            test::stock(&workspace, arguments.kernel, true, &mut summary)?;
            report::finish(&summary)
        }
        Task::Bench(arguments) => bench::run(&workspace, &arguments, || objects(&workspace)),
        Task::Setup => setup::run(&workspace).map(drop),
        Task::Build {
            ebpf_only: true, ..
        } => objects(&workspace).map(drop),
        Task::Build {
            release,
            ebpf_only: false,
        } => {
            objects(&workspace)?;
            build::binaries(&workspace, release)
        }
        Task::Demo { keep, args } => {
            demo::require_root()?;
            objects(&workspace)?;
            build::binaries(&workspace, false)?;
            demo::run(&workspace, keep, &args)
        }
        Task::Test { filter, all } => {
            let tools = objects(&workspace)?;
            build::binaries(&workspace, false)?;
            let mut summary = Summary::new(started);
            test::run(&workspace, &tools, &filter, all, &mut summary)?;
            report::finish(&summary)
        }
        Task::Ci => {
            let tools = objects(&workspace)?;
            build::binaries(&workspace, false)?;
            let mut summary = Summary::new(started);
            ci::checks(&workspace, &tools, &mut summary)?;
            test::run(&workspace, &tools, &[], false, &mut summary)?;
            report::finish(&summary)
        }
    }?;
    Ok(ExitCode::SUCCESS)
}

/// Everything needs the objects: the library embeds one.
fn objects(workspace: &Workspace) -> Result<Toolchain> {
    let tools = setup::run(workspace)?;
    build::objects(workspace, &tools)?;
    Ok(tools)
}
