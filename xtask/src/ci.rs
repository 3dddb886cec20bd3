//! `cargo xtask ci`: the checks that read the source, then all tests.

use std::{
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};

use crate::{
    build, layout,
    report::{Counts, Outcome, Summary},
    setup::Toolchain,
    shell,
    workspace::Workspace,
};

/// Formatting, lints for the host and for BPF, documentation. Needs the objects to be built.
pub(crate) fn checks(
    workspace: &Workspace,
    tools: &Toolchain,
    summary: &mut Summary,
) -> Result<()> {
    let mut format = workspace.cargo();
    format.args(["fmt", "--all", "--check"]);
    check("fmt", &mut format, summary)?;

    check_layout(workspace, summary)?;

    let mut host = workspace.cargo();
    host.args([
        "clippy",
        "--workspace",
        "--exclude",
        "xdp-ebpf",
        "--all-targets",
    ]);
    host.args(build::FAILPOINTS);
    host.args(["--", "-D", "warnings"]);
    check("clippy for the host", &mut host, summary)?;

    bpf_clippy(workspace, tools, summary)?;

    let mut doc = workspace.cargo();
    doc.args([
        "doc",
        "--no-deps",
        "-p",
        "xdp-common",
        "-p",
        "xdp-core",
        "-p",
        "xdp-user",
    ]);
    doc.env("RUSTDOCFLAGS", "-D warnings");
    check("doc", &mut doc, summary)
}

/// Arrows between rooms, lengths, words and links: read by this program itself.
fn check_layout(workspace: &Workspace, summary: &mut Summary) -> Result<()> {
    println!("== layout");
    let started = Instant::now();
    let findings = layout::check(workspace.root())?;
    for finding in &findings {
        println!("{finding}");
    }
    let outcome = Outcome::Ran {
        ok: findings.is_empty(),
        counts: Counts::default(),
    };
    summary.add("layout", outcome, started.elapsed());
    Ok(())
}

/// The lints of the eBPF crate, with the clippy of the compiler that builds it: called by path,
/// because `cargo clippy` would find that of rustup first, which fits no other compiler.
fn bpf_clippy(workspace: &Workspace, tools: &Toolchain, summary: &mut Summary) -> Result<()> {
    let name = "clippy for BPF";
    if !tools.compiler.has("cargo-clippy") || !tools.compiler.has("clippy-driver") {
        let reason = format!("{} has no clippy", tools.compiler.sysroot.display());
        summary.add(name, Outcome::Skipped { reason }, Duration::ZERO);
        return Ok(());
    }
    for variant in build::VARIANTS {
        let mut clippy = build::bpf_cargo(workspace, tools, variant, "cargo-clippy");
        clippy.arg("clippy");
        build::bpf_package(&mut clippy, variant);
        clippy.args(["--", "-D", "warnings"]);
        check(name, &mut clippy, summary)?;
    }
    Ok(())
}

fn check(name: &str, command: &mut Command, summary: &mut Summary) -> Result<()> {
    let text = shell::line(command);
    println!("== {name}: {text}");
    let started = Instant::now();
    let status = command
        .status()
        .with_context(|| format!("failed to start `{text}`"))?;
    let outcome = Outcome::Ran {
        ok: status.success(),
        counts: Counts::default(),
    };
    summary.add(name, outcome, started.elapsed());
    Ok(())
}
