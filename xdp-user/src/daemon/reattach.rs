//! Interfaces that go away, come back or change their name while the daemon runs. A program goes with its interface; when
//! one of that name is back, everything is attached as at a start, and what lives elsewhere is exchanged without a gap.
//!
//! It may not know how a program is attached, nor what is printed.

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
    /// It is where it was, under this name now.
    Renamed(String),
    /// There is none of that name.
    Gone,
    /// There is one of that name without our program: made anew, back from another namespace, or somebody has taken the
    /// program out.
    Bare(u32),
}

/// The interfaces of a plan to which something has happened, by the names that they had.
pub fn look(instance: &Instance, plan: &Plan, netlink: &Netlink) -> Vec<(String, LinkChange)> {
    let dry = plan.settings.dry_run;
    let fates = plan.interfaces().into_iter().filter_map(|(port, link)| {
        let now = netlink.look(link.index, None).ok();
        let now = now.filter(|_| !has_dead_link(instance, port));
        let fate = fate(link, now, dry, || netlink.link(&link.name).ok())?;
        Some((link.name.clone(), fate))
    });
    fates.collect()
}

/// A link that is attached to nothing any more: its interface is gone, or somebody has detached it.
fn has_dead_link(instance: &Instance, port: Interface) -> bool {
    let mine = HookPoint::all().filter(|hook_point| hook_point.port == port);
    mine.filter_map(|hook_point| {
        link::open(&instance.pin(&hook_point.link_pin()))
            .ok()
            .flatten()
    })
    .any(|(_, attachment)| attachment.ifindex == 0)
}

/// `now` is the interface of the same index, if our programs may be on it; `namesake` finds one of the same name. A dry run
/// has no XDP program.
fn fate(
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

/// What was said of an interface, so that it is said once.
#[derive(Debug, Default)]
pub struct LinkMonitor {
    said: Vec<(String, LinkChange)>,
    failure: Option<String>,
}

/// Something that is worth a line.
#[derive(Debug)]
pub enum Event {
    /// Of one interface.
    Of(String, LinkChange),
    /// It cannot be attached to again yet, for this reason.
    NotYet(String),
}

/// What an instance goes on with after it was attached again.
pub type Reattached = (Plan, Vec<Logger>);

impl LinkMonitor {
    /// Looks, and attaches again when every interface is there and one has no program.
    pub fn look(
        &mut self,
        running: &mut Dataplane,
        plan: &Plan,
        netlink: &Netlink,
    ) -> (Vec<Event>, Option<Reattached>) {
        let fates = look(&running.instance, plan, netlink);
        let new = fates.iter().filter(|fate| !self.said.contains(fate));
        let mut news: Vec<Event> = new
            .map(|(name, fate)| Event::Of(name.clone(), fate.clone()))
            .collect();
        let bare = |fate: &LinkChange| matches!(fate, LinkChange::Bare(_));
        let is_bare = fates.iter().any(|(_, fate)| bare(fate));
        let is_gone = fates.iter().any(|(_, fate)| *fate == LinkChange::Gone);
        self.said = fates;
        if !is_bare || is_gone {
            return (news, None);
        }
        match attach_again(running, plan, netlink) {
            Ok(again) => {
                *self = Self::default();
                (news, Some(again))
            }
            Err(error) => {
                let why = causes(&error);
                if self.failure.as_ref() != Some(&why) {
                    self.failure = Some(why.clone());
                    news.push(Event::NotYet(why));
                }
                (news, None)
            }
        }
    }
}

/// As a start does, under the lock that we have.
fn attach_again(running: &mut Dataplane, old: &Plan, netlink: &Netlink) -> Result<Reattached> {
    let mut settings = old.settings.clone();
    // One that was renamed is still meant.
    for (names, links) in [
        (&mut settings.wans, &old.wans),
        (&mut settings.lans, &old.lans),
    ] {
        for (name, link) in names.iter_mut().zip(links) {
            if let Ok(now) = netlink.look(link.index, None) {
                *name = now.name;
            }
        }
    }
    let plan = Plan::check(settings, netlink)?;
    // By the descriptor that is held: the path may need a capability that was given up.
    let bpffs = running.instance.directory.ancestors().nth(2);
    foreign_xdp::check(&plan, bpffs.unwrap_or(Path::new("/")), &running.instance)?;
    let known = dataplane::adopt_existing(&running.instance, &plan, netlink)?;
    let known = known.ok_or_else(|| {
        let gone = std::io::ErrorKind::NotFound.into();
        Error::system(format!("find the tables of {}", running.instance.vip))(gone)
    })?;
    let mut made = Vec::new();
    match dataplane::load_and_attach(&plan, netlink, &running.instance, Some(known), &mut made) {
        Ok((tables, _, (way, attached), loggers)) => {
            running.tables = tables;
            running.tc_backend = way;
            running.attached = attached;
            Ok((plan, loggers))
        }
        Err(error) => {
            attach::rollback(netlink, &running.instance, &made)?;
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
        let ours = link(5, "eth1", Some(7));
        let fate = |now, namesake| fate(&ours, now, false, || namesake);
        assert_eq!(fate(Some(link(5, "eth1", Some(9))), None), None);
        assert_eq!(
            fate(Some(link(5, "up0", Some(7))), Some(link(8, "eth1", None))),
            Some(LinkChange::Renamed("up0".to_owned()))
        );
        assert_eq!(
            fate(Some(link(5, "eth1", None)), None),
            Some(LinkChange::Bare(5))
        );
        assert_eq!(
            fate(None, Some(link(8, "eth1", None))),
            Some(LinkChange::Bare(8))
        );
        assert_eq!(fate(None, None), Some(LinkChange::Gone));
        let dry = super::fate(&ours, Some(link(5, "eth1", None)), true, || None);
        assert_eq!(dry, None);
    }
}
