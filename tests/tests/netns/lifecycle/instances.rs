//! Two gateways on one host that share a BPF file system: in two network namespaces, in one, for
//! one VIP or for two; and `ip netns exec`, which hides that file system.

use std::process::{Command, Output};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ikenat_tests::lab::Lab;
use ikenat_tests::lab::ikenat::{Ikenat, binary};
use ikenat_tests::lab::netns::{Namespace, execute};
use ikenat_tests::lab::process::Process;
use ikenat_tests::lab::topology::{LAN, SERVER, VIP, WAN};
use ikenat_tests::suite::Scenario;

use crate::support::{
    attachments, everything_crosses, nothing_is_left, timed_command, unload_command,
};

pub(crate) fn scenarios() -> Vec<Scenario> {
    const TOOLS: &[&str] = &["tc", "bpftool"];
    vec![
        Scenario::new("two_namespaces_with_two_vips_share_a_bpffs", two_namespaces)
            .with_programs(TOOLS),
        Scenario::new(
            "a_name_of_another_namespace_is_refused_and_left_alone",
            same_name,
        )
        .with_programs(TOOLS),
        Scenario::new("pins_of_a_destroyed_namespace_are_taken_over", gone),
        Scenario::new("two_vips_in_one_namespace_work_side_by_side", side_by_side)
            .with_programs(TOOLS),
        Scenario::new("ip_netns_exec_finds_the_bpffs", netns_exec)
            .with_programs(&["tc", "bpftool", "unshare"]),
    ]
}

/// The name of a second gateway.
pub(crate) const OTHER: &str = "other";
pub(crate) const OTHER_VIP: &str = "198.51.100.1";
const OTHER_SERVER: &str = "192.0.2.2";
const OTHER_WAN: &str = "w0";
const OTHER_LAN: &str = "l0";

/// Two interfaces for another gateway, with their other ends in the same namespace.
pub(crate) fn add_interfaces(place: &Namespace) -> Result<()> {
    place.shell(
        "ip link add w0 type veth peer name w1; ip link add l0 type veth peer name l1
         for i in w0 w1 l0 l1; do ip link set $i up; done
         ip address add 198.51.100.1/24 dev w0; ip address add 192.0.2.1/24 dev l0
         sysctl -qw net.ipv4.ip_forward=1",
    )?;
    Ok(())
}

pub(crate) fn arguments(name: &str, vip: &str) -> Vec<String> {
    [
        "run",
        "--instance",
        name,
        "--wan",
        OTHER_WAN,
        "--lan",
        OTHER_LAN,
        "--vip",
        vip,
        "--server",
        OTHER_SERVER,
    ]
    .map(str::to_owned)
    .to_vec()
}

/// Starts a second gateway in a namespace, by the name [`OTHER`].
pub(crate) fn start_in(lab: &Lab, place: &Namespace, vip: &str) -> Result<Process> {
    start_named(lab, place, OTHER, vip)
}

fn start_named(lab: &Lab, place: &Namespace, name: &str, vip: &str) -> Result<Process> {
    let mut command = place.command(binary()?);
    command
        .args(arguments(name, vip))
        .arg("--bpffs")
        .arg(lab.bpffs());
    let mut process = Process::spawn(&mut command, lab.log("other"))?;
    process.wait_for_log("ready: translating", Duration::from_secs(30))?;
    Ok(process)
}

/// Tries to start one, which must fail.
pub(crate) fn try_in(lab: &Lab, place: &Namespace, name: &str, vip: &str) -> Result<String> {
    let mut command = place.command("timeout");
    command
        .args(["--signal=KILL", "20"])
        .arg(binary()?)
        .args(arguments(name, vip))
        .arg("--bpffs")
        .arg(lab.bpffs());
    refusal(&command.output().context("failed to start ikenat")?)
}

fn refusal(output: &Output) -> Result<String> {
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(
        !output.status.success() && output.status.code().is_some_and(|code| code < 100),
        "it ended with {}: {text}",
        output.status
    );
    Ok(text)
}

fn names(text: &str, wanted: &[&str]) -> Result<()> {
    for word in wanted {
        ensure!(text.contains(word), "{word:?} is not named in: {text}");
    }
    Ok(())
}

/// `status --vip A` from outside.
fn status_of(lab: &Lab, vip: &str) -> Result<String> {
    execute(&mut lab.ikenat(&["status", "--vip", vip])?)
}

fn two_namespaces(lab: &Lab) -> Result<()> {
    add_interfaces(&lab.client)?;
    let before = attachments(lab)?;
    let _first = Ikenat::start(lab)?;
    let mut second = start_in(lab, &lab.client, OTHER_VIP)?;
    everything_crosses(lab).context("beside another instance")?;
    names(
        &status_of(lab, OTHER_VIP)?,
        &[OTHER_VIP, OTHER_WAN, OTHER_LAN],
    )?;
    names(&status_of(lab, "203.0.113.1")?, &[WAN, LAN])?;
    second.kill()?;
    execute(&mut lab.ikenat(&["unload", "--vip", OTHER_VIP])?)?;
    let left = lab.client.run("ip -details link show w0")?;
    ensure!(!left.contains("prog/xdp"), "{left}");
    // The other one has noticed nothing.
    everything_crosses(lab)?;
    execute(&mut lab.ikenat(&["unload", "--force"])?)?;
    nothing_is_left(lab, &before)?;
    Ok(())
}

