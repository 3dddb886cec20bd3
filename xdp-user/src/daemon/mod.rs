//! The daemon of an instance: it attaches the programs, maintains tables and attachments until it
//! is asked to stop, and leaves the programs attached when it ends.

mod log;
pub mod maintenance;
pub mod neighbour_probe;
pub mod reattach;
pub mod signals;

use crate::config::plan::Plan;
use crate::daemon::maintenance::Maintenance;
use crate::daemon::signals::Stop;
use crate::dataplane::{self, Dataplane, Logger};
use crate::error::Result;
use crate::netlink::Netlink;
use crate::netlink::monitor::ChangeMonitor;
use crate::sys::capabilities;
use std::future::Future;
use std::time::Duration;
use tokio::time::MissedTickBehavior;

/// A daemon whose instance is attached.
pub struct Daemon {
    plan: Plan,
    netlink: Netlink,
    dataplane: Dataplane,
    loggers: Vec<Logger>,
    /// Changes of routes and neighbours.
    events: ChangeMonitor,
    maintenance: Maintenance,
}

/// How often changes of interfaces and the dataplane's own messages are looked for.
const OFTEN: Duration = Duration::from_millis(250);

impl Daemon {
    /// Attaches the programs, gives up the capabilities that maintenance does not need, and
    /// finishes what a daemon that died has begun.
    pub fn start(plan: Plan, netlink: Netlink) -> Result<Self> {
        // Before anything is attached, so that no change after it is missed.
        let events = ChangeMonitor::listen()?;
        let (mut dataplane, loggers) = dataplane::start(&plan, &netlink)?;
        log::started(&plan, &dataplane);
        let directory = dataplane.instance.directory.clone();
        dataplane.hold_pins()?;
        let kept = capabilities::give_up()?;
        tracing::debug!("capabilities that are kept: {kept:?}");
        let mut maintenance = Maintenance::new(&plan, &dataplane, directory);
        maintenance.recover(&dataplane)?;
        log::ready(&plan);
        Ok(Self {
            plan,
            netlink,
            dataplane,
            loggers,
            events,
            maintenance,
        })
    }

    /// Maintains the instance until `stop` is ready, and returns what it returned.
    pub async fn run<S>(&mut self, stop: impl Future<Output = S>) -> Result<S> {
        let mut often = tokio::time::interval(OFTEN);
        often.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut second = tokio::time::interval(Duration::from_secs(1));
        second.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut stop = std::pin::pin!(stop);
        loop {
            tokio::select! {
                stop = &mut stop => return Ok(stop),
                _ = often.tick() => {
                    // The dataplane's own messages go to the log.
                    self.loggers.iter_mut().for_each(Logger::flush);
                    // An interface that is back carries packets that are not translated yet.
                    if self.events.links_changed() {
                        second.reset_immediately();
                    }
                }
                _ = second.tick() => self.maintain()?,
            }
        }
    }

    /// The maintenance of one second.
    fn maintain(&mut self) -> Result<()> {
        let reattached = self
            .maintenance
            .reattach(&mut self.dataplane, &self.plan, &self.netlink);
        if let Some((plan, loggers)) = reattached {
            self.plan = plan;
            self.loggers = loggers;
        }
        self.maintenance
            .run(&self.dataplane, &self.plan, &self.netlink, &mut self.events)
    }

    /// Ends and leaves the programs attached.
    pub fn leave(self, stop: Stop) {
        log::left(&self.plan, stop);
    }

    /// Ends, detaches the programs and removes the tables.
    pub fn detach(self) -> Result<()> {
        let removed = self.dataplane.detach(&self.netlink)?;
        log::detached(&self.plan, removed.len());
        Ok(())
    }
}
