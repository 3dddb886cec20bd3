//! Attaches the programs when interfaces appear, go away, come back or change their name while the
//! daemon runs, and exchanges them without a gap when their constants change. A program goes with its
//! interface; when one of that name is there, it is attached as at a start.
//!
//! Each interface is repaired by itself. One that is absent or refuses its program blocks no other:
//! one that is new counts as absent, one that has lost one of its programs keeps the others.

use crate::config::plan::Plan;
use crate::config::settings::Settings;
use crate::daemon::backoff::Backoff;
use crate::daemon::exchange::Exchange;
use crate::daemon::link_change::{LinkChange, Moved, changes_of, macvlan_changes, moved};
use crate::dataplane::exchange::LoadedPrograms;
use crate::dataplane::refusals::Refusals;
use crate::dataplane::{Dataplane, Logger};
use crate::error::{Error, Result, causes};
use crate::netlink::{Link, Netlink};
use std::future::pending;

/// Watches the interfaces of an instance. It remembers what it has reported, so that each change is
/// reported once.
#[derive(Debug, Default)]
pub struct LinkMonitor {
    reported: Vec<(String, LinkChange)>,
    moved: Vec<Moved>,
    has_looked: bool,
    /// The error of the last attempt.
    failure: Option<String>,
    backoff: Backoff<Vec<Link>>,
    /// An interface has changed since the attempt began.
    has_changed: bool,
    /// The one exchange that is under way.
    exchange: Option<Exchange>,
}

/// What a log should say.
#[derive(Debug)]
pub enum Event {
    /// Something has happened to this interface.
    Changed(String, LinkChange),
    /// This has happened to the locations of services.
    Moved(Vec<Moved>),
    /// The programs cannot be attached again yet, for this reason.
    NotReattached(String),
}

/// The plan of an instance that was attached again, and the loggers of the new programs.
pub type Reattached = (Plan, Vec<Logger>);

/// The interfaces that have refused in this attempt.
#[derive(Debug, Default)]
pub(super) struct Refused {
    /// Those that count as absent.
    pub(super) left_out: Vec<String>,
    /// Why the first one refuses.
    pub(super) why: Option<String>,
}

impl Refused {
    /// An interface refuses. One that the old plan has keeps what is attached to it.
    pub(super) fn note(&mut self, old: &Plan, link: &Link, why: String) {
        self.why.get_or_insert(why);
        if !indices(old).contains(&link.index) && !self.left_out.contains(&link.name) {
            self.left_out.push(link.name.clone());
        }
    }
}

impl LinkMonitor {
    /// Looks at the interfaces, and begins an exchange when one of them has no program, or programs
    /// with wrong constants. It looks for macvlans, for which all interfaces of the host have to be
    /// listed, only at first and when the kernel has notified of something: `notified`.
    pub(super) fn check(
        &mut self,
        dataplane: &Dataplane,
        plan: &Plan,
        netlink: &Netlink,
        notified: bool,
    ) -> Vec<Event> {
        let mut changes = changes_of(&dataplane.instance, plan, netlink);
        if notified || !self.has_looked {
            self.has_looked = true;
            changes.extend(macvlan_changes(plan, netlink));
        } else {
            // What was found then, and could not be followed yet.
            let is_open =
                |change: &&(String, LinkChange)| matches!(change.1, LinkChange::NewMacvlans(_));
            changes.extend(self.reported.iter().filter(is_open).cloned());
        }
        let new = changes
            .iter()
            .filter(|change| !self.reported.contains(change));
        let mut events: Vec<Event> = new
            .map(|(name, change)| Event::Changed(name.clone(), change.clone()))
            .collect();
        let moved = moved(plan, netlink);
        let new = moved.iter().filter(|one| !self.moved.contains(one));
        let new: Vec<Moved> = new.cloned().collect();
        if !new.is_empty() {
            events.push(Event::Moved(new));
        }
        self.moved = moved;
        let is_needed = changes.iter().any(|(_, change)| change.needs_programs());
        self.reported = changes;
        if self.exchange.is_some() {
            // At its end it is compared with what the host is then.
            return events;
        }
        if is_needed || !self.moved.is_empty() {
            events.extend(self.attempt(dataplane, plan, netlink));
        } else {
            self.failure = None;
            self.backoff = Backoff::default();
        }
        events
    }

    /// Waits until the programs of an exchange are loaded. A call that is cancelled loses nothing.
    pub(super) async fn loaded(&mut self) -> Result<LoadedPrograms> {
        match &mut self.exchange {
            Some(exchange) => exchange.loaded().await,
            None => pending().await,
        }
    }

    /// Waits until nothing is loaded any more. What was loaded is dropped: it is attached nowhere.
    pub(super) async fn abandon(&mut self) {
        if let Some(mut exchange) = self.exchange.take() {
            _ = exchange.loaded().await;
        }
    }

    /// One attempt, unless a refused one is to be waited for. What a device or the verifier refuses
    /// is tried more and more rarely, because an attempt costs time, and may reset devices; what
    /// the plan lacks, for example a route, is cheap to look for.
    fn attempt(&mut self, dataplane: &Dataplane, old: &Plan, netlink: &Netlink) -> Option<Event> {
        let plan = match plan_now(old, netlink) {
            Ok(plan) => plan?,
            Err(error) => return self.not_reattached(dataplane, &causes(&error)),
        };
        if !self.backoff.permits(&links(&plan)) {
            return None;
        }
        self.has_changed = false;
        self.begin(dataplane, (old, plan), netlink, Refused::default())
    }

