//! The errors of this crate, as sentences that name the object and the remedy.
//!
//! Invariant: it imports no other module of the crate, so that every module can use it.

mod cause;

pub(crate) use cause::is_denied;
pub use cause::{causes, word};

use ipnet::Ipv4Net;
use std::io;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

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
        "the server {server} is an address of this host, so there is no interface towards it: leave --lan out, or give the address of another machine behind the LAN"
    )]
    ServerIsLocal {
        /// The server.
        server: Ipv4Addr,
    },
    /// The server is elsewhere.
    #[error(
        "the route to the server {server} leaves by {found}, not by {lans}: use `--lan {found}`, or fix the route with `ip route replace {server} dev {lan}`"
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
    /// There is none, and there has to be one.
    #[error(
        "the server {server} is another machine, behind {found}, so its replies have to be met there: add `--lan {found}` (only a server on this host needs none)"
    )]
    NoLan {
        /// The server.
        server: Ipv4Addr,
        /// Where the route leaves.
        found: String,
    },
    /// Too many interfaces on one side.
    #[error("{option} can be given {limit} times at most: leave some out")]
    TooManyInterfaces {
        /// The option.
        option: &'static str,
        /// The limit.
        limit: usize,
    },
    /// The same interface twice on one side.
    #[error("{option} names {name} twice: once is enough")]
    InterfaceTwice {
        /// The option.
        option: &'static str,
        /// The interface.
        name: String,
    },
    /// An interface is on both sides, and not the first of both.
    #[error(
        "{name} is a WAN and a LAN, and one interface has one XDP program, which is that of the first of both: name it first, `--wan {name} --lan {name}`, and only one such interface"
    )]
    ArmNotFirst {
        /// The interface.
        name: String,
    },
    /// An interface is on both sides, in two modes.
    #[error(
        "{name} is the WAN and the LAN, and one interface runs XDP in one mode: use --mode instead of --wan-mode and --lan-mode"
    )]
    ArmInTwoModes {
        /// The interface.
        name: String,
    },
    /// A prefix is in both lists.
    #[error(
        "{prefix} is given with --except-peer and with --deny, and a packet cannot be left alone and dropped: remove one of them"
    )]
    PrefixTwice {
        /// The prefix.
        prefix: Ipv4Net,
    },
    /// Too many prefixes.
    #[error(
        "--except-peer and --deny name {found} prefixes, and there is room for {limit}: join some to shorter prefixes, or drop them with a firewall in front"
    )]
    TooManyPrefixes {
        /// As many as there are.
        found: usize,
        /// The limit.
        limit: usize,
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
        "{interface} has a tc filter of other software where ikenat's filter belongs ({block}, priority {priority}: {filter}): give it another priority, or remove it with `tc filter del dev {interface} {block} pref {priority}`"
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
    /// A qdisc that has no place for us.
    #[error(
        "{interface} has an `ingress` qdisc of somebody else, which has no place for a filter on what leaves: put a clsact in its place, which has both (`tc qdisc del dev {interface} ingress`, `tc qdisc add dev {interface} clsact`, then add its filters again)"
    )]
    IngressQdisc {
        /// The interface.
        interface: String,
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
        "{looked} is not a BPF file system, where maps and links have to be pinned: run `mount -t bpf bpf /sys/fs/bpf`, or name another one with --bpffs (`ip netns exec` hides the usual one from all but root: enter with `nsenter --net=/run/netns/NAME` instead)"
    )]
    NoBpffs {
        /// Where it was looked for.
        looked: String,
    },
    /// A pin is not what it should be.
    #[error(
        "the pin {path} cannot be reused: {why}; remove it with `ikenat unload --vip {vip}` and start again (all counters start at zero)"
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
        "{interface} has the XDP program of {vip} in {is} mode, and a link cannot change its mode: run `ikenat unload --vip {vip}` first (packets are not translated until the next start)"
    )]
    OtherMode {
        /// The instance.
        vip: Ipv4Addr,
        /// The interface.
        interface: String,
        /// The mode it has.
        is: &'static str,
    },
    /// A live instance cannot become a dry run.
    #[error(
        "{vip} is live, and a dry run would stop translating its tunnels: run `ikenat unload --vip {vip}` first, if that is what you want"
    )]
    IsLive {
        /// The instance.
        vip: Ipv4Addr,
    },
    /// The lock is held.
    #[error("another ikenat{whose} serves {vip}: stop that one first")]
    Locked {
        /// The instance.
        vip: Ipv4Addr,
        /// ` (process 123, on eth1 and eth0)`, as far as that is known.
        whose: String,
    },
    /// Somebody has removed its pins.
    #[error(
        "the pins of {vip} were removed by `ikenat unload --force`: nothing is attached any more"
    )]
    Unloaded {
        /// The instance.
        vip: Ipv4Addr,
    },
    /// It is attached in another network namespace.
    #[error(
        "an ikenat{whose} serves {vip} in another network namespace, and this BPF file system has room for one of each VIP: give this one its own (`mount -t bpf bpf DIR`, then --bpffs DIR), or remove the other with `ikenat unload --vip {vip}`"
    )]
    OtherNamespace {
        /// The instance.
        vip: Ipv4Addr,
        /// As above.
        whose: String,
    },
    /// The driver refuses native XDP.
    #[error(
        "{interface} refuses native XDP ({why}): if it has none (a bridge, a VLAN device, a tap, some drivers), use `{option} generic`, which works everywhere and is slower; `--mode generic` means both sides"
    )]
    NativeRefused {
        /// The option for its side.
        option: &'static str,
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
    /// A pin is closed to this user.
    #[error(
        "{path} is closed to this user ({why}): ask as root, or as a member of the group that `ikenat run --group` was given"
    )]
    NotReadable {
        /// The pin, or a directory on the way to it.
        path: PathBuf,
        /// The kernel's word.
        why: String,
    },
    /// The group cannot be let in.
    #[error(
        "{path} cannot be given to group {group} ({why}): whoever runs ikenat has to be a member of the group, or root"
    )]
    Group {
        /// The pin or directory.
        path: PathBuf,
        /// The id of the group.
        group: u32,
        /// The kernel's word.
        why: String,
    },
    /// The verifier wants one capability more.
    #[error(
        "the kernel takes {program} from a process without CAP_PERFMON since Linux 6.17 only (it bounds every address against speculation): grant CAP_PERFMON as well (systemd: AmbientCapabilities=CAP_BPF CAP_NET_ADMIN CAP_PERFMON)"
    )]
    NoPerfmon {
        /// The program.
        program: &'static str,
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

    /// A directory of pins that cannot be listed.
    pub(crate) fn not_readable(path: &Path, error: io::Error) -> Self {
        if error.kind() != io::ErrorKind::PermissionDenied {
            return Self::system(format!("list {}", path.display()))(error);
        }
        Self::NotReadable {
            path: path.to_path_buf(),
            why: word(&error),
        }
    }
}
