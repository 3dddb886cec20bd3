//! Starts and stops an instance: loads the programs, attaches or replaces them, and detaches them.
//! A start adopts what an earlier one left. A start that fails leaves everything as it was.

pub mod attach;
pub mod bpf_query;
pub mod clsact;
pub mod detach;
pub mod egress;
pub(crate) mod exchange;
pub mod foreign_xdp;
pub mod link;
pub(crate) mod link_moves;
pub mod loader;
pub(crate) mod losses;
mod namespace;
mod native_refused;
pub(crate) mod other_instances;
pub mod program;
pub(crate) mod refusals;
pub(crate) mod takeover;
pub mod tc_backend;

use crate::bpffs::layout::{self, Instance};
use crate::bpffs::lock::Lock;
use crate::config::interfaces::Interface;
use crate::config::plan::Plan;
use crate::dataplane::attach::{AttachContext, AttachedProgram, Created};
use crate::dataplane::clsact::FilterRestore;
use crate::dataplane::loader::{LoadedObject, SavedState};
use crate::dataplane::takeover::{TakenOver, Takeover};
use crate::dataplane::tc_backend::TcBackend;
use crate::error::{InstanceError, Result, causes, log_clean_up};
use crate::failpoints::{Step, pass};
use crate::netlink::Netlink;
use crate::tables::clock::Clock;
use crate::tables::grace::GracePeriod;
use crate::tables::invalidate;
use crate::tables::mmap::Tables;
use crate::tables::secret;
use crate::tables::services::{Records, ServiceRecord};
use aya_log::EbpfLogger;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;
use xdp_common::Secret;
use xdp_common::meta::flag;

/// A running instance.
#[derive(Debug)]
pub struct Dataplane {
    /// Its pins.
    pub instance: Instance,
    /// Its tables.
    pub tables: Arc<Tables<AtomicU64>>,
    /// The clock of its entries.
    pub clock: Clock,
    /// The key of its hash.
    pub secret: Secret,
    /// How to wait for running programs.
    pub grace: Arc<GracePeriod>,
    /// The attached programs.
    pub attached: Vec<AttachedProgram>,
    /// How the tc programs are attached.
    pub tc_backend: TcBackend,
    /// True when the tables are those of an earlier start.
    pub reused: bool,
    /// The services of the earlier start. One without a name that this start continues has its new
    /// name.
    pub earlier_services: Vec<ServiceRecord>,
    /// What was taken over of an older version.
    pub taken_over: Option<TakenOver>,
    lock: Lock,
    /// A descriptor of the BPF file system, once [`Self::hold_pins`] was called.
    held: Option<OwnedFd>,
}

/// How long a start waits for others that attach: a driver may reset its device for each program.
const PATIENCE: Duration = Duration::from_secs(30);

/// The ring buffer that the programs of one interface write log messages to.
pub type RingBuffer = EbpfLogger<&'static dyn tracing_log::log::Log>;

/// Reads the log messages of the programs of an interface.
pub type Logger = (Interface, RingBuffer);

