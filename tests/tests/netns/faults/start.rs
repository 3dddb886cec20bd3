//! A start that dies or fails at any of its steps: the next start repairs the state, the previous
//! instance goes on, and no packet of a live tunnel is lost.
//!
//! The steps are not listed here: the binary reports the steps that it passes, and the tests try
//! each of them.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use ikenat_tests::lab::Lab;
use ikenat_tests::lab::ikenat::{Ikenat, binary};
use ikenat_tests::lab::load::Load;
use ikenat_tests::lab::process::Process;
use ikenat_tests::lab::topology::WAN;
use ikenat_tests::suite::Scenario;
use object::{Object as _, ObjectSection as _, ObjectSymbol as _};
use xdp_user::failpoints::Step;

use crate::failpoints::{PATIENCE, WISH, died_at, failed, steps_of};
use crate::faults::older;
use crate::support::{
    PROGRAMS, arguments_with, attachments, everything_crosses, is_emulated, nothing_is_left,
    tc_backends, tenth_rate,
};

pub(crate) fn scenarios() -> Vec<Scenario> {
    const TOOLS: &[&str] = &["tc", "bpftool"];
    let test = |name, test| Scenario::new(name, test).with_programs(TOOLS);
    vec![
        test("a_start_killed_at_any_step_is_healed_by_the_next", fresh),
        test("a_start_that_fails_at_any_step_leaves_nothing", fails),
        test("a_restart_killed_at_any_step_loses_no_packet", restart).alone(),
        test("a_restart_that_fails_at_any_step_loses_no_packet", stays).alone(),
        test("a_move_that_dies_or_fails_at_any_step_is_healed", moves),
        test(
            "a_program_that_the_verifier_refuses_changes_nothing",
            refused,
        )
        .alone(),
    ]
}

/// The steps to try: the first and the last occurrence of each. The steps before anything is
/// attached do not depend on the backend, so they are tried with one backend only.
fn to_try<'s>(steps: &'s [String], backend: &str) -> Result<Vec<(usize, &'s str)>> {
    let begin = if backend == tc_backends()?[0] {
        0
    } else {
        attaching(steps)?
    };
    Ok(ends(steps, begin))
}

/// The number of steps before anything is attached.
pub(crate) fn attaching(steps: &[String]) -> Result<usize> {
    let last = |name: &String| name == Step::EgressesSet.name();
    let at = steps.iter().position(last);
    Ok(at.context("nothing is attached")? + 1)
}

/// The first and the last of each name, by their numbers, from one on.
pub(crate) fn ends(steps: &[String], begin: usize) -> Vec<(usize, &str)> {
    let is_end = |(at, name): &(usize, &String)| {
        let first = steps.iter().position(|step| step == *name);
        let last = steps.iter().rposition(|step| step == *name);
        *at >= begin && (first == Some(*at) || last == Some(*at))
    };
    let ends = steps.iter().enumerate().filter(is_end);
    let ends = ends.map(|(at, name)| (at + 1, name.as_str()));
    ends.step_by(if is_emulated() { 4 } else { 1 }).collect()
}

/// One start of many: with a backend, on a WAN, with a fault to inject.
fn start(lab: &Lab, backend: &str, wan: &str, wish: &str) -> Result<Process> {
    let mut command = lab.gateway.command(binary()?);
    command
        .args(arguments_with("--wan", wan))
        .args(["--tc", backend]);
    command.arg("--bpffs").arg(lab.bpffs()).env(WISH, wish);
    Process::spawn(&mut command, lab.log("ikenat-fault"))
}

/// The steps that such a start passes until it is ready. Leaves it attached and its daemon dead.
pub(crate) fn steps(lab: &Lab, backend: &str, wan: &str) -> Result<Vec<String>> {
    steps_of(start(lab, backend, wan, "list")?)
}

/// Lets a start die at its step of this number or name.
pub(crate) fn die(lab: &Lab, backend: &str, wan: &str, at: impl Display) -> Result<()> {
    died_at(start(lab, backend, wan, &format!("kill:{at}"))?, at)
}

/// Lets a start fail at its step of this number or name.
pub(crate) fn fail(lab: &Lab, backend: &str, wan: &str, at: impl Display) -> Result<()> {
    failed(start(lab, backend, wan, &format!("error:{at}"))?)
}

