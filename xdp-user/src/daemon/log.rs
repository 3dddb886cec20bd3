//! The messages that the daemon logs: at its start, when something changes, and at its end.

use crate::config::commands::{bpffs_option, quoted_path};
use crate::config::interfaces::Side;
use crate::config::macvlans::{TooMany, Unknown, mac_text};
use crate::config::plan::Plan;
use crate::config::routing_rules::Unfollowed;
use crate::config::settings::Mode;
use crate::daemon::link_change::LinkChange;
use crate::daemon::neighbour_probe::{PAUSE, Silence};
use crate::daemon::reattach::Event;
use crate::daemon::service_log;
use crate::daemon::signals::Stop;
use crate::daemon::wording::{translated_vips, translations, vips};
use crate::dataplane::Dataplane;
use crate::dataplane::attach::AttachAction;
use crate::dataplane::egress::{self, XmitSupport};
use crate::dataplane::tc_backend::hook_name;
use crate::netlink::neighbour::NeighbourKey;
use crate::netlink::rule_depth::RuleDepth;
use crate::sys::capabilities;
use crate::tables::usage::{FillLevel, LimitedTable};
use std::path::Path;
use tracing::{info, warn};
use xdp_common::{Hook, limits};

/// Logs what a start did, except for its last line ([`ready`]).
pub(super) fn started(plan: &Plan, dataplane: &Dataplane, unfollowed: &[Unfollowed]) {
    attached(dataplane);
    for name in plan.absent() {
        warn!("{name}: no such interface; it is attached when one of that name appears");
    }
    plan.too_many_macvlans().iter().for_each(too_many_macvlans);
    for (side, name) in [(Side::Wan, "WAN"), (Side::Lan, "LAN")] {
        if plan.settings.modes.of(side) == Mode::Generic && !plan.settings.dry_run {
            warn!(
                "generic mode on the {name}: works on any device, but is several times slower than native mode"
            );
        }
    }
    let tables = if dataplane.reused {
        "counters continue"
    } else {
        "new tables"
    };
    info!(
        "pins are in {}; {tables}",
        dataplane.instance.directory.display()
    );
    if let Some(taken) = dataplane.taken_over {
        let carried = taken.carried;
        warn!(
            "took over {} SPIs and {} peers of {} from an older ikenat (tables of version {}), and all counters; the older version starts again only after `{}`",
            carried.flows,
            carried.sessions,
            taken.vip,
            taken.version,
            dataplane.instance.unload_command()
        );
        if carried.without_room > 0 {
            warn!(
                "{} entries of the older ikenat found no room and are learned again; larger tables: --flow-slots, --session-slots",
                carried.without_room
            );
        }
    }
    service_log::started(plan, &dataplane.earlier_services);
    if let Some(group) = plan.settings.group
        && let Some(closed) = dataplane.instance.closed_to(group)
    {
        warn!(
            "group {group} cannot reach the tables: {0} is closed to it; `chmod o+x {1}` opens it",
            closed.display(),
            quoted_path(&closed)
        );
    }
    for rule in unfollowed {
        warn!("{}; for these packets: `{}`", rule.message, rule.fix);
    }
    no_xmit_support(plan, dataplane);
    if capabilities::is_hardened() {
        info!(
            "without CAP_PERFMON: the second build of the programs is loaded, and each packet costs more (docs/privileges.md)"
        );
    }
}

/// Logs that entries were freed whose expiry a previous daemon began before it died.
pub(super) fn recovered(flows: usize, sessions: usize) {
    if flows + sessions > 0 {
        info!(
            "completed the expiry that the previous daemon had begun: {flows} SPIs and {sessions} peers"
        );
    }
}

/// Logs the last line of a start.
pub(super) fn ready(plan: &Plan) {
    let translations = translations(plan);
    if plan.settings.dry_run {
        warn!(
            "dry run: nothing is forwarded, no packet is changed; `ikenat status{}` counts what would have been done",
            plan.settings
                .bpffs
                .as_deref()
                .map_or_else(String::new, bpffs_option)
        );
        info!("ready: counting what would be translated from {translations}");
    } else {
        info!("ready: translating {translations}");
    }
}