/// Starts an instance: loads its programs and attaches or replaces them. Returns the loggers of the
/// programs too. The plan gets the numbers of its services.
pub fn start(plan: &mut Plan, netlink: &Netlink) -> Result<(Dataplane, Vec<Logger>)> {
    let bpffs = layout::bpffs(plan.settings.bpffs.as_deref())?;
    let instance = Instance::of(&bpffs, &plan.settings.instance);
    instance.check_place()?;
    namespace::check(&instance, plan, netlink)?;
    other_instances::check(plan, &instance)?;
    foreign_xdp::check(plan, &bpffs, &instance)?;
    let grace = GracePeriod::choose()?;
    instance.create()?;
    let lock = instance.lock()?;
    let found = pass(Step::Locked)
        .and_then(|()| adopt_existing(&instance, plan, netlink))
        .and_then(|saved| Ok((saved, Takeover::open(&instance, plan)?)));
    let (saved, takeover) = match found {
        Ok(found) => found,
        Err(error) => {
            if !instance.is_used() {
                log_clean_up(instance.remove().map(drop), &instance.unload_command());
            }
            return Err(error);
        }
    };
    let earlier = match saved {
        Some(_) => Records::read(&instance.directory)?,
        None => Records::default(),
    };
    let mut created = Vec::new();
    let begin = (saved, &earlier, takeover.as_ref());
    match load_and_attach(plan, netlink, &instance, begin, &grace, &mut created) {
        Ok(loaded) => {
            let running = Dataplane {
                instance,
                tables: Arc::new(loaded.tables),
                clock: loaded.clock,
                secret: loaded.secret,
                grace: Arc::new(grace),
                attached: loaded.attached,
                tc_backend: loaded.tc_backend,
                reused: saved.is_some(),
                earlier_services: earlier.current_as(&ServiceRecord::of_plan(plan)),
                taken_over: loaded.taken_over,
                lock,
                held: None,
            };
            Ok((running, loaded.loggers))
        }
        Err(error) => {
            attach::rollback(netlink, &instance, &created);
            // Also if an earlier start that died has left the tables: then these stay.
            let is_given_back = takeover.is_none_or(|takeover| takeover.undo(netlink, &instance));
            if saved.is_none() && is_given_back {
                log_clean_up(instance.remove().map(drop), &instance.unload_command());
            }
            Err(error)
        }
    }
}

/// The state of an earlier start, if this one can adopt it; `None` when there is none. Fails when
/// the plan contradicts it.
pub(crate) fn adopt_existing(
    instance: &Instance,
    plan: &Plan,
    netlink: &Netlink,
) -> Result<Option<SavedState>> {
    // A second time, now under the lock.
    namespace::check(instance, plan, netlink)?;
    let saved = SavedState::of(instance, plan)?;
    pass(Step::EarlierFound)?;
    let Some(saved) = saved else {
        return Ok(None);
    };
    let was_dry = saved.flags & flag::DRY_RUN != 0;
    match (was_dry, plan.settings.dry_run) {
        (false, true) if instance.has_programs()? => Err(InstanceError::IsLive {
            instance: instance.name.clone(),
            unload: instance.unload_command(),
        }
        .into()),
        // No packet depends on a dry run, and what it counted was not forwarded: the live instance
        // starts with new tables.
        (true, false) => {
            detach::detach_all(instance, netlink)?;
            instance.clear()?;
            Ok(None)
        }
        _ => {
            attach::check_modes(instance, plan)?;
            Ok(Some(saved))
        }
    }
}

/// What [`load_and_attach`] has opened, loaded and attached.
struct Started {
    tables: Tables<AtomicU64>,
    clock: Clock,
    secret: Secret,
    tc_backend: TcBackend,
    attached: Vec<AttachedProgram>,
    loggers: Vec<Logger>,
    taken_over: Option<TakenOver>,
}

