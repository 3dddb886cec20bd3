//! Filters in a clsact that move to another interface, of a user without CAP_SYS_ADMIN: it may not list
//! programs, so that only pins show which filters are ikenat's.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use ikenat_tests::lab::Lab;
use ikenat_tests::lab::process::Process;
use ikenat_tests::lab::topology::{LAN, WAN};
use ikenat_tests::suite::Scenario;
use xdp_user::failpoints::Step;

use super::privileges::{Place, THREE, prepare};
use crate::failpoints::{WISH, died_at, steps_of};
use crate::support::{
    arguments_with, attachments, everything_crosses, ikenat_egress_filters, ikenat_filters,
    nothing_is_left,
};

pub(crate) fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario::new(
            "a_users_filters_move_and_none_is_lost_at_any_step",
            any_step,
        )
        .with_programs(&["tc", "bpftool", "setpriv"]),
    ]
}

const OTHER: &str = "x0";

fn start(lab: &Lab, place: &Place, wan: &str, wish: &str) -> Result<Process> {
    let mut command = place.command(lab, THREE);
    command
        .args(arguments_with("--wan", wan))
        .args(["--tc", "clsact"]);
    command.arg("--bpffs").arg(&place.bpffs);
    Process::spawn(command.env(WISH, wish), lab.log("theirs"))
}

/// A start that succeeds. Leaves it attached and its daemon dead. Returns the steps.
fn run(lab: &Lab, place: &Place, wan: &str) -> Result<Vec<String>> {
    let steps = steps_of(start(lab, place, wan, "list")?)?;
    let at = |interface| ikenat_filters(lab, interface);
    let left = if wan == WAN { OTHER } else { WAN };
    let found = [at(wan)?, at(LAN)?, ikenat_egress_filters(lab, wan)?];
    ensure!(found == [1; 3], "on {wan}, {LAN} and egress: {found:?}");
    let found = [at(left)?, ikenat_egress_filters(lab, left)?];
    ensure!(found == [0; 2], "still on {left}: {found:?}");
    Ok(steps)
}

fn any_step(lab: &Lab) -> Result<()> {
    lab.gateway.shell(&format!(
        "ip link add {OTHER} type veth peer name x1; ip link set {OTHER} up; ip link set x1 up"
    ))?;
    let before = attachments(lab)?;
    let place = prepare(lab)?;
    run(lab, &place, OTHER)?;
    let steps = run(lab, &place, WAN).context("a move")?;
    let begin = steps.iter().position(|one| one == Step::EgressesSet.name());
    let begin = begin.context("nothing is attached")?;
    let mut seen = BTreeSet::new();
    for (at, step) in steps.iter().enumerate().skip(begin) {
        if !seen.insert(step) {
            continue;
        }
        // The next start moves on, or goes back.
        for next in [WAN, OTHER] {
            let context = || format!("killed at step {step}, then on {next}");
            run(lab, &place, OTHER).with_context(context)?;
            let number = at + 1;
            let process = start(lab, &place, WAN, &format!("kill:{number}"))?;
            died_at(process, number).with_context(context)?;
            run(lab, &place, next).with_context(context)?;
        }
    }
    ensure!(
        seen.iter().any(|step| *step == Step::OldFilterGone.name()),
        "{seen:?}"
    );
    run(lab, &place, WAN)?;
    everything_crosses(lab)?;
    place.ask(lab, "unload")?;
    nothing_is_left(lab, &before)
}
