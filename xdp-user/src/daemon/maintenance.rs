//! Periodic maintenance of an instance: expiry, neighbour probing, egress words, tc filters that another
//! process has removed, and interfaces that come back.

use crate::config::plan::Plan;
use crate::daemon::log;
use crate::daemon::neighbour_probe::Prober;
use crate::daemon::reattach::{LinkMonitor, Reattached};
use crate::dataplane::Dataplane;
use crate::dataplane::attach::FilterRestore;
use crate::dataplane::egress::{self, XmitSupport};
use crate::error::{Error, Result};
use crate::netlink::Netlink;
use crate::netlink::monitor::ChangeMonitor;
use crate::tables::expiry::Expiry;
use std::path::PathBuf;
use tracing::debug;

/// The duties of the daemon, and what it has logged of them, so that nothing is logged twice.
#[derive(Debug)]
pub struct Maintenance {
    expiry: Expiry,
    link_monitor: LinkMonitor,
    prober: Prober,
    /// The interfaces that have lost their tc filter for good.
    without_filter: Vec<String>,
    /// Where the pins can be seen by their name, as long as they can.
    pins: Option<PathBuf>,
}

impl Maintenance {
    /// For an instance with its pins in `directory`.
    pub fn new(plan: &Plan, dataplane: &Dataplane, directory: PathBuf) -> Self {
        Self {
            expiry: Expiry::new(dataplane.clock, plan.settings.idle_secs),
            link_monitor: LinkMonitor::default(),
            prober: Prober::default(),
            without_filter: Vec::new(),
            // Where it can be seen with the capabilities that are left.
            pins: Some(directory).filter(|path| path.exists()),
        }
    }

    /// Finishes the expiry that a daemon that died has begun.
    pub fn recover(&mut self, dataplane: &Dataplane) -> Result<()> {
        let reclaimed = self.expiry.recover(&dataplane.tables)?;
        log::recovered(reclaimed.flows, reclaimed.sessions);
        Ok(())
    }

    /// Attaches again where an interface has come back. Returns the new plan and loggers when it did.
    pub fn reattach(
        &mut self,
        dataplane: &mut Dataplane,
        plan: &Plan,
        netlink: &Netlink,
    ) -> Option<Reattached> {
        let (events, reattached) = self.link_monitor.check(dataplane, plan, netlink);
        events.into_iter().for_each(log::link_event);
        if let Some((plan, _)) = &reattached {
            log::reattached(plan, dataplane);
        }
        reattached
    }

    /// One pass of everything else.
    ///
    /// # Errors
    /// The instance was removed, or a grace period cannot be waited for.
    pub fn run(
        &mut self,
        dataplane: &Dataplane,
        plan: &Plan,
        netlink: &Netlink,
        events: &mut ChangeMonitor,
    ) -> Result<()> {
        if !dataplane.instance.is_used() {
            return Err(Error::Unloaded {
                vip: plan.settings.vip,
            });
        }
        if let Some(path) = self.pins.take_if(|path| !path.exists()) {
            log::pins_hidden(&path);
        }
        // Before the events are counted: what probing changes counts at once.
        let silent = self
            .prober
            .pass(&dataplane.tables, &dataplane.clock, netlink);
        for neighbour in silent {
            log::neighbour_silent(plan, neighbour);
        }
        refresh_egress(dataplane, plan, netlink, events);
        self.restore_filters(dataplane, plan, netlink);
        let reclaimed = self.expiry.pass(&dataplane.tables)?;
        if reclaimed.flows + reclaimed.sessions > 0 {
            debug!(
                "{} SPIs and {} peers expired",
                reclaimed.flows, reclaimed.sessions
            );
        }
        Ok(())
    }

    fn restore_filters(&mut self, dataplane: &Dataplane, plan: &Plan, netlink: &Netlink) {
        let mut lost = Vec::new();
        for (interface, what) in dataplane.restore_filters(netlink, plan) {
            match what {
                FilterRestore::Restored => log::filter_restored(&interface),
                FilterRestore::Failed(why) => {
                    if !self.without_filter.contains(&interface) {
                        log::filter_lost(&interface, &why);
                    }
                    lost.push(interface);
                }
            }
        }
        self.without_filter = lost;
    }
}

/// Tells the dataplane which interfaces take frames from XDP, and that cached next hops are void when a
/// route or a neighbour has changed.
pub(super) fn refresh_egress(
    dataplane: &Dataplane,
    plan: &Plan,
    netlink: &Netlink,
    events: &mut ChangeMonitor,
) {
    for (interface, support) in egress::refresh(&dataplane.tables, netlink, plan, events.epoch()) {
        // Where nothing is redirected, it is news only that a device is gone.
        let redirects = !plan.settings.dry_run && !plan.server_is_local;
        if redirects || support == XmitSupport::InterfaceGone {
            log::xmit_support(&interface, support);
        }
    }
}
