//! A start over what an older version has attached: it takes over programs, entries and counters, and
//! no packet is lost, whatever step it dies or fails at.

use std::collections::BTreeSet;
use std::fs;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ikenat_tests::lab::Lab;
use ikenat_tests::lab::ikenat::{Ikenat, binary, usual_arguments};
use ikenat_tests::lab::json::InstanceStats;
use ikenat_tests::lab::load::Load;
use ikenat_tests::lab::process::Process;
use ikenat_tests::lab::topology::{LAN, WAN};
use ikenat_tests::older::{self, Filled, Jiffies, RETIRED, SLOTS, Version, directory};
use ikenat_tests::suite::Scenario;
use xdp_common::ABI_VERSION;
use xdp_common::slot::{self, session};
use xdp_core::table::{Slot, State};
use xdp_user::failpoints::Step;
use xdp_user::tables::mmap::Tables;

use crate::check::{check, expect};
use crate::faults::bpffs::says;
use crate::faults::start::{die, ends, fail, steps};
use crate::support::{
    attachments, everything_crosses, full_rate, no_loss, nothing_is_left, one_filter_each,
    peer_object, pins, tc_backends, tenth_rate, timed_command,
};

/// The steps that only a start over older pins passes.
pub(crate) const STEPS: [&str; 5] = [
    "entries-copied",
    "program-moved",
    "counters-moved",
    "older-spent",
    "older-removed",
];

