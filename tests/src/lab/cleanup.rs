//! Removal of everything that a run creates outside its own memory: on drop, on a panic that
//! aborts, on SIGINT and SIGTERM, and (`clean`) after a run that was killed.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use nix::mount::{MntFlags, umount2};
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use tokio::signal::unix::{SignalKind, signal};

/// The name of every namespace of a lab starts with this; the process id and a number follow.
const NAMESPACE_PREFIX: &str = "ikenat-";
/// The name of every temporary directory of a lab starts with this.
const DIRECTORY_PREFIX: &str = "ikenat-lab-";
/// Where `ip netns` keeps the names.
const NAMESPACES: &str = "/run/netns";
/// Where a lab mounts its private bpffs, below its directory.
pub(crate) const BPFFS: &str = "bpffs";
/// Holds the start time of the process that owns the directory, since process ids are reused.
const OWNER: &str = "owner";

/// Everything that this process would leave behind if it died now.
#[derive(Default)]
struct Belongings {
    processes: BTreeSet<i32>,
    namespaces: BTreeSet<String>,
    directories: BTreeSet<PathBuf>,
}

static BELONGINGS: Mutex<Belongings> = Mutex::new(Belongings {
    processes: BTreeSet::new(),
    namespaces: BTreeSet::new(),
    directories: BTreeSet::new(),
});
static NEXT_LAB: AtomicU32 = AtomicU32::new(0);

fn belongings() -> MutexGuard<'static, Belongings> {
    // A panic elsewhere must not stop the cleaning.
    BELONGINGS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A name that no other lab on this machine has: `<pid>-<n>`.
pub(crate) fn unique() -> String {
    let number = NEXT_LAB.fetch_add(1, Ordering::Relaxed);
    format!("{}-{number}", std::process::id())
}

/// The name of the namespace with this role.
pub(crate) fn namespace_name(unique: &str, role: &str) -> String {
    format!("{NAMESPACE_PREFIX}{unique}-{role}")
}

/// The directory of a lab, removed with the mount in it when dropped.
#[derive(Debug)]
pub(crate) struct Directory(PathBuf);

impl Directory {
    /// Creates it and records its owner.
    pub(crate) fn create(unique: &str) -> Result<Self> {
        let path = std::env::temp_dir().join(format!("{DIRECTORY_PREFIX}{unique}"));
        fs::create_dir(&path).with_context(|| format!("failed to create {}", path.display()))?;
        belongings().directories.insert(path.clone());
        let directory = Self(path);
        let start = start_time(std::process::id()).context("failed to read /proc/self/stat")?;
        fs::write(directory.path().join(OWNER), start)
            .with_context(|| format!("failed to write into {}", directory.path().display()))?;
        Ok(directory)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        remove_directory(&self.0);
    }
}

fn remove_directory(path: &Path) {
    belongings().directories.remove(path);
    let _ = umount2(&path.join(BPFFS), MntFlags::MNT_DETACH);
    let _ = fs::remove_dir_all(path);
}

pub(crate) fn remember_namespace(name: &str) {
    belongings().namespaces.insert(name.to_owned());
}

/// Deletes the namespace; a process that still holds it keeps it alive without a name.
pub(crate) fn remove_namespace(name: &str) {
    belongings().namespaces.remove(name);
    let _ = Command::new("ip").args(["netns", "delete", name]).output();
}

pub(crate) fn remember_process(pid: i32) {
    belongings().processes.insert(pid);
}

/// Runs `reap` while no other thread can signal the process, and forgets it if it was reaped:
/// afterwards its id may belong to another.
pub(crate) fn reap_process<T>(
    pid: i32,
    reap: impl FnOnce() -> T,
    reaped: impl Fn(&T) -> bool,
) -> T {
    let mut belongings = belongings();
    let outcome = reap();
    if reaped(&outcome) {
        belongings.processes.remove(&pid);
    }
    outcome
}

/// Keeps everything when this process ends: `demo --keep`.
pub fn keep_everything() {
    *belongings() = Belongings::default();
}

/// Kills and removes everything that this process has created and not yet removed.
fn remove_everything() {
    let all = std::mem::take(&mut *belongings());
    for pid in all.processes {
        let _ = killpg(Pid::from_raw(pid), Signal::SIGKILL);
    }
    for name in all.namespaces {
        remove_namespace(&name);
    }
    for path in all.directories {
        remove_directory(&path);
    }
}

/// Makes SIGINT, SIGTERM, SIGHUP and a panic that aborts clean up first. It installs handlers and
/// does not block the signals: children inherit the signal mask, and a daemon that cannot receive
/// SIGTERM behaves differently.
pub fn on_interruption() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("failed to prepare for signals")?;
    let inside = runtime.enter();
    let mut interrupt = signal(SignalKind::interrupt()).context("failed to handle SIGINT")?;
    let mut terminate = signal(SignalKind::terminate()).context("failed to handle SIGTERM")?;
    let mut hang_up = signal(SignalKind::hangup()).context("failed to handle SIGHUP")?;
    drop(inside);
    std::thread::spawn(move || {
        let kind = runtime.block_on(async {
            tokio::select! {
                _ = interrupt.recv() => SignalKind::interrupt(),
                _ = terminate.recv() => SignalKind::terminate(),
                _ = hang_up.recv() => SignalKind::hangup(),
            }
        });
        let number = kind.as_raw_value();
        eprintln!("signal {number}: removing what this run has made");
        remove_everything();
        std::process::exit(128 + number);
    });
    if cfg!(panic = "abort") {
        let report = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            report(panic);
            remove_everything();
        }));
    }
    Ok(())
}

