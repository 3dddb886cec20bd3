//! A start over what an older version has attached that dies or fails at one of its steps: the next one
//! finishes it, or the older programs have everything back.

use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ikenat_tests::lab::Lab;
use ikenat_tests::lab::ikenat::{Ikenat, binary, usual_arguments};
use ikenat_tests::lab::load::Load;
use ikenat_tests::lab::process::Process;
use ikenat_tests::lab::topology::WAN;
use ikenat_tests::older::{self, directory};
use ikenat_tests::suite::Scenario;
use xdp_user::failpoints::Step;

use crate::faults::older::{FEW, STEPS, by_each, is_complete, jiffies};
use crate::faults::start::{die, ends, fail, steps};
use crate::support::{
    attachments, everything_crosses, nothing_is_left, one_filter_each, peer_object, pins,
    tenth_rate,
};

pub(crate) fn scenarios() -> Vec<Scenario> {
    const TOOLS: &[&str] = &["tc", "bpftool", "gzip"];
    let test = |name, test| Scenario::new(name, test).with_programs(TOOLS).alone();
    vec![
        test(
            "a_take_over_that_dies_at_any_step_is_finished_by_the_next",
            dies,
        ),
        test("a_take_over_that_fails_at_any_step_loses_no_packet", fails),
        test(
            "a_take_over_that_fails_after_one_that_died_gives_the_programs_back",
            given_back,
        ),
        test("a_take_over_goes_on_from_a_pending_pin", pending_pin)
            .with_programs(&["setpriv", "bpftool", "tc", "gzip"]),
    ]
}

/// Lets a start be disturbed at each step over older pins, and the next one go on.
fn each_step(
    lab: &Lab,
    backend: &str,
    disturb: impl Fn(&Lab, &str, &str, usize) -> Result<()>,
) -> Result<()> {
    let before = attachments(lab)?;
    let jiffies = jiffies(lab)?;
    older::start(lab, backend, FEW, jiffies)?;
    let steps = steps(lab, "auto", WAN)?;
    lab.unload()?;
    for step in STEPS {
        ensure!(
            steps.iter().any(|one| one == step),
            "{step} is not in {steps:?}"
        );
    }
    for (number, step) in ends(&steps, 0) {
        let context = || format!("{backend}: at step {number}, {step}");
        let filled = older::start(lab, backend, FEW, jiffies).with_context(context)?;
        let load = Load::start(lab, tenth_rate()?, tenth_rate()?).with_context(context)?;
        load.flows().with_context(context)?;
        disturb(lab, "auto", WAN, number).with_context(context)?;
        load.flows().context("afterwards").with_context(context)?;
        let ikenat = Ikenat::start(lab).with_context(context)?;
        load.flows().context("healed").with_context(context)?;
        // What is sent now is counted in the tables by all means.
        std::thread::sleep(Duration::from_millis(100));
        let transfer = load.finish().with_context(context)?;
        let stats = lab.stats()?;
        transfer.check_counted(&stats).with_context(context)?;
        is_complete(&stats, filled).with_context(context)?;
        ensure!(
            !directory(lab).exists(),
            "the old directory is left {}",
            context()
        );
        ikenat.kill()?;
        lab.unload()?;
        nothing_is_left(lab, &before).with_context(context)?;
    }
    Ok(())
}

fn dies(lab: &Lab) -> Result<()> {
    by_each(lab, |lab, backend| each_step(lab, backend, die))
}

fn fails(lab: &Lab) -> Result<()> {
    by_each(lab, |lab, backend| each_step(lab, backend, fail))
}

/// The pins of programs that the older instance has.
fn program_pins(lab: &Lab) -> Result<BTreeSet<String>> {
    let is_program = |path: &String| {
        path.contains("link-") || path.contains("filter-") || path.contains("loss-")
    };
    let pins = pins(&directory(lab))?.into_iter();
    Ok(pins.filter(is_program).collect())
}