/// Logs a change of an interface.
pub(super) fn link_event(event: Event) {
    match event {
        Event::Changed(interface, LinkChange::Renamed(name)) => warn!(
            "{interface}: renamed to {name}; translation continues, use the new name at the next start"
        ),
        Event::Changed(interface, LinkChange::Gone) => warn!(
            "{interface}: interface is gone, and its programs with it; they are re-attached when an interface of that name appears"
        ),
        Event::Changed(interface, LinkChange::Bare(index)) => {
            warn!(
                "{interface}: no ikenat program is attached; re-attaching (interface index {index})"
            );
        }
        Event::Changed(interface, LinkChange::Appeared(index)) => {
            info!("{interface}: the interface has appeared; attaching (interface index {index})");
        }
        Event::Changed(interface, LinkChange::NewMac(mac)) => info!(
            "{interface}: its MAC address is {} now; exchanging the programs",
            mac_text(mac)
        ),
        Event::Changed(interface, LinkChange::NewMacvlans(macvlans)) => {
            new_macvlans(&interface, &macvlans);
        }
        Event::Moved(all) => service_log::moved(&all),
        Event::NotReattached(why) => warn!(
            "failed to re-attach, trying again when an interface changes, and from time to time: {why}"
        ),
    }
}

/// Logs which macvlans are on top of an interface now.
fn new_macvlans(interface: &str, macvlans: &[(String, [u8; 6])]) {
    if macvlans.is_empty() {
        info!("{interface}: no macvlan on top of it any more; exchanging the programs");
        return;
    }
    let names = macvlans
        .iter()
        .map(|(name, mac)| format!("{name} ({})", mac_text(*mac)));
    let names = names.collect::<Vec<_>>().join(", ");
    info!("{interface}: frames to {names} are for this host now; exchanging the programs");
}

fn too_many_macvlans(
    TooMany {
        number,
        known,
        what,
    }: &TooMany,
) {
    match what {
        Unknown::Frames(interface) => warn!(
            "{interface}: {number} macvlans are on top of it; frames to the MAC addresses of all but the first {known} are left to this host"
        ),
        Unknown::Routes(Side::Wan) => warn!(
            "{number} macvlans are on top of the WANs; packets of the server whose route leaves by any but the first {known} are left to this host"
        ),
        Unknown::Routes(Side::Lan) => warn!(
            "{number} macvlans are on top of the LANs; packets from outside that forge a source behind any but the first {known} are not refused"
        ),
    }
}

/// Logs that every program is attached again after an interface came back.
pub(super) fn reattached(old: &Plan, plan: &Plan, dataplane: &Dataplane) {
    attached(dataplane);
    let said = old.too_many_macvlans();
    let too_many = plan.too_many_macvlans().into_iter();
    too_many
        .filter(|one| !said.contains(one))
        .for_each(|one| too_many_macvlans(&one));
    no_xmit_support(plan, dataplane);
    service_log::stopped(old, plan);
    let translations = translations(plan);
    if plan.settings.dry_run {
        info!("ready again: counting what would be translated from {translations}");
    } else {
        info!("ready again: translating {translations}");
    }
}

/// Logs each attached program.
fn attached(dataplane: &Dataplane) {
    for attached in &dataplane.attached {
        let how = match attached.action {
            AttachAction::Attached => "attached to",
            AttachAction::Replaced => "replaced the program on",
            AttachAction::Reattached => {
                "re-attached (the old link was dead or on another interface) to"
            }
        };
        let mode = match attached.hook {
            Hook::Xdp => format!(", {} mode", attached.mode.name()),
            Hook::Tc => ", ingress, for the slow path".to_owned(),
            Hook::Egress => ", egress, for packets of the server that this host sends".to_owned(),
        };
        info!(
            "{} {how} {}{mode}",
            hook_name(attached.hook, dataplane.tc_backend),
            attached.interface
        );
    }
}

/// Logs the interfaces whose egress uses the slow path.
fn no_xmit_support(plan: &Plan, dataplane: &Dataplane) {
    if plan.settings.dry_run || !plan.has_lan_servers() {
        return;
    }
    for interface in egress::unsupported(&dataplane.tables, plan) {
        xmit_support(interface, XmitSupport::Unsupported);
    }
}

