//! The two halves of a start and of an exchange of programs in a running instance: loading, which
//! takes as long as the verifier does, and attaching, which takes a moment.
//!
//! Nothing is attached or pinned by a load over maps that exist: what it returns can be dropped.

use crate::bpffs::layout::Instance;
use crate::config::interfaces::Interface;
use crate::config::plan::Plan;
use crate::dataplane::attach::{self, AttachContext, AttachedProgram};
use crate::dataplane::loader::{self, LoadedObject, SavedState};
use crate::dataplane::refusals::Refusals;
use crate::dataplane::tc_backend::TcBackend;
use crate::dataplane::{Dataplane, Logger, egress, loggers, losses};
use crate::error::{Error, Result, causes};
use crate::failpoints::{Step, pass};
use crate::netlink::Netlink;
use crate::tables::mmap::Tables;
use crate::tables::services::{Records, ServiceRecord};
use std::sync::atomic::AtomicU64;

/// Programs that are loaded, and not attached yet.
#[derive(Debug)]
pub(crate) struct LoadedPrograms {
    pub(super) objects: Vec<LoadedObject>,
    pub(super) tc_backend: TcBackend,
}

/// Loads the programs of some interfaces of a plan over the pinned maps.
pub(crate) fn load(
    plan: &Plan,
    instance: &Instance,
    state: &SavedState,
    is_wanted: impl Fn(Interface) -> bool,
) -> Result<LoadedPrograms> {
    Ok(LoadedPrograms {
        tc_backend: TcBackend::choose(plan, instance)?,
        objects: loader::load(plan, instance, state, is_wanted)?,
    })
}

/// Attaches what was loaded. The egress words are then those of a start.
///
/// If this fails before any program is exchanged, they are those of before, with which the earlier
/// programs continue. If it fails after that, programs of both run on, and the words are those that
/// fit both, until the next start: with those of before, the new programs would send to interfaces
/// that these do not describe.
pub(super) fn attach(
    context: &mut AttachContext<'_>,
    tables: &Tables<AtomicU64>,
    tc_backend: TcBackend,
) -> Result<Vec<AttachedProgram>> {
    let words = egress::first(context.netlink, context.plan)?;
    let saved = egress::save(tables);
    let both = egress::side_by_side(tables, context.plan, &words);
    egress::write(tables, &both);
    let attached = pass(Step::EgressesSet).and_then(|()| attach::attach_all(context, tc_backend));
    match &attached {
        Ok(_) => egress::write(tables, &words),
        Err(_) if context.has_exchanged => {}
        Err(_) => egress::write(tables, &saved),
    }
    attached
}

impl Dataplane {
    /// What a load for this plan needs to know of the tables.
    pub(crate) fn saved_state(&self, plan: &Plan, netlink: &Netlink) -> Result<SavedState> {
        let saved = super::adopt_existing(&self.instance, plan, netlink)?;
        saved.ok_or_else(|| {
            let gone = std::io::ErrorKind::NotFound.into();
            Error::system(format!(
                "find the tables of the instance {}",
                self.instance.name
            ))(gone)
        })
    }

    /// Records what this host says of the services now.
    fn write_records(&self, plan: &Plan) -> Result<()> {
        let directory = &self.instance.directory;
        let unload = self.instance.unload_command();
        let records = Records::read(directory)?.next(&ServiceRecord::of_plan(plan), &unload)?;
        records.write(directory)
    }

    /// Records what is attached now. The new programs run already, and what was not recorded is what
    /// reports show: so it is no error.
    fn record(&self, plan: &Plan, state: &SavedState) {
        let services = self.write_records(plan);
        let meta = loader::write_meta(&self.tables, plan, state, &self.grace, false);
        if let Err(error) = services.and(meta) {
            tracing::warn!(
                "the programs are exchanged, but what `status` shows of interfaces and services may be that of before ({}); the next exchange or start records it",
                self.instance.named(&causes(&error))
            );
        }
    }

    /// Attaches programs that were loaded for this plan, or replaces those that are attached. Returns
    /// their loggers. The programs of other interfaces stay.
    ///
    /// # Errors
    /// Nothing has changed. An interface that refuses a program is in `refusals`, and is an error
    /// unless it may keep what it has.
    pub(crate) fn exchange(
        &mut self,
        plan: &Plan,
        netlink: &Netlink,
        (state, mut loaded): (&SavedState, LoadedPrograms),
        refusals: &mut Refusals,
    ) -> Result<Vec<Logger>> {
        let mut created = Vec::new();
        let mut context = AttachContext {
            plan,
            netlink,
            instance: &self.instance,
            objects: &mut loaded.objects,
            created: &mut created,
            has_exchanged: false,
            refusals: Some(refusals),
        };
        let attached = attach(&mut context, &self.tables, loaded.tc_backend)
            .inspect_err(|_| attach::rollback(netlink, &self.instance, &created))?;
        self.record(plan, state);
        // Programs with the indices of other interfaces are all exchanged.
        let is_complete = loaded.objects.len() == plan.interfaces().len();
        if is_complete && !plan.settings.dry_run {
            losses::attach(&mut loaded.objects, &self.instance, plan.namespace);
        }
        self.tc_backend = loaded.tc_backend;
        self.attached = attached;
        Ok(loggers(&mut loaded.objects))
    }
}