fn nothing_stays(lab: &Lab, before: &str) -> Result<()> {
    // The kernel takes links down in the background after their process has died.
    let began = Instant::now();
    while attachments(lab)? != before && began.elapsed() < Duration::from_secs(5) {
        std::thread::sleep(Duration::from_millis(20));
    }
    nothing_is_left(lab, before)?;
    let directory = lab.bpffs().join("ikenat");
    ensure!(!directory.exists(), "{} is left", directory.display());
    Ok(())
}

/// Whether packets cross, whatever a daemon that died was doing.
fn healed(lab: &Lab, backend: &str) -> Result<()> {
    let ikenat = Ikenat::start_with(lab, &["--tc", backend])?;
    let attached = lab.status()?.attached;
    ensure!(
        attached.len() == PROGRAMS && attached.iter().all(|one| one.alive),
        "after the start that heals: {attached:?}"
    );
    everything_crosses(lab)?;
    ikenat.kill()
}

fn fresh(lab: &Lab) -> Result<()> {
    let before = attachments(lab)?;
    for backend in tc_backends()? {
        let steps = steps(lab, backend, WAN)?;
        lab.unload()?;
        for (number, step) in to_try(&steps, backend)? {
            let context = || format!("{backend}: killed at step {number}, {step}");
            die(lab, backend, WAN, number).with_context(context)?;
            healed(lab, backend).with_context(context)?;
            lab.unload().with_context(context)?;
            nothing_stays(lab, &before).with_context(context)?;
            // And without a start in between: `unload` copes with what is half there.
            if number % 3 == 0 {
                die(lab, backend, WAN, number).with_context(context)?;
                lab.unload().with_context(context)?;
                nothing_stays(lab, &before)
                    .context("unload alone")
                    .with_context(context)?;
            }
        }
    }
    Ok(())
}

fn fails(lab: &Lab) -> Result<()> {
    let before = attachments(lab)?;
    for backend in tc_backends()? {
        let steps = steps(lab, backend, WAN)?;
        lab.unload()?;
        for (number, step) in to_try(&steps, backend)? {
            let context = || format!("{backend}: failed at step {number}, {step}");
            fail(lab, backend, WAN, number).with_context(context)?;
            nothing_stays(lab, &before).with_context(context)?;
        }
    }
    Ok(())
}

/// Tries every step of a restart under load.
fn each_step_of_a_restart(
    lab: &Lab,
    label: &str,
    disturb: fn(&Lab, &str, &str, usize) -> Result<()>,
) -> Result<()> {
    for backend in tc_backends()? {
        Ikenat::start_with(lab, &["--tc", backend])?.kill()?;
        let steps = steps(lab, backend, WAN)?;
        let load = Load::start(lab, tenth_rate()?, tenth_rate()?)?;
        for (number, step) in to_try(&steps, backend)? {
            let context = || format!("{backend}: step {number}, {step}");
            disturb(lab, backend, WAN, number).with_context(context)?;
            load.flows().with_context(context)?;
            // Every other time two in a row, with nothing that heals in between.
            if number % 2 == 0 {
                Ikenat::start_with(lab, &["--tc", backend])?.kill()?;
            }
            let attached = lab.status()?.attached;
            ensure!(
                attached.len() == PROGRAMS && attached.iter().all(|one| one.alive),
                "{backend}: after step {number}, {step}: {attached:?}"
            );
        }
        let _ikenat = Ikenat::start_with(lab, &["--tc", backend])?;
        load.flows()?;
        let transfer = load.finish().context(label.to_owned())?;
        println!(
            "{label}, {backend}, {} steps: {transfer}",
            to_try(&steps, backend)?.len()
        );
        transfer.check_counted(&lab.stats()?)?;
        drop(_ikenat);
        lab.unload()?;
    }
    Ok(())
}

fn restart(lab: &Lab) -> Result<()> {
    each_step_of_a_restart(lab, "a restart killed at every step", die)
}

fn stays(lab: &Lab) -> Result<()> {
    each_step_of_a_restart(lab, "a restart that fails at every step", fail)
}

const OTHER: &str = "x0";

/// What an instance is attached to, and with which programs.
fn attached_programs(lab: &Lab) -> Result<Vec<(String, u32)>> {
    let attached = lab.status()?.attached;
    Ok(attached
        .into_iter()
        .map(|one| (one.interface, one.program))
        .collect())
}

