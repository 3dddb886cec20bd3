//! Helpers shared by the tests of several directories: rates of the load, command lines, waiting
//! for log lines, traffic that must cross, and the attached programs and pins.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use aya::programs::{ProgramInfo, SchedClassifier, TcAttachType};
use ikenat_tests::kernel::kernel_is_at_least;
use ikenat_tests::lab::Lab;
use ikenat_tests::lab::frames::protocol;
use ikenat_tests::lab::ikenat::{binary, usual_arguments};
use ikenat_tests::lab::load::Loss;
use ikenat_tests::lab::topology::{LAN, PEER, WAN};
use ikenat_tests::lab::wire::{
    Wire, esp, esp_from_server, exchange, from_client, from_server, ike, raw_from_client,
};

/// Overrides the packets per second of the tests with full load, for a machine that cannot send
/// the usual number (an emulated one, for example).
const RATE: &str = "IKENAT_TEST_RATE";

/// Packets per second of the tests with full load.
pub(crate) fn full_rate() -> Result<u32> {
    /// A Linux host with veths reaches this without effort.
    const USUAL: u32 = 50_000;
    match std::env::var(RATE) {
        Ok(rate) => rate
            .parse()
            .with_context(|| format!("failed to read {RATE}={rate}")),
        Err(_) => Ok(USUAL),
    }
}

/// Packets per second of the tests that only look for losses and leave the CPUs to other work.
pub(crate) fn tenth_rate() -> Result<u32> {
    Ok(full_rate()? / 10)
}

/// True where each instruction is emulated: tests run fewer cases there, and wait longer.
pub(crate) fn is_emulated() -> bool {
    std::env::var_os(RATE).is_some()
}

/// A timeout: as given, or five times as long on an emulated machine.
pub(crate) fn patience(usual: Duration) -> Duration {
    if is_emulated() { usual * 5 } else { usual }
}

/// The number of programs that are attached: XDP and tc ingress on both sides, and tc egress on the
/// WAN.
pub(crate) const PROGRAMS: usize = 5;

/// The tc backends that this kernel has.
pub(crate) fn tc_backends() -> Result<Vec<&'static str>> {
    let mut backends = vec!["clsact"];
    if kernel_is_at_least((6, 6))? {
        backends.push("tcx");
    }
    Ok(backends)
}

/// The usual arguments with the value of one option replaced.
pub(crate) fn arguments_with(option: &str, value: &str) -> Vec<String> {
    let mut arguments = usual_arguments();
    if let Some(at) = arguments.iter().position(|argument| argument == option) {
        arguments[at + 1] = value.to_owned();
    }
    arguments
}

/// `ikenat` with these arguments in the gateway. `timeout` kills a daemon that starts although the
/// test expects a refusal.
pub(crate) fn timed_command(lab: &Lab, arguments: &[String]) -> Result<Command> {
    let mut command = lab.gateway.command("timeout");
    command
        .args(["--signal=KILL", "20"])
        .arg(binary()?)
        .args(arguments);
    Ok(command)
}

/// Runs a command that must fail by itself, name the cause and leave nothing attached or pinned.
pub(crate) fn refused(lab: &Lab, mut command: Command, names: &[&str]) -> Result<()> {
    let before = attachments(lab)?;
    let output = command.output().context("failed to start ikenat")?;
    sentence(&output, names)?;
    let after = attachments(lab)?;
    ensure!(
        before == after,
        "something stays attached: before\n{before}\nafter\n{after}"
    );
    let left = pins(&lab.bpffs())?;
    ensure!(left.is_empty(), "pins are left: {left:?}");
    Ok(())
}

/// Fails unless the program failed with a message that contains these words, and did not panic.
pub(crate) fn sentence(output: &Output, names: &[&str]) -> Result<()> {
    let text = String::from_utf8_lossy(&output.stderr);
    ensure!(!output.status.success(), "it did not fail: {text}");
    ensure!(
        output.status.code().is_some_and(|code| code < 100),
        "it ended with {}: {text}",
        output.status
    );
    ensure!(!text.contains("panicked"), "{text}");
    for name in names {
        ensure!(text.contains(name), "{name:?} is not named in: {text}");
    }
    Ok(())
}

