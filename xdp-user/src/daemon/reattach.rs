//! Attaches the programs when interfaces appear, go away, come back or change their name while the
//! daemon runs. A program goes with its interface; when one of that name is there, everything is
//! attached as at a start, and the programs on other interfaces are exchanged without a gap. An
//! interface that is absent, or that refuses its program, blocks no other. The programs are exchanged
//! in the same manner when an address changes that is a constant of theirs.

use crate::config::plan::Plan;
use crate::config::settings::Settings;
use crate::daemon::backoff::Backoff;
use crate::daemon::link_change::{LinkChange, changes_of, macvlan_changes, new_lan_address};
use crate::dataplane::attach;
use crate::dataplane::foreign_xdp;
use crate::dataplane::{self, Dataplane, Logger};
use crate::error::{Error, Result, causes};
use crate::netlink::{Link, Netlink};
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::Arc;

/// Watches the interfaces of an instance. It remembers what it has reported, so that each change is
/// reported once.
#[derive(Debug, Default)]
pub struct LinkMonitor {
    reported: Vec<(String, LinkChange)>,
    lan_address: Option<Ipv4Addr>,
    has_looked: bool,
    /// The error of the last attempt.
    failure: Option<String>,
    backoff: Backoff<Vec<Link>>,
}

/// What a log should say.
#[derive(Debug)]
pub enum Event {
    /// Something has happened to this interface.
    Changed(String, LinkChange),
    /// This host has this address for the server now.
    LanAddress(Ipv4Addr),
    /// The programs cannot be attached again yet, for this reason.
    NotReattached(String),
}

/// The plan and the loggers of an instance that was attached again.
pub type Reattached = (Plan, Vec<Logger>);

impl LinkMonitor {
    /// Looks at the interfaces, and attaches again when one of them has no program, or programs with
    /// wrong constants. It looks for macvlans, for which all interfaces of the host have to
    /// be listed, only at first and when the kernel has notified of something: `notified`.
    pub fn check(
        &mut self,
        dataplane: &mut Dataplane,
        plan: &Plan,
        netlink: &Netlink,
        notified: bool,
    ) -> (Vec<Event>, Option<Reattached>) {
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
        let lan_address = new_lan_address(plan, netlink);
        let new = lan_address.filter(|_| lan_address != self.lan_address);
        events.extend(new.map(Event::LanAddress));
        self.lan_address = lan_address;
        let is_needed = changes.iter().any(|(_, change)| change.needs_programs());
        if !is_needed && lan_address.is_none() {
            self.reported = changes;
            self.failure = None;
            self.backoff = Backoff::default();
            return (events, None);
        }
        let repair = self.try_to_attach(dataplane, plan, netlink, &changes);
        self.reported = changes;
        match repair {
            Ok(Repair::None) => (events, None),
            Ok(Repair::All(reattached)) => {
                *self = Self::default();
                (events, Some(reattached))
            }
            Ok(Repair::Others(error, reattached)) => {
                events.extend(self.not_reattached(dataplane, &error));
                // What was left out has been reported.
                if let Some((plan, _)) = &reattached {
                    self.reported = changes_of(&dataplane.instance, plan, netlink);
                }
                (events, reattached)
            }
            Err(error) => {
                events.extend(self.not_reattached(dataplane, &error));
                (events, None)
            }
        }
    }

    /// The event of an attempt that has failed, unless the last one has failed of the same.
    fn not_reattached(&mut self, dataplane: &Dataplane, error: &Error) -> Option<Event> {
        let why = dataplane.instance.named(&causes(error));
        let is_new = self.failure.as_ref() != Some(&why);
        self.failure = Some(why.clone());
        is_new.then_some(Event::NotReattached(why))
    }