/// A move from one interface to another: a start that fails leaves the instance where it was.
/// Together, the tests of this file have tried every step that the binary has.
fn moves(lab: &Lab) -> Result<()> {
    lab.gateway.shell(&format!(
        "ip link add {OTHER} type veth peer name x1; ip link set {OTHER} up; ip link set x1 up"
    ))?;
    let before = attachments(lab)?;
    let mut tried = BTreeSet::new();
    for backend in tc_backends()? {
        tried.extend(steps(lab, backend, OTHER)?);
        let steps = steps(lab, backend, WAN)?;
        // After this step the kernel can no longer refuse anything.
        let is_last = |name: &String| name == Step::Prepared.name();
        let early = steps.iter().position(is_last).context("not prepared")? + 1;
        // The other tests have tried the earlier steps.
        let mut seen = BTreeSet::new();
        for (number, step) in ends(&steps, attaching(&steps)?) {
            if !seen.insert(step) {
                continue;
            }
            let context = || format!("{backend}: step {number}, {step}");
            self::steps(lab, backend, OTHER).with_context(context)?;
            if number <= early {
                let there = attached_programs(lab)?;
                fail(lab, backend, WAN, number).with_context(context)?;
                let now = attached_programs(lab)?;
                ensure!(now == there, "{now:?} instead of {there:?}: {}", context());
            }
            die(lab, backend, WAN, number).with_context(context)?;
            healed(lab, backend).with_context(context)?;
        }
        tried.extend(steps);
        tried.extend(self::steps(lab, backend, WAN)?);
        lab.unload()?;
        nothing_stays(lab, &before)?;
    }
    let missing: Vec<&str> = Step::ALL
        .iter()
        .map(|step| step.name())
        .filter(|name| !tried.contains(*name) && !older::STEPS.contains(name))
        .collect();
    ensure!(
        missing.is_empty() || tc_backends()?.len() < 2,
        "no test passes the steps {missing:?}"
    );
    Ok(())
}

/// The object with a program whose first instruction reads through an uninitialised register.
fn broken_object(lab: &Lab, program: &str) -> Result<PathBuf> {
    let path = ikenat_tests::bpf::Object::Usual.path()?;
    let mut bytes =
        fs::read(&path).with_context(|| format!("failed to read {}", path.display()))?;
    let file = object::File::parse(bytes.as_slice()).context("failed to parse the object")?;
    let symbol = file
        .symbols()
        .find(|symbol| symbol.name() == Ok(program))
        .with_context(|| format!("no {program} in {}", path.display()))?;
    let section = symbol
        .section_index()
        .context("a symbol without a section")?;
    let section = file.section_by_index(section)?;
    let (start, _) = section.file_range().context("a section without bytes")?;
    let at = usize::try_from(start + symbol.address() - section.address())?;
    /// `r0 = *(u64 *)(r9 + 0)`.
    const LOAD: [u8; 8] = [0x79, 0x90, 0, 0, 0, 0, 0, 0];
    bytes[at..at + LOAD.len()].copy_from_slice(&LOAD);
    let broken = lab.directory().join("broken.o");
    fs::write(&broken, bytes).context("failed to write an object")?;
    Ok(broken)
}

fn refused(lab: &Lab) -> Result<()> {
    Ikenat::start(lab)?.kill()?;
    let before = (attachments(lab)?, attached_programs(lab)?);
    let load = Load::start(lab, tenth_rate()?, tenth_rate()?)?;
    for program in [
        "ikenat_xdp_wan",
        "ikenat_xdp_lan",
        "ikenat_tc",
        "ikenat_egress",
    ] {
        let mut command = lab.gateway.command(binary()?);
        command
            .args(arguments_with("--wan", WAN))
            .arg("--bpffs")
            .arg(lab.bpffs());
        command.env("IKENAT_OBJECT", broken_object(lab, program)?);
        let mut process = Process::spawn(&mut command, lab.log("ikenat-fault"))?;
        let status = process.wait(PATIENCE)?;
        let log = process.log();
        ensure!(
            status.code() == Some(1) && log.contains(program) && log.contains("R9 !read_ok"),
            "it ended with {status}: {log}"
        );
        load.flows().with_context(|| program.to_owned())?;
        let after = (attachments(lab)?, attached_programs(lab)?);
        ensure!(after == before, "before: {before:?}\nafter: {after:?}");
    }
    let _ikenat = Ikenat::start(lab)?;
    load.flows()?;
    let transfer = load.finish()?;
    println!("four programs refused by the verifier: {transfer}");
    transfer.check_counted(&lab.stats()?)
}
