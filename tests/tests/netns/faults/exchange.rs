//! Programs are exchanged while something else happens: the verifier takes its time, and the daemon
//! follows changes and ends meanwhile. A file holds the load open, so that nothing here
//! depends on how long it takes.

use std::ffi::OsStr;
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use ikenat_tests::lab::Lab;
use ikenat_tests::lab::frames::Mac;
use ikenat_tests::lab::ikenat::{binary, usual_arguments};
use ikenat_tests::lab::process::Process;
use ikenat_tests::lab::second_wan::WAN_2;
use ikenat_tests::lab::topology::{CLIENT_MAC, LAN, SERVER, WAN};
use ikenat_tests::lab::wire::{Wire, esp, from_client};
use ikenat_tests::suite::Scenario;
use nix::sys::signal::Signal;
use xdp_common::cpu::egress_mtu;
use xdp_user::failpoints::Step;

use super::interfaces::followed;
use super::neighbours::lan_egress;
use super::own_addresses::set_mac;
use crate::failpoints::WISH;
use crate::support::{attachments, count, everything_crosses, patience, pins, wait_for_log};

pub(crate) fn scenarios() -> Vec<Scenario> {
    const TOOLS: &[&str] = &["tc", "bpftool"];
    let test = |name, test| Scenario::new(name, test).with_programs(TOOLS);
    vec![
        test("changes_are_followed_while_programs_are_loaded", meanwhile),
        test("an_exchange_that_is_out_of_date_is_made_again", outdated),
        test("a_slow_grace_period_holds_up_no_exchange", grace),
        test(
            "a_device_that_changes_while_it_is_tried_is_tried_again",
            refused_meanwhile,
        ),
        test(
            "an_exchange_that_cannot_be_recorded_is_none_that_failed",
            unrecorded,
        ),
        test("a_daemon_that_ends_during_an_exchange_leaves_none", ends),
    ]
}

const FIRST_MAC: Mac = [2, 0, 0, 0, 1, 0x77];
const SECOND_MAC: Mac = [2, 0, 0, 0, 1, 0x78];
/// What the daemon says when an exchange waits for the file.
const HELD: &str = "failpoint: the load is held";

/// While this file exists, no load begins.
struct Hold(PathBuf);

impl Hold {
    fn of(lab: &Lab) -> Self {
        Self(lab.directory().join("hold"))
    }

    fn close(&self) -> Result<()> {
        fs::write(&self.0, "").context("failed to hold the load")
    }

    fn open(&self) -> Result<()> {
        fs::remove_file(&self.0).context("failed to release the load")
    }
}

/// Starts a daemon with these arguments and variables besides the usual ones.
fn start_with(lab: &Lab, more: &[&str], variables: &[(&str, &OsStr)]) -> Result<Process> {
    let mut command = lab.gateway.command(binary()?);
    command.args(usual_arguments()).args(more);
    command.arg("--bpffs").arg(lab.bpffs());
    command.envs(variables.iter().copied());
    let mut process = Process::spawn(&mut command, lab.log("ikenat"))?;
    process.wait_for_log("ready: translating", patience(Duration::from_secs(90)))?;
    Ok(process)
}

/// Starts a daemon whose loads can be held.
fn start(lab: &Lab) -> Result<Process> {
    let hold = Hold::of(lab).0;
    start_with(lab, &[], &[("IKENAT_HOLD_LOAD", hold.as_os_str())])
}

/// An exchange begins, and waits for the file.
fn hold(lab: &Lab, mac: Mac) -> Result<Hold> {
    let hold = Hold::of(lab);
    hold.close()?;
    set_mac(lab, WAN, mac)?;
    wait_for_log(lab, HELD)?;
    Ok(hold)
}

/// A packet to a new MAC address is handled by XDP, which has that as a constant.
fn known_to_xdp(lab: &Lab, mac: Mac, sequence: u32) -> Result<()> {
    const REASON: &str = "not-our-mac";
    let wire = Wire::open(lab)?;
    let others = count(lab, "xdp", REASON)?;
    wire.inbound(
        &from_client(4500, 4500, esp(0xC000_0031, sequence, 60)).with_macs(mac, CLIENT_MAC),
    )?;
    let after = count(lab, "xdp", REASON)?;
    ensure!(others == after, "XDP does not know {mac:02x?}");
    Ok(())
}