pub(crate) fn scenarios() -> Vec<Scenario> {
    const TOOLS: &[&str] = &["tc", "bpftool", "gzip"];
    let test = |name, test| Scenario::new(name, test).with_programs(TOOLS).alone();
    vec![
        test("tables_of_abi_3_are_taken_over_under_traffic", taken_over),
        test(
            "tables_of_abi_4_to_6_are_taken_over_under_traffic",
            later_ones,
        ),
        test(
            "tables_of_abi_6_in_the_place_of_the_new_ones_are_refused",
            in_place,
        ),
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

/// Two SPIs each.
const PEERS: u32 = 15_000;

/// The kernel's jiffies, from a start that is removed again.
fn jiffies(lab: &Lab) -> Result<Jiffies> {
    Ikenat::start(lab)?.kill()?;
    let jiffies = Jiffies::of(lab)?;
    lab.unload()?;
    Ok(jiffies)
}

/// Fails unless all that was in the old tables is in `stats`, beside one tunnel under load.
fn is_complete(stats: &InstanceStats, filled: Filled) -> Result<()> {
    let peers = filled.peers as usize;
    ensure!(
        stats.spis.len() == 2 * peers + 2,
        "{} SPIs",
        stats.spis.len()
    );
    ensure!(
        stats.sessions.len() == peers + 1,
        "{} sessions",
        stats.sessions.len()
    );
    let old = stats.spis.iter().filter(|one| one.peer.octets()[0] == 100);
    let packets: u64 = old.clone().map(|one| one.packets).sum();
    let loss: u64 = old.clone().map(|one| one.estimated_loss).sum();
    let reordered: u64 = stats.spis.iter().map(|one| one.reordered).sum();
    let expected: u64 = filled.packets.iter().sum();
    ensure!(
        packets == expected,
        "{packets} packets instead of {expected}"
    );
    ensure!(
        reordered == 0,
        "{reordered} packets look reordered, {loss} lost"
    );
    ensure!(
        stats.totals.retired.inbound.packets == RETIRED,
        "{:?}",
        stats.totals
    );
    Ok(())
}

/// The test by each backend of tc that this kernel has.
fn by_each(lab: &Lab, test: impl Fn(&Lab, &str) -> Result<()>) -> Result<()> {
    let mut backends = tc_backends()?.into_iter();
    backends.try_for_each(|backend| test(lab, backend).context(backend))
}

fn taken_over(lab: &Lab) -> Result<()> {
    by_each(lab, taken_over_by)
}

fn taken_over_by(lab: &Lab, backend: &str) -> Result<()> {
    let before = attachments(lab)?;
    let jiffies = jiffies(lab)?;
    let filled = older::start(lab, backend, PEERS, jiffies)?;
    // Also while another condition keeps a start from it.
    for forwarding in ["0", "1"] {
        let set = format!("sysctl -qw net.ipv4.ip_forward={forwarding}");
        lab.gateway.run(&set)?;
        let findings = check(lab)?;
        for interface in [WAN, LAN] {
            let words = ["of an older ikenat", "the next start takes it over"];
            expect(&findings, ("xdp-program", Some(interface)), "ok", &words)
                .context(set.clone())?;
        }
    }
    let rate = full_rate()? / 5;
    let load = Load::start(lab, rate, rate)?;
    load.flows().context("through the older programs")?;
    let slots = SLOTS.to_string();
    let ikenat = Ikenat::start_with(lab, &["--flow-slots", &slots])?;
    load.flows().context("through the new programs")?;
    let log = ikenat.log();
    for said in [
        "back to the older version leads `ikenat unload` alone",
        "took over 3000",
    ] {
        ensure!(log.contains(said), "{said:?} is not in: {log}");
    }
    ensure!(!directory(lab).exists(), "the old directory is left");
    let transfer = load.finish()?;
    println!("taken over: {transfer}");
    let stats = lab.stats()?;
    transfer.check_counted(&stats)?;
    is_complete(&stats, filled)?;
    ikenat.kill()?;
    lab.unload()?;
    nothing_is_left(lab, &before)
}

const FEW: u32 = 500;

/// The versions after the third, each with the object of its last commit.
fn later_ones(lab: &Lab) -> Result<()> {
    by_each(lab, |lab, backend| {
        Version::LATER.into_iter().try_for_each(|version| {
            later(lab, version, backend).with_context(|| format!("{version:?}"))
        })
    })
}

fn later(lab: &Lab, version: Version, backend: &str) -> Result<()> {
    let before = attachments(lab)?;
    let jiffies = jiffies(lab)?;
    let filled = older::start_in(lab, &directory(lab), (version, backend), (FEW, jiffies))?;
    let load = Load::start(lab, tenth_rate()?, tenth_rate()?)?;
    load.flows().context("through the older programs")?;
    let ikenat = Ikenat::start(lab)?;
    load.flows().context("through the new programs")?;
    let log = ikenat.log();
    let tables = format!("tables of version {}", version.number());
    for said in [&tables, "took over 100"] {
        ensure!(log.contains(said), "{said:?} is not in: {log}");
    }
    ensure!(!directory(lab).exists(), "the old directory is left");
    let transfer = load.finish()?;
    println!("{version:?} taken over: {transfer}");
    let stats = lab.stats()?;
    transfer.check_counted(&stats)?;
    is_complete(&stats, filled)?;
    has_sessions(lab, version, jiffies)?;
    ikenat.kill()?;
    lab.unload()?;
    nothing_is_left(lab, &before)
}

/// When the old sessions began, and the SPIs that each of them has: as ABI 6 recorded it, and as the
/// flows show it of earlier ones.
fn has_sessions(lab: &Lab, version: Version, jiffies: Jiffies) -> Result<()> {
    let created = older::began(version, jiffies);
    let tables = Tables::<AtomicU64>::open(&lab.pins())?;
    let word = |slot: &Slot<AtomicU64>, at: usize| slot[at].load(Ordering::SeqCst);
    let slots = tables.session.arrays();
    let old = slots.hot().iter().filter(|slot| {
        let is_live = State::of(word(slot, slot::STATE)) == State::Live;
        is_live && word(slot, slot::KEY).to_le_bytes()[0] == 100
    });
    let old: Vec<_> = old.collect();
    ensure!(old.len() == FEW as usize, "{} old sessions", old.len());
    for slot in old {
        let ports = word(slot, session::PORTS_CREATED);
        ensure!(
            u64::from(session::created(ports)) == created
                && word(slot, session::SPIS) == 1 << 32 | 1,
            "created at tick {}, not {created}; SPIs {:#x}",
            session::created(ports),
            word(slot, session::SPIS)
        );
    }
    Ok(())
}

/// An ABI 6 whose pins have the name of the instance. It is left alone, until `unload`.
fn in_place(lab: &Lab) -> Result<()> {
    let before = attachments(lab)?;
    let jiffies = jiffies(lab)?;
    let place = lab.bpffs().join("ikenat/default");
    let backend = tc_backends()?[0];
    older::start_in(lab, &place, (Version::Six, backend), (FEW, jiffies))?;
    let (attached, pinned) = (attachments(lab)?, pins(&place)?);
    let load = Load::start(lab, tenth_rate()?, tenth_rate()?)?;
    load.flows()?;
    let mut command = timed_command(lab, &usual_arguments())?;
    let start = command.arg("--bpffs").arg(lab.bpffs()).output()?;
    let said = format!("its layout is version 6 and this ikenat has version {ABI_VERSION}");
    let words = [&said, "`ikenat unload --instance default`"];
    says(&start, &words).context("run")?;
    for verb in ["stats", "status"] {
        says(&lab.ikenat(&[verb])?.output()?, &words).context(verb)?;
    }
    ensure!(attachments(lab)? == attached, "something has changed");
    ensure!(pins(&place)? == pinned, "a pin has changed");
    load.flows()?;
    no_loss(&load.losses("an ABI 6 in the place of the new tables")?)?;
    // The remedy that the message names.
    lab.unload()?;
    nothing_is_left(lab, &before)?;
    let _ikenat = Ikenat::start(lab)?;
    everything_crosses(lab)
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
