//! The daemon's life under traffic, and changes of the gateway's firewall meanwhile: no packet is
//! lost.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use ikenat_tests::lab::Lab;
use ikenat_tests::lab::direction::Direction;
use ikenat_tests::lab::ikenat::{Ikenat, binary, usual_arguments};
use ikenat_tests::lab::load::{Load, SPI_IN};
use ikenat_tests::lab::process::Process;
use ikenat_tests::lab::topology::{CLIENT, CLIENT_MAC, WAN_MAC};
use ikenat_tests::lab::wire::{Wire, esp, from_client, from_server};
use ikenat_tests::suite::Scenario;

use crate::support::{attachments, full_rate, is_emulated, nothing_is_left, tenth_rate};

pub(crate) fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario::new("the_generator_itself_loses_nothing", generator).alone(),
        Scenario::new("a_firewall_in_the_gateway_loses_no_packet", firewall)
            .alone()
            .with_programs(&["iptables"]),
        Scenario::new("kill_9_twenty_times_under_load_loses_no_packet", kill_9).alone(),
        Scenario::new("sigterm_leaves_everything_working", sigterm).alone(),
        Scenario::new("ctrl_c_on_a_terminal_detaches", ctrl_c)
            .with_programs(&["tc", "bpftool", "script"]),
        Scenario::new("unload_leaves_nothing", unload).with_programs(&["tc", "bpftool"]),
    ]
}

const RESTARTS: u32 = 20;

/// Without ikenat: a failure here is a failure of the lab.
fn generator(lab: &Lab) -> Result<()> {
    lab.kernel_nat()?;
    let load = Load::start(lab, full_rate()?, tenth_rate()?)?;
    let began = Instant::now();
    std::thread::sleep(Duration::from_secs(2));
    let took = began.elapsed();
    check_rate(load.finish()?.inbound, took)
}

/// A generator that does not get its CPU would make a test easier than it claims.
fn check_rate(sent: u32, took: Duration) -> Result<()> {
    let rate = f64::from(sent) / took.as_secs_f64();
    ensure!(
        rate > f64::from(full_rate()?) * 0.9,
        "only {rate:.0} packets per second were sent"
    );
    Ok(())
}

fn firewall(lab: &Lab) -> Result<()> {
    let _ikenat = Ikenat::start(lab)?;
    let load = Load::start(lab, tenth_rate()?, tenth_rate()?)?;
    for script in [
        "nft flush ruleset; iptables -F; iptables -t nat -F; iptables -t mangle -F; iptables -t raw -F",
        "iptables -P FORWARD DROP",
        "nft add table ip f; nft 'add chain ip f forward { type filter hook forward priority 0; policy drop; }'",
        "iptables -t nat -A POSTROUTING -j MASQUERADE",
        "iptables -t raw -A PREROUTING -j DROP",
        // Both directions use the tc programs for a moment.
        "ip neighbour flush all",
    ] {
        lab.gateway.shell(script)?;
        load.flows().with_context(|| format!("after `{script}`"))?;
    }
    load.finish()?.check_counted(&lab.stats()?)
}

fn kill_9(lab: &Lab) -> Result<()> {
    let mut ikenat = Ikenat::start(lab)?;
    let load = Load::start(lab, full_rate()?, tenth_rate()?)?;
    let began = Instant::now();
    let counted = || -> Result<u64> {
        let stats = lab.stats()?;
        Ok(stats
            .spi(CLIENT, SPI_IN, Direction::Inbound)
            .map_or(0, |spi| spi.packets))
    };
    let mut last = 0;
    for restart in 1..=RESTARTS {
        std::thread::sleep(Duration::from_millis(200));
        ikenat.kill()?;
        load.flows()
            .with_context(|| format!("the daemon is dead for the {restart}. time"))?;
        // `stats` needs no daemon.
        let dead = counted()?;
        ikenat = Ikenat::start(lab).with_context(|| format!("{restart}. restart"))?;
        let alive = counted()?;
        ensure!(
            last < dead && dead < alive,
            "the counter went from {last} to {dead} (dead) and {alive} (restarted)"
        );
        last = alive;
    }
    let took = began.elapsed();
    let transfer = load.finish()?;
    transfer.check_counted(&lab.stats()?)?;
    check_rate(transfer.inbound, took)?;
    ensure!(
        took < Duration::from_secs(60) || is_emulated(),
        "{RESTARTS} restarts took {took:?}"
    );
    Ok(())
}

fn sigterm(lab: &Lab) -> Result<()> {
    let ikenat = Ikenat::start(lab)?;
    let load = Load::start(lab, tenth_rate()?, tenth_rate()?)?;
    let status = ikenat.terminate()?;
    ensure!(status.success(), "after SIGTERM it ended with {status}");
    load.flows().context("after SIGTERM")?;
    ensure!(
        !lab.status()?.attached.is_empty(),
        "status shows nothing attached after SIGTERM"
    );
    let _again = Ikenat::start(lab).context("a start after SIGTERM")?;
    load.flows().context("after the start")?;
    load.finish()?.check_counted(&lab.stats()?)
}

/// Stopping is not detaching: a user who stops it by hand wants it gone, a service that restarts
/// does not.
fn ctrl_c(lab: &Lab) -> Result<()> {
    let before = attachments(lab)?;
    let mut words = usual_arguments();
    words.insert(0, binary()?.display().to_string());
    words.extend(["--bpffs".to_owned(), lab.bpffs().display().to_string()]);
    // `script` gives it a terminal, with the pipe as its keyboard. Without `exec` some shells would
    // stay in between, be interrupted as well, and hide the exit status (it was 130 where SHELL is
    // not set).
    let typed = format!(
        "(while [ ! -e {go} ]; do sleep 0.05; done; printf '\\003'; sleep 3) \
         | script --quiet --return --command 'exec {}' /dev/null",
        words.join(" "),
        go = lab.directory().join("go").display(),
    );
    let mut command = lab.gateway.command("sh");
    let mut process = Process::spawn(command.args(["-c", &typed]), lab.log("ikenat"))?;
    process.wait_for_log("ready", Duration::from_secs(30))?;
    ensure!(
        attachments(lab)? != before,
        "nothing was attached: {before}"
    );
    fs::write(lab.directory().join("go"), "").context("failed to write a file")?;
    let status = process.wait(Duration::from_secs(20))?;
    ensure!(
        status.success(),
        "it ended with {status}:\n{}",
        process.log()
    );
    ensure!(
        process.log().contains("detached"),
        "it does not say that it detached:\n{}",
        process.log()
    );
    nothing_is_left(lab, &before)?;
    Ok(())
}

fn unload(lab: &Lab) -> Result<()> {
    let before = attachments(lab)?;
    let ikenat = Ikenat::start(lab)?;
    ensure!(
        attachments(lab)? != before,
        "this test cannot see what ikenat attaches: {before}"
    );
    ikenat.kill()?;
    lab.unload()?;
    nothing_is_left(lab, &before)?;
    let wire = Wire::open(lab)?;
    wire.punted_on_wan(&from_client(4500, 4500, esp(0xC000_0001, 1, 52)).build())?;
    let packet = from_server(4500, 4500, esp(0xC000_0002, 1, 52));
    let mut routed = packet.clone().with_macs(CLIENT_MAC, WAN_MAC);
    routed.ttl -= 1;
    wire.outbound_frames(&[packet.build()], &[routed.build()])
        .context("plain routing")?;
    // Nothing to do is not an error.
    lab.unload().context("a second unload")
}
