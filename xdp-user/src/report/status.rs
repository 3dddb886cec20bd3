//! What `ikenat status` reports: what is attached where, how full the tables are, and every reason
//! with its count.
//!
//! The names of the fields are part of the interface, because scripts read them (`docs/json.md`).

use crate::bpffs::layout::Instance as Pins;
use crate::error::Result;
use crate::netlink::{Link, Netlink};
use crate::report::attached::Programs;
use crate::report::wanted_services::WantedServices;
use crate::tables::grace::GracePeriod;
use crate::tables::overview::{HostPeer, Overview};
use crate::tables::services::ServiceRecord;
use serde::Serialize;
use std::net::Ipv4Addr;
use xdp_common::counters::{Quantity, class, reason, stream, untracked};
use xdp_common::meta::flag;
use xdp_common::{Class, Direction, Hook, Reason, Untracked};

/// The answer of `status`.
#[derive(Clone, Debug, Serialize)]
pub struct Status {
    /// One for each that is attached.
    pub instances: Vec<InstanceStatus>,
}

/// One instance.
#[derive(Clone, Debug, Serialize)]
pub struct InstanceStatus {
    /// Its name.
    pub name: String,
    /// What it translates.
    pub services: Vec<ServiceRecord>,
    /// Identifies the set of tables ([`Overview::generation`]).
    pub generation: u64,
    /// The process id of the daemon, if one runs.
    pub daemon: Option<u32>,
    /// True when packets are counted only and none is translated (`--dry-run`).
    pub dry_run: bool,
    /// How the daemon waits for running programs: `membarrier` or `map-update`.
    pub grace_period: &'static str,
    /// Interfaces that do not exist and are attached when they appear.
    pub absent: Vec<String>,
    /// The programs.
    pub attached: Vec<ProgramStatus>,
    /// Programs that a start has left on an interface when it died while it moved there.
    pub left_over: Vec<ProgramStatus>,
    /// Whether the devices accept frames that XDP redirects to them.
    pub redirect: Vec<Redirect>,
    /// The tables.
    pub tables: Vec<TableStatus>,
    /// The peers of this host itself, the latest first.
    pub host_peers: Vec<HostPeerStatus>,
    /// What became of the packets.
    pub reasons: Vec<ReasonCount>,
}

/// One program on one interface.
#[derive(Clone, Debug, Serialize)]
pub struct ProgramStatus {
    /// The interface's name; the one it had when it was attached, where it cannot be looked up; empty
    /// where none is known.
    pub interface: String,
    /// Its index in its own network namespace; 0 when it is gone.
    pub ifindex: u32,
    /// `xdp`, `tcx` or `clsact`.
    pub hook: &'static str,
    /// `native` or `generic`; `ingress` or `egress` for the others.
    pub mode: &'static str,
    /// Id of the program; `None` where this user may not see it.
    pub program: Option<u32>,
    /// False when the interface is gone or the filter was removed. For a user who may not open the
    /// links, it says only whether the interface exists.
    pub alive: bool,
    /// True when it is an interface of this network namespace.
    pub in_this_namespace: bool,
}

/// Whether a device accepts frames from XDP.
#[derive(Clone, Debug, Serialize)]
pub struct Redirect {
    /// The interface.
    pub interface: String,
    /// Whether it does.
    pub ready: bool,
    /// Packets that were forwarded to it and then lost; `None` where they are not counted.
    pub lost: Option<u64>,
}

/// One table.
#[derive(Clone, Debug, Serialize)]
pub struct TableStatus {
    /// Its name.
    pub name: &'static str,
    /// Entries now.
    pub entries: u64,
    /// Entries at most.
    pub limit: u64,
    /// Bytes of memory.
    pub bytes: u64,
    /// What happens when it is full.
    pub when_full: &'static str,
}

/// A peer of this host itself: its packets to the VIP are not the server's.
#[derive(Clone, Debug, Serialize)]
pub struct HostPeerStatus {
    /// The name of the service to whose VIP its packets come.
    pub service: String,
    /// Its address.
    pub peer: Ipv4Addr,
    /// Its UDP port; `None` for native ESP.
    pub port: Option<u16>,
    /// The port of the VIP; `None` for native ESP.
    pub vip_port: Option<u16>,
    /// Seconds since this host, or one behind it, has sent something to it.
    pub last_sent_secs: u64,
}

/// What became of packets, at one hook.
#[derive(Clone, Debug, Serialize)]
pub struct ReasonCount {
    /// `xdp`, `tc` or `egress`.
    pub hook: &'static str,
    /// `forwarded`, `slow`, `punted`, `answered` or `dropped`; `untracked` and `stream` are among the
    /// forwarded ones.
    pub outcome: &'static str,
    /// The reason; for forwarded packets their class and direction, as `esp-in-udp-in`.
    pub reason: String,
    /// Packets.
    pub count: u64,
}

