//! A start on another interface that dies or fails half-way, and starts after it that are refused: a
//! refused one changes nothing of what is attached, whatever interface it is for, and the one that
//! is accepted leaves no program where it is not.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use ikenat_tests::lab::Lab;
use ikenat_tests::lab::topology::WAN;
use ikenat_tests::suite::Scenario;
use xdp_user::dataplane::link::{self, BpfLink};
use xdp_user::failpoints::Step;

use crate::faults::older::by_each;
use crate::faults::start::{attaching, die, ends, fail, steps};
use crate::support::{
    PROGRAMS, attachments, everything_crosses, log_of, nothing_is_left, pins, unload_command,
};

pub(crate) fn scenarios() -> Vec<Scenario> {
    const TOOLS: &[&str] = &["tc", "bpftool"];
    let test = |name, test| Scenario::new(name, test).with_programs(TOOLS);
    vec![
        test(
            "a_refused_start_after_a_move_that_died_changes_nothing",
            refused_after_death,
        ),
        test(
            "a_move_that_fails_after_its_first_exchange_is_complete_on_one_interface",
            failed_half_way,
        ),
        test(
            "a_refused_start_keeps_what_a_move_left_when_its_old_interface_is_gone",
            old_interface_gone,
        ),
        test("unload_removes_what_several_moves_left", unloaded),
        test(
            "what_a_move_left_on_an_interface_serves_it_as_another_wan",
            second_wan,
        ),
        test(
            "a_move_that_died_is_not_continued_in_another_xdp_mode",
            other_mode,
        ),
    ]
}

pub(super) const OTHER: &str = "x0";
pub(super) const THIRD: &str = "y0";
/// XDP, tc ingress and tc egress.
pub(super) const ON_WAN: usize = PROGRAMS - 2;
const ALL: [&str; 3] = [WAN, OTHER, THIRD];

pub(super) fn add(lab: &Lab, interface: &str) -> Result<()> {
    let add = format!(
        "ip link add {interface} type veth peer name {interface}p; \
         ip link set {interface} up; ip link set {interface}p up"
    );
    lab.gateway.shell(&add).map(drop)
}

/// The ids of the programs of each interface of the gateway: XDP, filters, and of tcx, which an old
/// bpftool does not list, what the pinned links hold.
fn programs(lab: &Lab) -> Result<BTreeMap<String, BTreeSet<u64>>> {
    let read = |command: &str| -> Result<serde_json::Value> {
        serde_json::from_str(&lab.gateway.run(command)?).with_context(|| command.to_owned())
    };
    let mut links: Vec<BpfLink> = Vec::new();
    let pins = pins(&lab.bpffs())?;
    for pin in pins.iter().filter(|pin| pin.contains("/link-")) {
        links.extend(link::open(Path::new(pin))?.map(|(_, found)| found));
    }
    let net = read("bpftool --json net show")?;
    let mut all = BTreeMap::new();
    for interface in read("ip -json link show")?.as_array().into_iter().flatten() {
        let name = interface["ifname"].as_str().context("no name")?;
        let on_it = |link: &&BpfLink| interface["ifindex"] == link.ifindex;
        let mut ids: BTreeSet<u64> = links
            .iter()
            .filter(on_it)
            .map(|link| link.program.into())
            .collect();
        for hook in ["xdp", "tc"] {
            let found = net[0][hook].as_array().into_iter().flatten();
            let here = found.filter(|one| one["devname"] == name);
            ids.extend(here.filter_map(|one| one["id"].as_u64()));
        }
        all.insert(name.to_owned(), ids);
    }
    Ok(all)
}

