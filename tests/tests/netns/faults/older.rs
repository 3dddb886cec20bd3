//! A start over what an older version has attached: it takes over programs, entries and counters, and
//! no packet is lost, whatever step it dies or fails at.

use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result, ensure};
use ikenat_tests::lab::Lab;
use ikenat_tests::lab::ikenat::{Ikenat, usual_arguments};
use ikenat_tests::lab::json::InstanceStats;
use ikenat_tests::lab::load::Load;
use ikenat_tests::lab::topology::{LAN, WAN};
use ikenat_tests::older::{self, Filled, Jiffies, RETIRED, SLOTS, Version, directory};
use ikenat_tests::suite::Scenario;
use xdp_common::ABI_VERSION;
use xdp_common::slot::{self, session};
use xdp_core::table::{Slot, State};
use xdp_user::tables::mmap::Tables;

use crate::check::{check, expect};
use crate::faults::bpffs::says;
use crate::support::{
    attachments, everything_crosses, full_rate, no_loss, nothing_is_left, pins, tc_backends,
    tenth_rate, timed_command, unload_command,
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
            abi_4_to_6,
        ),
        test(
            "tables_of_abi_6_in_the_place_of_the_new_ones_are_refused",
            abi_6_in_own_directory,
        ),
    ]
}

/// Two SPIs each.
const PEERS: u32 = 15_000;

/// The kernel's jiffies, from a start that is removed again.
pub(super) fn jiffies(lab: &Lab) -> Result<Jiffies> {
    Ikenat::start(lab)?.kill()?;
    let jiffies = Jiffies::of(lab)?;
    lab.unload()?;
    Ok(jiffies)
}

/// Fails unless all that was in the old tables is in `stats`, beside one tunnel under load.
pub(super) fn is_complete(stats: &InstanceStats, filled: Filled) -> Result<()> {
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
pub(super) fn by_each(lab: &Lab, test: impl Fn(&Lab, &str) -> Result<()>) -> Result<()> {
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
    let unload = unload_command(lab, "default");
    for said in [
        &format!("back to the older version leads `{unload}` alone"),
        &format!("the older version starts again only after `{unload}`"),
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

pub(super) const FEW: u32 = 500;

/// The versions after the third, each with the object of its last commit.
fn abi_4_to_6(lab: &Lab) -> Result<()> {
    by_each(lab, |lab, backend| {
        Version::LATER.into_iter().try_for_each(|version| {
            one_version(lab, version, backend).with_context(|| format!("{version:?}"))
        })
    })
}

fn one_version(lab: &Lab, version: Version, backend: &str) -> Result<()> {
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
fn abi_6_in_own_directory(lab: &Lab) -> Result<()> {
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
    let unload = format!("`{}`", unload_command(lab, "default"));
    let words = [said.as_str(), &unload];
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
