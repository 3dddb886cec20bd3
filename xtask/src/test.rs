//! `cargo xtask test`: runs the test binaries part by part, passes on what they print, and adds
//! up. Knows which parts there are and what each needs; knows no test.

use std::{
    io::{self, Read as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

use crate::{
    bench::{self, GATE},
    setup::Toolchain,
    shell,
    summary::{Counts, Outcome, Summary},
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
    let title = format!("{VM} {}: {}", series.name(), suite::title(parts));
    if let Some(reason) = suite::obstacle() {
        summary.add(&title, Outcome::Skipped { reason }, Duration::ZERO);
        return Ok(());
    }
    let binaries = suite::binaries(workspace, parts)?;
    let command = suite::recipe(workspace, series, &binaries)?;
    reported(&title, command, None, summary)
}

/// Prints the summary; fails when a part did.
pub(crate) fn finish(summary: &Summary) -> Result<()> {
    println!("{}", summary.text());
    if summary.failed() {
        // The summary has the last word on stdout; the error would only repeat it.
        std::process::exit(1);
    }
    Ok(())
}

/// What the lab needs to know to find what we built.
pub(crate) fn lab_environment(workspace: &Workspace, command: &mut Command) {
    command.envs(lab_variables(workspace));
}

/// The same, as names and values.
pub(crate) fn lab_variables(workspace: &Workspace) -> [(&'static str, PathBuf); 2] {
    [
        ("IKENAT_BIN", workspace.target("debug/ikenat")),
        ("IKENAT_PEER_OBJECT", workspace.target("bpf/peer.o")),
    ]
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
        lab_environment(workspace, &mut cargo);
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
            .args(["miri", "test", "-p", "xdp-core", "--test", "table"])
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
    reported(name, command, filter, summary)
}

/// Runs a command that reports as test binaries do, and adds up what it says.
pub(crate) fn reported(
    name: &str,
    mut command: Command,
    filter: Option<&str>,
    summary: &mut Summary,
) -> Result<()> {
    println!("== {name}: {}", shell::line(&command));
    let started = Instant::now();
    let (ok, counts) = streamed(&mut command, &mut io::stdout())?;
    if filter.is_some() && ok && counts.is_empty() {
        bail!("no test has {} in its name", filter.unwrap_or_default());
    }
    summary.add(name, Outcome::Ran { ok, counts }, started.elapsed());
    Ok(())
}

/// Runs with standard output passed on as it comes and read along.
fn streamed(command: &mut Command, terminal: &mut impl io::Write) -> Result<(bool, Counts)> {
    let text = shell::line(command);
    let failed = || format!("failed to run `{text}`");
    let mut child = command
        .stdout(Stdio::piped())
        .spawn()
        .with_context(failed)?;
    let mut from = child.stdout.take().with_context(failed)?;
    let mut counts = Counts::default();
    let mut line = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        let size = from.read(&mut chunk).with_context(failed)?;
        if size == 0 {
            break;
        }
        // A reader that has gone (`| head`) does not end the tests, which clean up after themselves.
        let _ = terminal
            .write_all(&chunk[..size])
            .and_then(|()| terminal.flush());
        for byte in &chunk[..size] {
            if *byte == b'\n' {
                counts.read(&String::from_utf8_lossy(&line));
                line.clear();
            } else {
                line.push(*byte);
            }
        }
    }
    let status = child.wait().with_context(failed)?;
    Ok((status.success(), counts))
}

#[cfg(test)]
mod unit {
    use super::*;

    #[test]
    fn output_is_read_along() {
        let mut command = Command::new("sh");
        command.args([
            "-c",
            "echo 'test result: ok. 2 passed; 0 failed; 0 ignored;'; exit 3",
        ]);
        // Not to the real output: whoever reads along there would count it.
        let mut shown = Vec::new();
        let (ok, counts) = streamed(&mut command, &mut shown).expect("sh starts");
        assert!(!ok);
        assert_eq!(shown, b"test result: ok. 2 passed; 0 failed; 0 ignored;\n");
        let mut expected = Counts::default();
        expected.read("test result: ok. 2 passed;");
        assert_eq!(counts, expected);
    }
}
