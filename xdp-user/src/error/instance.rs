//! The errors of an instance as a whole: its state, its directory and who owns it.

use std::net::Ipv4Addr;
use std::path::PathBuf;

/// What is the matter with an instance.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InstanceError {
    /// A start is creating the tables.
    #[error("the instance {instance} is starting, and its tables are not there yet: try again")]
    Starting {
        /// The instance.
        instance: String,
    },
    /// A start has not finished the tables, and nothing is attached.
    #[error(
        "the instance {instance} has no tables, because an earlier start died before anything was attached: `ikenat run` completes it, `ikenat unload --instance {instance}` removes what is left"
    )]
    Unfinished {
        /// The instance.
        instance: String,
    },
    /// A directory in the BPF file system is another user's, or none.
    #[error(
        "{path} {what}: nothing was changed; find out whose it is, run `{fix}`, or give another BPF file system with --bpffs"
    )]
    ForeignDirectory {
        /// The directory.
        path: PathBuf,
        /// What it is.
        what: String,
        /// The command that makes it what it has to be.
        fix: String,
    },
    /// A pin may not be opened by this process.
    #[error(
        "the pin {path} is not accessible to this process ({why}): run ikenat as root, or as user {user}, who owns it"
    )]
    ClosedPin {
        /// The pin.
        path: PathBuf,
        /// The kernel's error.
        why: String,
        /// Its owner.
        user: u32,
    },
    /// The lock is held by something else than a daemon.
    #[error(
        "process {pid} ({name}) holds the lock of the instance {instance} and is not an ikenat daemon, so it is left alone: end it if it is not needed, and try again"
    )]
    NotADaemon {
        /// The instance.
        instance: String,
        /// The process.
        pid: u32,
        /// Its name.
        name: String,
    },
    /// The process that took the lock has ended, its number is in use again, and the lock is held.
    #[error(
        "the lock of the instance {instance} is held, and process {pid} ({name}), which /proc/locks names, does not hold it, so it is left alone: find the holder with `fuser -v {place}`, end it, and try again"
    )]
    NotTheHolder {
        /// The instance.
        instance: String,
        /// The number of the process that took the lock.
        pid: u32,
        /// The name of the process that has this number now.
        name: String,
        /// The directory that the lock is on.
        place: String,
    },
    /// Another instance serves a VIP.
    #[error(
        "the instance {instance}{whose} serves {vip} in this network namespace: give `--instance {instance}` to continue it, or run `ikenat unload --instance {instance}` first (packets are not translated until the next start)"
    )]
    VipServed {
        /// The VIP.
        vip: Ipv4Addr,
        /// The other instance.
        instance: String,
        /// ` (process 123, on eth1 and eth0)`, as far as that is known.
        whose: String,
    },
    /// Another start does not end.
    #[error(
        "another start{whose} holds the lock on {place} and does not finish attaching: nothing was changed; wait for it or end it, and try again"
    )]
    Attaching {
        /// ` (process 123)`, as far as that is known.
        whose: String,
        /// The directory that the lock is on.
        place: String,
    },
    /// An instance of an older version serves a VIP.
    #[error(
        "an older ikenat{whose} serves {vip}, with pins in {path}: stop it, run `ikenat unload --vip {vip}{bpffs}` and start again (all counters start at zero)"
    )]
    OlderServes {
        /// The VIP.
        vip: Ipv4Addr,
        /// The directory of its pins.
        path: PathBuf,
        /// As above.
        whose: String,
        /// ` --bpffs DIR`, if the command needs it.
        bpffs: String,
    },
    /// The tables are of an older version that a start can take over.
    #[error(
        "the tables in {path} are of an older ikenat (version {version}), which this one cannot show: {remedy}"
    )]
    OlderTables {
        /// The directory of its pins.
        path: PathBuf,
        /// The version of its tables.
        version: u64,
        /// What a start makes of them, and what removes them.
        remedy: String,
    },
    /// The daemon of an older version runs.
    #[error(
        "an older ikenat serves {vip} and still runs, with pins in {path}: stop it (`systemctl stop ikenat`), which leaves its programs attached, and start again, which takes over its sessions and counters"
    )]
    OlderRuns {
        /// The VIP.
        vip: Ipv4Addr,
        /// The directory of its pins.
        path: PathBuf,
    },
    /// A running instance could not be detached.
    #[error("{why}")]
    Detach {
        /// The error, with the paths of the pins.
        why: String,
    },
}
