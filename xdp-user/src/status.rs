//! What `ikenat status` tells: what is attached where, how full the tables are, and every reason with its count.
//!
//! It may not know how it is printed. The names of the fields are part of the interface: scripts read them.

use crate::error::Result;
use crate::filters;
use crate::hooks::{Way, hook_name};
use crate::links::{self, Attachment};
use crate::netlink::{Link, Netlink};
use crate::pins::{FILTERS, Instance as Pins, LINKS};
use crate::snapshot::Snapshot;
use serde::Serialize;
use std::net::Ipv4Addr;
use xdp_common::counters::{Quantity, class, reason};
use xdp_common::{Class, Direction, Hook, Reason as Fate};

/// The answer of `status --json`.
#[derive(Clone, Debug, Serialize)]
pub struct Status {
    /// One for each VIP.
    pub instances: Vec<Instance>,
}

/// One VIP.
#[derive(Clone, Debug, Serialize)]
pub struct Instance {
    /// The VIP.
    pub vip: Ipv4Addr,
    /// The server behind it.
    pub server: Ipv4Addr,
    /// The process id of the daemon, if one runs.
    pub daemon: Option<u32>,
    /// The programs.
    pub attached: Vec<Attached>,
    /// Whether the devices take frames that XDP redirects to them.
    pub redirect: Vec<Redirect>,
    /// The tables.
    pub tables: Vec<Table>,
    /// What became of the packets.
    pub reasons: Vec<Reason>,
}

/// One program on one interface.
#[derive(Clone, Debug, Serialize)]
pub struct Attached {
    /// The interface's name; the one it had when it was attached, where it cannot be looked up.
    pub interface: String,
    /// Its index in its own network namespace; 0 when it is gone.
    pub ifindex: u32,
    /// `xdp`, `tcx` or `clsact`.
    pub hook: &'static str,
    /// `native` or `generic`; `ingress` for the others.
    pub mode: &'static str,
    /// Id of the program.
    pub program: u32,
    /// False when the interface is gone, or the filter was removed.
    pub alive: bool,
    /// True when it is an interface of this network namespace.
    pub here: bool,
}

/// Whether a device takes frames from XDP.
#[derive(Clone, Debug, Serialize)]
pub struct Redirect {
    /// The interface.
    pub interface: String,
    /// Whether it does.
    pub ready: bool,
}

/// One table.
#[derive(Clone, Debug, Serialize)]
pub struct Table {
    /// Its name.
    pub name: &'static str,
    /// Entries now.
    pub entries: u64,
    /// Entries at most.
    pub limit: u64,
    /// Bytes of memory.
    pub bytes: u64,
    /// What happens then.
    pub when_full: &'static str,
}

/// What became of packets, at one hook.
#[derive(Clone, Debug, Serialize)]
pub struct Reason {
    /// `xdp` or `tc`.
    pub hook: &'static str,
    /// `forwarded`, `slow`, `punted` or `dropped`.
    pub outcome: &'static str,
    /// The reason; for forwarded packets what they were, as `esp-in-udp-in`.
    pub reason: String,
    /// Packets.
    pub count: u64,
}

impl Instance {
    /// Asks the kernel about an instance. `links` are the interfaces of this network namespace.
    pub fn of(pins: &Pins, snapshot: &Snapshot, netlink: &Netlink, links: &[Link]) -> Result<Self> {
        let mut attached = Vec::new();
        for (name, hook, wan) in LINKS {
            if let Some((_, attachment)) = links::open(&pins.pin(name))? {
                attached.push(describe(&attachment, hook, wan, snapshot, links));
            }
        }
        attached.extend(filters_of(pins, snapshot, netlink, links)?);
        let redirect = snapshot.interfaces.iter().map(|(_, name, ready)| Redirect {
            interface: name.clone(),
            ready: *ready,
        });
        let mut redirect: Vec<Redirect> = redirect.collect();
        redirect.dedup_by(|a, b| a.interface == b.interface);
        Ok(Self {
            vip: snapshot.vip,
            server: snapshot.server,
            daemon: pins.owner(),
            attached,
            redirect,
            tables: snapshot.tables.iter().map(table).collect(),
            reasons: reasons(snapshot),
        })
    }
}