    /// One attempt, unless a refused one is to be waited for. What a device or the verifier refuses
    /// is tried more and more rarely, because an attempt costs time, and may reset devices; what
    /// the plan lacks, for example a route, is cheap to look for.
    fn try_to_attach(
        &mut self,
        dataplane: &mut Dataplane,
        old: &Plan,
        netlink: &Netlink,
        changes: &[(String, LinkChange)],
    ) -> Result<Repair> {
        let settings = settings_now(old, netlink);
        let plan = match Plan::check(settings.clone(), netlink) {
            Ok(plan) => plan,
            // All of a side are gone, which is reported already.
            Err(Error::NoInterface { .. }) => return Ok(Repair::None),
            Err(error) => return Err(error),
        };
        let links = |plan: &Plan| [plan.wans.as_slice(), plan.lans.as_slice()].concat();
        if !self.backoff.permits(&links(&plan)) {
            return Ok(Repair::None);
        }
        match reattach(dataplane, plan.clone(), netlink) {
            Ok(reattached) => Ok(Repair::All(reattached)),
            Err(error) => {
                let changes = (old, changes, self.lan_address.is_some());
                let repaired = repair_others(dataplane, &plan, netlink, changes);
                // As the attempts have left them.
                let left = Plan::check(settings, netlink);
                self.backoff.refused(left.ok().as_ref().map(links));
                Ok(Repair::Others(error, repaired))
            }
        }
    }
}

/// What an attempt has achieved.
enum Repair {
    /// Nothing: it was not the time for one, or there is nothing to attach to.
    None,
    /// Everything is attached.
    All(Reattached),
    /// Something is refused. The rest is attached, if anything of it was not.
    Others(Error, Option<Reattached>),
}

/// Attaches what can be attached when not everything can: interfaces that have appeared or were
/// created again, and have no program, are tried one by one, and those that refuse count as absent.
/// An interface that has some program keeps it, so one that has lost another is never left out.
fn repair_others(
    dataplane: &mut Dataplane,
    plan: &Plan,
    netlink: &Netlink,
    (old, changes, lan_address): (&Plan, &[(String, LinkChange)], bool),
) -> Option<Reattached> {
    let known = |name: &str, index: u32| {
        let links = old.interfaces();
        links
            .iter()
            .any(|(_, link)| link.name == name && link.index == index)
    };
    let mut left_out = Vec::new();
    let mut has_others = lan_address;
    for (name, change) in changes {
        match change {
            LinkChange::Bare(index) if known(name, *index) => has_others = true,
            LinkChange::Bare(_) | LinkChange::Appeared(_) => left_out.push(name.as_str()),
            LinkChange::NewMac(_) | LinkChange::NewMacvlans(_) => has_others = true,
            LinkChange::Renamed(_) | LinkChange::Gone => {}
        }
    }
    let mut repaired = None;
    let mut attempt = |left_out: &[&str]| {
        let attached = plan
            .without(left_out)
            .map(|plan| reattach(dataplane, plan, netlink));
        let attached = attached.and_then(Result::ok);
        let is_attached = attached.is_some();
        repaired = attached.or_else(|| repaired.take());
        is_attached
    };
    if has_others && !left_out.is_empty() {
        attempt(&left_out);
    }
    if has_others || left_out.len() > 1 {
        for name in left_out.clone() {
            let fewer: Vec<&str> = left_out
                .iter()
                .copied()
                .filter(|one| *one != name)
                .collect();
            if attempt(&fewer) {
                left_out = fewer;
            }
        }
    }
    repaired
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

/// Attaches as a start does, under the lock that is held already.
fn reattach(dataplane: &mut Dataplane, plan: Plan, netlink: &Netlink) -> Result<Reattached> {
    // By the descriptor that is held: the path may need a capability that was given up.
    let bpffs = dataplane.instance.directory.ancestors().nth(2);
    foreign_xdp::check(&plan, bpffs.unwrap_or(Path::new("/")), &dataplane.instance)?;
    let saved = dataplane::adopt_existing(&dataplane.instance, &plan, netlink)?;
    let saved = saved.ok_or_else(|| {
        let gone = std::io::ErrorKind::NotFound.into();
        Error::system(format!("find the tables of {}", dataplane.instance.vip))(gone)
    })?;
    let mut created = Vec::new();
    let (instance, grace) = (&dataplane.instance, &dataplane.grace);
    match dataplane::load_and_attach(&plan, netlink, instance, Some(saved), grace, &mut created) {
        Ok(loaded) => {
            dataplane.tables = Arc::new(loaded.tables);
            dataplane.tc_backend = loaded.tc_backend;
            dataplane.attached = loaded.attached;
            Ok((plan, loaded.loggers))
        }
        Err(error) => {
            attach::rollback(netlink, instance, &created);
            Err(error)
        }
    }
}
