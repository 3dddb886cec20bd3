//! Packets that are lost after XDP has redirected them. The dataplane counts them as forwarded, and
//! `status` says by interface how many were lost.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use ikenat_tests::lab::Lab;
use ikenat_tests::lab::capture::PacketSocket;
use ikenat_tests::lab::ikenat::Ikenat;
use ikenat_tests::lab::netns::execute;
use ikenat_tests::lab::topology::{LAN, Options, PEER, WAN};
use ikenat_tests::lab::wire::{Wire, esp, from_client, from_server};
use ikenat_tests::suite::Scenario;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::{Pid, gettid};

use crate::support::{count, everything_crosses};

pub(crate) fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario::new("frames_that_a_driver_does_not_send_are_counted", not_sent),
        Scenario::new("frames_that_find_a_full_ring_are_counted", full_ring)
            .alone()
            .with_programs(&["chrt"]),
        Scenario::new("redirects_that_the_kernel_refuses_are_counted", refused),
        Scenario::new("generic_redirects_that_are_refused_are_counted", generic),
    ]
}

const PACKETS: u32 = 20;

/// What is lost on an interface.
fn lost(lab: &Lab, interface: &str) -> Result<u64> {
    let status = lab.status()?;
    let mut all = status.redirect.iter();
    let found = all.find(|redirect| redirect.interface == interface);
    let found = found.with_context(|| format!("{interface} is not in {:?}", status.redirect))?;
    found.lost.context("losses are not counted")
}

/// Packets of a known flow to the server. Returns how many XDP has forwarded.
/// `by` calls what sends them.
fn send_many(
    lab: &Lab,
    packets: u32,
    length: usize,
    by: impl FnOnce(&(dyn Fn() -> Result<()> + Sync)) -> Result<()>,
) -> Result<u64> {
    let client = PacketSocket::open(&lab.client, PEER)?;
    let frames = (100..100 + packets)
        .map(|sequence| from_client(4500, 4500, esp(0xC000_0001, sequence, length)).build());
    let frames: Vec<Vec<u8>> = frames.collect();
    let forwarded = || count(lab, "xdp", "esp-in-udp-in");
    let before = forwarded()?;
    by(&|| frames.iter().try_for_each(|frame| client.send(frame)))?;
    let sent = forwarded()? - before;
    ensure!(sent > u64::from(packets) / 2, "XDP forwarded only {sent}");
    Ok(sent)
}

/// A few of them, which do not arrive.
fn send(lab: &Lab, length: usize) -> Result<u64> {
    send_many(lab, PACKETS, length, |send| send())
}

/// A flow that XDP forwards, nothing lost, and no daemon that would see what happens next.
fn prepared(lab: &Lab, more: &[&str]) -> Result<()> {
    let ikenat = Ikenat::start_with(lab, more)?;
    everything_crosses(lab)?;
    let wire = Wire::open(lab)?;
    for sequence in 2..6 {
        wire.outbound(&from_server(4500, 4500, esp(0xC000_0002, sequence, 60)))?;
        wire.inbound(&from_client(4500, 4500, esp(0xC000_0001, sequence, 60)))?;
    }
    ensure!((lost(lab, WAN)?, lost(lab, LAN)?) == (0, 0), "lost already");
    ikenat.kill()
}

/// A veth sends no frame that is larger than the MTU of its far end. That of its own end is what the
/// dataplane looks at.
fn not_sent(lab: &Lab) -> Result<()> {
    // Another gateway, in another network namespace, whose interfaces have the same indices.
    let other = Lab::new(Options::default())?;
    prepared(&other, &[])?;
    prepared(lab, &[])?;
    let indices = |lab: &Lab| -> Result<Vec<u32>> {
        let attached = lab.status()?.attached;
        Ok(attached.iter().map(|program| program.ifindex).collect())
    };
    ensure!(indices(lab)? == indices(&other)?, "the indices differ");
    lab.server.run(&format!("ip link set {PEER} mtu 600"))?;
    let sent = send(lab, 1000)?;
    let found = [lost(lab, WAN)?, lost(lab, LAN)?];
    ensure!(
        found == [0, sent],
        "lost on WAN and LAN: {found:?} of {sent}"
    );
    let text = lab.gateway.run(&format!(
        "{} status --bpffs {}",
        ikenat_tests::lab::ikenat::binary()?.display(),
        lab.bpffs().display()
    ))?;
    let line = format!("{LAN}: {sent} forwarded packets were lost");
    ensure!(text.contains(&line), "no {line:?} in {text}");
    let elsewhere = lost(&other, LAN)?;
    ensure!(elsewhere == 0, "{elsewhere} packets of the other gateway");
    // They stay counted, and the next programs add to them.
    let ikenat = Ikenat::start(lab)?;
    ensure!(lost(lab, LAN)? == sent, "a restart has changed {sent}");
    ikenat.kill()?;
    let more = send(lab, 1000)?;
    let after = lost(lab, LAN)?;
    ensure!(after == sent + more, "{after}, not {sent} + {more}");
    lab.unload()
}