impl InstanceStatus {
    /// Asks the kernel about an instance. `links` are the interfaces of this network namespace.
    pub fn of(pins: &Pins, overview: &Overview, netlink: &Netlink, links: &[Link]) -> Result<Self> {
        let programs = Programs::of(pins, overview, netlink, links)?;
        Ok(Self {
            name: pins.name.clone(),
            services: overview.services.clone(),
            generation: overview.generation,
            daemon: pins.owner(),
            dry_run: overview.flags & flag::DRY_RUN != 0,
            grace_period: GracePeriod::name(overview.flags),
            absent: absent(overview),
            attached: programs.attached,
            left_over: programs.left_over,
            redirect: redirect(overview, pins.counts_losses()),
            tables: overview.tables.iter().map(table).collect(),
            host_peers: host_peers(overview),
            reasons: reasons(overview),
        })
    }

    /// Leaves out what belongs to services that are not wanted. The rest is that of all services.
    pub fn keep(&mut self, wanted: &WantedServices) {
        self.services = wanted.of(&self.services);
        self.host_peers.retain(|one| wanted.wants(&one.service));
    }
}

fn host_peers(overview: &Overview) -> Vec<HostPeerStatus> {
    let status = |found: &HostPeer| HostPeerStatus {
        service: found
            .service
            .map_or("?", |number| overview.service_name(number))
            .to_owned(),
        peer: found.peer,
        port: found.ports.map(|(port, _)| port),
        vip_port: found.ports.map(|(_, port)| port),
        last_sent_secs: found.age_secs,
    };
    overview.host_peers.iter().map(status).collect()
}

/// Each name once, though it may be on both sides.
fn absent(overview: &Overview) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for (_, name) in &overview.absent {
        if !names.contains(name) {
            names.push(name.clone());
        }
    }
    names
}

/// Each interface once, though a one-armed gateway has it on both sides.
fn redirect(overview: &Overview, counted: bool) -> Vec<Redirect> {
    let mut all: Vec<Redirect> = Vec::new();
    for interface in &overview.interfaces {
        if all.iter().all(|found| found.interface != interface.name) {
            let same = overview.interfaces.iter();
            let same = same.filter(|other| other.name == interface.name);
            all.push(Redirect {
                interface: interface.name.clone(),
                ready: interface.ready,
                lost: counted.then(|| same.map(|one| one.lost).sum()),
            });
        }
    }
    all
}

fn table(usage: &crate::tables::overview::TableUsage) -> TableStatus {
    let when_full = match usage.name {
        "FLOW" => "packets of new SPIs are forwarded and counted as untracked",
        "SESSION" => "new peers are forwarded, and their ESP is counted as untracked",
        "HALF" => {
            "the oldest handshake of a bucket is forgotten; its peer is listed once it sends ESP"
        }
        "PIN" => {
            "the oldest entry of a bucket is overwritten; replies then leave from the VIP of the session, else from the first one of the service"
        }
        "FRAGMENT" => {
            "the oldest datagram of a bucket is forgotten; its late fragments go to the server and to this host if the peer has a session"
        }
        "HOSTPEER" => {
            "the oldest peer of a bucket that has not answered is forgotten; if all have, no other one is learned"
        }
        _ => "a new neighbour is used but not recorded, so ikenat never confirms its MAC address",
    };
    TableStatus {
        name: usage.name,
        entries: usage.entries,
        limit: usage.limit,
        bytes: usage.bytes,
        when_full,
    }
}

fn reasons(overview: &Overview) -> Vec<ReasonCount> {
    let mut reasons = Vec::new();
    for hook in Hook::ALL {
        let counters = &overview.counters[hook as usize];
        for kind in Class::ALL {
            for direction in Direction::ALL {
                reasons.push(ReasonCount {
                    hook: hook.name(),
                    outcome: "forwarded",
                    reason: format!("{}-{}", kind.name(), direction.name()),
                    count: counters[class(direction, kind) + Quantity::Packets as usize],
                });
            }
        }
        for direction in Direction::ALL {
            reasons.push(ReasonCount {
                hook: hook.name(),
                outcome: "stream",
                reason: format!("ike-tcp-{}", direction.name()),
                count: counters[stream(direction)],
            });
        }
        for fate in Reason::ALL {
            reasons.push(ReasonCount {
                hook: hook.name(),
                outcome: fate.outcome().name(),
                reason: fate.name().to_owned(),
                count: counters[reason(*fate)],
            });
        }
        for cause in Untracked::ALL {
            reasons.push(ReasonCount {
                hook: hook.name(),
                outcome: "untracked",
                reason: cause.name().to_owned(),
                count: counters[untracked(cause)],
            });
        }
    }
    reasons
}
