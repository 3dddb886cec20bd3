//! Periodic maintenance of an instance: expiry, neighbour probing, egress words, tc filters that another
//! process has removed, and interfaces that come back.

use crate::config::interfaces::{Interface, Side};
use crate::config::plan::Plan;
use crate::daemon::expirer::Expirer;
use crate::daemon::log;
use crate::daemon::neighbour_probe::Prober;
use crate::daemon::reattach::{LinkMonitor, Reattached};
use crate::daemon::service_log;
use crate::daemon::vip_watch::VipWatch;
use crate::dataplane::Dataplane;
use crate::dataplane::clsact::FilterRestore;
use crate::dataplane::egress::{self, XmitSupport};
use crate::dataplane::exchange::LoadedPrograms;
use crate::error::{Error, Result};
use crate::netlink::Netlink;
use crate::netlink::rule_depth::RuleDepth;
use crate::tables::expiry::Expiry;
use crate::tables::nexthop;
use crate::tables::removal::Removal;
use crate::tables::small::SmallMemory;
use crate::tables::usage::{TABLES, Watermark};
use std::path::PathBuf;
use std::time::Instant;
use xdp_core::Word;

/// The duties of the daemon, and what it has logged of them, so that nothing is logged twice.
#[derive(Debug)]
pub struct Maintenance {
    expirer: Expirer,
    /// How full the tables with a limit were.
    watermarks: [Watermark; TABLES.len()],
    link_monitor: LinkMonitor,
    prober: Prober,
    vips: VipWatch,
    /// The interfaces that have lost their tc filter for good.
    without_filter: Vec<String>,
    /// Where the pins can be seen by their name, as long as they can.
    pins: Option<PathBuf>,
    /// How much of inbound and outbound packets the host's rules look at.
    rules: [RuleDepth; 2],
    /// The epoch in the egress words. A new one invalidates the cached next hops.
    epoch: u16,
}

impl Maintenance {
    /// For an instance with its pins in `directory`. Finishes the expiry that a daemon that died has
    /// begun, and starts that of this one.
    pub fn new(plan: &Plan, dataplane: &Dataplane, directory: PathBuf) -> Result<Self> {
        let (tables, grace) = (&dataplane.tables, &dataplane.grace);
        let secret = dataplane.secret;
        let reclaimed = Expiry::recover(tables.table_words(&secret), || grace.wait())?;
        log::recovered(reclaimed.flows, reclaimed.sessions);
        let expiry = Expiry::new(dataplane.clock, plan.settings.idle_secs);
        let first = Interface {
            side: Side::Wan,
            number: 0,
        };
        let programs = plan.constants(secret, 0, first);
        let removal = Removal::new(dataplane.clock, &programs);
        // By a descriptor, which needs no capability any more.
        let small = SmallMemory::open(&dataplane.instance.directory)?;
        Ok(Self {
            expirer: Expirer::start(
                expiry,
                removal,
                dataplane.clock,
                (tables.clone(), small),
                secret,
                grace.clone(),
            )?,
            watermarks: Default::default(),
            link_monitor: LinkMonitor::default(),
            prober: Prober::default(),
            vips: VipWatch::new(plan),
            without_filter: Vec::new(),
            // Where it can be seen with the capabilities that are left.
            pins: Some(directory).filter(|path| path.exists()),
            rules: Default::default(),
            epoch: first_epoch(),
        })
    }

    /// Begins an exchange of programs where an interface has come back or constants have changed.
    /// `notified`: the kernel has reported a change.
    pub(super) fn check_links(
        &mut self,
        dataplane: &Dataplane,
        plan: &Plan,
        netlink: &Netlink,
        notified: bool,
    ) {
        let events = self.link_monitor.check(dataplane, plan, netlink, notified);
        events.into_iter().for_each(log::link_event);
    }

    /// Waits until the programs of an exchange are loaded. A call that is cancelled loses nothing.
    pub(super) async fn loaded(&mut self) -> Result<LoadedPrograms> {
        self.link_monitor.loaded().await
    }