/// The far end of the veth polls its ring in a thread of the kernel, which gets no time on its CPU while
/// the packets are sent there by a thread of higher priority.
fn full_ring(lab: &Lab) -> Result<()> {
    /// `VETH_RING_SIZE`.
    const RING: u64 = 256;
    const PACKETS: u32 = 600;
    prepared(lab, &[])?;
    let polling = polled_by_a_thread(lab)?;
    let sent = send_many(lab, PACKETS, 60, |send| on_the_cpu_of(&polling, send))?;
    let found = [lost(lab, WAN)?, lost(lab, LAN)?];
    ensure!(
        found[0] == 0 && (sent - RING..sent).contains(&found[1]),
        "lost on WAN and LAN: {found:?} of {sent}, with a ring of {RING}"
    );
    // What is in the ring arrives, and then there is room again.
    let after = send_many(lab, self::PACKETS, 60, |send| send())?;
    let more = lost(lab, LAN)? - found[1];
    ensure!(more == 0, "{more} of {after} were lost later");
    Ok(())
}

/// The threads of the kernel that poll devices of this name.
fn polling_threads() -> Result<BTreeSet<i32>> {
    let prefix = format!("napi/{PEER}-");
    let mut found = BTreeSet::new();
    for entry in fs::read_dir("/proc").context("failed to list /proc")? {
        let path = entry?.path();
        // A process may have ended meanwhile.
        let name = fs::read_to_string(path.join("comm")).unwrap_or_default();
        if name.starts_with(&prefix) {
            let id = path.file_name().and_then(|name| name.to_str());
            found.insert(id.context("a thread without a number")?.parse()?);
        }
    }
    Ok(found)
}

/// Lets threads poll the server's interface, and returns them.
fn polled_by_a_thread(lab: &Lab) -> Result<Vec<Pid>> {
    let before = polling_threads()?;
    lab.server.shell(&format!(
        "unshare --mount sh -euc '
            mount --make-rprivate /; mount -t sysfs none /sys
            echo 1 > /sys/class/net/{PEER}/threaded'"
    ))?;
    let new: Vec<Pid> = polling_threads()?
        .difference(&before)
        .map(|id| Pid::from_raw(*id))
        .collect();
    ensure!(!new.is_empty(), "no thread polls {PEER}");
    Ok(new)
}

/// Runs `work` in a thread on the first CPU that is in real time, and nothing else of these threads
/// meanwhile.
fn on_the_cpu_of(threads: &[Pid], work: &(dyn Fn() -> Result<()> + Sync)) -> Result<()> {
    let mut cpu = CpuSet::new();
    cpu.set(0)?;
    for thread in threads {
        sched_setaffinity(*thread, &cpu)?;
    }
    let in_real_time = || {
        sched_setaffinity(Pid::from_raw(0), &cpu)?;
        let this = gettid().to_string();
        execute(Command::new("chrt").args(["--fifo", "--pid", "50", &this]))?;
        work()
    };
    std::thread::scope(|scope| match scope.spawn(in_real_time).join() {
        Ok(outcome) => outcome,
        Err(panic) => std::panic::resume_unwind(panic),
    })
}

/// The far end of the veth takes no frames from XDP any more.
fn refused(lab: &Lab) -> Result<()> {
    prepared(lab, &[])?;
    lab.server.run(&format!("ip link set dev {PEER} xdp off"))?;
    let sent = send(lab, 60)?;
    let found = [lost(lab, WAN)?, lost(lab, LAN)?];
    ensure!(
        found == [0, sent],
        "lost on WAN and LAN: {found:?} of {sent}"
    );
    Ok(())
}

/// The same in generic mode, by an egress that is smaller than the dataplane believes.
fn generic(lab: &Lab) -> Result<()> {
    prepared(lab, &["--mode", "generic"])?;
    lab.gateway.run(&format!("ip link set {LAN} mtu 600"))?;
    let sent = send(lab, 1000)?;
    let found = [lost(lab, WAN)?, lost(lab, LAN)?];
    ensure!(
        found == [0, sent],
        "lost on WAN and LAN: {found:?} of {sent}"
    );
    Ok(())
}
