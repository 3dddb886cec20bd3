//! Debian packages that are fetched and unpacked, but not installed.

use std::{fs, path::Path, process::Command};

use anyhow::{Context as _, Result, bail};

use crate::{packages, shell, workspace::Workspace, workspace::is_root};

/// The packages and those of their dependencies that are not installed here.
pub(crate) fn with_dependencies(workspace: &Workspace, packages: &[&str]) -> Result<Vec<String>> {
    let mut simulate = Command::new("apt-get");
    simulate
        .args(["install", "--simulate", "--no-install-recommends"])
        .args(packages);
    let said = match shell::output(&mut simulate) {
        Some(said) => said,
        None => {
            refresh(workspace)?;
            shell::output(&mut simulate).with_context(|| {
                format!(
                    "failed to find the Debian packages {}: check the network and \
                     /etc/apt/sources.list*",
                    packages.join(", ")
                )
            })?
        }
    };
    Ok(new_packages(&said))
}

/// Of a simulation the packages that it would install. `Inst name [old] (new ...)` is an upgrade of
/// one that is there: an unpacked copy of it (of libc, say) would not fit the installed ones.
fn new_packages(said: &str) -> Vec<String> {
    said.lines()
        .filter_map(|line| line.strip_prefix("Inst ")?.split_once(' '))
        .filter(|(_, rest)| rest.starts_with('('))
        .map(|(name, _)| name.to_owned())
        .collect()
}

/// The direct dependencies of a package, or none when this release does not have it.
pub(crate) fn dependencies(package: &str) -> Vec<String> {
    let mut depends = Command::new("apt-cache");
    depends.args(["depends", "--important", package]);
    let said = shell::output(&mut depends).unwrap_or_default();
    said.lines()
        .filter_map(|line| line.trim().strip_prefix("Depends: "))
        .map(str::to_owned)
        .collect()
}

/// Fetches the packages and unpacks them to `dir`, which is emptied first.
pub(crate) fn unpack<T: AsRef<str>>(
    workspace: &Workspace,
    packages: &[T],
    dir: &Path,
) -> Result<()> {
    let failed = || format!("failed to make {}", dir.display());
    if dir.exists() {
        fs::remove_dir_all(dir).with_context(failed)?;
    }
    let archives = dir.join("archives");
    fs::create_dir_all(&archives).with_context(failed)?;
    if download(workspace, packages, &archives).is_err() {
        // Old lists name versions that the mirror no longer has.
        refresh(workspace)?;
        download(workspace, packages, &archives)
            .context("failed to fetch Debian packages: check the network")?;
    }
    for entry in fs::read_dir(&archives).with_context(failed)? {
        let archive = entry.with_context(failed)?.path();
        if archive.extension().is_some_and(|name| name == "deb") {
            let mut extract = Command::new("dpkg-deb");
            extract.arg("--extract").arg(&archive).arg(dir);
            shell::run_logged(&mut extract, &workspace.target("vm/dpkg.log"))?;
        }
    }
    fs::remove_dir_all(&archives).with_context(failed)
}

fn download<T: AsRef<str>>(workspace: &Workspace, packages: &[T], dir: &Path) -> Result<()> {
    let mut download = Command::new("apt-get");
    download
        .current_dir(dir)
        // Root's apt fetches as another user, who may not write here.
        .args(["-o", "APT::Sandbox::User=root", "download"])
        .args(packages.iter().map(AsRef::as_ref));
    shell::run_logged(&mut download, &workspace.target("vm/apt.log"))
}

/// Fetches the package lists.
pub(crate) fn refresh(workspace: &Workspace) -> Result<()> {
    if !packages::is_debian() {
        bail!("the virtual machines are made of Debian packages: this is not Debian");
    }
    if !is_root() {
        bail!("the lists of Debian packages are missing or old. Run: sudo apt-get update");
    }
    let mut update = Command::new("apt-get");
    update.arg("update");
    shell::run_logged(&mut update, &workspace.target("vm/apt-update.log"))
        .context("failed to fetch the package lists: check the network and /etc/apt/sources.list*")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_upgrade_is_not_unpacked() {
        let said = "NOTE: This is only a simulation!\n\
                    Remv qemu-utils [1:10.0]\n\
                    Inst libc6 [2.36-9] (2.36-9+deb12u10 Debian:12 [amd64])\n\
                    Inst kmod (30+20221128-1 Debian:12 [amd64])\n\
                    Conf kmod (30+20221128-1 Debian:12 [amd64])\n";
        assert_eq!(new_packages(said), ["kmod"]);
    }
}
