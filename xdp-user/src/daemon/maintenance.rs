//! House-keeping: what the daemon does each second, and what it says of it.
//!
//! It may not know how a start came about, nor when it ends.

use crate::config::plan::Plan;
use crate::daemon::neighbour_probe::Prober;
use crate::daemon::reattach::{Event, LinkChange, LinkMonitor, Reattached};
use crate::dataplane::Dataplane;
use crate::dataplane::attach::{AttachAction, FilterRestore};
use crate::dataplane::egress::{self, XmitSupport};
use crate::dataplane::tc_backend::hook_name;
use crate::error::{Error, Result};
use crate::netlink::Netlink;
use crate::netlink::monitor::Events;
use crate::tables::expiry::Expiry;
use std::path::PathBuf;
use tracing::{debug, info, warn};
use xdp_common::Hook;

/// What is done each second, and what has been said of it.
pub struct House {
    pub expiry: Expiry,
    /// The interfaces whose filter could not be put back.
    pub complained: Vec<String>,
    /// Changes of routes and neighbours.
    pub events: Events,
    /// Interfaces that go and come.
    pub watch: LinkMonitor,
    /// Next hops that may have moved.
    pub prober: Prober,
    /// Where the pins can be seen by their name, as long as they can.
    pub path: Option<PathBuf>,
}

impl House {
    fn say_put_back(&mut self, all: Vec<(String, FilterRestore)>) {
        let failed: Vec<String> = all
            .iter()
            .filter(|(_, what)| *what != FilterRestore::Restored)
            .map(|(interface, _)| interface.clone())
            .collect();
        for (interface, what) in all {
            match what {
                FilterRestore::Restored => {
                    warn!("somebody had removed the tc filter from {interface}; it is there again");
                }
                FilterRestore::Failed(_) if self.complained.contains(&interface) => {}
                FilterRestore::Failed(why) => warn!(
                    "somebody has removed the tc filter from {interface}, and it cannot be put back: {why}"
                ),
            }
        }
        self.complained = failed;
    }
}

/// Attaches again where an interface has come back. With the new plan, when that was done.
pub fn follow(
    running: &mut Dataplane,
    plan: &Plan,
    netlink: &Netlink,
    house: &mut House,
) -> Option<Reattached> {
    let (all, again) = house.watch.look(running, plan, netlink);
    for news in all {
        match news {
            Event::Of(interface, LinkChange::Renamed(name)) => warn!(
                "{interface} is called {name} now, and translating goes on; name it so at the next start"
            ),
            Event::Of(interface, LinkChange::Gone) => warn!(
                "{interface} is gone, and its programs with it; they are attached again when an interface of that name is back"
            ),
            Event::Of(interface, LinkChange::Bare(index)) => {
                warn!(
                    "{interface} (interface {index}) is there without our programs: attaching again"
                );
            }
            Event::NotYet(why) => warn!("failed to attach again, trying each second: {why}"),
        }
    }
    if let Some((plan, _)) = &again {
        report_attached(running);
        report_not_ready(plan, running);
        info!(
            "ready again: translating {} to {}",
            plan.settings.vip, plan.settings.server
        );
    }
    again
}

pub fn each_second(
    running: &Dataplane,
    plan: &Plan,
    netlink: &Netlink,
    house: &mut House,
) -> Result<()> {
    if !running.instance.is_used() {
        return Err(Error::Unloaded {
            vip: plan.settings.vip,
        });
    }
    if house.path.as_ref().is_some_and(|path| !path.exists())
        && let Some(path) = house.path.take()
    {
        warn!(
            "{} cannot be seen any more: its file system was unmounted, or another is mounted over it; packets are translated as long as this process runs, and `stats` finds nothing",
            path.display()
        );
    }
    // Before the count: what comes of it counts at once.
    let silent = house.prober.pass(&running.tables, &running.clock, netlink);
    for (index, gateway) in silent {
        info!("the next hop {gateway} (interface {index}) does not answer: looking for it anew");
    }
    let epoch = house.events.epoch();
    for (interface, readiness) in egress::refresh(&running.tables, netlink, plan, epoch) {
        // Where nothing is redirected, it is news only that a device is gone.
        let redirects = !plan.settings.dry_run && !plan.server_is_local;
        if redirects || readiness == XmitSupport::InterfaceGone {
            say_readiness(&interface, readiness);
        }
    }
    house.say_put_back(running.restore_filters(netlink, plan));
    let freed = house.expiry.pass(&running.tables)?;
    if freed.flows + freed.sessions > 0 {
        debug!("{} SPIs and {} peers expired", freed.flows, freed.sessions);
    }
    Ok(())
}

fn say_readiness(interface: &str, readiness: XmitSupport) {
    match readiness {
        XmitSupport::Supported => info!("{interface} takes frames from XDP"),
        XmitSupport::Unsupported => warn!(
            "{interface} does not take frames from XDP, so what leaves by it takes the slow path (a veth needs an XDP program on its peer or, from Linux 6.3 on, GRO)"
        ),
        // That was said already.
        XmitSupport::InterfaceGone => {}
    }
}

/// What a start, and an interface that came back, have in common.
pub fn report_attached(running: &Dataplane) {
    for attached in &running.attached {
        let how = match attached.action {
            AttachAction::Attached => "attached to",
            AttachAction::Replaced => "replaced the program on",
            AttachAction::Reattached => "attached again (the old link was dead or elsewhere) to",
        };
        let mode = match attached.hook {
            Hook::Xdp => format!(", {} mode", attached.mode.name()),
            Hook::Tc => ", ingress, for the slow path".to_owned(),
            Hook::Egress => ", egress, for what this host sends of the server's".to_owned(),
        };
        info!(
            "{} {how} {}{mode}",
            hook_name(attached.hook, running.tc_backend),
            attached.interface
        );
    }
}

pub fn report_not_ready(plan: &Plan, running: &Dataplane) {
    if plan.settings.dry_run || plan.server_is_local {
        return;
    }
    for interface in egress::unsupported(&running.tables, plan) {
        say_readiness(interface, XmitSupport::Unsupported);
    }
}
