//! Debian packages: which are needed, which are missing, and how to install them without
//! starting a daemon.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use crate::{
    shell,
    workspace::{Workspace, is_root},
};

/// What any Rust build links with.
pub(crate) const HOST: &[&str] = &["gcc", "libc6-dev"];

/// A compiler that has the source of `core`. rustup users need none of it.
pub(crate) const COMPILER: &[&str] = &["rustc-web", "cargo-web", "rust-web-src", "rust-web-clippy"];

/// What bpf-linker is built with.
pub(crate) const LINKER: &[&str] = &["llvm-22-dev"];

/// What the demo and the tests of behaviour start in their namespaces.
pub(crate) const LAB: &[&str] = &[
    "bpftool",
    "charon-systemd",
    "ethtool",
    "iproute2",
    "iptables",
    "iputils-ping",
    // Its service starts only when there is a configuration.
    "keepalived",
    "libcharon-extra-plugins",
    "libstrongswan-extra-plugins",
    "nftables",
    "openssl",
    "procps",
    "strongswan-pki",
    "strongswan-swanctl",
    "tcpdump",
    "util-linux",
];

/// The unit of charon-systemd.
const STRONGSWAN_UNIT: &str = "strongswan.service";

/// Whether this system installs with apt.
pub(crate) fn is_debian() -> bool {
    Path::new("/usr/bin/dpkg-query").exists() && Path::new("/usr/bin/apt-get").exists()
}

/// Those of `wanted` that are not installed, in the order given.
pub(crate) fn missing<'a>(wanted: &[&'a str]) -> Vec<&'a str> {
    let mut query = Command::new("dpkg-query");
    query
        .args(["-W", "-f", "${db:Status-Status} ${Package}\n"])
        .args(wanted);
    // dpkg-query fails as soon as one name is unknown to it, and still lists the others.
    let said = query.output().map(|out| out.stdout).unwrap_or_default();
    let installed = installed(&String::from_utf8_lossy(&said));
    wanted
        .iter()
        .filter(|name| !installed.contains(**name))
        .copied()
        .collect()
}

fn installed(said: &str) -> BTreeSet<String> {
    said.lines()
        .filter_map(|line| line.strip_prefix("installed "))
        .map(str::to_owned)
        .collect()
}

/// Installs the packages, or says why it cannot and what to do instead.
pub(crate) fn install(workspace: &Workspace, packages: &[&str]) -> Result<()> {
    if !is_root() {
        bail!(
            "these Debian packages are missing and only root can install them. Run: \
             sudo apt-get install --no-install-recommends {}",
            packages.join(" ")
        );
    }
    let log = workspace.target("tools/apt.log");
    let what = format!("setup: installing Debian packages ({})", packages.join(" "));
    shell::step(&what, || {
        let mut update = Command::new("apt-get");
        update.arg("update");
        let update_log = workspace.target("tools/apt-update.log");
        shell::run_logged(&mut update, &update_log).context(
            "failed to fetch the package lists: check the network and /etc/apt/sources.list*",
        )?;
        let path = without_starting_strongswan(workspace)?;
        let mut command = apt_install(packages, &path);
        if let Err(error) = shell::run_logged(&mut command, &log) {
            // Without network the update only warns, and its log explains what the other cannot.
            let said = [&update_log, &log].map(|log| fs::read_to_string(log).unwrap_or_default());
            return Err(error.context(cause(&said.concat())));
        }
        Ok(())
    })?;
    if packages.contains(&"charon-systemd") {
        disable_strongswan();
    }
    Ok(())
}

fn apt_install(packages: &[&str], path: &str) -> Command {
    let mut command = Command::new("apt-get");
    command
        .env("DEBIAN_FRONTEND", "noninteractive")
        // Never remove what somebody has installed, such as Debian's own rustc or rustup, with
        // which the compiler conflicts: say so instead.
        .args(["install", "-y", "--no-install-recommends", "--no-remove"])
        .args(["-o", "DPkg::Lock::Timeout=120"])
        .args([
            "-o",
            "Dpkg::Options::=--force-confdef",
            "-o",
            "Dpkg::Options::=--force-confold",
        ])
        .arg("-o")
        .arg(format!("DPkg::Path={path}"))
        .args(packages);
    command
}