/// The command by which messages say how an instance of the lab is removed.
pub(crate) fn unload_command(lab: &Lab, instance: &str) -> String {
    let bpffs = lab.bpffs();
    format!(
        "ikenat unload --instance {instance} --bpffs {}",
        bpffs.display()
    )
}

/// The log of an `ikenat run` that is stopped after two seconds or ends by itself.
pub(crate) fn log_of(lab: &Lab, wan: &str, more: &[&str]) -> Result<String> {
    let mut command = lab.gateway.command("timeout");
    command
        .arg("2")
        .arg(binary()?)
        .args(arguments_with("--wan", wan))
        .args(more);
    let output = command.arg("--bpffs").arg(lab.bpffs()).output()?;
    Ok(String::from_utf8_lossy(&output.stderr).into_owned())
}

/// Waits until the daemon's log contains `text`.
pub(crate) fn wait_for_log(lab: &Lab, text: &str) -> Result<()> {
    let began = Instant::now();
    loop {
        let log = fs::read_to_string(lab.log("ikenat")).unwrap_or_default();
        if log.contains(text) {
            return Ok(());
        }
        ensure!(
            began.elapsed() < patience(Duration::from_secs(10)),
            "the log does not say {text:?}:\n{log}"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The count of a reason at a hook.
pub(crate) fn count(lab: &Lab, hook: &str, reason: &str) -> Result<u64> {
    let reasons = lab.status()?.reasons;
    let found = reasons
        .iter()
        .find(|found| found.hook == hook && found.reason == reason);
    Ok(found.map_or(0, |found| found.count))
}

/// All kinds of traffic in both directions, compared byte by byte.
pub(crate) fn everything_crosses(lab: &Lab) -> Result<()> {
    let wire = Wire::open(lab)?;
    let message = ike(0x1111, 0x2222, exchange::IKE_AUTH, false, 120);
    wire.outbound(&from_server(4500, 4500, esp(0xC000_0002, 1, 60)))?;
    wire.inbound(&from_client(4500, 4500, esp(0xC000_0001, 1, 60)))?;
    wire.inbound(&from_client(500, 500, message.clone()))?;
    wire.outbound(&from_server(500, 500, message))?;
    wire.inbound(&raw_from_client(protocol::ESP, esp(0xC000_0003, 1, 60)))?;
    wire.outbound(&esp_from_server(esp(0xC000_0004, 1, 60)))
}

/// Fails unless every packet arrived exactly once and translated.
pub(crate) fn no_loss(losses: &[Loss]) -> Result<()> {
    for loss in losses {
        ensure!(
            loss.lost + loss.duplicates + loss.foreign == 0,
            "something was lost: {loss:?}"
        );
    }
    Ok(())
}

/// Detaches the XDP programs from the far ends of the veths: these then accept no more frames from
/// XDP, so every packet takes the tc slow path.
pub(crate) fn force_slow_path(lab: &Lab) -> Result<()> {
    for peer in [&lab.client, &lab.server] {
        peer.run(&format!("ip link set dev {PEER} xdp off"))?;
    }
    Ok(())
}

/// Everything that is attached to the gateway's interfaces, as text to compare: XDP and tcx programs, tc
/// filters, qdiscs and the number of managed neighbours.
pub(crate) fn attachments(lab: &Lab) -> Result<String> {
    let links = lab.gateway.run("ip -details -json link show")?;
    let links: serde_json::Value =
        serde_json::from_str(&links).context("failed to read ip -json")?;
    let Some(links) = links.as_array() else {
        bail!("ip -json did not print a list");
    };
    let xdp: Vec<String> = links
        .iter()
        .map(|link| format!("{} xdp {}", link["ifname"], link["xdp"]))
        .collect();
    Ok(format!(
        "{}\n{}\nbpftool net: {}\nqdiscs: {}\nmanaged neighbours: {}",
        xdp.join("\n"),
        tcx(lab, links)?.join("\n"),
        lab.gateway.run("bpftool --json net show")?.trim(),
        lab.gateway.run("tc qdisc show")?.trim(),
        lab.gateway
            .run("ip neighbour show")?
            .matches("managed")
            .count(),
    ))
}

/// The tcx programs of each of these links, which bpftool 7.1 does not list.
fn tcx(lab: &Lab, links: &[serde_json::Value]) -> Result<Vec<String>> {
    if !kernel_is_at_least((6, 6))? {
        return Ok(Vec::new());
    }
    lab.gateway.enter(|| {
        let mut found = Vec::new();
        for name in links.iter().filter_map(|link| link["ifname"].as_str()) {
            for hook in [TcAttachType::Ingress, TcAttachType::Egress] {
                let (_, programs) = SchedClassifier::query_tcx(name, hook)
                    .with_context(|| format!("failed to query the tcx programs of {name}"))?;
                let ids: Vec<u32> = programs.iter().map(ProgramInfo::id).collect();
                found.push(format!("{name} tcx {hook:?} {ids:?}"));
            }
        }
        Ok(found)
    })
}

/// All pins below a directory in a bpffs.
pub(crate) fn pins(directory: &Path) -> Result<Vec<String>> {
    /// The kernel creates these in the root of each bpffs.
    const KERNELS: [&str; 2] = ["maps.debug", "progs.debug"];
    let mut found = Vec::new();
    let listing = fs::read_dir(directory)
        .with_context(|| format!("failed to list {}", directory.display()))?;
    for entry in listing {
        let entry = entry?;
        let path = entry.path();
        if path.is_dir() {
            found.extend(pins(&path)?);
        } else if !KERNELS.iter().any(|&name| entry.file_name() == name) {
            found.push(path.display().to_string());
        }
    }
    Ok(found)
}

/// Fails unless the gateway is as it was before: the same attachments, and no pin.
pub(crate) fn nothing_is_left(lab: &Lab, before: &str) -> Result<()> {
    let after = attachments(lab)?;
    ensure!(after == before, "before:\n{before}\nafter:\n{after}");
    let left = pins(&lab.bpffs())?;
    ensure!(left.is_empty(), "pins are left: {left:?}");
    Ok(())
}

/// The number of ikenat's filters on an interface's ingress.
pub(crate) fn ikenat_filters(lab: &Lab, interface: &str) -> Result<usize> {
    let line = format!("tc filter show dev {interface} ingress");
    Ok(lab
        .gateway
        .run(&line)?
        .matches("handle 0x1ce ikenat_tc direct-action")
        .count())
}

/// The number of ikenat's filters on an interface's egress.
pub(crate) fn ikenat_egress_filters(lab: &Lab, interface: &str) -> Result<usize> {
    let line = format!("tc filter show dev {interface} egress");
    Ok(lab
        .gateway
        .run(&line)?
        .matches("handle 0x1ce ikenat_egress direct-action")
        .count())
}

/// Fails unless each interface has one ikenat filter on ingress, and the WAN one on egress.
pub(crate) fn one_filter_each(lab: &Lab) -> Result<()> {
    for interface in [WAN, LAN] {
        let found = ikenat_filters(lab, interface)?;
        ensure!(
            found == 1,
            "{interface} has {found} ikenat filters on ingress"
        );
    }
    let found = ikenat_egress_filters(lab, WAN)?;
    ensure!(found == 1, "{WAN} has {found} ikenat filters on egress");
    Ok(())
}

/// Another XDP program: that of the far ends of the wires.
pub(crate) fn peer_object() -> Result<String> {
    std::env::var("IKENAT_PEER_OBJECT").context("IKENAT_PEER_OBJECT is not set")
}
