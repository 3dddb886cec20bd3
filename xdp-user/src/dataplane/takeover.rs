//! Takes over what an older version left attached: its programs are replaced in their links and
//! filters, as in a restart, and its tables are carried into new ones of this version's layout.
//!
//! The order of a start, in which a start that dies at any step is finished by the next one:
//!
//! 1. New tables, in a directory of their own, and the new programs, loaded over them.
//! 2. [`Takeover::begin`]: the entries are copied without their counters, and then the pins of the old
//!    links and filters are moved. The old programs go on, and go on counting in the old tables.
//! 3. The programs are exchanged in the links and filters. From here on nothing leads back.
//! 4. [`Takeover::finish`]: once no old program runs, the counters are moved, the old tables are marked
//!    as spent, and are removed.
//!
//! While there is an old directory that is not spent, a start does all steps again. Each of them
//! leaves alone what was done before.

use crate::bpffs::layout::{self, Instance};
use crate::bpffs::older::{self, Older, OlderLock};
use crate::config::plan::Plan;
use crate::dataplane::clsact::cleanup;
use crate::dataplane::link;
use crate::dataplane::loader::SavedState;
use crate::dataplane::tc_backend::TcBackend;
use crate::dataplane::{attach, bpf_query};
use crate::error::{InstanceError, Result, log_clean_up};
use crate::failpoints::{Step, pass};
use crate::netlink::Netlink;
use crate::tables::carry::{self, Carried, NewTables, OldTables};
use crate::tables::clock::Clock;
use crate::tables::grace::GracePeriod;
use crate::tables::mmap::{self, Memory, Tables};
use crate::tables::older::{Numbers, PROGRESS, progress};
use crate::tables::services::Records;
use aya::maps::MapInfo;
use std::net::Ipv4Addr;
use std::sync::atomic::AtomicU64;
use xdp_core::Word;

/// What a start took over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TakenOver {
    /// The VIP of the older instance.
    pub vip: Ipv4Addr,
    /// The version of its tables.
    pub version: u64,
    /// What was carried.
    pub carried: Carried,
}

/// The tables of an older version, and its programs as long as they are attached.
pub(crate) struct Takeover {
    older: Older,
    flow: Memory<AtomicU64>,
    session: Memory<AtomicU64>,
    meta: Memory<AtomicU64>,
    cpu: Memory<AtomicU64>,
    /// The ids of its programs.
    programs: Vec<u32>,
    _lock: OlderLock,
}

impl Takeover {
    /// Opens the tables that a start with this plan takes over, and locks them. `None`: there are none.
    pub(crate) fn open(own: &Instance, plan: &Plan) -> Result<Option<Self>> {
        let Some(older) = older::to_take_over(own, &plan.settings, plan.namespace) else {
            return Ok(None);
        };
        older.check(own)?;
        let lock = older.lock()?;
        if older.is_spent {
            older.remove()?;
            return Ok(None);
        }
        attach::check_modes(&older.instance, plan)?;
        let memory = |name: &str| Memory::of(&mmap::open(&older.instance.pin(name))?, name);
        tracing::warn!(
            "{}: an older ikenat is attached (tables of version {}), and this start takes over its programs, sessions and counters; back to the older version leads `{}` alone, before it starts",
            older.vip,
            older.version,
            own.unload_command()
        );
        let mut programs = programs_of(&older.instance)?;
        // Those whose pins an earlier start has moved before it died. They are found, and given back, only
        // with CAP_SYS_ADMIN.
        if let Ok(meta) = MapInfo::from_pin(older.instance.pin("META")) {
            programs.extend(bpf_query::programs_using_map(meta.id()));
        }
        Ok(Some(Self {
            flow: memory("FLOW")?,
            session: memory("SESSION")?,
            meta: memory("META")?,
            cpu: memory("CPU")?,
            programs,
            older,
            _lock: lock,
        }))
    }

    /// The backend of its programs, as far as they are not moved yet.
    pub(crate) fn tc_backend(&self, plan: &Plan) -> Result<Option<TcBackend>> {
        let has_programs = self.older.instance.has_programs()?;
        let chosen = has_programs.then(|| TcBackend::choose(plan, &self.older.instance));
        chosen.transpose()
    }

