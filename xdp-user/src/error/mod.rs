//! The errors of this crate, as sentences that name the object and the remedy.
//! Invariant: it imports no other module of the crate, so that every module can use it.

mod cause;
mod instance;
mod service;
pub mod text;

pub use cause::{causes, word};
pub(crate) use cause::{errno, is_denied, log_clean_up};
pub use instance::InstanceError;
pub use service::ServiceError;

use ipnet::Ipv4Net;
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
        "ikenat needs the capabilities CAP_BPF and CAP_NET_ADMIN, and {missing}: run it as root, or grant them (systemd: AmbientCapabilities=CAP_BPF CAP_NET_ADMIN CAP_PERFMON)"
    )]
    Privilege {
        /// Which of them, as a sentence.
        missing: &'static str,
    },
    /// The kernel is too old.
    #[error(
        "this kernel is {found}, and ikenat needs Linux 6.1 or newer: boot a newer kernel (Debian 12 has 6.1)"
    )]
    OldKernel {
        /// Its version.
        found: String,
    },
    /// There is no such interface.
    #[error("there is no interface {name}: give the name of one that exists ({existing})")]
    NoInterface {
        /// As asked for.
        name: String,
        /// Those that exist.
        existing: String,
    },
    /// An interface has no Ethernet header.
    #[error(
        "{name} is not an Ethernet interface, so its frames have no MAC addresses to rewrite: for a PPP connection or a tunnel, let a device in front of this host end it, so that the VIP arrives by Ethernet, or forward with the kernel's own rules (`iptables -t nat`) instead of ikenat"
    )]
    NotEthernet {
        /// The interface.
        name: String,
    },
    /// An interface does not forward.
    #[error(
        "IPv4 forwarding is off on {name}, so the kernel gives programs no route for its packets: run `{fix}`"
    )]
    ForwardingOff {
        /// The interface.
        name: String,
        /// The command that switches it on.
        fix: String,
    },
    /// The VIP or the server is not a unicast address.
    #[error(
        "{role} {address} cannot be the address of a host ({why}): give an IPv4 unicast address"
    )]
    NotUnicast {
        /// `the VIP` or `the server`.
        role: &'static str,
        /// The address.
        address: Ipv4Addr,
        /// What it is instead.
        why: String,
    },
    /// The kernel has no route.
    #[error(
        "there is no route to the server {server} ({why}): give {lan} an address in the server's network, or add a route with `ip route add {server} dev {}`",
        text::quoted(lan)
    )]
    NotRoutable {
        /// The server.
        server: Ipv4Addr,
        /// The kernel's error.
        why: String,
        /// The LAN.
        lan: String,
    },
    /// The server is this host.
    #[error(
        "the server {server} is an address of this host, so no LAN leads to it: leave --lan out, or give --server the address of a machine behind the LAN"
    )]
    ServerIsLocal {
        /// The server.
        server: Ipv4Addr,
    },
    /// The server is behind another interface.
    #[error(
        "the route to the server {server} leaves by {found}, not by {lans}: use `--lan {}`, or fix the route with `ip route replace {server} dev {}`",
        text::quoted(found),
        text::quoted(lan)
    )]
    OtherLan {
        /// The server.
        server: Ipv4Addr,
        /// Where the route leaves.
        found: String,
        /// The LANs as given.
        lans: String,
        /// The first of them.
        lan: String,
    },
    /// No LAN was given, and the server is another machine.
    #[error(
        "the server {server} is another machine, and its replies arrive on {found}: add `--lan {}` (only a server on this host needs no --lan)",
        text::quoted(found)
    )]
    NoLan {
        /// The server.
        server: Ipv4Addr,
        /// Where the route leaves.
        found: String,
    },
    /// There are too many interfaces on one side.
    #[error("{option} can be given at most {limit} times: remove some")]
    TooManyInterfaces {
        /// The option.
        option: &'static str,
        /// The limit.
        limit: usize,
    },
    /// The same interface is given twice on one side.
    #[error("`{option} {}` is given twice: give it once", text::quoted(name))]
    InterfaceTwice {
        /// The option.
        option: &'static str,
        /// The interface.
        name: String,
    },
    /// An interface is on both sides, and not the first of both.
    #[error(
        "{name} is both a WAN and a LAN, which only one interface can be, as the first WAN and the first LAN: put `--wan {0} --lan {0}` first, and give every other interface on one side only",
        text::quoted(name)
    )]
    ArmNotFirst {
        /// The interface.
        name: String,
    },
    /// An interface is on both sides, in two modes.
    #[error(
        "{name} is both the WAN and the LAN, and an interface runs XDP in one mode only: use --mode instead of --wan-mode and --lan-mode"
    )]
    ArmInTwoModes {
        /// The interface.
        name: String,
    },
    /// A prefix is in both lists.
    #[error(
        "{prefix} is given with --except-peer, which leaves its packets alone, and with --deny, which drops them: remove one of the two"
    )]
    PrefixTwice {
        /// The prefix.
        prefix: Ipv4Net,
    },
    /// There are too many prefixes.
    #[error(
        "--except-peer and --deny have {found} prefixes together, and {limit} are possible: combine some into shorter prefixes, or drop their packets with a firewall in front of the gateway"
    )]
    TooManyPrefixes {
        /// As many as there are.
        found: usize,
        /// The limit.
        limit: usize,
    },
    /// An XDP program of other software, or of another instance.
    #[error("{interface} already has an XDP program, {program}: {remedy}")]
    OtherProgram {
        /// The interface.
        interface: String,
        /// Id and name.
        program: String,
        /// How to remove it.
        remedy: String,
    },
    /// A tc filter of other software.
    #[error(
        "{interface} has a tc filter of other software where ikenat's filter belongs ({block}, priority {priority}: {filter}): give that filter another priority, or remove it with `tc filter del dev {} {block} pref {priority}`",
        text::quoted(interface)
    )]
    OtherFilter {
        /// The interface.
        interface: String,
        /// Kind, handle and program.
        filter: String,
        /// `ingress` or `egress`.
        block: &'static str,
        /// The priority.
        priority: u16,
    },
    /// A qdisc without an egress hook.
    #[error(
        "{interface} has an `ingress` qdisc of other software, which has no egress hook: replace it with a clsact qdisc, which has both hooks (`tc qdisc del dev {0} ingress`, `tc qdisc add dev {0} clsact`, then add its filters again)",
        text::quoted(interface)
    )]
    IngressQdisc {
        /// The interface.
        interface: String,
    },
    /// The kernel has no tcx.
    #[error("this kernel has no tcx, which needs Linux 6.6 or newer: leave `--tc tcx` out")]
    NoTcx,
    /// The tc backend of an instance cannot change.
    #[error(
        "the tc programs of the instance {instance} are attached by {current}, and attaching them the other way as well would count every packet twice: leave --tc out, or run `{unload}` first (packets are not translated until the next start)"
    )]
    OtherTcBackend {
        /// The instance.
        instance: String,
        /// The backend that it has.
        current: &'static str,
        /// The command that removes the instance.
        unload: String,
    },
    /// There is no BPF file system.
    #[error(
        "{looked} is not a BPF file system, and ikenat pins its maps and links in one: run `mount -t bpf bpf /sys/fs/bpf`, or give another one with --bpffs (`ip netns exec` hides /sys/fs/bpf from all users but root: use `nsenter --net=/run/netns/NAME` instead)"
    )]
    NoBpffs {
        /// Where it was looked for.
        looked: String,
    },
    /// A pin cannot be reused.
    #[error(
        "the pin {path} cannot be reused: {why}; remove it with `{unload}` and start again (all counters start at zero)"
    )]
    ForeignPin {
        /// The pin.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
        /// The command that removes the instance.
        unload: String,
    },
    /// The mode cannot change.
    #[error(
        "{interface} has the XDP program of the instance {instance} in {current} mode, and a link cannot change its mode: run `{unload}` first (packets are not translated until the next start)"
    )]
    OtherMode {
        /// The instance.
        instance: String,
        /// The interface.
        interface: String,
        /// The mode that it has.
        current: &'static str,
        /// The command that removes the instance.
        unload: String,
    },
    /// The lock is held.
    #[error(
        "another ikenat{whose} runs the instance {instance}: stop it first, or start a second gateway under another name with --instance"
    )]
    Locked {
        /// The instance.
        instance: String,
        /// ` (process 123, on eth1 and eth0)`, as far as that is known.
        whose: String,
    },
    /// Another process removed the pins of an instance.
    #[error(
        "the pins of the instance {instance} were removed by another process, so nothing is attached any more: run `ikenat run` again to attach"
    )]
    Unloaded {
        /// The instance.
        instance: String,
    },
    /// The instance is attached in another network namespace.
    #[error(
        "another ikenat{whose} runs the instance {instance} in another network namespace: give this one another name with --instance, or remove the other one with `{unload}`"
    )]
    OtherNamespace {
        /// The instance.
        instance: String,
        /// As above.
        whose: String,
        /// The command that removes the instance.
        unload: String,
    },
    /// The driver refuses native XDP.
    #[error("{interface} refuses native XDP ({why}): {remedy}")]
    NativeRefused {
        /// The interface.
        interface: String,
        /// The kernel's error.
        why: String,
        /// What to do about it.
        remedy: String,
    },
    /// An attachment failed.
    #[error("failed to attach {hook} to {interface}: {why}")]
    Attach {
        /// `xdp` or `tcx`.
        hook: &'static str,
        /// The interface.
        interface: String,
        /// The kernel's error.
        why: String,
    },
    /// The object could not be loaded.
    #[error("failed to load the eBPF object ({step}): {why}")]
    Load {
        /// Which part.
        step: &'static str,
        /// The error of the loader or the verifier.
        why: String,
    },
    /// A pinned link or program could not be used.
    #[error("failed to {action} the pin {}: {why}", path.display())]
    Pin {
        /// A verb.
        action: &'static str,
        /// The pin.
        path: PathBuf,
        /// The kernel's error.
        why: String,
    },
    /// A map could not be used.
    #[error("failed to {action} the map {name}: {why}")]
    Map {
        /// A verb.
        action: &'static str,
        /// Its name or path.
        name: String,
        /// The kernel's error.
        why: String,
    },
    /// This user may not open a pin.
    #[error(
        "{path} is not accessible to this user ({why}): run the command as root, or as a member of the group that was given to `ikenat run --group`"
    )]
    NotReadable {
        /// The pin, or a directory on the way to it.
        path: PathBuf,
        /// The kernel's error.
        why: String,
    },
    /// A pin cannot be given to the group.
    #[error(
        "{path} cannot be given to group {group} ({why}): run ikenat as root, or as a member of that group"
    )]
    Group {
        /// The pin or directory.
        path: PathBuf,
        /// The id of the group.
        group: u32,
        /// The kernel's error.
        why: String,
    },
    /// The verifier refuses the program without CAP_PERFMON.
    #[error(
        "the kernel refused {program}, because this process has no CAP_PERFMON and only Linux 6.17 and newer accept the program without it: grant CAP_PERFMON as well (systemd: AmbientCapabilities=CAP_BPF CAP_NET_ADMIN CAP_PERFMON)"
    )]
    NoPerfmon {
        /// The program.
        program: &'static str,
    },
    /// Nothing waits for the programs that are running.
    #[error(
        "this kernel gives no way to wait for running programs, so old entries could never be removed: membarrier fails ({membarrier}), and so does the update of a map of maps ({map}); allow the system call membarrier (systemd: SystemCallFilter=membarrier), or grant CAP_BPF"
    )]
    NoGracePeriod {
        /// The error of membarrier(2).
        membarrier: String,
        /// The error of bpf(2).
        map: String,
    },
    /// The tick rate of the kernel is unknown.
    #[error("failed to determine the tick rate of this kernel: {why}; start ikenat again")]
    Jiffies {
        /// What was found instead.
        why: String,
    },
    /// Services contradict each other, or there is none of a name.
    #[error(transparent)]
    Service(#[from] ServiceError),
    /// An instance cannot be read or removed.
    #[error(transparent)]
    Instance(#[from] InstanceError),
    /// A system call failed.
    #[error("failed to {action}: {}", word(source))]
    System {
        /// What was tried.
        action: String,
        /// The kernel's error.
        source: io::Error,
    },
}
