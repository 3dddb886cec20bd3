//! An instance that is attached already: what it works on, and whether all of its programs are where they belong.

use super::Finding;
use super::context::Scene;
use crate::bpffs::layout;
use crate::config::interfaces::Side;
use crate::config::settings::{Mode, Modes, Settings, Sizes};
use crate::error::Result;
use crate::report::status::{AttachedProgram, InstanceStatus};
use crate::tables::snapshot::{InterfaceRecord, Snapshot};
use std::net::Ipv4Addr;
use std::path::Path;
use xdp_common::meta::flag;

/// The settings of the instances that are attached, all or that of one VIP.
pub fn running(bpffs: Option<&Path>, vip: Option<Ipv4Addr>) -> Result<Vec<Settings>> {
    let directory = layout::bpffs(bpffs)?;
    let mut subjects = Vec::new();
    for instance in layout::instances(&directory, vip)? {
        let snapshot = Snapshot::take(&instance.directory, instance.vip)?;
        let slots = |name: &str| {
            let table = snapshot.tables.iter().find(|table| table.name == name);
            let slots = table.map_or(0, |table| table.limit * 2);
            u32::try_from(slots).unwrap_or(u32::MAX)
        };
        let names = |side| interfaces(&snapshot, side).map(|one| one.name.clone());
        let mode = |side| interfaces(&snapshot, side).next().map(|one| one.mode);
        let wan_mode = mode(Side::Wan).unwrap_or(Mode::Native);
        subjects.push(Settings {
            wans: names(Side::Wan).collect(),
            lans: names(Side::Lan).collect(),
            modes: Modes {
                wan: wan_mode,
                lan: mode(Side::Lan).unwrap_or(wan_mode),
            },
            dry_run: snapshot.flags & flag::DRY_RUN != 0,
            bpffs: bpffs.map(Path::to_path_buf),
            sizes: Sizes {
                flow_slots: slots("FLOW"),
                session_slots: slots("SESSION"),
            },
            ..Settings::new(snapshot.vip, snapshot.server)
        });
    }
    Ok(subjects)
}

fn interfaces(snapshot: &Snapshot, side: Side) -> impl Iterator<Item = &InterfaceRecord> {
    let all = snapshot.interfaces.iter();
    all.filter(move |interface| interface.port.side == side)
}

/// Nothing when there is no instance: before the start that is as it should be.
pub(super) fn attached(scene: &Scene<'_>) -> Vec<Finding> {
    const CODE: &str = "attached";
    const WHY: &str =
        "packets that come in without a program of ours are taken for the gateway's own";
    let Some((pins, snapshot)) = &scene.instance else {
        return Vec::new();
    };
    let Some(snapshot) = snapshot else {
        let found = format!(
            "there are pins in {}, but no tables that can be read",
            pins.directory.display()
        );
        return vec![Finding::warning(CODE, found, WHY).mend(scene.subject.run())];
    };
    match InstanceStatus::of(pins, snapshot, scene.netlink, &scene.links) {
        Ok(instance) => judge(scene, &instance),
        Err(error) => vec![Finding::unseen(CODE, error, WHY)],
    }
}

fn judge(scene: &Scene<'_>, instance: &InstanceStatus) -> Vec<Finding> {
    const CODE: &str = "attached";
    const WHY: &str =
        "packets that come in without a program of ours are taken for the gateway's own";
    let again = || format!("ikenat unload --vip {}", instance.vip);
    if instance.attached.is_empty() {
        let found = format!(
            "the tables of {} are there, but no program is attached",
            instance.vip
        );
        return vec![Finding::error(CODE, found, WHY).mend(scene.subject.run())];
    }
    let finding = |one: &AttachedProgram| {
        let program = one.program.map_or_else(
            || "(of a pin that is closed to us)".to_owned(),
            |id| id.to_string(),
        );
        let what = format!("{} program {program}", one.hook);
        match (one.alive, one.in_this_namespace) {
            (true, true) => Finding::ok(CODE, format!("{what}, {}", one.mode), WHY),
            (true, false) => Finding::error(
                CODE,
                format!("{what} is on the interface {} of another network namespace", one.ifindex),
                "everything below is about this network namespace: run `ikenat check` in that of the gateway",
            ),
            (false, _) => Finding::error(CODE, format!("{what} is attached to nothing any more"), WHY)
                .mend(again())
                .mend(scene.subject.run()),
        }
        .on(&one.interface)
    };
    let mut findings: Vec<Finding> = instance.attached.iter().map(finding).collect();
    if instance.daemon.is_none() {
        findings.push(
            Finding::warning(
                "daemon",
                "no daemon runs",
                "packets are forwarded, but silent entries stay in the tables, and changes of routes and neighbours are followed after eight seconds instead of one",
            )
            .mend(scene.subject.run()),
        );
    }
    findings
}
