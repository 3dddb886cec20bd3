//! The errors of an instance as a whole: its state, its directory and who owns it.

use std::net::Ipv4Addr;
use std::path::PathBuf;

/// What is the matter with an instance.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InstanceError {
    /// A start is creating the tables.
    #[error("the instance of {vip} is starting, and its tables are not there yet: try again")]
    Starting {
        /// The instance.
        vip: Ipv4Addr,
    },
    /// A start has not finished the tables, and nothing is attached.
    #[error(
        "the instance of {vip} has no tables, because an earlier start died before anything was attached: `ikenat run` completes it, `ikenat unload --vip {vip}` removes what is left"
    )]
    Unfinished {
        /// The instance.
        vip: Ipv4Addr,
    },
    /// A directory in the BPF file system belongs to another user.
    #[error(
        "the directory {path} belongs to user {user}, who could exchange the pins in it: run `chown 0:0 {path}` if that is no mistake of yours, or give another BPF file system with --bpffs"
    )]
    ForeignDirectory {
        /// The directory.
        path: PathBuf,
        /// Its owner.
        user: u32,
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
        "process {pid} ({name}) holds the lock of {vip} and is not an ikenat daemon, so it is left alone: end it if it is not needed, and try again"
    )]
    NotADaemon {
        /// The instance.
        vip: Ipv4Addr,
        /// The process.
        pid: u32,
        /// Its name.
        name: String,
    },
    /// The process that took the lock has ended, its number is in use again, and the lock is held.
    #[error(
        "the lock of {vip} is held, and process {pid} ({name}), which /proc/locks names, does not hold it, so it is left alone: find the holder with `fuser -v {place}`, end it, and try again"
    )]
    NotTheHolder {
        /// The instance.
        vip: Ipv4Addr,
        /// The number of the process that took the lock.
        pid: u32,
        /// The name of the process that has this number now.
        name: String,
        /// The directory that the lock is on.
        place: String,
    },
    /// A running instance could not be detached.
    #[error("{why}")]
    Detach {
        /// The error, with the paths of the pins.
        why: String,
    },
}
