//! An exchange of programs that is under way. The verifier takes as long as a second for them, so they
//! are loaded on a thread of their own while the event loop follows changes with the old programs.

use crate::config::plan::Plan;
use crate::daemon::link_change::{LinkChange, changes_of};
use crate::daemon::reattach::{Refused, links};
use crate::dataplane::exchange::{LoadedPrograms, load};
use crate::dataplane::loader::SavedState;
use crate::dataplane::{Dataplane, foreign_xdp};
use crate::error::{Result, causes};
use crate::netlink::{Link, Netlink};
use std::path::Path;
use tokio::task::{JoinHandle, spawn_blocking};

/// An exchange whose programs are being loaded.
#[derive(Debug)]
pub(super) struct Exchange {
    /// What they are loaded for.
    plan: Plan,
    /// The interfaces as they were at its begin.
    pub(super) links: Vec<Link>,
    /// The interfaces that have refused so far.
    pub(super) refused: Refused,
    pub(super) state: SavedState,
    loading: JoinHandle<Result<LoadedPrograms>>,
}

impl Exchange {
    /// Begins to load the programs that the new plan needs in place of the old one's, without the
    /// interfaces that have refused. Returns those when nothing is needed beside them.
    pub(super) fn begin(
        dataplane: &Dataplane,
        (old, new): (&Plan, Plan),
        netlink: &Netlink,
        mut refused: Refused,
    ) -> Result<std::result::Result<Self, Refused>> {
        let instance = &dataplane.instance;
        // By the descriptor that is held: the path may need a capability that was given up.
        let bpffs = instance.directory.ancestors().nth(2);
        let bpffs = bpffs.unwrap_or(Path::new("/"));
        for (link, error) in foreign_xdp::on_interfaces(&new, bpffs, instance)? {
            refused.note(old, link, causes(&error));
        }
        let Some(plan) = new.without(&refused.left_out) else {
            return Ok(Err(refused));
        };
        let changes = changes_of(instance, old, netlink);
        let is_bare = |link: &Link| {
            let of_link = |change: &LinkChange| match change {
                LinkChange::Bare(index) | LinkChange::Appeared(index) => *index == link.index,
                LinkChange::NewMac(_)
                | LinkChange::NewMacvlans(_)
                | LinkChange::Renamed(_)
                | LinkChange::Gone => false,
            };
            changes.iter().any(|(_, change)| of_link(change))
        };
        let interfaces = plan.interfaces().into_iter();
        let needed: Vec<_> = interfaces
            .filter(|(interface, link)| is_bare(link) || !plan.has_same_programs(old, *interface))
            .map(|(interface, _)| interface)
            .collect();
        if needed.is_empty() {
            return Ok(Err(refused));
        }
        let state = dataplane.saved_state(&plan, netlink)?;
        let (instance, to_load) = (instance.clone(), plan.clone());
        let work = move || load(&to_load, &instance, &state, |one| needed.contains(&one));
        Ok(Ok(Self {
            links: links(&new),
            plan,
            refused,
            state,
            loading: spawn_blocking(work),
        }))
    }

    /// Waits until the programs are loaded. A call that is cancelled loses nothing; after one that
    /// was not, there must be no other.
    pub(super) async fn loaded(&mut self) -> Result<LoadedPrograms> {
        match (&mut self.loading).await {
            Ok(loaded) => loaded,
            // It is not cancelled.
            Err(failed) => std::panic::resume_unwind(failed.into_panic()),
        }
    }

    /// The plan to attach by: that of now without the interfaces that have refused, if the programs
    /// are loaded for that.
    pub(super) fn plan_if_current(&self, now: &Plan) -> Option<Plan> {
        let now = now.without(&self.refused.left_out)?;
        let (loaded, current) = (self.plan.interfaces(), now.interfaces());
        let is_same = |(one, other): (&(_, &Link), &(_, &Link))| {
            one.0 == other.0
                && one.1.index == other.1.index
                && now.has_same_programs(&self.plan, one.0)
        };
        let is_current = loaded.len() == current.len() && loaded.iter().zip(&current).all(is_same);
        is_current.then_some(now)
    }
}
