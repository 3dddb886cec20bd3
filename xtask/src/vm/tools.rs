//! The programs that make and run a virtual machine: on PATH, or from Debian packages that are
//! unpacked below the target directory. Nothing is installed: QEMU would conflict with other
//! versions of its own packages, and unpacking needs no root.

use std::{
    env, fs,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use super::fetch;
use crate::{shell, workspace::Workspace};

/// Each program and the package that brings it.
const PROGRAMS: [(&str, &str); 6] = [
    ("busybox", "busybox-static"),
    ("ipvsadm", "ipvsadm"),
    ("kmod", "kmod"),
    ("qemu-system-x86_64", "qemu-system-x86"),
    ("xz", "xz-utils"),
    ("zstd", "zstd"),
];

/// Where a package puts programs.
const PROGRAM_DIRS: [&str; 4] = ["usr/bin", "usr/sbin", "bin", "sbin"];

/// Where a package puts libraries.
const LIBRARY_DIRS: [&str; 2] = ["usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu"];

/// The programs of this machine and the unpacked ones.
pub(crate) struct Tools {
    root: PathBuf,
}

impl Tools {
    /// What PATH has, and nothing else.
    #[cfg(test)]
    pub(crate) fn of_path() -> Self {
        Self {
            root: "/nowhere".into(),
        }
    }

    /// Finds every program, or unpacks the packages of those that are missing.
    pub(crate) fn find(workspace: &Workspace) -> Result<Self> {
        let tools = Self {
            root: workspace.target("vm/tools"),
        };
        let missing = |tools: &Self| -> Vec<(&str, &str)> {
            let absent = |(program, _): &(&str, &str)| tools.program(program).is_err();
            PROGRAMS.into_iter().filter(absent).collect()
        };
        if missing(&tools).is_empty() {
            return Ok(tools);
        }
        // All that PATH has not, not only what is new: the directory is replaced as a whole.
        let wanted: Vec<&str> = PROGRAMS
            .iter()
            .filter(|(program, _)| on_path(program).is_none())
            .map(|(_, package)| *package)
            .collect();
        let part = workspace.target("vm/tools.part");
        let what = format!(
            "vm: unpacking Debian packages, none is installed ({})",
            wanted.join(" ")
        );
        shell::step(&what, || {
            let names = fetch::with_dependencies(workspace, &wanted)?;
            fetch::unpack(workspace, &names, &part)?;
            replace(&part, &tools.root)
        })?;
        let left: Vec<&str> = missing(&tools).iter().map(|(name, _)| *name).collect();
        if !left.is_empty() {
            bail!(
                "failed to find {} in what was unpacked to {}",
                left.join(", "),
                tools.root.display()
            );
        }
        Ok(tools)
    }

    /// The file of a program.
    pub(crate) fn program(&self, name: &str) -> Result<PathBuf> {
        let unpacked = PROGRAM_DIRS.map(|dir| self.root.join(dir).join(name));
        on_path(name)
            .or_else(|| unpacked.into_iter().find(|file| file.is_file()))
            .with_context(|| format!("failed to find the program {name}"))
    }

    /// A command that finds the unpacked libraries.
    pub(crate) fn command(&self, name: &str) -> Result<Command> {
        let file = self.program(name)?;
        let mut command = Command::new(&file);
        if file.starts_with(&self.root) {
            self.libraries(&mut command);
        }
        Ok(command)
    }

    /// kmod under one of its names: which one it is called by decides what it does.
    pub(crate) fn kmod(&self, name: &str) -> Result<Command> {
        let mut command = self.command("kmod")?;
        command.arg0(name);
        Ok(command)
    }

    /// Lets a command find the unpacked libraries.
    pub(crate) fn libraries(&self, command: &mut Command) {
        let dirs = LIBRARY_DIRS.map(|dir| self.root.join(dir));
        if let Ok(path) = env::join_paths(dirs) {
            command.env("LD_LIBRARY_PATH", path);
        }
    }

    /// Where QEMU finds its firmware, when it is not the installed one.
    pub(crate) fn firmware(&self) -> Vec<PathBuf> {
        ["usr/share/qemu", "usr/share/seabios"]
            .map(|dir| self.root.join(dir))
            .into_iter()
            .filter(|dir| dir.is_dir())
            .collect()
    }

    /// The name that a file has for whoever does not know that it was unpacked here.
    pub(crate) fn installed_name(&self, file: &Path) -> PathBuf {
        match file.strip_prefix(&self.root) {
            Ok(inside) => Path::new("/").join(inside),
            Err(_) => file.to_path_buf(),
        }
    }
}

/// Puts a finished directory where an old one may be.
pub(crate) fn replace(part: &Path, whole: &Path) -> Result<()> {
    let failed = || format!("failed to replace {}", whole.display());
    if whole.exists() {
        fs::remove_dir_all(whole).with_context(failed)?;
    }
    fs::rename(part, whole).with_context(failed)
}

/// The first file of that name on PATH or where the administrator's programs are.
pub(crate) fn on_path(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|dir| dir.join(name))
        .find(|file| file.is_file())
}
