//! The path of a packet: XDP where that is possible, tc where it is not, and generic XDP on
//! request. The bytes that arrive are the same on all of them.

use anyhow::{Context, Result, ensure};
use ikenat_tests::kernel::kernel_is_at_least;
use ikenat_tests::lab::Lab;
use ikenat_tests::lab::ikenat::Ikenat;
use ikenat_tests::lab::topology::PEER;
use ikenat_tests::lab::wire::{Wire, esp, from_client, from_server};
use ikenat_tests::suite::Scenario;
use std::thread;
use std::time::{Duration, Instant};

use crate::support::{count, everything_crosses};

pub(crate) fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario::new("the_fast_path_is_taken", fast),
        Scenario::new(
            "a_device_without_xdp_transmit_gets_the_slow_path",
            not_ready,
        ),
        Scenario::new("generic_mode_forwards_the_same_bytes", generic),
    ]
}

/// 40 packets of one SPI in each direction: XDP sends all but the few that confirm the neighbour.
fn fast(lab: &Lab) -> Result<()> {
    let _ikenat = Ikenat::start(lab)?;
    let wire = Wire::open(lab)?;
    for sequence in 1..=40 {
        wire.outbound(&from_server(4500, 4500, esp(0xC000_0002, sequence, 60)))?;
        wire.inbound(&from_client(4500, 4500, esp(0xC000_0001, sequence, 60)))?;
    }
    for reason in ["esp-in-udp-in", "esp-in-udp-out"] {
        let (xdp, tc) = (count(lab, "xdp", reason)?, count(lab, "tc", reason)?);
        ensure!(
            xdp + tc == 40,
            "{reason}: {xdp} by XDP and {tc} by tc, of 40"
        );
        ensure!(xdp >= 34, "{reason}: only {xdp} of 40 by XDP");
    }
    Ok(())
}

/// Waits until status says that a count has grown while packets cross, for a few seconds at most.
fn until_grows(lab: &Lab, hook: &str, reason: &str) -> Result<()> {
    let before = count(lab, hook, reason)?;
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(8) {
        thread::sleep(Duration::from_millis(300));
        everything_crosses(lab).context("while the way changes")?;
        if count(lab, hook, reason)? > before {
            return Ok(());
        }
    }
    Err(anyhow::anyhow!("{hook} {reason} stays at {before}"))
}

/// The far end of a veth without a program accepts no frames from XDP: they would be lost silently.
fn not_ready(lab: &Lab) -> Result<()> {
    // As it is before the daemon looks for the first time.
    lab.server.run(&format!("ip link set dev {PEER} xdp off"))?;
    let _ikenat = Ikenat::start(lab)?;
    everything_crosses(lab).context("with a server that takes no frames")?;
    ensure!(
        count(lab, "xdp", "egress-not-xdp")? > 0,
        "nothing took the slow path"
    );
    ensure!(
        count(lab, "xdp", "esp-in-udp-in")? == 0,
        "XDP sent frames into nothing"
    );
    // With GRO on, the device accepts frames. From 6.3 on the kernel reports that, and the daemon
    // notices it within a second or two.
    lab.server.run(&format!("ethtool -K {PEER} gro on"))?;
    if kernel_is_at_least((6, 3))? {
        return until_grows(lab, "xdp", "esp-in-udp-in");
    }
    // Before 6.3 the kernel does not report it: the slow path is used.
    thread::sleep(Duration::from_secs(3));
    everything_crosses(lab).context("with GRO on")?;
    ensure!(
        count(lab, "xdp", "esp-in-udp-in")? == 0,
        "XDP sent frames although this kernel cannot tell whether they are taken"
    );
    Ok(())
}

fn generic(lab: &Lab) -> Result<()> {
    let ikenat = Ikenat::start_with(lab, &["--mode", "generic"])?;
    everything_crosses(lab)?;
    everything_crosses(lab)?;
    let modes: Vec<String> = lab
        .status()?
        .attached
        .into_iter()
        .filter(|attached| attached.hook == "xdp")
        .map(|attached| attached.mode)
        .collect();
    ensure!(modes == ["generic", "generic"], "the modes are {modes:?}");
    ensure!(
        count(lab, "xdp", "esp-in-udp-in")? + count(lab, "xdp", "esp-in-udp-out")? > 0,
        "generic XDP forwarded nothing"
    );
    drop(ikenat);
    Ok(())
}
