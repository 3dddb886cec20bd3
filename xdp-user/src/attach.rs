//! The life of an instance: a start, which takes over what an earlier one left, and the end. A start that fails leaves
//! behind what was there before it, and nothing of its own.
//!
//! It may not know the sentences that are printed, nor what the programs do.

use crate::clock::Clock;
use crate::config::{Mode, Plan};
use crate::error::{Error, Result};
use crate::hooks::{self, Attached, Made, PutBack, Way, Work};
use crate::lock::Lock;
use crate::maps::Tables;
use crate::netlink::{Link, Netlink};
use crate::object::{self, Known};
use crate::pins::{self, Instance};
use crate::{filters, links, others};
use aya_log::EbpfLogger;
use std::net::Ipv4Addr;
use std::sync::atomic::AtomicU64;
use xdp_common::cpu;

/// A running instance.
#[derive(Debug)]
pub struct Running {
    /// Its pins.
    pub instance: Instance,
    /// Its tables.
    pub tables: Tables<AtomicU64>,
    /// Its time.
    pub clock: Clock,
    /// What was attached.
    pub attached: Vec<Attached>,
    /// By what means the tc program was.
    pub way: Way,
    /// True when the tables were there before.
    pub reused: bool,
    /// The server that the programs translated to until now.
    pub earlier_server: Option<Ipv4Addr>,
    lock: Lock,
}

/// The dataplane's own messages.
pub type Logger = EbpfLogger<&'static dyn tracing_log::log::Log>;

/// Loads and attaches.
pub fn start(plan: &Plan, netlink: &Netlink) -> Result<(Running, Option<Logger>)> {
    let bpffs = pins::bpffs(plan.request.bpffs.as_deref())?;
    let instance = Instance::of(&bpffs, plan.request.vip);
    others::check(plan, &bpffs, &instance)?;
    instance.create()?;
    let lock = instance.lock()?;
    let known = match earlier(&instance, plan) {
        Ok(known) => known,
        Err(error) => {
            if !instance.is_used() {
                instance.remove()?;
            }
            return Err(error);
        }
    };
    let mut made = Vec::new();
    match bring_up(plan, netlink, &instance, known, &mut made) {
        Ok((tables, clock, (way, attached), logger)) => {
            let running = Running {
                instance,
                tables,
                clock,
                attached,
                way,
                reused: known.is_some(),
                earlier_server: known.map(|known| known.server),
                lock,
            };
            Ok((running, logger))
        }
        Err(error) => {
            hooks::undo(netlink, &instance, &made)?;
            if known.is_none() {
                instance.remove()?;
            }
            Err(error)
        }
    }
}

/// What an earlier start left, if this one can take it over.
fn earlier(instance: &Instance, plan: &Plan) -> Result<Option<Known>> {
    let known = Known::of(instance, plan)?;
    if let Some(Known { mode, .. }) = known
        && mode != plan.request.mode
        && hooks::is_attached(instance, plan)?
    {
        return Err(Error::OtherMode {
            vip: instance.vip,
            is: mode.name(),
        });
    }
    Ok(known)
}

type Up = (
    Tables<AtomicU64>,
    Clock,
    (Way, Vec<Attached>),
    Option<Logger>,
);

fn bring_up(
    plan: &Plan,
    netlink: &Netlink,
    instance: &Instance,
    known: Option<Known>,
    made: &mut Vec<Made>,
) -> Result<Up> {
    let way = Way::choose(plan, instance)?;
    let facts = match known {
        Some(known) => known,
        None => Known::fresh(plan.request.mode, plan.request.server)?,
    };
    let mut ebpf = object::load(plan, instance, &facts)?;
    let tables = Tables::open(&instance.directory)?;
    object::describe(&tables, plan, &facts, known.is_none());
    for (side, link) in sides(plan) {
        // Without an MTU, until house is kept: so long the FIB is asked for every packet.
        let word = if is_ready(netlink, plan, link)? {
            cpu::egress(0, 0)
        } else {
            0
        };
        tables.set_egress(side, word);
    }
    let mut work = Work {
        plan,
        netlink,
        instance,
        ebpf: &mut ebpf,
        made,
    };
    let attached = hooks::attach_all(&mut work, way)?;
    let logger = match EbpfLogger::init(&mut ebpf) {
        Ok(logger) => Some(logger),
        Err(error) => {
            tracing::debug!("the dataplane's own messages cannot be read: {error}");
            None
        }
    };
    Ok((
        tables,
        Clock::new(facts.rate, facts.anchor),
        (way, attached),
        logger,
    ))
}

