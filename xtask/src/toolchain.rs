//! What compiles and links for the BPF target: which compilers and linkers this machine has, and
//! whether they fit. setup.rs installs what is missing.

use std::{
    env, fs,
    ops::RangeInclusive,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{shell, workspace::Workspace};

/// The accepted rustc 1.x. Older ones lack `rust-version`, and their LLVM trails; the eBPF crate uses
/// `core::intrinsics::atomic_*` with const-generic orderings, which are unstable: raise the upper
/// end after a build with the new release.
pub(crate) const RUSTC_MINOR: RangeInclusive<u32> = 95..=98;

/// The LLVM that setup builds bpf-linker against when it finds no linker that fits.
pub(crate) const LLVM_INSTALLABLE: u32 = 22;

/// Where Debian's compiler lives.
pub(crate) const DEBIAN_SYSROOT: &str = "/usr";

/// A Rust compiler that has the source of `core`.
#[derive(Debug)]
pub(crate) struct Compiler {
    /// The directory above its `bin` and `lib`.
    pub(crate) sysroot: PathBuf,
    /// 96 for 1.96.
    pub(crate) minor: u32,
    /// The major version of its LLVM.
    pub(crate) llvm: u32,
}

impl Compiler {
    /// A command of this toolchain (`cargo`, `cargo-clippy`) that compiles with this toolchain.
    pub(crate) fn command(&self, workspace: &Workspace, program: &str) -> Command {
        let mut command = workspace.foreign(&self.program(program));
        command
            .env("CARGO", self.program("cargo"))
            .env("RUSTC", self.program("rustc"))
            // build-std and the intrinsics are unstable; a stable compiler of the accepted range
            // knows them all the same.
            .env("RUSTC_BOOTSTRAP", "1");
        command
    }

    /// Whether the toolchain brings this program.
    pub(crate) fn has(&self, program: &str) -> bool {
        self.program(program).is_file()
    }

    fn program(&self, name: &str) -> PathBuf {
        self.sysroot.join("bin").join(name)
    }
}

/// A bpf-linker that starts.
#[derive(Debug)]
pub(crate) struct Linker {
    /// The executable.
    pub(crate) path: PathBuf,
    /// The major version of the LLVM it is linked with.
    pub(crate) llvm: u32,
}

/// The first compiler whose bitcode an LLVM of version `llvm` or older can read.
/// rustup's toolchains come first, because their user keeps them up to date; then Debian's.
pub(crate) fn find_compiler(workspace: &Workspace, llvm: u32) -> Option<Compiler> {
    let mut sysroots = Vec::new();
    let mut rustc = Command::new("rustc");
    rustc
        .current_dir(workspace.root())
        .args(["--print", "sysroot"]);
    if let Some(active) = shell::output(&mut rustc) {
        sysroots.push(PathBuf::from(active.trim()));
    }
    sysroots.extend(rustup_toolchains());
    sysroots.push(DEBIAN_SYSROOT.into());
    sysroots
        .into_iter()
        .filter_map(|sysroot| probe_compiler(workspace, sysroot))
        .find(|compiler| RUSTC_MINOR.contains(&compiler.minor) && compiler.llvm <= llvm)
}

fn rustup_toolchains() -> Vec<PathBuf> {
    let home = env::var_os("RUSTUP_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(env::home_dir()?.join(".rustup")));
    let Some(home) = home else { return Vec::new() };
    let Ok(entries) = fs::read_dir(home.join("toolchains")) else {
        return Vec::new();
    };
    let mut found: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    // The order of a directory is chance; stable names sort after nightly and numbers.
    found.sort_unstable_by(|a, b| b.cmp(a));
    found
}

fn probe_compiler(workspace: &Workspace, sysroot: PathBuf) -> Option<Compiler> {
    if !sysroot.join("lib/rustlib/src/rust/library/core").is_dir() {
        return None;
    }
    let compiler = Compiler {
        sysroot,
        minor: 0,
        llvm: 0,
    };
    if !compiler.has("cargo") {
        return None;
    }
    let said = shell::output(compiler.command(workspace, "rustc").arg("-vV"))?;
    let (minor, llvm) = parse_rustc(&said)?;
    Some(Compiler {
        minor,
        llvm,
        ..compiler
    })
}

/// The minor version of a rustc 1.x and the major one of its LLVM, from `rustc -vV`.
fn parse_rustc(said: &str) -> Option<(u32, u32)> {
    let field = |name: &str| said.lines().find_map(|line| line.strip_prefix(name));
    let minor = field("release: 1.")?.split('.').next()?.parse().ok()?;
    let llvm = field("LLVM version: ")?.split('.').next()?.parse().ok()?;
    Some((minor, llvm))
}

/// The linkers on PATH, in cargo's bin directory and in `target/tools`, that start.
pub(crate) fn find_linkers(workspace: &Workspace) -> Vec<Linker> {
    let cargo_bin = env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(env::home_dir()?.join(".cargo")))
        .map(|home| home.join("bin"));
    let path = env::var_os("PATH").unwrap_or_default();
    let mut dirs: Vec<PathBuf> = env::split_paths(&path).collect();
    dirs.extend(cargo_bin);
    dirs.push(workspace.target("tools/bin"));
    let mut found: Vec<PathBuf> = Vec::new();
    for dir in dirs {
        let file = dir.join("bpf-linker");
        if file.is_file() && !found.contains(&file) {
            found.push(file);
        }
    }
    found.iter().filter_map(|path| probe_linker(path)).collect()
}

fn probe_linker(path: &Path) -> Option<Linker> {
    let said = shell::output(Command::new(path).arg("--version"))?;
    if !said.starts_with("bpf-linker") {
        return None;
    }
    let llvm = linked_llvm(&fs::read(path).ok()?)?;
    Some(Linker {
        path: path.to_path_buf(),
        llvm,
    })
}

/// The major version of the LLVM in an executable. `bpf-linker --version` does not tell it, but a
/// shared LLVM is named in the list of libraries (`libLLVM.so.22.1`, once `libLLVM-22.so`), and a
/// static one carries the producer string of the bitcode writer (`LLVM22.1.8`).
fn linked_llvm(binary: &[u8]) -> Option<u32> {
    let mut newest = None;
    let mut at = 0;
    while let Some(next) = binary.get(at..)?.iter().position(|&byte| byte == b'L') {
        at += next + 1;
        let Some(rest) = binary.get(at..).and_then(|rest| rest.strip_prefix(b"LVM")) else {
            continue;
        };
        if let Some(shared) = rest
            .strip_prefix(b".so.")
            .or_else(|| rest.strip_prefix(b"-"))
        {
            if let Some((major, _)) = number(shared) {
                return Some(major);
            }
        } else if let Some(major) = producer(rest) {
            newest = newest.max(Some(major));
        }
    }
    newest
}

/// The major version of `22.1.8`: three numbers, because `LLVM3.` alone occurs in other strings.
fn producer(text: &[u8]) -> Option<u32> {
    let (major, rest) = number(text)?;
    let (_, rest) = number(rest.strip_prefix(b".")?)?;
    number(rest.strip_prefix(b".")?)?;
    Some(major)
}

fn number(text: &[u8]) -> Option<(u32, &[u8])> {
    let digits = text
        .iter()
        .take(3)
        .take_while(|byte| byte.is_ascii_digit())
        .count();
    let (head, rest) = text.split_at(digits);
    Some((str::from_utf8(head).ok()?.parse().ok()?, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rustc_tells_its_version_and_its_llvm() {
        let said = "rustc 1.97.0-nightly (e50 2026-05-19)\nbinary: rustc\n\
                    host: x86_64-unknown-linux-gnu\nrelease: 1.97.0-nightly\nLLVM version: 22.1.4\n";
        assert_eq!(parse_rustc(said), Some((97, 22)));
        assert_eq!(parse_rustc("release: 1.96.0\n"), None);
        assert_eq!(parse_rustc("release: 2.0.0\nLLVM version: 30.1.0\n"), None);
    }

    #[test]
    fn the_linkers_llvm_is_read_from_its_strings() {
        assert_eq!(
            linked_llvm(b"\0libLLVM.so.22.1\0LLVM 21 builds\0"),
            Some(22)
        );
        assert_eq!(
            linked_llvm(b"\0libLLVM.so.22.1-rust-1.95.0-stable\0"),
            Some(22)
        );
        assert_eq!(linked_llvm(b"\0libLLVM-19.so\0"), Some(19));
        assert_eq!(linked_llvm(b"LLLVM3.2 bitcode\0LLVM22.1.8\0"), Some(22));
        assert_eq!(linked_llvm(b"LLVM 22 builds also support\0LLVM"), None);
        assert_eq!(linked_llvm(b""), None);
    }
}
