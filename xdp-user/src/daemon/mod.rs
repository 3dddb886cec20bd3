//! The daemon of an instance: it attaches the programs, maintains tables and attachments until it
//! is asked to stop, and leaves the programs attached when it ends.

pub mod backoff;
mod exchange;
mod expirer;
pub mod link_change;
mod log;
pub mod loggers;
pub mod maintenance;
pub mod neighbour_probe;
mod readiness;
pub mod reattach;
mod service_log;
mod services;
pub mod signals;
pub mod throttle;
mod vip_watch;
mod wording;

use crate::config::client_routes;
use crate::config::plan::Plan;
use crate::config::routing_rules;
use crate::daemon::loggers::Loggers;
use crate::daemon::maintenance::Maintenance;
use crate::daemon::readiness::readable;
use crate::daemon::signals::Stop;
use crate::daemon::throttle::Reactions;
use crate::dataplane::exchange::LoadedPrograms;
use crate::dataplane::{self, Dataplane};
use crate::error::{Error, Result};
use crate::netlink::Netlink;
use crate::netlink::changes::{Changes, Used};
use crate::netlink::monitor::{ChangeMonitor, Received};
use crate::sys::{allocator, capabilities};
use crate::tables::{invalidate, nexthop};
use std::future::Future;
use std::time::Duration;
use tokio::io::unix::AsyncFd;
use tokio::time::MissedTickBehavior;

/// A daemon whose instance is attached.
pub struct Daemon {
    plan: Plan,
    netlink: Netlink,
    dataplane: Dataplane,
    loggers: Loggers,
    monitor: AsyncFd<ChangeMonitor>,
    reactions: Reactions,
    maintenance: Maintenance,
}

impl Daemon {
    /// Attaches the programs, gives up the capabilities that maintenance does not need, and
    /// finishes what a daemon that died has begun. Needs the event loop.
    pub fn start(mut plan: Plan, netlink: Netlink) -> Result<Self> {
        allocator::return_large_blocks();
        // Before anything is attached, so that no change after it is missed.
        let monitor = readable(ChangeMonitor::listen()?)
            .map_err(Error::system("wait for changes of links and routes"))?;
        let (mut dataplane, loggers) = dataplane::start(&mut plan, &netlink)?;
        let settings = &plan.settings;
        // `check` says when they cannot be listed.
        let routed = client_routes::routed_by_owner(&netlink, &plan);
        let leaves_by_own_wan = |vip| routed.contains(&vip);
        let rules = routing_rules::unfollowed(&netlink, settings, leaves_by_own_wan);
        log::started(&plan, &dataplane, &rules.unwrap_or_default());
        service_log::unrouted(&client_routes::unrouted(&netlink, &plan));
        let directory = dataplane.instance.directory.clone();
        dataplane.hold_pins()?;
        let kept = capabilities::give_up()?;
        tracing::debug!("capabilities that are kept: {kept:?}");
        let maintenance = Maintenance::new(&plan, &dataplane, directory)?;
        log::ready(&plan);
        let mut registered = Loggers::default();
        registered.replace(loggers);
        Ok(Self {
            plan,
            netlink,
            dataplane,
            loggers: registered,
            monitor,
            reactions: Reactions::default(),
            maintenance,
        })
    }

    /// Maintains the instance until `stop` is ready, and returns what it returned. An exchange of
    /// programs that is under way is abandoned.
    pub async fn run<S>(&mut self, stop: impl Future<Output = S>) -> Result<S> {
        let ended = self.maintain_until(stop).await;
        self.maintenance.abandon_exchange().await;
        ended
    }

    async fn maintain_until<S>(&mut self, stop: impl Future<Output = S>) -> Result<S> {
        let mut second = tokio::time::interval(Duration::from_secs(1));
        second.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut stop = std::pin::pin!(stop);
        loop {
            tokio::select! {
                stop = &mut stop => return Ok(stop),
                changes = next_changes(&mut self.monitor, &self.plan, &self.dataplane) => {
                    self.reactions.note(changes?);
                }
                changes = self.reactions.due() => self.react(changes),
                loaded = self.maintenance.loaded() => self.reattach(loaded),
                () = self.loggers.next() => {}
                _ = second.tick() => self.maintain()?,
            }
        }
    }

    /// What changes of links, routes and neighbours demand.
    fn react(&mut self, changes: Changes) {
        if changes.links {
            self.check_links(true);
        }
        if changes.vip {
            self.maintenance.watch_vips(&self.plan, &self.netlink);
        }
        if changes.routes {
            let prefixes = self.monitor.get_mut().take_prefixes();
            if invalidate::has_peer_in(&self.dataplane.tables, &prefixes) {
                self.reactions.note(Changes::HOPS);
            }
        }
        if changes.hops {
            self.maintenance.invalidate_hops();
        }
        self.maintenance
            .refresh_egress(&self.dataplane, &self.plan, &self.netlink);
    }

    /// The maintenance of one second. It also reads what has not been reported as readable.
    fn maintain(&mut self) -> Result<()> {
        self.loggers.flush();
        let received = receive(self.monitor.get_mut(), &self.plan, &self.dataplane);
        self.reactions.note(received.changes);
        self.check_links(false);
        self.maintenance
            .run(&self.dataplane, &self.plan, &self.netlink)
    }

    fn check_links(&mut self, notified: bool) {
        let (dataplane, plan) = (&self.dataplane, &self.plan);
        self.maintenance
            .check_links(dataplane, plan, &self.netlink, notified);
    }

    /// The programs of an exchange are loaded, or refused.
    fn reattach(&mut self, loaded: Result<LoadedPrograms>) {
        let reattached =
            self.maintenance
                .reattach(loaded, &mut self.dataplane, &self.plan, &self.netlink);
        if let Some((plan, loggers)) = reattached {
            self.plan = plan;
            // The last messages of the programs that were replaced.
            self.loggers.flush();
            self.loggers.replace(loggers);
        }
        self.maintenance
            .refresh_egress(&self.dataplane, &self.plan, &self.netlink);
    }

    /// Ends and leaves the programs attached.
    pub fn leave(self, stop: Stop) {
        log::left(&self.plan, stop, &self.dataplane.instance.unload_command());
    }

    /// Ends, detaches the programs and removes the tables.
    pub fn detach(self) -> Result<()> {
        let removed = self.dataplane.detach(&self.netlink)?;
        log::detached(&self.plan, removed.len());
        Ok(())
    }
}

/// Reads what concerns the instance of the pending notifications.
fn receive(monitor: &mut ChangeMonitor, plan: &Plan, dataplane: &Dataplane) -> Received {
    let words = dataplane.tables.nexthop.words();
    let interfaces = plan.wanted_by_side().into_iter();
    monitor.receive(&Used {
        links: interfaces.map(|(_, link)| link).collect(),
        vips: plan.settings.vips().collect(),
        servers: plan.settings.servers().collect(),
        neighbour: &|key| nexthop::may_be_cached(words, key),
    })
}

/// Waits for notifications and reads them. A call that is cancelled loses none.
async fn next_changes(
    monitor: &mut AsyncFd<ChangeMonitor>,
    plan: &Plan,
    dataplane: &Dataplane,
) -> Result<Changes> {
    let readable = monitor.readable_mut().await;
    let mut guard = readable.map_err(Error::system("wait for changes of links and routes"))?;
    let received = receive(guard.get_inner_mut(), plan, dataplane);
    if received.is_drained {
        guard.clear_ready();
    }
    Ok(received.changes)
}