/// Logs whether an interface transmits frames that XDP redirects to it, when that has changed.
pub(super) fn xmit_support(interface: &str, support: XmitSupport) {
    match support {
        XmitSupport::Supported => {
            info!("{interface}: driver has XDP transmit; egress uses the fast path");
        }
        XmitSupport::Unsupported => warn!(
            "{interface}: driver has no XDP transmit (ndo_xdp_xmit); egress uses the tc slow path (a veth needs an XDP program on its peer or, from Linux 6.3 on, GRO)"
        ),
        // `link_event` reports it.
        XmitSupport::InterfaceGone => {}
    }
}

/// Logs that the directory of the pins cannot be reached any more.
pub(super) fn pins_hidden(path: &Path) {
    warn!(
        "{} is not reachable any more: its file system was unmounted, or another is mounted over it; packets are translated as long as this process runs, and `stats` finds nothing",
        path.display()
    );
}

/// Logs for which packets the rules of the host ask for more than a cached next hop.
pub(super) fn rules([inbound, outbound]: [RuleDepth; 2]) {
    for (direction, depth) in [("inbound", inbound), ("outbound", outbound)] {
        match depth {
            RuleDepth::Packet => info!(
                "ip rule: rules look at the type of service, the client's port or one of several interfaces of {direction} packets; the route of each packet is looked up, and none takes the fast path"
            ),
            RuleDepth::Flow => info!(
                "ip rule: rules look at protocol, port or source of {direction} packets; each SPI remembers its next hop, and IKE is looked up"
            ),
            RuleDepth::Session => {
                tracing::debug!("ip rule: {direction} packets share their next hops");
            }
        }
    }
}

/// Logs that a neighbour did not answer a probe.
pub(super) fn neighbour_silent(plan: &Plan, (index, gateway): NeighbourKey, silence: Silence) {
    let interfaces = plan.interfaces();
    let on = interfaces.iter().find(|(_, link)| link.index == index);
    let name = on.map_or_else(
        || format!("interface {index}"),
        |(_, link)| link.name.clone(),
    );
    match silence {
        Silence::NoReply => {
            info!("neighbour {gateway} on {name}: no ARP reply; resolving it again");
        }
        Silence::BroadcastsOnly => info!(
            "neighbour {gateway} on {name}: answers only broadcast ARP requests; it is not probed for {} minutes at a time, so a new MAC address that it does not announce is noticed late",
            PAUSE.as_secs() / 60
        ),
    }
}

/// Logs that a tc filter that other software removed was installed again.
pub(super) fn filter_restored(interface: &str) {
    warn!("{interface}: the tc filter was removed by another program; restored");
}

/// Logs that a tc filter that other software removed cannot be installed again.
pub(super) fn filter_lost(interface: &str, why: &str) {
    warn!(
        "{interface}: the tc filter was removed by another program and cannot be restored: {why}"
    );
}

/// Logs that a table is filling up or full, and what raises its limit.
pub(super) fn table_fills(
    unload: &str,
    table: &LimitedTable,
    level: FillLevel,
    (entries, slots): (u64, u32),
) {
    let LimitedTable {
        name,
        entries: what,
        option,
        excess,
        ..
    } = table;
    let limit = slots / 2;
    let remedy = if slots < *limits::SLOTS.end() {
        format!(
            "for more room `{unload}`, then `ikenat run` with `{option} {}`",
            slots * 2
        )
    } else {
        "this is the largest table".to_owned()
    };
    match level {
        FillLevel::Full => {
            warn!("{name}: all {limit} {what} are in use; {excess}; {remedy}");
        }
        FillLevel::High | FillLevel::Normal => {
            warn!(
                "{name}: {entries} of {limit} {what} are in use; when it is full, {excess}; {remedy}"
            );
        }
    }
}

/// Logs the end of the daemon when the programs stay attached.
pub(super) fn left(plan: &Plan, stop: Stop, unload: &str) {
    let signal = match stop {
        Stop::Terminated => "SIGTERM",
        Stop::HungUp => "SIGHUP: the terminal is closed",
        Stop::Interrupted => "SIGINT without a terminal, treated like SIGTERM",
    };
    let effect = if plan.settings.dry_run {
        "counting what would be translated for"
    } else {
        "translating"
    };
    info!(
        "{signal}: the daemon ends; the programs stay attached and keep {effect} {} (`{unload}` removes them)",
        translated_vips(plan)
    );
}

/// Logs the end of the daemon when everything was detached.
pub(super) fn detached(plan: &Plan, pins: usize) {
    info!(
        "Ctrl-C: detached everything of {} and removed {pins} pins",
        vips(plan)
    );
}