/// What `clean` has removed.
#[derive(Debug, Default)]
pub struct Cleaned {
    /// Names of namespaces.
    pub namespaces: Vec<String>,
    /// Processes that still ran in them.
    pub processes: Vec<i32>,
    /// Temporary directories, with their mounts.
    pub directories: Vec<PathBuf>,
}

/// Removes what earlier, dead runs have left on this machine, or what one of them (`<pid>-<n>`) has
/// left.
pub fn clean(only: Option<&str>) -> Result<Cleaned> {
    let mut cleaned = Cleaned::default();
    let wanted = |owner: &Owner<'_>| {
        only.is_none_or(|only| only == owner.unique) && !owner_lives(owner.unique, owner.pid)
    };
    for name in entries(Path::new(NAMESPACES)) {
        let Some(owner) = owner(&name, NAMESPACE_PREFIX) else {
            continue;
        };
        if wanted(&owner) {
            clean_namespace(&name, &mut cleaned)?;
        }
    }
    let temporary = std::env::temp_dir();
    for name in entries(&temporary) {
        let Some(owner) = owner(&name, DIRECTORY_PREFIX) else {
            continue;
        };
        if wanted(&owner) {
            let path = temporary.join(&name);
            remove_directory(&path);
            cleaned.directories.push(path);
        }
    }
    Ok(cleaned)
}

fn clean_namespace(name: &str, cleaned: &mut Cleaned) -> Result<()> {
    let output = Command::new("ip")
        .args(["netns", "pids", name])
        .output()
        .context("failed to run ip netns pids")?;
    let pids = String::from_utf8_lossy(&output.stdout).into_owned();
    for pid in pids.split_whitespace().filter_map(|pid| pid.parse().ok()) {
        if kill(Pid::from_raw(pid), Signal::SIGKILL).is_ok() {
            cleaned.processes.push(pid);
        }
    }
    // The processes must close their sockets and devices before the namespace loses its name.
    for _ in 0..50 {
        if cleaned
            .processes
            .iter()
            .all(|&pid| !runs(pid.unsigned_abs()))
        {
            break;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    remove_namespace(name);
    cleaned.namespaces.push(name.to_owned());
    Ok(())
}

struct Owner<'a> {
    /// `<pid>-<n>`, common to the namespaces and the directory of one lab.
    unique: &'a str,
    pid: u32,
}

/// Reads `<prefix><pid>-<n>` and, for a namespace, `-<role>`.
fn owner<'a>(name: &'a str, prefix: &str) -> Option<Owner<'a>> {
    let rest = name.strip_prefix(prefix)?;
    let mut parts = rest.splitn(3, '-');
    let (pid, number) = (parts.next()?, parts.next()?);
    number.parse::<u32>().ok()?;
    Some(Owner {
        unique: &rest[..pid.len() + 1 + number.len()],
        pid: pid.parse().ok()?,
    })
}

fn owner_lives(unique: &str, pid: u32) -> bool {
    let Some(now) = start_time(pid) else {
        return false;
    };
    let path = std::env::temp_dir().join(format!("{DIRECTORY_PREFIX}{unique}"));
    // Without the file, and if the process lives, the lab is just being created or removed.
    fs::read_to_string(path.join(OWNER)).map_or(true, |then| then == now)
}

fn runs(pid: u32) -> bool {
    // A zombie has ended, even if its parent has not reaped it.
    stat_fields(pid).is_some_and(|fields| fields.first().is_some_and(|state| state != "Z"))
}

/// When the process started, in ticks since boot.
fn start_time(pid: u32) -> Option<String> {
    stat_fields(pid)?.get(19).cloned()
}

/// The fields of `/proc/<pid>/stat` from the third (state) on: the second may hold spaces.
fn stat_fields(pid: u32) -> Option<Vec<String>> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, fields) = stat.rsplit_once(')')?;
    Some(fields.split_whitespace().map(str::to_owned).collect())
}

fn entries(directory: &Path) -> Vec<String> {
    let Ok(listing) = fs::read_dir(directory) else {
        return Vec::new();
    };
    listing
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_their_owner() {
        let namespace = owner("ikenat-123-4-client", NAMESPACE_PREFIX).expect("a lab's name");
        assert_eq!((namespace.unique, namespace.pid), ("123-4", 123));
        let directory = owner("ikenat-lab-123-4", DIRECTORY_PREFIX).expect("a lab's name");
        assert_eq!((directory.unique, directory.pid), ("123-4", 123));
        for foreign in [
            "ikenat-lab-notes",
            "ikenat-x-1-client",
            "ikenat-1",
            "default",
        ] {
            assert!(owner(foreign, NAMESPACE_PREFIX).is_none(), "{foreign}");
        }
    }

    #[test]
    fn a_process_id_that_was_used_again_is_another_process() {
        let own = std::process::id();
        assert!(runs(own));
        assert_eq!(start_time(own), start_time(own));
        assert_ne!(start_time(1), start_time(own));
        // The kernel's largest process id is 2^22.
        assert!(start_time(1 << 23).is_none());
    }
}
