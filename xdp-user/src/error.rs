//! Everything that can go wrong, as sentences that name the thing and the way out.
//!
//! It may not know who prints them.

use std::io;
use std::net::Ipv4Addr;
use std::path::PathBuf;

/// The library's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Capabilities are missing.
    #[error(
        "this needs the capabilities CAP_BPF and CAP_NET_ADMIN, and {missing}: run it as root, or grant them (systemd: AmbientCapabilities=)"
    )]
    Privilege {
        /// Which of them, as a sentence.
        missing: &'static str,
    },
    /// The kernel is too old.
    #[error(
        "this kernel is {found}, and ikenat is tested on Linux 6.1 and newer only: boot a newer kernel (Debian 12 has 6.1)"
    )]
    OldKernel {
        /// Its version.
        found: String,
    },
    /// There is no such interface.
    #[error("there is no interface {name}; there are {existing}")]
    NoInterface {
        /// As asked for.
        name: String,
        /// Those that exist.
        existing: String,
    },
    /// It has no Ethernet header.
    #[error(
        "{name} is not an Ethernet interface, so its frames have no MAC addresses to rewrite: name the Ethernet interface beneath it"
    )]
    NotEthernet {
        /// The interface.
        name: String,
    },
    /// It does not forward.
    #[error(
        "{name} does not forward IPv4, so the kernel gives no route for its packets: run `sysctl -w {key}=1`"
    )]
    ForwardingOff {
        /// The interface.
        name: String,
        /// The sysctl.
        key: String,
    },
    /// The VIP or the server is no host's address.
    #[error("{role} {address} is not the address of a host ({why}): give an IPv4 unicast address")]
    NotUnicast {
        /// `the VIP` or `the server`.
        role: &'static str,
        /// The address.
        address: Ipv4Addr,
        /// What it is instead.
        why: &'static str,
    },
    /// The VIP and the server are the same.
    #[error(
        "the VIP and the server are both {address}, so there is nothing to translate: --vip is the public address, --server the one behind it"
    )]
    VipIsServer {
        /// The address.
        address: Ipv4Addr,
    },
    /// The kernel has no route.
    #[error(
        "there is no route to the server {server} ({why}): give {lan} an address in its network, or add one with `ip route add {server} dev {lan}`"
    )]
    NotRoutable {
        /// The server.
        server: Ipv4Addr,
        /// The kernel's word.
        why: String,
        /// The LAN.
        lan: String,
    },
    /// The server is this host.
    #[error(
        "the server {server} is an address of this host, which this version cannot serve: --server is the address of another machine behind the LAN"
    )]
    ServerIsLocal {
        /// The server.
        server: Ipv4Addr,
    },
    /// The server is elsewhere.
    #[error(
        "the route to the server {server} leaves by {found}, not by {lan}: use `--lan {found}`, or mend the route with `ip route replace {server} dev {lan}`"
    )]
    OtherLan {
        /// The server.
        server: Ipv4Addr,
        /// Where the route leaves.
        found: String,
        /// The LAN as given.
        lan: String,
    },
    /// Somebody else's program.
    #[error("{interface} already has an XDP program, {program}: {way_out}")]
    OtherProgram {
        /// The interface.
        interface: String,
        /// Id and name.
        program: String,
        /// How to be rid of it.
        way_out: String,
    },
    /// Somebody else's filter.
    #[error(
        "{interface} has a tc filter of somebody else in the place of ours (ingress, priority {priority}: {filter}): give it another priority, or remove it with `tc filter del dev {interface} ingress pref {priority}`"
    )]
    OtherFilter {
        /// The interface.
        interface: String,
        /// Kind, handle and program.
        filter: String,
        /// The priority.
        priority: u16,
    },
    /// There is no tcx.
    #[error("this kernel has no tcx, which is in Linux 6.6 and newer: leave `--tc tcx` out")]
    NoTcx,
    /// The way of attaching cannot change.
    #[error(
        "the tc programs of {vip} are attached by {is}, and two at once would count twice: leave --tc out, or run `ikenat unload --vip {vip}` first (packets are not translated until the next start)"
    )]
    OtherWay {
        /// The instance.
        vip: Ipv4Addr,
        /// The way it is.
        is: &'static str,
    },
    /// No bpffs.
    #[error(
        "{looked} is not a BPF file system, where maps and links have to be pinned: run `mount -t bpf bpf /sys/fs/bpf`, or name another one with --bpffs"
    )]
    NoBpffs {
        /// Where it was looked for.
        looked: String,
    },
    /// A pin is not what it should be.
    #[error(
        "the pin {path} cannot be reused: {why}; remove it with `ikenat unload --vip {vip}` and start again (counters start anew)"
    )]
    ForeignPin {
        /// The pin.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
        /// Whose instance.
        vip: Ipv4Addr,
    },
    /// The mode cannot change.
    #[error(
        "{vip} is attached in {is} mode, and a link cannot change its mode: run `ikenat unload --vip {vip}` first (packets are not translated until the next start)"
    )]
    OtherMode {
        /// The instance.
        vip: Ipv4Addr,
        /// The mode it has.
        is: &'static str,
    },
    /// The lock is held.
    #[error("another ikenat{pid} serves {vip}: stop that one first")]
    Locked {
        /// The instance.
        vip: Ipv4Addr,
        /// ` (process 123)`, or nothing.
        pid: String,
    },
    /// The driver refuses native XDP.
    #[error(
        "{interface} refuses native XDP ({why}): if the driver has none, use `--mode generic`, which works everywhere and is slower"
    )]
    NativeRefused {
        /// The interface.
        interface: String,
        /// The kernel's word.
        why: String,
    },
    /// An attachment failed.
    #[error("failed to attach {hook} to {interface}: {why}")]
    Attach {
        /// `xdp` or `tcx`.
        hook: &'static str,
        /// The interface.
        interface: String,
        /// The kernel's word.
        why: String,
    },
    /// The object could not be loaded.
    #[error("failed to load the eBPF object ({step}): {why}")]
    Load {
        /// Which part.
        step: &'static str,
        /// The loader's or verifier's word.
        why: String,
    },
    /// A map could not be used.
    #[error("failed to {action} the map {name}: {why}")]
    Map {
        /// A verb.
        action: &'static str,
        /// Its name or path.
        name: String,
        /// The kernel's word.
        why: String,
    },
    /// The kernel's tick is unknown.
    #[error("failed to learn how long a jiffy is: {why}")]
    Jiffies {
        /// What was found instead.
        why: String,
    },
    /// A system call failed.
    #[error("failed to {action}: {}", word(source))]
    System {
        /// What was tried.
        action: String,
        /// The kernel's word.
        source: io::Error,
    },
}

impl Error {
    /// Names what was tried.
    pub fn system(action: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let action = action.into();
        move |source| Self::System { action, source }
    }
}

/// The kernel's word without the number that Rust puts behind it.
pub fn word(error: &io::Error) -> String {
    let text = error.to_string();
    match text.split_once(" (os error") {
        Some((word, _)) => word.to_owned(),
        None => text,
    }
}

/// All causes of an error in one line: aya's errors keep the kernel's word in the last one.
pub fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        next = cause.source();
    }
    text
}
