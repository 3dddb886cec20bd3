//! `cargo xtask setup`: finds or installs the packages, the eBPF compiler and bpf-linker.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use crate::{
    packages, shell,
    toolchain::{self, Compiler, Linker},
    workspace::Workspace,
};

/// The bpf-linker that setup builds.
const LINKER_VERSION: &str = "0.13.0";

/// What the eBPF objects are built with.
pub(crate) struct Toolchain {
    /// Compiles.
    pub(crate) compiler: Compiler,
    /// Links.
    pub(crate) linker: Linker,
}

/// Programs of the lab, looked for where no dpkg can tell.
const LAB_PROGRAMS: &[&str] = &[
    "bpftool", "ethtool", "ip", "iptables", "nft", "openssl", "ping", "pki", "swanctl", "sysctl",
    "tcpdump", "unshare",
];

/// Finds or installs everything, with a line for each step.
pub(crate) fn run(workspace: &Workspace) -> Result<Toolchain> {
    let linkers = toolchain::find_linkers(workspace);
    let newest = linkers.iter().map(|linker| linker.llvm).max().unwrap_or(0);
    let readable = newest.max(toolchain::LLVM_INSTALLABLE);
    let compiler = toolchain::find_compiler(workspace, readable);
    let needed = compiler
        .as_ref()
        .map_or(toolchain::LLVM_INSTALLABLE, |found| found.llvm);
    let linker = linkers.into_iter().find(|linker| linker.llvm >= needed);

    if packages::is_debian() {
        debian(workspace, compiler.as_ref(), linker.is_some())?;
    } else {
        by_hand(compiler.is_some(), linker.is_some())?;
    }

    let compiler = compiler
        .or_else(|| toolchain::find_compiler(workspace, readable))
        .with_context(no_compiler)?;
    println!(
        "setup: compiler: rustc 1.{} in {} (LLVM {})",
        compiler.minor,
        compiler.sysroot.display(),
        compiler.llvm
    );
    let linker = match linker {
        Some(linker) => linker,
        None => install_linker(workspace, compiler.llvm)?,
    };
    println!(
        "setup: linker: {} (LLVM {})",
        linker.path.display(),
        linker.llvm
    );
    Ok(Toolchain { compiler, linker })
}

fn debian(workspace: &Workspace, compiler: Option<&Compiler>, linker: bool) -> Result<()> {
    let mut wanted = [packages::HOST, packages::LAB].concat();
    // Debian's compiler wants its clippy as well, which older checkouts did not install.
    if compiler.is_none_or(|found| found.sysroot == Path::new(toolchain::DEBIAN_SYSROOT)) {
        wanted.extend(packages::COMPILER);
    }
    if !linker {
        wanted.extend(packages::LINKER);
    }
    let missing = packages::missing(&wanted);
    if missing.is_empty() {
        println!("setup: Debian packages: all {} are installed", wanted.len());
        return Ok(());
    }
    packages::install(workspace, &missing)
}

/// Without apt nothing can be installed for the user: everything that is missing is named at once.
fn by_hand(compiler: bool, linker: bool) -> Result<()> {
    let path = env::var_os("PATH").unwrap_or_default();
    let sbin = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    let dirs: Vec<PathBuf> = env::split_paths(&path).chain(sbin).collect();
    let on_path = |name: &str| dirs.iter().any(|dir| dir.join(name).is_file());
    let mut lacks = Vec::new();
    if !on_path("cc") {
        lacks.push("a C compiler, as `cc`".to_owned());
    }
    let programs: Vec<&str> = LAB_PROGRAMS
        .iter()
        .filter(|name| !on_path(name))
        .copied()
        .collect();
    if !programs.is_empty() {
        lacks.push(format!("the programs {}", programs.join(", ")));
    }
    if !compiler {
        lacks.push(no_compiler());
    }
    let llvm = PathBuf::from(llvm_prefix());
    if !linker && !llvm.is_dir() {
        lacks.push(format!(
            "bpf-linker {LINKER_VERSION} on PATH, or LLVM {} with its headers in {}",
            toolchain::LLVM_INSTALLABLE,
            llvm.display()
        ));
    }
    if lacks.is_empty() {
        println!("setup: no Debian here, but every program was found");
        return Ok(());
    }
    bail!(
        "this is not Debian, so setup cannot install what is missing. Install by hand:\n- {}",
        lacks.join("\n- ")
    );
}

fn no_compiler() -> String {
    format!(
        "failed to find a rustc 1.{} to 1.{} with the source of `core`. With rustup: rustup \
         toolchain install nightly --component rust-src. On Debian: the packages {}",
        toolchain::RUSTC_MINOR.start(),
        toolchain::RUSTC_MINOR.end(),
        packages::COMPILER.join(", ")
    )
}

fn llvm_prefix() -> String {
    format!("/usr/lib/llvm-{}", toolchain::LLVM_INSTALLABLE)
}

fn install_linker(workspace: &Workspace, llvm: u32) -> Result<Linker> {
    let mut install = linker_command(workspace);
    let log = workspace.target("tools/bpf-linker.log");
    shell::step(
        &format!("setup: building bpf-linker {LINKER_VERSION}, about a minute"),
        || {
            shell::run_logged(&mut install, &log).context(
                "failed to build bpf-linker: without network, put a bpf-linker of your own on PATH",
            )
        },
    )?;
    let found = toolchain::find_linkers(workspace);
    found
        .into_iter()
        .find(|linker| linker.llvm >= llvm)
        .with_context(|| {
            format!(
                "the bpf-linker just built in {} does not start or is older than LLVM {llvm}",
                workspace.target("tools/bin").display()
            )
        })
}

fn linker_command(workspace: &Workspace) -> Command {
    let mut command = workspace.cargo();
    command
        .env("LLVM_PREFIX", llvm_prefix())
        // A target directory of its own: otherwise cargo would keep 300 MB of it in the workspace's.
        .env_remove("CARGO_TARGET_DIR")
        .args([
            "install",
            "bpf-linker",
            "--version",
            LINKER_VERSION,
            "--locked",
            "--force",
        ])
        .args(["--no-default-features", "--features"])
        .arg(format!("llvm-{}", toolchain::LLVM_INSTALLABLE))
        .arg("--root")
        .arg(workspace.target("tools"));
    command
}