fn describe(
    attachment: &Attachment,
    hook: Hook,
    wan: bool,
    snapshot: &Snapshot,
    links: &[Link],
) -> Attached {
    let here = links
        .iter()
        .find(|link| links::is_on(attachment, hook, link));
    let (_, known_as, _) = &snapshot.interfaces[usize::from(!wan)];
    Attached {
        interface: here.map_or_else(|| known_as.clone(), |link| link.name.clone()),
        ifindex: attachment.ifindex,
        hook: hook_name(hook, Way::Tcx),
        mode: match hook {
            Hook::Xdp => snapshot.mode.name(),
            Hook::Tc => "ingress",
            Hook::Egress => "egress",
        },
        program: attachment.program,
        alive: attachment.ifindex != 0,
        here: here.is_some(),
    }
}

fn filters_of(
    pins: &Pins,
    snapshot: &Snapshot,
    netlink: &Netlink,
    links: &[Link],
) -> Result<Vec<Attached>> {
    let mut programs = [None; 2];
    for (program, (name, _)) in programs.iter_mut().zip(FILTERS) {
        *program = pins.pinned_program(name)?;
    }
    if programs == [None; 2] {
        return Ok(Vec::new());
    }
    let [wan, lan] = programs;
    let index = |side: usize| snapshot.interfaces[side].0;
    let indexes = [wan.map(|_| index(0)), lan.map(|_| index(1))];
    let found = filters::find(netlink, pins, indexes)?;
    let mut attached = Vec::new();
    for ((pinned, found), known) in programs.iter().zip(found).zip(&snapshot.interfaces) {
        let Some(pinned) = *pinned else {
            continue;
        };
        let (index, known_as, _) = known;
        let link = links.iter().find(|link| link.index == *index);
        let here = found.is_some_and(|found| found.here);
        attached.push(Attached {
            interface: link
                .filter(|_| here)
                .map_or_else(|| known_as.clone(), |link| link.name.clone()),
            ifindex: if found.is_some() { *index } else { 0 },
            hook: hook_name(Hook::Tc, Way::Clsact),
            mode: "ingress",
            program: found.map_or(pinned, |found| found.program),
            alive: found.is_some(),
            here,
        });
    }
    Ok(attached)
}

fn table(filling: &crate::snapshot::Filling) -> Table {
    let when_full = match filling.name {
        "FLOW" => "packets of new SPIs are forwarded and counted as untracked",
        "SESSION" => "new peers are forwarded, and their ESP is counted as untracked",
        "HALF" => {
            "the oldest handshake of a bucket is forgotten; its peer is listed once it sends ESP"
        }
        "FRAGMENT" => {
            "the oldest datagram of a bucket is forgotten; its late fragments follow if the peer has a session"
        }
        _ => {
            "the kernel's routing table is asked for every packet to a new gateway, which is slower"
        }
    };
    Table {
        name: filling.name,
        entries: filling.entries,
        limit: filling.limit,
        bytes: filling.bytes,
        when_full,
    }
}

fn reasons(snapshot: &Snapshot) -> Vec<Reason> {
    let mut reasons = Vec::new();
    for hook in Hook::ALL {
        let counters = &snapshot.counters[hook as usize];
        for kind in Class::ALL {
            for direction in Direction::ALL {
                reasons.push(Reason {
                    hook: hook.name(),
                    outcome: "forwarded",
                    reason: format!("{}-{}", kind.name(), direction.name()),
                    count: counters[class(direction, kind) + Quantity::Packets as usize],
                });
            }
        }
        for fate in Fate::ALL {
            reasons.push(Reason {
                hook: hook.name(),
                outcome: fate.outcome().name(),
                reason: fate.name().to_owned(),
                count: counters[reason(*fate)],
            });
        }
    }
    reasons
}