/// The older instance has these pins of programs, and these are attached.
fn given_back_to(lab: &Lab, wanted: &BTreeSet<String>, attached: &str) -> Result<()> {
    let log = fs::read_to_string(lab.log("ikenat-fault"))?;
    let found = program_pins(lab)?;
    ensure!(found == *wanted, "{found:?} instead of {wanted:?}: {log}");
    ensure!(attachments(lab)? == attached, "{log}");
    Ok(())
}

/// One start dies when it has moved the first pin of a program; others fail at each step before the
/// exchange.
fn given_back(lab: &Lab) -> Result<()> {
    by_each(lab, given_back_by)
}

fn given_back_by(lab: &Lab, backend: &str) -> Result<()> {
    let before = attachments(lab)?;
    let jiffies = jiffies(lab)?;
    let filled = older::start(lab, backend, FEW, jiffies)?;
    let wanted = program_pins(lab)?;
    let attached = attachments(lab)?;
    let load = Load::start(lab, tenth_rate()?, tenth_rate()?)?;
    load.flows()?;
    if backend == "clsact" {
        // It leaves a pin of a program that no filter runs. The first one fails before its own.
        die(lab, "auto", WAN, Step::ProgramPinned.name())?;
        fail(lab, "auto", WAN, Step::EgressesSet.name())?;
        given_back_to(lab, &wanted, &attached).context("a pending pin")?;
        fail(lab, "auto", WAN, Step::ProgramPinned.name())?;
        given_back_to(lab, &wanted, &attached).context("a pending pin of its own")?;
    }
    die(lab, "auto", WAN, Step::ProgramMoved.name())?;
    ensure!(program_pins(lab)? != wanted, "no pin was moved");
    let again = format!("{}:2", Step::ProgramMoved.name());
    for at in [
        Step::ProgramLoaded.name(),
        Step::EntriesCopied.name(),
        Step::ProgramMoved.name(),
        &again,
        Step::EgressesSet.name(),
    ] {
        fail(lab, "auto", WAN, at).context(at.to_owned())?;
        given_back_to(lab, &wanted, &attached).context(at.to_owned())?;
    }
    let ikenat = Ikenat::start(lab)?;
    load.flows()?;
    std::thread::sleep(Duration::from_millis(100));
    let transfer = load.finish()?;
    let stats = lab.stats()?;
    transfer.check_counted(&stats)?;
    is_complete(&stats, filled)?;
    ikenat.kill()?;
    lab.unload()?;
    nothing_is_left(lab, &before)
}

/// The older ikenat died before a pin had its name.
fn pending_pin(lab: &Lab) -> Result<()> {
    let rename = |name: &str| {
        let pin = directory(lab).join(name);
        fs::rename(&pin, directory(lab).join(format!("{name}-new"))).context("failed to rename")?;
        Ok::<_, anyhow::Error>(pin)
    };
    // It had replaced the program of a filter. Without CAP_SYS_ADMIN only the pins show whose that is.
    let of_filter = || {
        let pin = rename("filter-egress-wan")?;
        let earlier = peer_object()?;
        let load = format!("bpftool prog load {earlier} {} type xdp", pin.display());
        lab.gateway.run(&load).map(drop)
    };
    // It had moved to another interface.
    let of_link = || rename("link-xdp-wan").map(drop);
    gone_on(lab, of_filter).context("of a filter")?;
    gone_on(lab, of_link).context("of a link")
}

/// A start over what is left by an older ikenat that died.
fn gone_on(lab: &Lab, died: impl Fn() -> Result<()>) -> Result<()> {
    let before = attachments(lab)?;
    older::start(lab, "clsact", FEW, jiffies(lab)?)?;
    died()?;
    let mut command = lab.gateway.command("setpriv");
    command.args(["--bounding-set=-sys_admin", "--inh-caps=-all"]);
    command.arg(binary()?).args(usual_arguments());
    command.arg("--bpffs").arg(lab.bpffs());
    let mut process = Process::spawn(&mut command, lab.log("ikenat-fault"))?;
    process.wait_for_log("ready: translating", Duration::from_secs(30))?;
    process.kill()?;
    one_filter_each(lab)?;
    ensure!(!directory(lab).exists(), "the old directory is left");
    everything_crosses(lab)?;
    lab.unload()?;
    nothing_is_left(lab, &before)
}