/// Waits until an interface has so many programs, or all have these. The kernel takes links down in
/// the background.
fn wait_for<T: Debug>(
    lab: &Lab,
    wanted: &T,
    is_it: impl Fn(&BTreeMap<String, BTreeSet<u64>>) -> bool,
) -> Result<()> {
    let began = Instant::now();
    loop {
        let found = programs(lab)?;
        if is_it(&found) {
            return Ok(());
        }
        ensure!(
            began.elapsed() < Duration::from_secs(5),
            "{found:?} instead of {wanted:?}"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The programs when none is on its way out any more: the kernel detaches a link some time after its last name or
/// descriptor is gone.
pub(super) fn settled(lab: &Lab) -> Result<BTreeMap<String, BTreeSet<u64>>> {
    let began = Instant::now();
    let mut before = programs(lab)?;
    loop {
        std::thread::sleep(Duration::from_millis(200));
        let now = programs(lab)?;
        if now == before {
            return Ok(now);
        }
        ensure!(
            began.elapsed() < Duration::from_secs(5),
            "{now:?} after {before:?}"
        );
        before = now;
    }
}

pub(super) fn has(lab: &Lab, interface: &str, count: usize) -> Result<()> {
    let wanted = (interface, count);
    wait_for(lab, &wanted, |all| {
        all.get(interface).is_some_and(|ids| ids.len() == count)
    })
}

/// Adds a third interface, and runs a test with each backend; `unload` then leaves nothing.
pub(super) fn with_each_backend(lab: &Lab, test: impl Fn(&str) -> Result<()>) -> Result<()> {
    add(lab, THIRD)?;
    let before = attachments(lab)?;
    by_each(lab, |lab, backend| {
        test(backend)?;
        lab.unload()?;
        nothing_is_left(lab, &before)
    })
}

/// A start that is refused after it has prepared everything.
fn refuse(lab: &Lab, backend: &str, wan: &str) -> Result<()> {
    refuse_on(lab, backend, &[wan])
}

/// One after the other.
fn refuse_on(lab: &Lab, backend: &str, wans: &[&str]) -> Result<()> {
    let there = settled(lab)?;
    wans.iter().try_for_each(|wan| {
        fail(lab, backend, wan, Step::Prepared.name())
            .and_then(|()| wait_for(lab, &there, |all| *all == there))
            .with_context(|| format!("refused on {wan}"))
    })
}

/// A start that is accepted, and nothing is left of the others. Leaves it attached.
pub(super) fn moves_to(lab: &Lab, backend: &str, wan: &str) -> Result<()> {
    steps(lab, backend, wan)?;
    let attached = lab.status()?.attached;
    let on_wan = attached.iter().filter(|one| one.interface == wan).count();
    ensure!(
        attached.len() == PROGRAMS && on_wan == ON_WAN,
        "on {wan}: {attached:?}"
    );
    for other in ALL.into_iter().filter(|other| *other != wan) {
        has(lab, other, 0)?;
    }
    nothing_pending(lab)?;
    if wan == WAN {
        everything_crosses(lab)?;
    }
    Ok(())
}

/// Fails if a pin has a name that only a move gives.
pub(super) fn nothing_pending(lab: &Lab) -> Result<()> {
    let left = pins(&lab.bpffs())?;
    let is_left = |pin: &&String| pin.ends_with("-new") || pin.contains("-aside-");
    let left: Vec<&String> = left.iter().filter(is_left).collect();
    ensure!(left.is_empty(), "{left:?}");
    Ok(())
}

/// At which of the times that a move passes a step a start dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Times {
    /// Never: no other state is left than by another step.
    None,
    First,
    FirstAndLast,
}

/// The steps of a move, with tcx and with a clsact, and the state that a start leaves which dies there.
const STATES: [(Step, Times, Times); 15] = [
    // The link goes with the process.
    (Step::LinkMade, Times::None, Times::None),
    // Some links are pending. With a clsact there is one of XDP, and then everything is prepared.
    (Step::LinkPinned, Times::First, Times::None),
    // A pending program that no filter runs.
    (Step::ProgramPinned, Times::None, Times::First),
    // The record of a clsact that is not there.
    (Step::ClsactNoted, Times::None, Times::First),
    // A clsact without a filter.
    (Step::ClsactMade, Times::None, Times::First),
    // A filter that runs a pending program.
    (Step::FilterMade, Times::None, Times::First),
    // All that the new interface needs is pending.
    (Step::Prepared, Times::First, Times::First),
    // A name that nothing has, with a clsact of a filter and of a link. The last time, the other hook
    // points have moved, and their old pins are set aside.
    (Step::SetAside, Times::FirstAndLast, Times::FirstAndLast),
    (Step::LinkInPlace, Times::None, Times::None),
    (Step::ProgramInPlace, Times::None, Times::None),
    // A filter of the LAN runs a pending program.
    (Step::FilterExchanged, Times::None, Times::First),
    // As in a restart, where pins are what they were.
    (Step::LinkUpdated, Times::None, Times::None),
    // Nothing is left of the old interface, and META describes it.
    (Step::AllAttached, Times::First, Times::None),
    // No program or pin changes.
    (Step::Described, Times::None, Times::None),
    (Step::VersionWritten, Times::None, Times::None),
];

/// The steps of a move at which a start leaves another state each, by their numbers.
fn states<'s>(steps: &'s [String], backend: &str) -> Result<Vec<(usize, &'s str)>> {
    let mut chosen = Vec::new();
    for (number, step) in ends(steps, attaching(steps)?) {
        let state = STATES.iter().find(|(known, ..)| known.name() == step);
        let (_, tcx, clsact) =
            state.with_context(|| format!("which state does a start leave at {step}?"))?;
        let times = if backend == "tcx" { tcx } else { clsact };
        let is_first = steps.iter().position(|one| one == step) == Some(number - 1);
        if *times == Times::FirstAndLast || *times == Times::First && is_first {
            chosen.push((number, step));
        }
    }
    Ok(chosen)
}

/// One move after the other, each from the interface that the one before has ended on.
fn refused_after_death(lab: &Lab) -> Result<()> {
    add(lab, OTHER)?;
    with_each_backend(lab, |backend| {
        moves_to(lab, backend, OTHER)?;
        let steps = steps(lab, backend, WAN)?;
        let back = self::steps(lab, backend, OTHER)?;
        ensure!(steps == back, "{steps:?} and back {back:?}");
        let mut from = OTHER;
        for (nth, (number, step)) in states(&steps, backend)?.into_iter().enumerate() {
            let others: Vec<&str> = ALL.into_iter().filter(|one| *one != from).collect();
            let (to, third) = (others[0], others[1]);
            let next = [to, from, third][nth % 3];
            let context = || {
                format!(
                    "{backend}: from {from} to {to}, killed at step {number}, {step}; then on {next}"
                )
            };
            die(lab, backend, to, number).with_context(context)?;
            let wans = [to, from, third];
            // The start on the third one that is accepted finds what the refused one has set aside.
            let wans = if next == third { &wans[..] } else { &wans[..2] };
            refuse_on(lab, backend, wans).with_context(context)?;
            moves_to(lab, backend, next).with_context(context)?;
            from = next;
        }
        Ok(())
    })
}

/// The last step of a move's first exchange, by backend.
pub(super) fn first_exchange(backend: &str) -> Step {
    match backend {
        "tcx" => Step::LinkInPlace,
        _ => Step::ProgramInPlace,
    }
}

/// The kernel refuses nothing at this step, but memory may run out.
fn failed_half_way(lab: &Lab) -> Result<()> {
    add(lab, OTHER)?;
    with_each_backend(lab, |backend| {
        for next in ALL {
            moves_to(lab, backend, OTHER)?;
            fail(lab, backend, WAN, first_exchange(backend).name())?;
            has(lab, WAN, ON_WAN).with_context(|| format!("{backend}: failed"))?;
            refuse(lab, backend, next)?;
            moves_to(lab, backend, next)?;
        }
        Ok(())
    })
}

fn old_interface_gone(lab: &Lab) -> Result<()> {
    with_each_backend(lab, |backend| {
        for at in [Step::Prepared, first_exchange(backend)] {
            let context = || format!("{backend}: killed at {}", at.name());
            add(lab, OTHER)?;
            moves_to(lab, backend, OTHER).with_context(context)?;
            die(lab, backend, WAN, at.name()).with_context(context)?;
            lab.gateway.run(&format!("ip link delete {OTHER}"))?;
            refuse(lab, backend, WAN).with_context(context)?;
            refuse(lab, backend, THIRD).with_context(context)?;
            steps(lab, backend, WAN).with_context(context)?;
            has(lab, THIRD, 0)?;
            everything_crosses(lab).with_context(context)?;
        }
        Ok(())
    })
}

/// Two moves that died one after the other leave programs on three interfaces.
fn unloaded(lab: &Lab) -> Result<()> {
    add(lab, OTHER)?;
    with_each_backend(lab, |backend| {
        moves_to(lab, backend, OTHER)?;
        die(lab, backend, WAN, first_exchange(backend).name())?;
        die(lab, backend, THIRD, Step::Prepared.name())?;
        for interface in ALL {
            let ids = &programs(lab)?[interface];
            ensure!(!ids.is_empty(), "{backend}: nothing is on {interface}");
        }
        Ok(())
    })
}

/// An interface has one XDP program: that of a start that died stays, and gets the name of another
/// WAN's.
fn second_wan(lab: &Lab) -> Result<()> {
    add(lab, OTHER)?;
    with_each_backend(lab, |backend| {
        steps(lab, backend, WAN)?;
        die(lab, backend, OTHER, Step::Prepared.name())?;
        let log = log_of(lab, WAN, &["--tc", backend, "--wan", OTHER])?;
        let attached = lab.status()?.attached;
        for interface in [WAN, OTHER] {
            let on_it = attached.iter().filter(|one| one.interface == interface);
            ensure!(
                on_it.count() == ON_WAN,
                "{backend}: {interface}: {attached:?}: {log}"
            );
            has(lab, interface, ON_WAN)?;
        }
        nothing_pending(lab)?;
        everything_crosses(lab)
    })
}

/// A link cannot change its mode, and an interface has one XDP program: what a start that died has
/// left on the new interface is as attached as a completed move.
fn other_mode(lab: &Lab) -> Result<()> {
    add(lab, OTHER)?;
    with_each_backend(lab, |backend| {
        moves_to(lab, backend, OTHER)?;
        die(lab, backend, WAN, first_exchange(backend).name())?;
        let there = settled(lab)?;
        let log = log_of(lab, WAN, &["--tc", backend, "--wan-mode", "generic"])?;
        for words in ["in native mode", &unload_command(lab, "default")] {
            ensure!(log.contains(words), "{backend}: {words:?}: {log}");
        }
        wait_for(lab, &there, |all| *all == there)?;
        steps(lab, backend, WAN)?;
        everything_crosses(lab)
    })
}