/// Waits until the cached next hops are invalid.
fn invalidated(lab: &Lab, before: u64) -> Result<()> {
    let began = Instant::now();
    while lan_egress(lab)? == before {
        ensure!(
            began.elapsed() < patience(Duration::from_secs(3)),
            "no next hop is invalidated"
        );
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

fn soon() -> Instant {
    Instant::now() + patience(Duration::from_secs(3))
}

fn meanwhile(lab: &Lab) -> Result<()> {
    let daemon = start(lab)?;
    everything_crosses(lab)?;
    let hold = hold(lab, FIRST_MAC)?;
    lab.gateway.run(&format!("ip link set {LAN} mtu 1300"))?;
    followed(lab, 1300, soon()).context("an MTU, while programs are loaded")?;
    let before = lan_egress(lab)?;
    lab.gateway
        .run(&format!("ip route add {SERVER}/32 dev {LAN}"))?;
    invalidated(lab, before).context("a route, while programs are loaded")?;
    let log = daemon.log();
    ensure!(!log.contains("ready again"), "it was not held:\n{log}");
    hold.open()?;
    wait_for_log(lab, "ready again")?;
    // What has changed meanwhile is known to the new programs as well.
    followed(lab, 1300, soon()).context("the MTU, afterwards")?;
    known_to_xdp(lab, FIRST_MAC, 1)
}

/// The MAC address changes a second time before the programs with the first are loaded.
fn outdated(lab: &Lab) -> Result<()> {
    let daemon = start(lab)?;
    everything_crosses(lab)?;
    let hold = hold(lab, FIRST_MAC)?;
    set_mac(lab, WAN, SECOND_MAC)?;
    wait_for_log(lab, "its MAC address is 02:00:00:00:01:78 now")?;
    hold.open()?;
    wait_for_log(lab, "ready again")?;
    known_to_xdp(lab, SECOND_MAC, 1)?;
    let times = daemon.log().matches("ready again").count();
    ensure!(times == 1, "the programs were exchanged {times} times");
    Ok(())
}

/// A start waits until no program runs that knows no peer lists; an exchange changes no list.
fn grace(lab: &Lab) -> Result<()> {
    let grace = patience(Duration::from_secs(10));
    let delay = grace.as_millis().to_string();
    let slow = [("IKENAT_SLOW_MEMBARRIER", OsStr::new(&delay))];
    let daemon = start_with(lab, &["--deny", "198.51.100.7"], &slow)?;
    let began = Instant::now();
    set_mac(lab, WAN, FIRST_MAC)?;
    lab.gateway.run(&format!("ip link set {LAN} mtu 1300"))?;
    while egress_mtu(lan_egress(lab)?) != 1300 || !daemon.log().contains("ready again") {
        ensure!(
            began.elapsed() < grace / 2,
            "not followed in {:?}:\n{}",
            began.elapsed(),
            daemon.log()
        );
        std::thread::sleep(Duration::from_millis(20));
    }
    known_to_xdp(lab, FIRST_MAC, 1)
}

/// What was loaded for nothing goes, and what was attached stays.
fn ends(lab: &Lab) -> Result<()> {
    let mut daemon = start(lab)?;
    everything_crosses(lab)?;
    let (attached, pinned) = (attachments(lab)?, pins(&lab.bpffs())?);
    let hold = hold(lab, FIRST_MAC)?;
    daemon.signal(Signal::SIGTERM)?;
    hold.open()?;
    let status = daemon.wait(patience(Duration::from_secs(10)))?;
    let log = daemon.log();
    ensure!(status.success(), "it ended with {status}:\n{log}");
    ensure!(
        log.contains("the programs stay attached") && !log.contains("ready again"),
        "{log}"
    );
    let after = attachments(lab)?;
    ensure!(after == attached, "before:\n{attached}\nafter:\n{after}");
    let after = pins(&lab.bpffs())?;
    ensure!(after == pinned, "before: {pinned:?}, after: {after:?}");
    let _daemon = start(lab)?;
    known_to_xdp(lab, FIRST_MAC, 1)
}

/// A bridge, which has no native XDP, changes while it is tried: it is tried again at once, although
/// the refusal comes after the change.
fn refused_meanwhile(lab: &Lab) -> Result<()> {
    const ATTEMPT: &str = ": earlier-found";
    let hold = Hold::of(lab);
    let variables = [
        ("IKENAT_HOLD_LOAD", hold.0.as_os_str()),
        (WISH, OsStr::new("list")),
    ];
    let daemon = start_with(lab, &["--wan", WAN_2], &variables)?;
    let times = |text: &str| daemon.log().matches(text).count();
    lab.gateway
        .run(&format!("ip link add {WAN_2} type bridge"))?;
    wait_for_log(lab, &format!("{WAN_2} refuses native XDP"))?;
    // The next wait is of eight seconds by then.
    std::thread::sleep(patience(Duration::from_secs(5)));
    hold.close()?;
    let began = Instant::now();
    while times(HELD) == 0 {
        ensure!(
            began.elapsed() < patience(Duration::from_secs(30)),
            "it is not tried again:\n{}",
            daemon.log()
        );
        std::thread::sleep(Duration::from_millis(20));
    }
    lab.gateway.run(&format!("ip link set {WAN_2} mtu 1400"))?;
    let before = times(ATTEMPT);
    hold.open()?;
    let (began, wait) = (Instant::now(), patience(Duration::from_secs(5)));
    while times(ATTEMPT) == before {
        ensure!(
            began.elapsed() < wait,
            "not within {wait:?}:\n{}",
            daemon.log()
        );
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// The programs are exchanged, and META cannot be written: they are not exchanged once more for that.
fn unrecorded(lab: &Lab) -> Result<()> {
    // The first one is of the start.
    let wish = format!("error:{}:2", Step::Described.name());
    let mut daemon = start_with(lab, &[], &[(WISH, OsStr::new(&wish))])?;
    set_mac(lab, WAN, FIRST_MAC)?;
    wait_for_log(lab, "ready again")?;
    let log = daemon.log();
    let words = "the programs are exchanged, but what `status` shows";
    ensure!(
        log.contains(words) && log.contains("a test wants it to fail"),
        "{log}"
    );
    ensure!(!log.contains("failed to re-attach"), "{log}");
    known_to_xdp(lab, FIRST_MAC, 1)?;
    daemon.kill().map(drop)
}