    /// Waits until no programs are loaded any more, and drops what was loaded.
    pub(super) async fn abandon_exchange(&mut self) {
        self.link_monitor.abandon().await;
    }

    /// Attaches what was loaded. Returns the new plan and loggers when it did.
    pub(super) fn reattach(
        &mut self,
        loaded: Result<LoadedPrograms>,
        dataplane: &mut Dataplane,
        plan: &Plan,
        netlink: &Netlink,
    ) -> Option<Reattached> {
        let (events, reattached) = self.link_monitor.finish(loaded, dataplane, plan, netlink);
        events.into_iter().for_each(log::link_event);
        if let Some((new, _)) = &reattached {
            log::reattached(plan, new, dataplane);
            self.invalidate_hops();
        }
        reattached
    }

    /// Logs whether the VIPs are addresses of this host, when that has changed.
    pub fn watch_vips(&mut self, plan: &Plan, netlink: &Netlink) {
        service_log::vips(plan, &self.vips.look(netlink));
    }

    /// Makes the dataplane look up every next hop again, from the next call of
    /// [`Self::refresh_egress`] on.
    pub const fn invalidate_hops(&mut self) {
        self.epoch = self.epoch.wrapping_add(1);
    }

    /// Tells the dataplane which interfaces take frames from XDP, their MTU, and the epoch.
    pub fn refresh_egress(&mut self, dataplane: &Dataplane, plan: &Plan, netlink: &Netlink) {
        let rules = egress::rule_depths(netlink, plan);
        if std::mem::replace(&mut self.rules, rules) != rules {
            log::rules(rules);
        }
        let (tables, epoch) = (&dataplane.tables, self.epoch);
        for (interface, support) in egress::refresh(tables, netlink, plan, epoch, rules) {
            // Where nothing is redirected, it is news only that a device is gone.
            let redirects = !plan.settings.dry_run && plan.has_lan_servers();
            if redirects || support == XmitSupport::InterfaceGone {
                log::xmit_support(&interface, support);
            }
        }
    }

    /// One pass of everything else.
    ///
    /// # Errors
    /// The instance was removed, or expiry has ended because a grace period cannot be waited for.
    pub fn run(&mut self, dataplane: &Dataplane, plan: &Plan, netlink: &Netlink) -> Result<()> {
        if !dataplane.instance.is_used() {
            return Err(Error::Unloaded {
                instance: plan.settings.instance.clone(),
            });
        }
        if let Some(path) = self.pins.take_if(|path| !path.exists()) {
            log::pins_hidden(&path);
        }
        self.watch_vips(plan, netlink);
        self.keep_neighbours(dataplane, plan, netlink);
        self.refresh_egress(dataplane, plan, netlink);
        self.restore_filters(dataplane, plan, netlink);
        self.warn_of_full_tables(dataplane, plan);
        self.expirer.check()
    }

    fn warn_of_full_tables(&mut self, dataplane: &Dataplane, plan: &Plan) {
        let sizes = plan.settings.sizes;
        let slots = [sizes.flow_slots, sizes.session_slots];
        for ((mark, table), slots) in self.watermarks.iter_mut().zip(TABLES).zip(slots) {
            let entries = Word::load(dataplane.tables.meta(table.number));
            if let Some(level) = mark.reached(entries, u64::from(slots / 2)) {
                let unload = dataplane.instance.unload_command();
                log::table_fills(&unload, &table, level, (entries, slots));
            }
        }
    }

    /// Probes the neighbours in use.
    fn keep_neighbours(&mut self, dataplane: &Dataplane, plan: &Plan, netlink: &Netlink) {
        let words = dataplane.tables.nexthop.words();
        let used = nexthop::in_use(words, dataplane.clock.tick());
        for (neighbour, silence) in self.prober.pass(&used, netlink, Instant::now()) {
            log::neighbour_silent(plan, neighbour, silence);
        }
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

/// From the time, so that it differs from the epoch of an earlier daemon, which may still be in the
/// tables.
fn first_epoch() -> u16 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "any 16 bits serve"
    )]
    let epoch = now.tv_sec as u16;
    epoch
}