/// Whether a device takes frames that XDP redirects to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// It does.
    Ready,
    /// It does not.
    NotReady,
    /// The kernel knows no such device any more.
    Gone,
}

/// The readiness word of each side.
fn sides(plan: &Plan) -> [(usize, &Link); 2] {
    [(cpu::EGRESS_WAN, &plan.wan), (cpu::EGRESS_LAN, &plan.lan)]
}

/// In generic mode any hardware takes what XDP redirects: it goes the way of the stack's own frames.
fn is_ready(netlink: &Netlink, plan: &Plan, link: &Link) -> Result<bool> {
    let by_stack = plan.request.mode == Mode::Generic && link.kind.is_none();
    Ok(by_stack || netlink.takes_frames(link)?)
}

/// The word of an egress that takes frames. A larger MTU than 16 bits hold is one that no packet exceeds.
fn egress(netlink: &Netlink, link: &Link, epoch: u16) -> u64 {
    let mtu = netlink.look(link.index, None).map_or(0, |now| now.mtu);
    cpu::egress(u16::try_from(mtu).unwrap_or(u16::MAX), epoch)
}

impl Running {
    /// Asks again which devices take frames from XDP, and how large ones. Names those that changed; a device that is gone
    /// takes none. A new `epoch` says that a route or a
    /// neighbour may have changed, so every next hop has to be asked for again.
    pub fn refresh_egress(
        &self,
        netlink: &Netlink,
        plan: &Plan,
        epoch: u16,
    ) -> Vec<(String, Readiness)> {
        let mut changed = Vec::new();
        for (side, link) in sides(plan) {
            let readiness = match is_ready(netlink, plan, link) {
                Ok(true) => Readiness::Ready,
                Ok(false) => Readiness::NotReady,
                Err(_) => Readiness::Gone,
            };
            let old = self.tables.egress(side);
            let ready = readiness == Readiness::Ready;
            let word = if ready {
                egress(netlink, link, epoch)
            } else {
                0
            };
            self.tables.set_egress(side, word);
            if (old != 0) != ready {
                changed.push((link.name.clone(), readiness));
            }
        }
        changed.dedup();
        changed
    }

    /// Whether the device of a side takes frames from XDP, as the dataplane believes.
    pub fn readiness<'p>(&self, plan: &'p Plan) -> [(&'p str, bool); 2] {
        sides(plan).map(|(side, link)| (link.name.as_str(), self.tables.egress(side) != 0))
    }

    /// Puts back what somebody has taken out of the hooks. A link cannot be taken out; a filter can, with its clsact.
    pub fn put_back(&self, netlink: &Netlink, plan: &Plan) -> Vec<(String, PutBack)> {
        match self.way {
            Way::Tcx => Vec::new(),
            Way::Clsact => hooks::put_back(netlink, &self.instance, plan),
        }
    }

    /// Detaches everything and gives the lock back.
    pub fn detach(self, netlink: &Netlink) -> Result<Vec<String>> {
        let removed = remove(&self.instance, netlink);
        drop(self.lock);
        removed
    }
}

/// Removes an instance and waits until its programs are gone. Returns the names of its pins. What fails leaves the
/// tables, by which a second try finds the rest.
pub fn remove(instance: &Instance, netlink: &Netlink) -> Result<Vec<String>> {
    let attachments = links::attachments(instance);
    let mut programs: Vec<u32> = attachments.iter().map(|one| one.program).collect();
    for (name, _) in pins::FILTERS {
        programs.extend(instance.pinned_program(name)?);
    }
    // XDP goes first: what still comes in takes the slow path.
    let mut removed = instance.clear_links()?;
    if instance.has_filters() {
        filters::sweep(netlink, instance, &[])?;
    }
    removed.extend(instance.remove()?);
    links::wait_gone(&attachments, &programs);
    Ok(removed)
}
