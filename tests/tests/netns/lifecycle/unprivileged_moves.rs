//! Filters in a clsact that move to another interface, of a user without CAP_SYS_ADMIN: it may not list
//! programs, so that only pins show which filters are ikenat's.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use ikenat_tests::lab::Lab;
use ikenat_tests::lab::netns::Namespace;
use ikenat_tests::lab::process::Process;
use ikenat_tests::lab::topology::{LAN, WAN};
use ikenat_tests::suite::Scenario;
use xdp_user::failpoints::Step;

use super::privileges::{Place, THREE, prepare};
use crate::failpoints::{WISH, died_at, failed, steps_of};
use crate::support::{
    arguments_with, attachments, everything_crosses, force_slow_path, ikenat_egress_filters,
    ikenat_filters, nothing_is_left, pins,
};

pub(crate) fn scenarios() -> Vec<Scenario> {
    const TOOLS: &[&str] = &["tc", "bpftool", "setpriv"];
    let test = |name, test| Scenario::new(name, test).with_programs(TOOLS);
    vec![
        test(
            "a_users_filters_move_and_none_is_lost_at_any_step",
            any_step,
        ),
        test(
            "a_refused_start_after_one_that_died_removes_no_filter",
            refused_after_death,
        ),
        test(
            "a_users_filter_that_gets_another_number_keeps_a_pin",
            renumbered,
        ),
    ]
}

const OTHER: &str = "x0";

fn start(lab: &Lab, place: &Place, wan: &str, wish: &str) -> Result<Process> {
    start_with(lab, place, &arguments_with("--wan", wan), wish)
}

fn start_with(lab: &Lab, place: &Place, arguments: &[String], wish: &str) -> Result<Process> {
    let mut command = place.command(lab, THREE);
    command.args(arguments).args(["--tc", "clsact"]);
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

fn add_another(gateway: &Namespace) -> Result<()> {
    let add = format!(
        "ip link add {OTHER} type veth peer name x1; ip link set {OTHER} up; ip link set x1 up"
    );
    gateway.shell(&add).map(drop)
}

fn any_step(lab: &Lab) -> Result<()> {
    add_another(&lab.gateway)?;
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
        seen.iter().any(|step| *step == Step::SetAside.name()),
        "{seen:?}"
    );
    run(lab, &place, WAN)?;
    everything_crosses(lab)?;
    place.ask(lab, "unload")?;
    nothing_is_left(lab, &before)
}

/// All filters of the gateway, with the ids of their programs.
fn filters(lab: &Lab) -> Result<String> {
    let show = |interface, block| {
        let show = format!("tc filter show dev {interface} {block}");
        lab.gateway.run(&show)
    };
    let mut text = String::new();
    for interface in [WAN, LAN, OTHER] {
        for block in ["ingress", "egress"] {
            text += &format!("{interface} {block}: {}\n", show(interface, block)?);
        }
    }
    Ok(text)
}

/// A start dies in the middle of a move, and the next one, on either interface, is refused when it has
/// prepared all filters. The one after that is on the other interface, or on the same.
fn refused_after_death(lab: &Lab) -> Result<()> {
    add_another(&lab.gateway)?;
    force_slow_path(lab)?;
    let before = attachments(lab)?;
    let place = prepare(lab)?;
    let last_filter = format!("{}:3", Step::ProgramPinned.name());
    for (from, to) in [(WAN, OTHER), (OTHER, WAN)] {
        for step in [Step::FilterMade, Step::SetAside, Step::FilterExchanged] {
            let same = if step == Step::FilterMade {
                vec![(to, to), (from, from)]
            } else {
                Vec::new()
            };
            for (refused, next) in [(to, from), (from, to)].into_iter().chain(same) {
                let context = || {
                    let step = step.name();
                    format!(
                        "from {from} to {to}, killed at {step}, refused on {refused}, then on {next}"
                    )
                };
                run(lab, &place, from).with_context(context)?;
                let process = start(lab, &place, to, &format!("kill:{}", step.name()))?;
                died_at(process, step.name()).with_context(context)?;
                let there = filters(lab)?;
                // Twice: the pins that the first one leaves are no worse.
                for _ in 0..2 {
                    refuse(lab, &place, refused, &last_filter).with_context(context)?;
                    let now = filters(lab)?;
                    ensure!(there == now, "{there}\nbecame\n{now}\n{}", context());
                }
                if ikenat_filters(lab, WAN)? == 1 && ikenat_egress_filters(lab, WAN)? == 1 {
                    everything_crosses(lab).with_context(context)?;
                }
                run(lab, &place, next).with_context(context)?;
                let aside = pins(&place.bpffs)?;
                let aside = aside.iter().find(|pin| pin.contains("-aside-"));
                ensure!(aside.is_none(), "{aside:?}: {}", context());
            }
        }
    }
    // `unload` finds what is left of that too.
    run(lab, &place, WAN)?;
    let made = Step::FilterMade.name();
    let process = start(lab, &place, OTHER, &format!("kill:{made}"))?;
    died_at(process, made)?;
    refuse(lab, &place, WAN, &last_filter)?;
    place.ask(lab, "unload")?;
    nothing_is_left(lab, &before)
}

/// A start that fails at a step.
fn refuse(lab: &Lab, place: &Place, wan: &str, at: &str) -> Result<()> {
    failed(start(lab, place, wan, &format!("error:{at}"))?)
}

/// A second WAN becomes a LAN before the first one, which so gets a number that nothing had. The start fails
/// after any of its filters was exchanged, and the next one, of either kind, finds each filter by its pin.
fn renumbered(lab: &Lab) -> Result<()> {
    add_another(&lab.gateway)?;
    let before = attachments(lab)?;
    let place = prepare(lab)?;
    let with_other = |side: &str| {
        let mut arguments = arguments_with("--wan", WAN);
        let lan = arguments.iter().position(|argument| argument == "--lan");
        let at = lan.context("no --lan")?;
        arguments.splice(at..at, [side.to_owned(), OTHER.to_owned()]);
        anyhow::Ok(arguments)
    };
    let (as_wan, as_lan) = (with_other("--wan")?, with_other("--lan")?);
    let runs = |arguments: &[String]| steps_of(start_with(lab, &place, arguments, "list")?);
    runs(&as_wan)?;
    let steps = runs(&as_lan)?;
    let exchanged = Step::FilterExchanged.name();
    let times = steps.iter().filter(|step| *step == exchanged).count();
    ensure!(times >= 3, "{steps:?}");
    for nth in 1..=times {
        for next in [&as_wan, &as_lan] {
            let context = || format!("failed at {exchanged}:{nth}, then {next:?}");
            runs(&as_wan).with_context(context)?;
            let wish = format!("error:{exchanged}:{nth}");
            failed(start_with(lab, &place, &as_lan, &wish)?).with_context(context)?;
            runs(next).with_context(context)?;
        }
    }
    place.ask(lab, "unload")?;
    nothing_is_left(lab, &before)
}
