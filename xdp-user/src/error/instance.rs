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
    /// A running instance could not be detached.
    #[error("{why}")]
    Detach {
        /// The error, with the paths of the pins.
        why: String,
    },
}
