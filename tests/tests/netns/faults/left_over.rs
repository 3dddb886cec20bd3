//! What a move leaves on the interfaces when it dies is in `status` and `check`.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, ensure};
use ikenat_tests::lab::Lab;
use ikenat_tests::lab::ikenat::binary;
use ikenat_tests::lab::json::Status;
use ikenat_tests::lab::topology::{LAN, WAN};
use ikenat_tests::suite::Scenario;
use xdp_user::failpoints::Step;

use crate::check::{about_running, expect};
use crate::faults::moves::{
    ON_WAN, OTHER, THIRD, add, first_exchange, moves_to, settled, with_each_backend,
};
use crate::faults::start::die;

pub(crate) fn scenarios() -> Vec<Scenario> {
    const TOOLS: &[&str] = &["tc", "bpftool"];
    let test = |name, test| Scenario::new(name, test).with_programs(TOOLS);
    vec![
        test("status_and_check_show_what_a_move_left", shown),
        test(
            "check_proposes_nothing_that_ends_what_a_move_left",
            old_one_gone,
        ),
    ]
}

/// Before and after its first exchange: all that the kernel has on the interfaces is in `status`, and
/// what is there beside the others is in `left_over`.
fn shown(lab: &Lab) -> Result<()> {
    add(lab, OTHER)?;
    with_each_backend(lab, |backend| {
        for at in [Step::Prepared, first_exchange(backend)] {
            let context = || format!("{backend}: killed at {}", at.name());
            moves_to(lab, backend, WAN).with_context(context)?;
            ensure!(lab.status()?.left_over.is_empty(), "after a start");
            die(lab, backend, OTHER, at.name()).with_context(context)?;
            all_is_shown(lab).with_context(context)?;
            let text = inside(lab, &["status"])?;
            for words in ["LEFT ON", OTHER, "`ikenat run` goes on with them"] {
                ensure!(text.contains(words), "{words:?} is not in: {text}");
            }
            let words = ["left of a start that died"];
            let findings = about_running(lab)?;
            expect(&findings, ("attached", Some(OTHER)), "warning", &words)
                .with_context(context)?;
        }
        moves_to(lab, backend, WAN)?;
        let text = inside(lab, &["status"])?;
        ensure!(!text.contains("LEFT ON"), "{text}");
        Ok(())
    })
}

/// A start dies half-way from another interface to the WAN, and that other one is then gone: what it has left
/// is all that there is.
fn old_one_gone(lab: &Lab) -> Result<()> {
    add(lab, OTHER)?;
    with_each_backend(lab, |backend| {
        moves_to(lab, backend, THIRD)?;
        die(lab, backend, WAN, first_exchange(backend).name())?;
        lab.gateway.run(&format!("ip link delete {THIRD}"))?;
        settled(lab)?;
        let findings = about_running(lab)?;
        let words = ["left of a start that died"];
        expect(&findings, ("attached", Some(WAN)), "warning", &words)?;
        let of_this = findings
            .iter()
            .filter(|one| ["attached", "daemon"].contains(&&*one.code));
        for finding in of_this {
            ensure!(finding.fix.is_empty(), "{backend}: {finding:#?}");
        }
        // What the reason says instead: the start that died is repeated.
        add(lab, THIRD)?;
        moves_to(lab, backend, WAN)
    })
}

/// What `ikenat` prints in the gateway, whatever its exit status is.
fn inside(lab: &Lab, words: &[&str]) -> Result<String> {
    let mut command = lab.gateway.command(binary()?);
    let output = command
        .args(words)
        .arg("--bpffs")
        .arg(lab.bpffs())
        .output()?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn all_is_shown(lab: &Lab) -> Result<()> {
    let there = settled(lab)?;
    let status: Status = serde_json::from_str(&inside(lab, &["status", "--json"])?)?;
    let status = status.instances.first().context("no instance")?;
    let mut shown = BTreeMap::new();
    for one in status.attached.iter().chain(&status.left_over) {
        ensure!(one.alive, "{one:?}");
        let ids: &mut BTreeSet<u64> = shown.entry(one.interface.clone()).or_default();
        ensure!(ids.insert(one.program.into()), "{one:?} is there twice");
    }
    for interface in [WAN, OTHER, LAN] {
        ensure!(
            shown.get(interface) == there.get(interface),
            "{interface}: {status:?} instead of {there:?}"
        );
    }
    let left = status.left_over.iter();
    let names: Vec<(&str, &str)> = left
        .map(|one| (one.hook.as_str(), one.mode.as_str()))
        .collect();
    ensure!(names.len() == ON_WAN, "{names:?}");
    for mode in ["native", "ingress", "egress"] {
        ensure!(names.iter().any(|(_, found)| *found == mode), "{names:?}");
    }
    Ok(())
}
