//! Checks of a running instance: its settings, and whether its programs are attached.

use super::context::Context;
use super::{Finding, run_command};
use crate::bpffs::find::{self, Selector};
use crate::bpffs::layout;
use crate::config::interfaces::Side;
use crate::config::peer_lists::Lists;
use crate::config::services::Service;
use crate::config::settings::{Mode, Modes, Settings, Sizes};
use crate::error::Result;
use crate::report;
use crate::report::status::{InstanceStatus, ProgramStatus};
use crate::tables::overview::{InterfaceRecord, Overview};
use std::net::Ipv4Addr;
use std::path::Path;
use xdp_common::meta::flag;

/// The settings of the instances that are attached, all or those that are wanted. An instance that cannot
/// be read is an error among them.
pub fn running(bpffs: Option<&Path>, wanted: &Selector) -> Result<Vec<Result<Settings>>> {
    let directory = layout::bpffs(bpffs)?;
    let instances = find::instances(&directory, wanted)?.into_iter();
    Ok(instances
        .map(|instance| {
            let overview = report::instance::read(&instance)?;
            Ok(settings(instance.name, &overview, bpffs))
        })
        .collect())
}

fn settings(instance: String, overview: &Overview, bpffs: Option<&Path>) -> Settings {
    let slots = |name: &str| {
        let table = overview.tables.iter().find(|table| table.name == name);
        let slots = table.map_or(0, |table| table.limit * 2);
        u32::try_from(slots).unwrap_or(u32::MAX)
    };
    let names = |side| names(overview, side);
    let mode = |side| interfaces(overview, side).next().map(|one| one.mode);
    let wan_mode = mode(Side::Wan).unwrap_or(Mode::Native);
    let services = overview.services.iter().map(|one| Service {
        name: one.name.clone(),
        vips: one.vips.clone(),
        servers: one.servers.clone(),
        lists: Lists::default(),
        dedicated: one.dedicated,
    });
    Settings {
        instance,
        services: services.collect(),
        wans: names(Side::Wan),
        lans: names(Side::Lan),
        modes: Modes {
            wan: wan_mode,
            lan: mode(Side::Lan).unwrap_or(wan_mode),
        },
        dry_run: overview.flags & flag::DRY_RUN != 0,
        bpffs: bpffs.map(Path::to_path_buf),
        sizes: Sizes {
            flow_slots: slots("FLOW"),
            session_slots: slots("SESSION"),
        },
        complete: false,
        ..Settings::new(Ipv4Addr::UNSPECIFIED, Ipv4Addr::UNSPECIFIED)
    }
}

fn interfaces(overview: &Overview, side: Side) -> impl Iterator<Item = &InterfaceRecord> {
    let all = overview.interfaces.iter();
    all.filter(move |record| record.interface.side == side)
}

/// The names of a side as they were given, also of interfaces that do not exist.
fn names(overview: &Overview, side: Side) -> Vec<String> {
    let found = interfaces(overview, side).map(|one| (one.interface.number, &one.name));
    let absent = overview.absent.iter();
    let absent = absent.filter(|(interface, _)| interface.side == side);
    let mut all: Vec<(usize, &String)> = found
        .chain(absent.map(|(interface, name)| (interface.number, name)))
        .collect();
    all.sort_by_key(|(number, _)| *number);
    all.into_iter().map(|(_, name)| name.clone()).collect()
}

const REASON: &str = "without a program of ikenat the gateway itself processes the packets";

/// No finding when there is no instance yet.
pub(super) fn attached(context: &Context<'_>) -> Vec<Finding> {
    const CODE: &str = "attached";
    let Some((pins, overview)) = &context.instance else {
        return Vec::new();
    };
    let Some(overview) = overview else {
        let message = format!(
            "pins exist in {}, but the tables are not readable",
            pins.directory.display()
        );
        let run = run_command(context.settings);
        return vec![Finding::warning(CODE, message, REASON).fix(run)];
    };
    match InstanceStatus::of(pins, overview, context.netlink, &context.links) {
        Ok(instance) => examine(context, &instance, &pins.unload_command()),
        Err(error) => vec![Finding::not_checked(CODE, error, REASON)],
    }
}

fn examine(context: &Context<'_>, instance: &InstanceStatus, unload: &str) -> Vec<Finding> {
    const DAEMON: &str = "packets are forwarded, but idle entries do not expire, and changes of routes and neighbours take effect after eight seconds instead of one";
    const LEFT: &str = "it handles the packets of an interface that the instance may not be meant for, until a start goes on with it or detaches it";
    let run = || run_command(context.settings);
    if instance.attached.is_empty() {
        let message = format!(
            "the tables of the instance {} exist, but no program is attached",
            instance.name
        );
        return vec![Finding::error("attached", message, REASON).fix(run())];
    }
    // After a start that died while it moved the instance, `unload` would detach what it has left, and so would a start
    // on the interfaces of before. That is safe only while all programs there are still attached.
    let move_was_interrupted = !instance.left_over.is_empty();
    let all_are_attached = instance.attached.iter().all(|program| program.alive);
    let unload = (!move_was_interrupted).then_some(unload);
    let mut findings: Vec<Finding> = instance
        .attached
        .iter()
        .map(|program| attachment(context, unload, program).on(&program.interface))
        .collect();
    for left in &instance.left_over {
        let message = format!(
            "{} program {}, {}, is left of a start that died while it moved the instance",
            left.hook,
            id_of(left),
            left.mode
        );
        let reason = if all_are_attached { LEFT } else { MOVED };
        let finding = Finding::warning("attached", message, reason).on(&left.interface);
        findings.push(finding.fixes(all_are_attached.then(run)));
    }
    if instance.daemon.is_none() {
        let finding = Finding::warning("daemon", "no daemon is running", DAEMON);
        findings.push(finding.fixes(all_are_attached.then(run)));
    }
    findings
}

/// A start has died while it moved the instance, after it had exchanged something.
const MOVED: &str = "the start that died has left programs on another interface, which may be all that forwards: repeat that start, with the options that it had, and it goes on with them";

fn id_of(program: &ProgramStatus) -> String {
    let id = program.program.map(|id| id.to_string());
    id.unwrap_or_else(|| "(its pin is not readable)".to_owned())
}

/// `unload`: the command that comes before another start; `None`: it would end what still forwards.
fn attachment(context: &Context<'_>, unload: Option<&str>, attached: &ProgramStatus) -> Finding {
    const CODE: &str = "attached";
    const ELSEWHERE: &str = "all other lines describe this network namespace: run `ikenat check` in the namespace of the gateway";
    let what = format!("{} program {}", attached.hook, id_of(attached));
    match (attached.alive, attached.in_this_namespace) {
        (true, true) => Finding::ok(CODE, format!("{what}, {}", attached.mode), REASON),
        (true, false) => {
            let message = format!(
                "{what} is attached to interface {} of another network namespace",
                attached.ifindex
            );
            Finding::error(CODE, message, ELSEWHERE)
        }
        (false, _) => {
            let message = format!("{what} is no longer attached to an interface");
            match unload {
                Some(unload) => Finding::error(CODE, message, REASON)
                    .fix(unload)
                    .fix(run_command(context.settings)),
                None => Finding::error(CODE, message, MOVED),
            }
        }
    }
}
