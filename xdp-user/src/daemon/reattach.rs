//! Re-attaches the programs when interfaces go away, come back or change their name while the
//! daemon runs. A program goes with its interface; when one of that name is back, everything is
//! attached as at a start, and the programs on other interfaces are exchanged without a gap.

use crate::bpffs::layout::Instance;
use crate::config::interfaces::{HookPoint, Interface};
use crate::config::plan::Plan;
use crate::dataplane::attach;
use crate::dataplane::foreign_xdp;
use crate::dataplane::link;
use crate::dataplane::{self, Dataplane, Logger};
use crate::error::{Error, Result, causes};
use crate::netlink::{Link, Netlink};
use std::path::Path;

/// What has become of an interface of the plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkChange {
    /// It is there, under this new name.
    Renamed(String),
    /// There is no interface of that name.
    Gone,
    /// There is one of that name, with this index, and without ikenat's program: it was created
    /// again, it is back from another namespace, or another process has detached the program.
    Bare(u32),
}

/// The interfaces of a plan to which something has happened, by the names that they had.
fn changes(instance: &Instance, plan: &Plan, netlink: &Netlink) -> Vec<(String, LinkChange)> {
    let dry = plan.settings.dry_run;
    let changed = plan
        .interfaces()
        .into_iter()
        .filter_map(|(interface, link)| {
            let now = netlink.link_by_index(link.index).ok();
            let now = now.filter(|_| !has_dead_link(instance, interface));
            let change = change(link, now, dry, || netlink.link(&link.name).ok())?;
            Some((link.name.clone(), change))
        });
    changed.collect()
}

/// Whether a link of an interface is attached to nothing any more: the interface is gone, or
/// another process has detached the link.
fn has_dead_link(instance: &Instance, interface: Interface) -> bool {
    let hook_points = HookPoint::all().filter(|hook_point| hook_point.interface == interface);
    hook_points
        .filter_map(|hook_point| {
            link::open(&instance.pin(&hook_point.link_pin()))
                .ok()
                .flatten()
        })
        .any(|(_, bpf_link)| bpf_link.ifindex == 0)
}

/// What has become of `link`. `now` is the interface of the same index, unless a link on it is
/// dead; `namesake` finds one of the same name. A dry run has no XDP program.
fn change(
    link: &Link,
    now: Option<Link>,
    dry: bool,
    namesake: impl FnOnce() -> Option<Link>,
) -> Option<LinkChange> {
    match now {
        Some(now) if now.xdp.is_none() && !dry => Some(LinkChange::Bare(now.index)),
        Some(now) if now.name != link.name => Some(LinkChange::Renamed(now.name)),
        Some(_) => None,
        None => Some(namesake().map_or(LinkChange::Gone, |found| LinkChange::Bare(found.index))),
    }
}

/// Watches the interfaces of an instance. It remembers what it has reported, so that each change is
/// reported once.
#[derive(Debug, Default)]
pub struct LinkMonitor {
    reported: Vec<(String, LinkChange)>,
    failure: Option<String>,
}

/// What a log should say.
#[derive(Debug)]
pub enum Event {
    /// Something has happened to this interface.
    Changed(String, LinkChange),
    /// The programs cannot be attached again yet, for this reason.
    NotReattached(String),
}

/// The plan and the loggers of an instance that was attached again.
pub type Reattached = (Plan, Vec<Logger>);

impl LinkMonitor {
    /// Whether the last attempt to attach again has failed.
    pub const fn is_failing(&self) -> bool {
        self.failure.is_some()
    }

    /// Looks at the interfaces, and attaches again when all of them are there and one has no
    /// program.
    pub fn check(
        &mut self,
        dataplane: &mut Dataplane,
        plan: &Plan,
        netlink: &Netlink,
    ) -> (Vec<Event>, Option<Reattached>) {
        let changes = changes(&dataplane.instance, plan, netlink);
        let new = changes
            .iter()
            .filter(|change| !self.reported.contains(change));
        let mut events: Vec<Event> = new
            .map(|(name, change)| Event::Changed(name.clone(), change.clone()))
            .collect();
        let mut kinds = changes.iter().map(|(_, change)| change);
        let is_bare = kinds
            .clone()
            .any(|change| matches!(change, LinkChange::Bare(_)));
        let is_gone = kinds.any(|change| *change == LinkChange::Gone);
        self.reported = changes;
        if !is_bare || is_gone {
            return (events, None);
        }
        match reattach(dataplane, plan, netlink) {
            Ok(reattached) => {
                *self = Self::default();
                (events, Some(reattached))
            }
            Err(error) => {
                let why = dataplane.instance.named(&causes(&error));
                if self.failure.as_ref() != Some(&why) {
                    self.failure = Some(why.clone());
                    events.push(Event::NotReattached(why));
                }
                (events, None)
            }
        }
    }
}

/// Attaches as a start does, under the lock that is held already.
fn reattach(dataplane: &mut Dataplane, old: &Plan, netlink: &Netlink) -> Result<Reattached> {
    let mut settings = old.settings.clone();
    // A renamed interface is still meant.
    for (names, links) in [
        (&mut settings.wans, &old.wans),
        (&mut settings.lans, &old.lans),
    ] {
        for (name, link) in names.iter_mut().zip(links) {
            if let Ok(now) = netlink.link_by_index(link.index) {
                *name = now.name;
            }
        }
    }
    let plan = Plan::check(settings, netlink)?;
    // By the descriptor that is held: the path may need a capability that was given up.
    let bpffs = dataplane.instance.directory.ancestors().nth(2);
    foreign_xdp::check(&plan, bpffs.unwrap_or(Path::new("/")), &dataplane.instance)?;
    let saved = dataplane::adopt_existing(&dataplane.instance, &plan, netlink)?;
    let saved = saved.ok_or_else(|| {
        let gone = std::io::ErrorKind::NotFound.into();
        Error::system(format!("find the tables of {}", dataplane.instance.vip))(gone)
    })?;
    let mut created = Vec::new();
    let instance = &dataplane.instance;
    match dataplane::load_and_attach(&plan, netlink, instance, Some(saved), &mut created) {
        Ok(loaded) => {
            dataplane.tables = loaded.tables;
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

#[cfg(test)]
mod tests {
    use super::*;

    fn link(index: u32, name: &str, xdp: Option<u32>) -> Link {
        Link {
            index,
            name: name.to_owned(),
            xdp,
            ..Link::default()
        }
    }

    #[test]
    fn an_interface_is_known_by_its_index_first_and_by_its_name_when_that_is_gone() {
        let eth1 = link(5, "eth1", Some(7));
        let change = |now, namesake| change(&eth1, now, false, || namesake);
        assert_eq!(change(Some(link(5, "eth1", Some(9))), None), None);
        assert_eq!(
            change(Some(link(5, "up0", Some(7))), Some(link(8, "eth1", None))),
            Some(LinkChange::Renamed("up0".to_owned()))
        );
        assert_eq!(
            change(Some(link(5, "eth1", None)), None),
            Some(LinkChange::Bare(5))
        );
        assert_eq!(
            change(None, Some(link(8, "eth1", None))),
            Some(LinkChange::Bare(8))
        );
        assert_eq!(change(None, None), Some(LinkChange::Gone));
        let dry = super::change(&eth1, Some(link(5, "eth1", None)), true, || None);
        assert_eq!(dry, None);
    }
}