    /// Begins to load what the new plan needs, without the interfaces that have refused.
    fn begin(
        &mut self,
        dataplane: &Dataplane,
        (old, new): (&Plan, Plan),
        netlink: &Netlink,
        refused: Refused,
    ) -> Option<Event> {
        match Exchange::begin(dataplane, (old, new), netlink, refused) {
            Ok(Ok(exchange)) => {
                self.exchange = Some(exchange);
                None
            }
            // Nothing else is to be attached.
            Ok(Err(refused)) => self.refused(dataplane, old, netlink, refused.why?),
            Err(error) => self.refused(dataplane, old, netlink, causes(&error)),
        }
    }

    /// Attaches what was loaded, unless the host has changed meanwhile: then it loads again.
    pub(super) fn finish(
        &mut self,
        loaded: Result<LoadedPrograms>,
        dataplane: &mut Dataplane,
        old: &Plan,
        netlink: &Netlink,
    ) -> (Vec<Event>, Option<Reattached>) {
        let Some(exchange) = self.exchange.take() else {
            return (Vec::new(), None);
        };
        let new = match plan_now(old, netlink) {
            Ok(Some(new)) => new,
            // No WAN is left, which is reported.
            Ok(None) => return (Vec::new(), None),
            Err(error) => {
                let event = self.not_reattached(dataplane, &causes(&error));
                return (event.into_iter().collect(), None);
            }
        };
        let Some(plan) = exchange.plan_if_current(&new) else {
            let event = self.begin(dataplane, (old, new), netlink, Refused::default());
            return (event.into_iter().collect(), None);
        };
        self.has_changed |= links(&new) != exchange.links;
        let mut refusals = Refusals::of_all_but(indices(old));
        let (state, Refused { mut left_out, why }) = (exchange.state, exchange.refused);
        let attached = loaded
            .and_then(|loaded| dataplane.exchange(&plan, netlink, (&state, loaded), &mut refusals));
        match attached {
            Ok(loggers) => {
                let event = match why.or(refusals.first) {
                    Some(why) => {
                        // What was left out has been reported.
                        self.reported = changes_of(&dataplane.instance, &plan, netlink);
                        self.refused(dataplane, old, netlink, why)
                    }
                    None => {
                        *self = Self::default();
                        None
                    }
                };
                (event.into_iter().collect(), Some((plan, loggers)))
            }
            Err(error) => {
                let why = why.or(refusals.first).unwrap_or_else(|| causes(&error));
                let event = if refusals.others.is_empty() {
                    self.refused(dataplane, old, netlink, why)
                } else {
                    left_out.extend(refusals.others);
                    let why = Some(why);
                    self.begin(dataplane, (old, new), netlink, Refused { left_out, why })
                };
                (event.into_iter().collect(), None)
            }
        }
    }

    /// An interface or the verifier has refused: the next attempt waits, unless the refusal may be of
    /// what was before a change.
    fn refused(
        &mut self,
        dataplane: &Dataplane,
        old: &Plan,
        netlink: &Netlink,
        why: String,
    ) -> Option<Event> {
        if self.has_changed {
            self.backoff = Backoff::default();
        } else {
            // As the attempt has left them.
            let left = plan_now(old, netlink).ok().flatten();
            self.backoff.refused(left.as_ref().map(links));
        }
        self.not_reattached(dataplane, &why)
    }

    /// The event of an attempt that has failed, unless the last one has failed of the same.
    fn not_reattached(&mut self, dataplane: &Dataplane, why: &str) -> Option<Event> {
        let why = dataplane.instance.named(why);
        let is_new = self.failure.as_ref() != Some(&why);
        self.failure = Some(why.clone());
        is_new.then_some(Event::NotReattached(why))
    }
}

/// All that an attempt depends on.
pub(super) fn links(plan: &Plan) -> Vec<Link> {
    [plan.wans.as_slice(), plan.lans.as_slice()].concat()
}

/// The indices of the interfaces of a plan.
fn indices(plan: &Plan) -> Vec<u32> {
    let links = plan.interfaces().into_iter();
    links.map(|(_, link)| link.index).collect()
}

/// The plan for the host as it is now; `None` when no WAN is left. Without the LAN that leads to a
/// server it is an error, unless the server of another service is still found.
fn plan_now(plan: &Plan, netlink: &Netlink) -> Result<Option<Plan>> {
    match Plan::check(settings_now(plan, netlink), netlink) {
        Ok(now) => Ok(Some(Plan {
            numbers: plan.numbers.clone(),
            ..now
        })),
        Err(Error::NoInterface { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The settings with the names that the interfaces have now: a renamed one is still meant.
fn settings_now(plan: &Plan, netlink: &Netlink) -> Settings {
    let mut settings = plan.settings.clone();
    for (names, links) in [
        (&mut settings.wans, &plan.wans),
        (&mut settings.lans, &plan.lans),
    ] {
        for (name, link) in names.iter_mut().zip(links) {
            if link.exists()
                && let Ok(now) = netlink.link_by_index(link.index)
            {
                *name = now.name;
            }
        }
    }
    settings
}
