//! `cargo xtask test`: runs the test binaries part by part, passes on what they print, and adds
//! up their results.

use std::{path::Path, process::Command, time::Duration};

use anyhow::Result;

use crate::{
    bench::{self, GATE},
    build::FAILPOINTS,
    report::{self, Outcome, Summary},
    setup::Toolchain,
    shell,
    vm::{Series, suite},
    workspace::Workspace,
};

/// The part with the table's races, the one with its memory accesses, and the stock kernels; also
/// their filters.
const LOOM: &str = "loom";
const MIRI: &str = "miri";
const VM: &str = "vm";

/// Runs all parts, or those that the filters choose, even when one fails. With `all`, the stock kernels run what
/// takes minutes as well.
pub(crate) fn run(
    workspace: &Workspace,
    tools: &Toolchain,
    filters: &[String],
    all: bool,
    summary: &mut Summary,
) -> Result<()> {
    let part = |name: &str| filters.is_empty() || filters.iter().any(|filter| filter == name);
    let names: Vec<&String> = filters
        .iter()
        .filter(|filter| ![GATE, LOOM, MIRI, VM].contains(&filter.as_str()))
        .collect();
    if filters.is_empty() {
        tests("tests", &host(workspace), None, summary)?;
    }
    for name in names {
        // One run for each: libtest-mimic takes a single filter.
        let title = format!("tests named *{name}*");
        tests(&title, &host(workspace), Some(name), summary)?;
    }
    if part(VM) {
        for series in Series::ALL {
            stock(workspace, series, all, summary)?;
        }
    }
    if part(GATE) {
        bench::gate(workspace, tools, summary)?;
    }
    if part(LOOM) {
        tests(LOOM, &loom(workspace), None, summary)?;
    }
    if part(MIRI) {
        match find_miri(workspace) {
            Ok(prefix) => tests(MIRI, &miri(workspace, &prefix), None, summary)?,
            Err(reason) => summary.add(MIRI, Outcome::Skipped { reason }, Duration::ZERO),
        }
    }
    Ok(())
}

/// Runs test binaries under a stock kernel.
pub(crate) fn stock(
    workspace: &Workspace,
    series: Series,
    all: bool,
    summary: &mut Summary,
) -> Result<()> {
    let parts: &[suite::Part] = if all { &suite::ALL } else { &suite::QUICK };
    booted(workspace, series, parts, None, summary)?;
    let special = &suite::NOHZ_FULL;
    booted(workspace, series, &special.parts, Some(special), summary)
}

/// Runs parts in one guest, whose kernel may have options.
fn booted(
    workspace: &Workspace,
    series: Series,
    parts: &[suite::Part],
    special: Option<&suite::Special>,
    summary: &mut Summary,
) -> Result<()> {
    let options = special.map_or_else(String::new, |special| format!(" {}", special.append));
    let title = format!("{VM} {}{options}: {}", series.name(), suite::title(parts));
    if let Some(reason) = suite::obstacle() {
        summary.add(&title, Outcome::Skipped { reason }, Duration::ZERO);
        return Ok(());
    }
    let binaries = suite::binaries(workspace, parts)?;
    let command = suite::recipe(workspace, series, &binaries, special)?;
    report::run(&title, command, None, summary)
}

/// A command line that can be built again for each filter.
type Recipe<'a> = dyn Fn() -> Command + 'a;

fn host(workspace: &Workspace) -> impl Fn() -> Command {
    || {
        let mut cargo = workspace.cargo();
        cargo.args([
            "test",
            "--workspace",
            "--exclude",
            "xdp-ebpf",
            "--no-fail-fast",
        ]);
        cargo.args(FAILPOINTS);
        cargo.envs(workspace.lab_variables());
        cargo
    }
}

fn loom(workspace: &Workspace) -> impl Fn() -> Command {
    || {
        let mut cargo = workspace.cargo();
        cargo
            .args(["test", "-p", "xdp-core", "--release", "--test", "loom"])
            .env("RUSTFLAGS", "--cfg loom")
            // Other flags rebuild everything: not in the directory of the other parts.
            .env("CARGO_TARGET_DIR", workspace.target("loom"));
        cargo
    }
}

/// How `cargo miri` is called here: by the active toolchain, or by nightly through rustup.
fn find_miri(workspace: &Workspace) -> Result<Vec<&'static str>, String> {
    let mut found_without_source = false;
    for prefix in [vec!["cargo"], vec!["rustup", "run", "nightly", "cargo"]] {
        if shell::output(started(workspace, &prefix).args(["miri", "--version"])).is_none() {
            continue;
        }
        let rustc: Vec<&str> = prefix
            .iter()
            .map(|word| if *word == "cargo" { "rustc" } else { word })
            .collect();
        let sysroot = shell::output(started(workspace, &rustc).args(["--print", "sysroot"]));
        let source = "lib/rustlib/src/rust/library";
        if sysroot.is_some_and(|root| Path::new(root.trim()).join(source).is_dir()) {
            return Ok(prefix);
        }
        found_without_source = true;
    }
    let lacks = if found_without_source {
        "rust-src"
    } else {
        "Miri"
    };
    Err(format!(
        "no toolchain here has {lacks}: rustup toolchain install nightly --component miri,rust-src"
    ))
}

fn miri(workspace: &Workspace, prefix: &[&'static str]) -> impl Fn() -> Command {
    || {
        let mut command = started(workspace, prefix);
        command
            .args([
                "miri", "test", "-p", "xdp-core", "--test", "table", "--test", "halves",
            ])
            // The property tests look for files of earlier failures.
            .env("MIRIFLAGS", "-Zmiri-disable-isolation")
            .env("CARGO_TARGET_DIR", workspace.target("miri"));
        command
    }
}

fn started(workspace: &Workspace, words: &[&str]) -> Command {
    let mut command = match words {
        ["cargo"] => workspace.cargo(),
        [first, ..] => workspace.foreign(Path::new(first)),
        [] => workspace.cargo(),
    };
    command.args(words.get(1..).unwrap_or_default());
    // A look must not download a toolchain.
    command.env("RUSTUP_AUTO_INSTALL", "0");
    command
}

fn tests(
    name: &str,
    recipe: &Recipe<'_>,
    filter: Option<&str>,
    summary: &mut Summary,
) -> Result<()> {
    let mut command = recipe();
    command.args(filter.map(|filter| ["--", filter]).into_iter().flatten());
    report::run(name, command, filter, summary)
}