/// A PATH for dpkg on which the start of strongSwan's service is a no-op.
///
/// charon-systemd starts its daemon when it is installed. On a machine that was only to run the lab, that
/// daemon would take UDP 500 and 4500 in the root namespace and answer anyone. A policy-rc.d
/// would be a global switch that has to be restored whatever happens, and would also keep
/// other packages from restarting theirs; a directory that only this dpkg sees needs no restoring.
fn without_starting_strongswan(workspace: &Workspace) -> Result<String> {
    let dir: PathBuf = workspace.target("tools/dpkg-path");
    fs::create_dir_all(&dir).with_context(|| format!("failed to create {}", dir.display()))?;
    let shim = dir.join("deb-systemd-invoke");
    let text = format!(
        "#!/bin/sh\ncase \" $* \" in *\" {STRONGSWAN_UNIT} \"*) exit 0 ;; esac\n\
         exec /usr/bin/deb-systemd-invoke \"$@\"\n"
    );
    fs::write(&shim, text).with_context(|| format!("failed to write {}", shim.display()))?;
    fs::set_permissions(&shim, fs::Permissions::from_mode(0o755))
        .with_context(|| format!("failed to make {} executable", shim.display()))?;
    Ok(format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", dir.display()))
}

/// The package also enables its service for the next boot, with the same effect.
fn disable_strongswan() {
    let mut disable = Command::new("systemctl");
    disable.args(["disable", STRONGSWAN_UNIT]);
    if shell::output(&mut disable).is_some() {
        println!(
            "setup: {STRONGSWAN_UNIT} is installed, but neither started nor enabled: the lab runs \
             daemons of its own (`systemctl enable --now {STRONGSWAN_UNIT}` if you want it)"
        );
    }
}

/// A sentence for what apt said.
fn cause(said: &str) -> String {
    let offline = [
        "Temporary failure resolving",
        "Could not connect",
        "Failed to fetch",
    ];
    if offline.iter().any(|sign| said.contains(sign)) {
        return "failed to reach the package mirror: check the network".to_owned();
    }
    if said.contains("remove is disabled") {
        return format!(
            "failed to install: a package here conflicts with one of {} (Debian's own rustc or \
             rustup do). Remove it, or let rustup install the component rust-src",
            COMPILER.join(", ")
        );
    }
    let unknown: Vec<&str> = said.lines().filter_map(unknown_package).collect();
    if unknown.is_empty() {
        return "failed to install Debian packages".to_owned();
    }
    let mut text = format!(
        "failed to install: this release has no {}",
        unknown.join(", ")
    );
    if unknown.iter().any(|name| COMPILER.contains(name)) {
        text.push_str(". A compiler of rustup with the component rust-src will do as well");
    }
    if unknown.iter().any(|name| LINKER.contains(name)) {
        text.push_str(". A bpf-linker on PATH will do as well");
    }
    text
}

fn unknown_package(line: &str) -> Option<&str> {
    line.strip_prefix("E: Unable to locate package ")
        .or_else(|| {
            line.strip_prefix("E: Package '")?
                .strip_suffix("' has no installation candidate")
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_fully_installed_packages_count() {
        let said = "installed gcc\nconfig-files tcpdump\nnot-installed nftables\n";
        assert_eq!(installed(said), BTreeSet::from(["gcc".to_owned()]));
    }

    #[test]
    fn the_cause_names_the_package() {
        let said = "Reading...\nE: Unable to locate package rustc-web\n\
                    E: Package 'bpftool' has no installation candidate\n";
        let text = cause(said);
        assert!(
            text.contains("has no rustc-web, bpftool. A compiler"),
            "{text}"
        );
        let unknown = "E: Unable to locate package tcpdump\n";
        assert!(cause(unknown).ends_with("has no tcpdump"));
        // Lists that could not be fetched make every package unknown.
        assert!(cause(&format!("W: Failed to fetch x\n{unknown}")).contains("network"));
        assert!(cause("E: Temporary failure resolving 'x'").contains("network"));
        assert!(cause("E: Packages need to be removed but remove is disabled.").contains("rustup"));
        assert!(!cause("E: dpkg was interrupted").contains("network"));
    }

    #[test]
    fn apt_removes_nothing_and_asks_nothing() {
        let text = shell::line(&apt_install(&["gcc"], "/x:/bin"));
        for part in [
            "-y",
            "--no-remove",
            "--no-install-recommends",
            "DPkg::Path=/x:/bin",
            "gcc",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }
}