    fn old_tables(&self) -> OldTables<'_, AtomicU64> {
        OldTables {
            flows: self.flow.words().as_chunks().0,
            sessions: self.session.words().as_chunks().0,
            meta: self.meta.words(),
            cpus: self.cpu.chunks(),
        }
    }

    fn new_tables<'t>(
        &self,
        tables: &'t Tables<AtomicU64>,
        state: &'t SavedState,
        (services, clock): (&Records, &Clock),
    ) -> Result<NewTables<'t, AtomicU64>> {
        let numbers = services.numbers_of(self.older.vip.into());
        let (service, vip) = numbers.ok_or_else(|| InstanceError::OlderServes {
            vip: self.older.vip,
            path: self.older.instance.directory.clone(),
            whose: String::new(),
            bpffs: self.older.instance.bpffs_option(),
        })?;
        Ok(NewTables {
            words: tables.table_words(&state.secret),
            cpus: tables.cpus(),
            numbers: Numbers { service, vip },
            now: clock.now(),
            rate: state.rate,
        })
    }

    /// Copies the entries into the new tables, and moves the pins of the programs beside them. Both go
    /// on counting in the old tables.
    pub(crate) fn begin(
        &self,
        own: &Instance,
        tables: &Tables<AtomicU64>,
        state: &SavedState,
        records: (&Records, &Clock),
    ) -> Result<()> {
        carry::copy(
            &self.old_tables(),
            &self.new_tables(tables, state, records)?,
        );
        pass(Step::EntriesCopied)?;
        self.older.move_programs(own, || pass(Step::ProgramMoved))
    }

    /// Moves the counters and removes the old tables, after the programs were exchanged.
    pub(crate) fn finish(
        &self,
        tables: &Tables<AtomicU64>,
        state: &SavedState,
        records: (&Records, &Clock),
        grace: &GracePeriod,
    ) -> Result<TakenOver> {
        let old = self.old_tables();
        self.older.instance.clear_tracepoints()?;
        grace.wait()?;
        let new = self.new_tables(tables, state, records)?;
        let carried = carry::settle(&old, &new, || pass(Step::CountersMoved))?;
        old.meta[PROGRESS].publish(progress::DONE);
        pass(Step::OlderSpent)?;
        self.older.remove()?;
        pass(Step::OlderRemoved)?;
        Ok(TakenOver {
            vip: self.older.vip,
            version: self.older.version,
            carried,
        })
    }

    /// After a start that failed: gives the programs back to the older instance if none of them was
    /// replaced. False: some were, so the new instance has to stay for the next start.
    pub(crate) fn undo(&self, netlink: &Netlink, own: &Instance) -> bool {
        self.try_undo(netlink, own).unwrap_or_else(|error| {
            log_clean_up(Err(error), &own.unload_command());
            false
        })
    }

    /// A start may have pinned a program, and died before a filter ran it: such a pin is removed.
    fn try_undo(&self, netlink: &Netlink, own: &Instance) -> Result<bool> {
        let is_older = |program: &u32| self.programs.contains(program);
        let links = link::all_of(own)?;
        let running = cleanup::running_programs(netlink)?;
        let filters = own.pinned_filters().collect::<Result<Vec<_>>>()?;
        let (mut can_give_back, mut unused) =
            (links.iter().all(|link| is_older(&link.program)), vec![]);
        for (name, program) in filters.iter().filter(|(_, program)| !is_older(program)) {
            can_give_back &= !running.contains(program);
            unused.push(name);
        }
        if !can_give_back {
            return Ok(false);
        }
        for name in unused {
            layout::remove_file(&own.pin(name))?;
        }
        self.older.move_back(own)?;
        Ok(true)
    }
}

/// The ids of the programs of an instance, by the pins of its links and filters.
fn programs_of(instance: &Instance) -> Result<Vec<u32>> {
    let links = link::all_of(instance)?.into_iter();
    let mut programs: Vec<u32> = links.map(|link| link.program).collect();
    programs.extend(instance.filter_programs().collect::<Result<Vec<_>>>()?);
    Ok(programs)
}

/// The programs that a start with this plan replaces beside those of its own instance.
pub(crate) fn programs(own: &Instance, plan: &Plan) -> Result<Vec<u32>> {
    match older::to_take_over(own, &plan.settings, plan.namespace) {
        Some(older) => link::programs_of(&older.instance),
        None => Ok(Vec::new()),
    }
}

/// Whether a start with this plan takes this instance over.
pub(crate) fn is_possible(own: &Instance, plan: &Plan, other: &Instance) -> bool {
    let older = older::to_take_over(own, &plan.settings, plan.namespace);
    older.is_some_and(|older| older.instance.name == other.name)
}