/// Loads the programs over the pinned maps and attaches them, or replaces those of the earlier
/// start, of which `saved` and the records of its services are left. Whatever has to be removed if this
/// fails is in `created`.
fn load_and_attach(
    plan: &mut Plan,
    netlink: &Netlink,
    instance: &Instance,
    (saved, earlier, takeover): (Option<SavedState>, &Records, Option<&Takeover>),
    grace: &GracePeriod,
    created: &mut Vec<Created>,
) -> Result<Started> {
    let services = earlier.next(&ServiceRecord::of_plan(plan), &instance.unload_command())?;
    plan.numbers = services.numbers(&plan.settings.services);
    let plan = &*plan;
    let state = match saved {
        Some(saved) => saved,
        None => SavedState::fresh(plan)?,
    };
    let mut loaded = exchange::load(plan, instance, &state, |_| true)?;
    // The clock has an anchor of its own: this process may be in another time namespace than the
    // one that created the tables, and entries that seem days old would expire.
    let clock = Clock::new(state.rate, loader::now(&mut loaded.objects)?);
    let tables = Tables::open(&instance.directory)?;
    let fresh = saved.is_none();
    // Until it is recorded what this start serves.
    let alone = lock_attaching(instance)?;
    if fresh {
        secret::write(&instance.directory, &state.secret)?;
        services.write(&instance.directory)?;
        loader::write_meta(&tables, plan, &state, grace, fresh)?;
    } else {
        earlier.reserving(&services).write(&instance.directory)?;
    }
    // A second time: another start may have come first. New tables have described themselves.
    other_instances::check(plan, instance)?;
    instance.grant_read(plan.settings.group, &plan.settings.sizes)?;
    if let Some(takeover) = takeover {
        if let Some(tc_backend) = takeover.tc_backend(plan)? {
            loaded.tc_backend = tc_backend;
        }
        takeover.begin(instance, &tables, &state, (&services, &clock))?;
    }
    let mut context = AttachContext {
        plan,
        netlink,
        instance,
        objects: &mut loaded.objects,
        created,
        has_exchanged: false,
        refusals: None,
    };
    let attached = exchange::attach(&mut context, &tables, loaded.tc_backend)?;
    if !fresh {
        // Nothing can be refused any more, and the old programs are replaced: no rollback.
        created.clear();
        // What is recorded changes with the programs, not before.
        services.write(&instance.directory)?;
        loader::write_meta(&tables, plan, &state, grace, fresh)?;
    }
    let records = (&services, &clock);
    let taken_over = takeover.map(|takeover| {
        created.clear();
        takeover.finish(&tables, &state, records, grace)
    });
    let taken_over = taken_over.transpose()?;
    drop(alone);
    if !plan.settings.dry_run {
        losses::attach(&mut loaded.objects, instance, plan.namespace);
    }
    invalidate::hops_of_listed(&tables, &plan.lists_by_service(), grace)?;
    Ok(Started {
        tables,
        clock,
        secret: state.secret,
        tc_backend: loaded.tc_backend,
        attached,
        loggers: loggers(&mut loaded.objects),
        taken_over,
    })
}

/// Waits for the starts of other instances that attach, and keeps others out.
fn lock_attaching(instance: &Instance) -> Result<Lock> {
    instance.lock_attaching(PATIENCE, |holder| {
        let whose = holder.map_or_else(String::new, |pid| format!(" (process {pid})"));
        tracing::info!(
            "another start{whose} is attaching; waiting for it, because it may serve the same VIP"
        );
    })
}

fn loggers(objects: &mut [LoadedObject]) -> Vec<Logger> {
    let mut loggers = Vec::new();
    for object in objects {
        match EbpfLogger::init(&mut object.ebpf) {
            Ok(logger) => loggers.push((object.interface, logger)),
            Err(error) => {
                tracing::debug!("the log messages of the programs cannot be read: {error}");
            }
        }
    }
    loggers
}

impl Dataplane {
    /// Opens the BPF file system, so that the pins stay reachable after capabilities are given up.
    /// From then on their path is one in /proc/self/fd: messages name them as the user did.
    pub fn hold_pins(&mut self) -> Result<()> {
        let (instance, held) = self.instance.by_descriptor()?;
        self.instance = instance;
        self.held = Some(held);
        Ok(())
    }

    /// Restores filters that other software removed. It cannot remove a pinned tcx link.
    pub fn restore_filters(&self, netlink: &Netlink, plan: &Plan) -> Vec<(String, FilterRestore)> {
        match self.tc_backend {
            TcBackend::Tcx => Vec::new(),
            TcBackend::Clsact => clsact::restore_filters(netlink, &self.instance, plan),
        }
    }

    /// Detaches everything and releases the lock.
    pub fn detach(self, netlink: &Netlink) -> Result<Vec<String>> {
        let removed = detach::remove(&self.instance, netlink).map_err(|error| {
            let why = self.instance.named(&causes(&error));
            InstanceError::Detach { why }.into()
        });
        drop(self.held);
        drop(self.lock);
        removed
    }
}
