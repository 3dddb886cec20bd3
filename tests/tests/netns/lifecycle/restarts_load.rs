//! Restarts under the highest load that the lab can generate, the replacement of every program, and
//! an uninstallation that leaves nothing in the kernel.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use ikenat_tests::lab::Lab;
use ikenat_tests::lab::ikenat::Ikenat;
use ikenat_tests::lab::load::Load;
use ikenat_tests::lab::netns::execute;
use ikenat_tests::lab::topology::WAN;
use ikenat_tests::suite::Scenario;

use crate::faults::start::{fail, steps};
use crate::support::{
    PROGRAMS, attachments, full_rate, nothing_is_left, pins, tc_backends, tenth_rate,
};

pub(crate) fn scenarios() -> Vec<Scenario> {
    const TOOLS: &[&str] = &["tc", "bpftool"];
    vec![
        Scenario::new(
            "restarts_under_full_load_both_ways_lose_no_packet",
            restarts,
        )
        .alone(),
        Scenario::new(
            "an_upgrade_exchanges_every_program_and_loses_no_packet",
            upgrade,
        )
        .alone()
        .with_programs(TOOLS),
        Scenario::new("an_uninstallation_leaves_nothing_in_the_kernel", uninstall)
            .with_programs(TOOLS),
    ]
}

/// Whether all packets arrive at this rate in each direction, during a start that changes nothing.
/// The machine may be too slow to send that many.
fn is_lossless(lab: &Lab, rate: u32, step: usize) -> Result<bool> {
    let Ok(load) = Load::start(lab, rate, rate) else {
        return Ok(false);
    };
    fail(lab, "auto", WAN, step)?;
    std::thread::sleep(Duration::from_millis(500));
    let losses = load.losses(&format!(
        "the generator, asked for {rate} packets a second each way"
    ))?;
    Ok(losses.iter().all(|loss| loss.lost == 0))
}

fn restarts(lab: &Lab) -> Result<()> {
    steps(lab, "auto", WAN)?;
    let steps = steps(lab, "auto", WAN)?;
    // All the work of a restart is done by then, and nothing is exchanged.
    let last = steps.iter().position(|step| step == "egresses-set");
    let last = last.context("a start without this step")? + 1;
    let most = full_rate()? * 2;
    let mut parts = [100, 80, 60, 40, 20, 10, 4].into_iter();
    let rate = loop {
        let part = parts
            .next()
            .context("the generator loses packets at any rate")?;
        if is_lossless(lab, most / 100 * part, last)? {
            // Not at the very edge of what the machine can do.
            break most / 100 * part / 5 * 4;
        }
    };
    lab.unload()?;
    let mut ikenat = Ikenat::start(lab)?;
    let load = Load::start(lab, rate, rate)?;
    let began = Instant::now();
    for restart in 1..=3 {
        ensure!(ikenat.terminate()?.success(), "{restart}. restart");
        ikenat = Ikenat::start(lab)?;
        load.flows()?;
        ikenat.kill()?;
        ikenat = Ikenat::start(lab)?;
        load.flows()?;
    }
    let took = began.elapsed().as_secs_f64();
    let transfer = load.finish()?;
    let [inbound, outbound] =
        [transfer.inbound, transfer.outbound].map(|sent| f64::from(sent) / took);
    println!("six restarts at {inbound:.0} packets a second in and {outbound:.0} out: {transfer}");
    transfer.check_counted(&lab.stats()?)?;
    let least = f64::from(tenth_rate()?);
    ensure!(
        inbound > least && outbound > least,
        "the machine did not get to send: {inbound:.0} and {outbound:.0} packets a second"
    );
    Ok(())
}

fn programs(lab: &Lab) -> Result<BTreeSet<u32>> {
    let attached = lab.status()?.attached;
    ensure!(
        attached.len() == PROGRAMS && attached.iter().all(|one| one.alive),
        "{attached:?}"
    );
    Ok(attached.iter().map(|one| one.program).collect())
}

