//! The life of an instance: a start, which takes over what an earlier one left, and the end. A start that fails leaves
//! behind what was there before it, and nothing of its own.
//!
//! It may not know the sentences that are printed, nor what the programs do.

pub mod attach;
pub mod clsact;
pub mod egress;
pub mod foreign_xdp;
pub mod link;
pub mod loader;
pub mod program;

use crate::bpffs::layout::{self, Instance};
use crate::bpffs::lock::Lock;
use crate::config::plan::Plan;
use crate::dataplane::attach::{Attached, Made, PutBack, TcBackend, Work};
use crate::dataplane::clsact::cleanup;
use crate::dataplane::loader::{Load, SavedState};
use crate::error::{Error, Result};
use crate::failpoints::{Step, pass};
use crate::netlink::Netlink;
use crate::tables::clock::Clock;
use crate::tables::invalidate;
use crate::tables::mmap::Tables;
use aya_log::EbpfLogger;
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::sync::atomic::AtomicU64;
use xdp_common::meta::flag;

pub use crate::dataplane::egress::XmitSupport;

/// A running instance.
#[derive(Debug)]
pub struct Dataplane {
    /// Its pins.
    pub instance: Instance,
    /// Its tables.
    pub tables: Tables<AtomicU64>,
    /// Its time.
    pub clock: Clock,
    /// What was attached.
    pub attached: Vec<Attached>,
    /// By what means the tc program was.
    pub way: TcBackend,
    /// True when the tables were there before.
    pub reused: bool,
    /// The server that the programs translated to until now.
    pub earlier_server: Option<Ipv4Addr>,
    lock: Lock,
    /// Holds the BPF file system, where the pins are reached by its descriptor.
    held: Option<OwnedFd>,
}

/// The dataplane's own messages.
pub type Logger = EbpfLogger<&'static dyn tracing_log::log::Log>;

/// Loads and attaches.
pub fn start(plan: &Plan, netlink: &Netlink) -> Result<(Dataplane, Vec<Logger>)> {
    let bpffs = layout::bpffs(plan.settings.bpffs.as_deref())?;
    let instance = Instance::of(&bpffs, plan.settings.vip);
    instance.check_namespace(plan, netlink)?;
    foreign_xdp::check(plan, &bpffs, &instance)?;
    instance.create()?;
    let lock = instance.lock()?;
    let known = match pass(Step::Locked).and_then(|()| earlier(&instance, plan, netlink)) {
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
        Ok((tables, clock, (way, attached), loggers)) => {
            let running = Dataplane {
                instance,
                tables,
                clock,
                attached,
                way,
                reused: known.is_some(),
                earlier_server: known.map(|known| known.server),
                lock,
                held: None,
            };
            Ok((running, loggers))
        }
        Err(error) => {
            attach::undo(netlink, &instance, &made)?;
            if known.is_none() {
                instance.remove()?;
            }
            Err(error)
        }
    }
}

/// What an earlier start left, if this one can take it over.
pub(crate) fn earlier(
    instance: &Instance,
    plan: &Plan,
    netlink: &Netlink,
) -> Result<Option<SavedState>> {
    // Again, now that nobody else can start one.
    instance.check_namespace(plan, netlink)?;
    link::settle_moves(netlink, instance)?;
    let known = SavedState::of(instance, plan)?;
    pass(Step::EarlierFound)?;
    let Some(known) = known else {
        return Ok(None);
    };
    let was_dry = known.flags & flag::DRY_RUN != 0;
    match (was_dry, plan.settings.dry_run) {
        (false, true) if instance.has_programs() => Err(Error::IsLive { vip: instance.vip }),
        // Nobody's packets depend on a dry run, and what it has counted never happened: the live one begins anew.
        (true, false) => {
            take_down(instance, netlink)?;
            instance.clear()?;
            Ok(None)
        }
        _ => {
            attach::check_modes(instance, plan)?;
            Ok(Some(known))
        }
    }
}

pub(crate) type Up = (
    Tables<AtomicU64>,
    Clock,
    (TcBackend, Vec<Attached>),
    Vec<Logger>,
);

