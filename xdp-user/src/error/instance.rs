//! The errors of an instance as a whole: its state, its directory and who owns it.

use super::text::{printable_path, quoted};
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
        "the instance {instance} has no tables, because an earlier start died before anything was attached: the same `ikenat run` completes it, `{unload}` removes what is left"
    )]
    Unfinished {
        /// The instance.
        instance: String,
        /// The command that removes the instance.
        unload: String,
    },
    /// A live instance cannot become a dry run.
    #[error(
        "the instance {instance} is live, and a dry run would interrupt its tunnels: run `{unload}` first, if that is what you want"
    )]
    IsLive {
        /// The instance.
        instance: String,
        /// The command that removes the instance.
        unload: String,
    },
    /// A directory in the BPF file system is another user's, or none.
    #[error(
        "{} {what}: nothing was changed; find out whose it is, run `{fix}`, or give another BPF file system with --bpffs",
        printable_path(path)
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
        "the lock of the instance {instance} is held, and process {pid} ({name}), which /proc/locks names, does not hold it, so it is left alone: find the holder with `fuser -v {}`, end it, and try again",
        quoted(place)
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
        "the instance {instance}{whose} serves {vip} in this network namespace: give `--instance {instance}` to continue it, or run `{unload}` first (packets are not translated until the next start)"
    )]
    VipServed {
        /// The VIP.
        vip: Ipv4Addr,
        /// The other instance.
        instance: String,
        /// ` (process 123, on eth1 and eth0)`, as far as that is known.
        whose: String,
        /// The command that removes it.
        unload: String,
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{Error, ServiceError};

    #[test]
    fn a_remedy_is_the_whole_command() {
        const UNLOAD: &str = "ikenat unload --instance office-2 --bpffs '/run/my bpf'";
        let (unload, instance) = (|| UNLOAD.to_owned(), || "office-2".to_owned());
        let of_instance = [
            InstanceError::Unfinished {
                instance: instance(),
                unload: unload(),
            },
            InstanceError::IsLive {
                instance: instance(),
                unload: unload(),
            },
            InstanceError::VipServed {
                vip: Ipv4Addr::new(203, 0, 113, 1),
                instance: instance(),
                whose: String::new(),
                unload: unload(),
            },
        ];
        let others = [
            Error::OtherTcBackend {
                instance: instance(),
                current: "tcx",
                unload: unload(),
            },
            Error::ForeignPin {
                path: PathBuf::from("/run/my bpf/ikenat/office-2/META"),
                why: "it is missing".to_owned(),
                unload: unload(),
            },
            Error::OtherMode {
                instance: instance(),
                interface: "eth1".to_owned(),
                current: "native",
                unload: unload(),
            },
            Error::OtherNamespace {
                instance: instance(),
                whose: String::new(),
                unload: unload(),
            },
            Error::Service(ServiceError::NoNumber {
                what: "VIP",
                key: "203.0.113.1".to_owned(),
                going: 0,
                leaving: 0,
                free: 0,
                seconds: 118,
                limit: 512,
                unload: unload(),
            }),
        ];
        let all = of_instance.into_iter().map(Error::from).chain(others);
        for error in all {
            let text = error.to_string();
            let words = format!("`{UNLOAD}`");
            assert!(text.contains(&words), "{text}");
            assert_eq!(text.matches("ikenat unload").count(), 1, "{text}");
        }
    }
}
