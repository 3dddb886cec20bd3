//! Paths of the workspace, and the environment that a nested cargo gets.

use std::{
    env,
    ffi::{OsStr, OsString},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

/// Set by cargo or rustup for the outer `cargo run` (or by a user, for the host's compiler): each
/// would send another toolchain's cargo to the wrong compiler or change its flags.
const OUTER: [&str; 7] = [
    "CARGO",
    "CARGO_ENCODED_RUSTFLAGS",
    "RUSTFLAGS",
    "RUSTDOCFLAGS",
    "RUSTDOC",
    "RUSTUP_TOOLCHAIN",
    "RUST_RECURSION_COUNT",
];

/// The same, for whole families of variables.
const OUTER_PREFIXES: [&str; 6] = [
    "RUSTC",
    "CARGO_BUILD_",
    "CARGO_PKG_",
    "CARGO_MANIFEST_",
    "CARGO_PROFILE_",
    "CARGO_TARGET_",
];

/// The repository's directories.
pub(crate) struct Workspace {
    root: PathBuf,
    target: PathBuf,
}

impl Workspace {
    /// The workspace that this xtask was built from.
    pub(crate) fn find() -> Result<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"))
            .parent()
            .context("failed to find the workspace above the xtask crate")?
            .to_path_buf();
        let target = match env::var_os("CARGO_TARGET_DIR") {
            // Nested commands run in the root, so a relative path must be resolved now.
            Some(dir) => std::path::absolute(dir).context("failed to resolve CARGO_TARGET_DIR")?,
            None => root.join("target"),
        };
        Ok(Self { root, target })
    }

    /// The directory of the root Cargo.toml.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// A path in cargo's target directory.
    pub(crate) fn target(&self, path: &str) -> PathBuf {
        self.target.join(path)
    }

    /// The variables by which tests and the lab find what was built here.
    pub(crate) fn lab_variables(&self) -> [(&'static str, PathBuf); 2] {
        [
            ("IKENAT_BIN", self.target("debug/ikenat")),
            ("IKENAT_PEER_OBJECT", self.target("bpf/peer.o")),
        ]
    }

    /// The cargo that runs this program, in the root, with the same target directory.
    pub(crate) fn cargo(&self) -> Command {
        let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut command = Command::new(cargo);
        command
            .current_dir(&self.root)
            .env("CARGO_TARGET_DIR", &self.target);
        command
    }

    /// A program of another toolchain, in the root, with nothing inherited from the outer cargo.
    pub(crate) fn foreign(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.current_dir(&self.root);
        for (name, _) in env::vars_os() {
            if is_outer(&name) {
                command.env_remove(name);
            }
        }
        match env::var_os("LD_LIBRARY_PATH").and_then(|old| self.without_outer_libraries(&old)) {
            Some(kept) => command.env("LD_LIBRARY_PATH", kept),
            None => command.env_remove("LD_LIBRARY_PATH"),
        };
        command
    }

    /// `cargo run` puts its own libraries first on the path; the rest is the user's and stays.
    fn without_outer_libraries(&self, old: &OsStr) -> Option<OsString> {
        let kept: Vec<PathBuf> = env::split_paths(old)
            .filter(|dir| !dir.starts_with(&self.target))
            .filter(|dir| {
                !dir.iter()
                    .any(|part| part == "toolchains" || part == "rustlib")
            })
            .collect();
        if kept.is_empty() {
            None
        } else {
            env::join_paths(kept).ok()
        }
    }
}

fn is_outer(name: &OsStr) -> bool {
    let name = name.to_string_lossy();
    OUTER.contains(&&*name) || OUTER_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

/// Whether this process may do what needs root (packages, namespaces, BPF).
pub(crate) fn is_root() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    effective_uid(&status) == Some(0)
}

fn effective_uid(status: &str) -> Option<u32> {
    let line = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_effective_uid_is_the_second() {
        assert_eq!(effective_uid("Name:\tx\nUid:\t1000\t0\t0\t0\n"), Some(0));
        assert_eq!(effective_uid("Uid:\t0\t1000\t0\t0\n"), Some(1000));
        assert_eq!(effective_uid("Gid:\t0\t0\t0\t0\n"), None);
    }

    #[test]
    fn only_the_outer_build_is_forgotten() {
        for name in [
            "RUSTC_WRAPPER",
            "CARGO",
            "CARGO_TARGET_DIR",
            "RUSTUP_TOOLCHAIN",
        ] {
            assert!(is_outer(OsStr::new(name)), "{name}");
        }
        for name in [
            "CARGO_HOME",
            "CARGO_HTTP_PROXY",
            "CARGO_NET_OFFLINE",
            "PATH",
            "RUSTUP_HOME",
        ] {
            assert!(!is_outer(OsStr::new(name)), "{name}");
        }
    }

    #[test]
    fn the_users_libraries_stay() {
        let workspace = Workspace {
            root: "/w".into(),
            target: "/w/target".into(),
        };
        let path = "/w/target/debug:/opt/lib:/r/toolchains/stable/lib:/s/lib/rustlib/x/lib";
        let kept = workspace.without_outer_libraries(OsStr::new(path));
        assert_eq!(kept.as_deref(), Some(OsStr::new("/opt/lib")));
        assert_eq!(
            workspace.without_outer_libraries(OsStr::new("/w/target/debug")),
            None
        );
    }
}