fn ask(words: &[&str]) -> Result<serde_json::Value> {
    let text = execute(Command::new("bpftool").arg("--json").args(words))?;
    serde_json::from_str(&text).with_context(|| format!("failed to read `bpftool {words:?}`"))
}

/// The numbers of what is pinned under such a name, as the kernel has them.
fn pinned(lab: &Lab, kind: &str, is_one: fn(&str) -> bool) -> Result<BTreeSet<u64>> {
    let mut numbers = BTreeSet::new();
    for pin in pins(&lab.bpffs())? {
        let name = Path::new(&pin).file_name().unwrap_or_default();
        if is_one(&name.to_string_lossy()) {
            let number = ask(&[kind, "show", "pinned", &pin])?["id"].as_u64();
            numbers.insert(number.with_context(|| format!("{pin} has no number"))?);
        }
    }
    Ok(numbers)
}

fn is_link(name: &str) -> bool {
    name.starts_with("link-")
}

fn is_map(name: &str) -> bool {
    name.bytes().all(|byte| byte.is_ascii_uppercase())
}

/// An upgrade by `bpf_link_update` (for a filter, a replacement in place): links and maps stay,
/// every program is new.
fn upgrade(lab: &Lab) -> Result<()> {
    for backend in tc_backends()? {
        let mut ikenat = Ikenat::start_with(lab, &["--tc", backend])?;
        let load = Load::start(lab, tenth_rate()?, tenth_rate()?)?;
        let (links, maps) = (pinned(lab, "link", is_link)?, pinned(lab, "map", is_map)?);
        ensure!(!links.is_empty() && !maps.is_empty());
        let mut before = programs(lab)?;
        for exchange in 1..=5 {
            ensure!(ikenat.terminate()?.success());
            ikenat = Ikenat::start_with(lab, &["--tc", backend])?;
            let after = programs(lab)?;
            ensure!(
                before.is_disjoint(&after),
                "{exchange}. exchange: {before:?}, {after:?}"
            );
            before = after;
            load.flows()?;
        }
        ensure!(links == pinned(lab, "link", is_link)?, "links have changed");
        ensure!(maps == pinned(lab, "map", is_map)?, "maps have changed");
        let transfer = load.finish()?;
        println!("five exchanges of {PROGRAMS} programs ({backend}): {transfer}");
        transfer.check_counted(&lab.stats()?)?;
        ikenat.kill()?;
        lab.unload()?;
    }
    Ok(())
}

fn uninstall(lab: &Lab) -> Result<()> {
    let before = attachments(lab)?;
    for backend in tc_backends()? {
        let ikenat = Ikenat::start_with(lab, &["--tc", backend])?;
        let mut things = BTreeSet::new();
        for program in programs(lab)? {
            let program = u64::from(program);
            things.insert(("prog", program));
            // All maps of it, also those that have no pin.
            let shown = ask(&["prog", "show", "id", &program.to_string()])?;
            let maps = shown["map_ids"].as_array().context("no maps")?;
            things.extend(maps.iter().filter_map(|map| Some(("map", map.as_u64()?))));
        }
        let links = pinned(lab, "link", is_link)?;
        things.extend(links.into_iter().map(|link| ("link", link)));
        let kinds: BTreeSet<&str> = things.iter().map(|(kind, _)| *kind).collect();
        ensure!(kinds.len() == 3 && things.len() > 10, "{things:?}");
        ikenat.terminate()?;
        lab.unload()?;
        // The kernel releases them in the background.
        let began = Instant::now();
        let is_left = |(kind, number): &(&str, u64)| {
            let mut command = Command::new("bpftool");
            command.args([kind, "show", "id", &number.to_string()]);
            execute(&mut command).is_ok()
        };
        loop {
            things.retain(|thing| is_left(thing));
            if things.is_empty() {
                break;
            }
            ensure!(
                began.elapsed() < Duration::from_secs(10),
                "{backend}: these are left: {things:?}"
            );
            std::thread::sleep(Duration::from_millis(50));
        }
        nothing_is_left(lab, &before)?;
        ensure!(!lab.bpffs().join("ikenat").exists(), "a directory is left");
    }
    Ok(())
}