fn same_name(lab: &Lab) -> Result<()> {
    add_interfaces(&lab.client)?;
    let vip = VIP.to_string();
    let first = Ikenat::start(lab)?;
    let before = attachments(lab)?;
    let running = try_in(lab, &lab.client, "default", &vip)?;
    let owner = format!("process {}", first.id());
    names(
        &running,
        &[
            "instance default",
            &owner,
            WAN,
            LAN,
            "another network namespace",
            "--instance",
        ],
    )?;
    first.kill()?;
    // Its programs go on, so it is still there.
    let dead = try_in(lab, &lab.client, "default", &vip)?;
    names(
        &dead,
        &[
            WAN,
            LAN,
            "another network namespace",
            &unload_command(lab, "default"),
        ],
    )?;
    ensure!(!dead.contains("process"), "{dead}");
    ensure!(attachments(lab)? == before, "the first one was touched");
    everything_crosses(lab)?;
    let clean = lab.client.run("ip -details link show w0")?;
    ensure!(!clean.contains("prog/xdp"), "{clean}");
    // By filters, which are no links.
    lab.unload()?;
    Ikenat::start_with(lab, &["--tc", "clsact"])?.kill()?;
    let dead = try_in(lab, &lab.client, "default", &vip)?;
    names(&dead, &["instance default", "another network namespace"])?;
    crate::support::one_filter_each(lab)?;
    everything_crosses(lab)
}

fn gone(lab: &Lab) -> Result<()> {
    let place = lab.add_namespace("other")?;
    add_interfaces(&place)?;
    let vip = VIP.to_string();
    start_named(lab, &place, "default", &vip)?.kill()?;
    // It takes its interfaces with it.
    drop(place);
    let patience = std::time::Instant::now();
    let ikenat = loop {
        match Ikenat::start(lab) {
            Ok(ikenat) => break ikenat,
            // The kernel takes a namespace apart in the background.
            Err(error)
                if format!("{error:#}").contains("another network namespace")
                    && patience.elapsed() < Duration::from_secs(10) =>
            {
                std::thread::sleep(Duration::from_millis(100));
            }
            Err(error) => return Err(error),
        }
    };
    everything_crosses(lab)?;
    drop(ikenat);
    Ok(())
}

fn side_by_side(lab: &Lab) -> Result<()> {
    add_interfaces(&lab.gateway)?;
    let before = attachments(lab)?;
    let _first = Ikenat::start(lab)?;
    let mut second = start_in(lab, &lab.gateway, OTHER_VIP)?;
    everything_crosses(lab).context("beside another instance")?;
    let both = execute(&mut lab.ikenat(&["status"])?)?;
    names(&both, &[OTHER_VIP, "203.0.113.1", OTHER_WAN, WAN])?;
    // A third one has no interface left: each has room for one XDP program. It names whose it is.
    let words = crate::support::arguments_with("--vip", "203.0.113.77");
    let mut third = timed_command(lab, &words)?;
    third
        .args(["--instance", "third", "--bpffs"])
        .arg(lab.bpffs());
    let text = refusal(&third.output().context("failed to start ikenat")?)?;
    names(
        &text,
        &[
            WAN,
            "ikenat instance default (203.0.113.1)",
            "unload --instance default",
        ],
    )?;
    second.kill()?;
    execute(&mut lab.ikenat(&["unload", "--vip", OTHER_VIP])?)?;
    everything_crosses(lab)?;
    execute(&mut lab.ikenat(&["unload", "--force"])?)?;
    nothing_is_left(lab, &before)?;
    Ok(())
}

/// `ip netns exec` mounts a new /sys, so /sys/fs/bpf is empty there; process 1 still sees it. The
/// test has a process 1 and mounts of its own, so it touches nothing on this machine.
fn netns_exec(lab: &Lab) -> Result<()> {
    let before = attachments(lab)?;
    let ikenat = binary()?;
    let script = format!(
        "mount -t bpf bpf /sys/fs/bpf
         inside='ip netns exec {namespace}'
         $inside stat --file-system --format=%T /sys/fs/bpf
         $inside {ikenat} run --wan {WAN} --lan {LAN} --vip {VIP} --server {SERVER} 2>log &
         for i in $(seq 100); do grep -q 'ready: translating' log && break; sleep 0.1; done
         sleep 2
         echo BEGIN INSIDE; $inside {ikenat} status; echo END
         echo BEGIN OUTSIDE; {ikenat} status; echo END
         kill -TERM $!; wait $!
         $inside {ikenat} unload
         cat log",
        namespace = lab.gateway.name(),
        ikenat = ikenat.display(),
    );
    let text = execute(
        Command::new("unshare")
            .args(["--mount", "--pid", "--fork", "--mount-proc", "--kill-child"])
            .args(["sh", "-euc", &script])
            .current_dir(lab.directory()),
    )?;
    ensure!(
        !text.starts_with("bpf_fs"),
        "`ip netns exec` hides nothing here: {text}"
    );
    let part = |name: &str| {
        let (_, rest) = text.split_once(&format!("BEGIN {name}"))?;
        Some(rest.split_once("END")?.0.to_owned())
    };
    for name in ["INSIDE", "OUTSIDE"] {
        let status = part(name).with_context(|| format!("no {name}: {text}"))?;
        // The daemon still runs after two seconds, though it has dropped the capability with which
        // it reached the pins.
        names(&status, &["the daemon is process", WAN, LAN, "native"])?;
        let elsewhere = status.contains("another network namespace");
        ensure!(elsewhere == (name == "OUTSIDE"), "{name}: {status}");
    }
    names(
        &text,
        &["/proc/1/root/sys/fs/bpf/ikenat", "detached 5 programs"],
    )?;
    let after = attachments(lab)?;
    ensure!(after == before, "before:\n{before}\nafter:\n{after}");
    Ok(())
}
