//! `--dry-run`: every packet is left unchanged and counted as if it were translated, and the switch
//! to and from a dry run.

use anyhow::{Context, Result, ensure};
use ikenat_tests::kernel::kernel_is_at_least;
use ikenat_tests::lab::Lab;
use ikenat_tests::lab::frames::protocol;
use ikenat_tests::lab::ikenat::{Ikenat, binary, usual_arguments};
use ikenat_tests::lab::load::Load;
use ikenat_tests::lab::netns::execute;
use ikenat_tests::lab::process::Process;
use ikenat_tests::lab::topology::{CLIENT_MAC, LAN, WAN, WAN_MAC};
use ikenat_tests::lab::wire::{Wire, esp, from_client, from_server, raw_from_client};
use ikenat_tests::suite::Scenario;
use std::time::Duration;

use crate::support::{
    attachments, count, everything_crosses, nothing_is_left, tenth_rate, timed_command,
    unload_command,
};

pub(crate) fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario::new("a_dry_run_counts_and_leaves_every_packet_alone", left_alone)
            .with_programs(&["tc", "bpftool"]),
        Scenario::new(
            "a_dry_run_beside_the_old_rules_and_the_cut_over_lose_nothing",
            cut_over,
        )
        .alone()
        .with_programs(&["tc"]),
        Scenario::new("a_live_instance_cannot_become_a_dry_run", refused_when_live),
        Scenario::new("a_dry_run_by_clsact_goes_live_by_itself", by_clsact)
            .with_programs(&["tc", "bpftool"]),
    ]
}

/// Starts a dry run, which says "ready" in another sentence than a live one.
fn start_dry(lab: &Lab, more: &[&str]) -> Result<Process> {
    let mut command = lab.gateway.command(binary()?);
    command
        .args(usual_arguments())
        .arg("--dry-run")
        .args(more)
        .arg("--bpffs")
        .arg(lab.bpffs());
    let mut process = Process::spawn(&mut command, lab.log("dry"))?;
    process.wait_for_log("ready: counting", Duration::from_secs(30))?;
    ensure!(
        process.log().contains("nothing is forwarded"),
        "{}",
        process.log()
    );
    Ok(process)
}

fn left_alone(lab: &Lab) -> Result<()> {
    let before = attachments(lab)?;
    let mut process = start_dry(lab, &[])?;
    let attached: Vec<(String, String)> = lab
        .status()?
        .attached
        .into_iter()
        .map(|one| (one.interface, one.mode))
        .collect();
    let wanted = [WAN, LAN].map(|name| (name.to_owned(), "ingress".to_owned()));
    ensure!(attached == wanted, "{attached:?}");
    let wire = Wire::open(lab)?;
    for sequence in 1..=3 {
        wire.punted_on_wan(&from_client(4500, 4500, esp(0xC000_0001, sequence, 60)).build())?;
        wire.punted_on_wan(
            &raw_from_client(protocol::ESP, esp(0xC000_0003, sequence, 60)).build(),
        )?;
        let packet = from_server(4500, 4500, esp(0xC000_0002, sequence, 60));
        let mut routed = packet.clone().with_macs(CLIENT_MAC, WAN_MAC);
        routed.ttl -= 1;
        wire.outbound_frames(&[packet.build()], &[routed.build()])
            .context("plain routing")?;
    }
    for reason in ["esp-in-udp-in", "esp-in", "esp-in-udp-out"] {
        let found = count(lab, "tc", reason)?;
        ensure!(found == 3, "{reason}: {found} of 3");
    }
    let stats = lab.stats()?;
    stats.check_conservation()?;
    ensure!(!stats.spis.is_empty(), "no SPI is listed");
    let status = execute(&mut lab.ikenat(&["status"])?)?;
    ensure!(status.contains("DRY RUN: nothing is forwarded"), "{status}");
    process.terminate(Duration::from_secs(10))?;
    let log = process.log();
    ensure!(
        log.contains("keep counting what would be translated") && !log.contains("keep translating"),
        "{log}"
    );
    lab.unload()?;
    nothing_is_left(lab, &before)?;
    Ok(())
}

/// The kernel's own NAT translates, the dry run only counts, and then ikenat takes over under load.
fn cut_over(lab: &Lab) -> Result<()> {
    lab.kernel_nat()?;
    if !kernel_is_at_least((6, 6))? {
        // On those kernels, adding or removing a clsact stops the device for a moment
        // (`qdisc_graft` in net/sched/sch_api.c), which loses the packets in its queue. An existing
        // clsact stays.
        for interface in [WAN, LAN] {
            lab.gateway
                .run(&format!("tc qdisc add dev {interface} clsact"))?;
        }
    }
    let load = Load::start(lab, tenth_rate()?, tenth_rate()?)?;
    let mut process = start_dry(lab, &[])?;
    load.flows()?;
    let seen = [
        count(lab, "tc", "esp-in-udp-in")?,
        count(lab, "tc", "esp-in-udp-out")?,
    ];
    ensure!(seen.iter().all(|count| *count > 0), "it counts {seen:?}");
    process.terminate(Duration::from_secs(10))?;
    load.flows().context("the dry run's daemon has ended")?;
    let _live = Ikenat::start(lab)?;
    load.flows().context("live")?;
    lab.gateway.run("nft delete table ip nat")?;
    load.flows().context("without the old rules")?;
    let transfer = load.finish()?;
    // The counters start from zero: what the dry run counted was never translated.
    let stats = lab.stats()?;
    stats.check_conservation()?;
    let counted = stats.totals.esp.inbound.packets;
    ensure!(
        counted > 0 && counted < u64::from(transfer.inbound),
        "{counted} of {} are counted",
        transfer.inbound
    );
    Ok(())
}

fn refused_when_live(lab: &Lab) -> Result<()> {
    Ikenat::start(lab)?.kill()?;
    everything_crosses(lab)?;
    let before = lab.stats()?.totals.esp.inbound.packets;
    let mut command = timed_command(lab, &usual_arguments())?;
    let output = command
        .args(["--dry-run", "--bpffs"])
        .arg(lab.bpffs())
        .output()
        .context("failed to start ikenat")?;
    let text = String::from_utf8_lossy(&output.stderr);
    let unload = format!("`{}`", unload_command(lab, "default"));
    ensure!(
        !output.status.success() && text.contains("is live") && text.contains(&unload),
        "{text}"
    );
    everything_crosses(lab).context("after the refusal")?;
    let after = lab.stats()?.totals.esp.inbound.packets;
    ensure!(after == 2 * before, "{before} packets, then {after}");
    Ok(())
}

fn by_clsact(lab: &Lab) -> Result<()> {
    const CLSACT: [&str; 2] = ["--tc", "clsact"];
    let before = attachments(lab)?;
    let mut process = start_dry(lab, &CLSACT)?;
    let wire = Wire::open(lab)?;
    wire.punted_on_wan(&from_client(4500, 4500, esp(0xC000_0001, 1, 60)).build())?;
    process.kill()?;
    let live = Ikenat::start_with(lab, &CLSACT)?;
    crate::support::one_filter_each(lab)?;
    everything_crosses(lab)?;
    live.kill()?;
    lab.unload()?;
    let after = attachments(lab)?;
    ensure!(after == before, "before:\n{before}\nafter:\n{after}");
    Ok(())
}