pub(crate) fn bring_up(
    plan: &Plan,
    netlink: &Netlink,
    instance: &Instance,
    known: Option<SavedState>,
    made: &mut Vec<Made>,
) -> Result<Up> {
    let way = TcBackend::choose(plan, instance)?;
    let facts = match known {
        Some(known) => known,
        None => SavedState::fresh(plan)?,
    };
    let mut loads = loader::load(plan, instance, &facts)?;
    // Its own anchor: this process may live in another time namespace than the one that made the tables, and entries that
    // seem to be days old would go.
    let clock = Clock::new(facts.rate, loader::now(&mut loads)?);
    let tables = Tables::open(&instance.directory)?;
    let fresh = known.is_none();
    if fresh {
        loader::describe(&tables, plan, &facts, fresh)?;
    }
    instance.let_in(plan.settings.group, &plan.settings.sizes)?;
    let before = egress::words(&tables);
    egress::begin(&tables, netlink, plan)?;
    let mut work = Work {
        plan,
        netlink,
        instance,
        loads: &mut loads,
        made,
    };
    let attached = pass(Step::EgressesSet).and_then(|()| attach::attach_all(&mut work, way));
    let attached = attached.inspect_err(|_| {
        // The programs that were there before go on, and by the devices of before.
        egress::put_back(&tables, before);
    })?;
    if !fresh {
        // Nothing can be refused any more, and what was there before is gone.
        made.clear();
        // What an instance says of itself changes with its programs, not before.
        loader::describe(&tables, plan, &facts, fresh)?;
    }
    invalidate::hops_of_listed(&tables, &plan.settings.lists)?;
    Ok((tables, clock, (way, attached), loggers(&mut loads)))
}

fn loggers(loads: &mut [Load]) -> Vec<Logger> {
    let mut loggers = Vec::new();
    for load in loads {
        match EbpfLogger::init(&mut load.ebpf) {
            Ok(logger) => loggers.push(logger),
            Err(error) => {
                tracing::debug!("the dataplane's own messages cannot be read: {error}");
            }
        }
    }
    loggers
}

impl Dataplane {
    /// Makes the pins reachable whatever capabilities are left. Their path is no name for people from then on.
    pub fn hold_pins(&mut self) -> Result<()> {
        let (instance, held) = self.instance.by_descriptor()?;
        self.instance = instance;
        self.held = Some(held);
        Ok(())
    }

    /// Puts back what somebody has taken out of the hooks. A link cannot be taken out; a filter can, with its clsact.
    pub fn put_back(&self, netlink: &Netlink, plan: &Plan) -> Vec<(String, PutBack)> {
        match self.way {
            TcBackend::Tcx => Vec::new(),
            TcBackend::Clsact => attach::put_back(netlink, &self.instance, plan),
        }
    }

    /// Detaches everything and gives the lock back.
    pub fn detach(self, netlink: &Netlink) -> Result<Vec<String>> {
        let removed = remove(&self.instance, netlink);
        drop(self.held);
        drop(self.lock);
        removed
    }
}

/// Removes an instance and waits until its programs are gone. Returns the names of its pins. What fails leaves the
/// tables, by which a second try finds the rest.
pub fn remove(instance: &Instance, netlink: &Netlink) -> Result<Vec<String>> {
    let mut removed = take_down(instance, netlink)?;
    removed.extend(instance.remove()?);
    Ok(removed)
}

/// Takes the programs of an instance out of their hooks, and leaves its tables.
fn take_down(instance: &Instance, netlink: &Netlink) -> Result<Vec<String>> {
    let attachments = link::attachments(instance);
    let mut programs: Vec<u32> = attachments.iter().map(|one| one.program).collect();
    for name in Instance::filter_pins() {
        programs.extend(instance.pinned_program(&name)?);
    }
    // XDP goes first: what still comes in takes the slow path.
    let mut removed = instance.clear_links()?;
    if instance.has_filters() {
        cleanup::sweep(netlink, instance, &[])?;
        removed.extend(instance.clear_filters()?);
    }
    link::wait_gone(netlink, &attachments, &programs);
    Ok(removed)
}
