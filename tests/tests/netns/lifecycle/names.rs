//! The names of instances: what selects one, what names another one that serves the VIP, and the
//! directories of older versions, which are named after VIPs.

use std::fs;
use std::path::PathBuf;
use std::process::Output;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ikenat_tests::lab::Lab;
use ikenat_tests::lab::ikenat::{Ikenat, binary, usual_arguments};
use ikenat_tests::lab::json::Status;
use ikenat_tests::lab::netns::execute;
use ikenat_tests::lab::process::Process;
use ikenat_tests::lab::topology::{LAN, SERVER, VIP, WAN};
use ikenat_tests::suite::Scenario;
use nix::sys::signal::Signal;
use xdp_common::meta;
use xdp_user::failpoints::Step;
use xdp_user::tables::mmap::Tables;

use crate::failpoints::{PATIENCE, WISH, steps_of};
use crate::lifecycle::instances::{OTHER, OTHER_VIP, add_interfaces, arguments, start_in, try_in};
use crate::support::{
    attachments, everything_crosses, nothing_is_left, sentence, timed_command, unload_command,
};

pub(crate) fn scenarios() -> Vec<Scenario> {
    const TOOLS: &[&str] = &["tc", "bpftool"];
    vec![
        Scenario::new("instances_are_selected_by_name_and_by_vip", selected).with_programs(TOOLS),
        Scenario::new("a_vip_of_another_instance_is_refused", vip_of_another).with_programs(TOOLS),
        Scenario::new("unload_of_a_vip_of_two_instances_is_refused", vip_twice)
            .with_programs(TOOLS),
        Scenario::new("of_two_starts_with_one_vip_one_is_refused", two_starts).with_programs(TOOLS),
        Scenario::new(
            "of_two_restarts_with_one_new_vip_one_is_refused",
            two_restarts,
        )
        .with_programs(TOOLS),
        Scenario::new("an_instance_of_an_older_version_is_named", older).with_programs(TOOLS),
    ]
}

fn selected(lab: &Lab) -> Result<()> {
    add_interfaces(&lab.gateway)?;
    let before = attachments(lab)?;
    let _first = Ikenat::start(lab)?;
    let mut second = start_in(lab, &lab.gateway, OTHER_VIP)?;
    let names = |words: &[&str]| -> Result<Vec<String>> {
        let all = [&["status", "--json"], words].concat();
        let status: Status = serde_json::from_str(&execute(&mut lab.ikenat(&all)?)?)?;
        Ok(status.instances.into_iter().map(|one| one.name).collect())
    };
    ensure!(names(&[])? == ["default", OTHER]);
    ensure!(names(&["--instance", OTHER])? == [OTHER]);
    ensure!(names(&["--vip", OTHER_VIP])? == [OTHER]);
    ensure!(names(&["--vip", &VIP.to_string(), "--instance", "default"])? == ["default"]);
    let neither = ["stats", "--vip", OTHER_VIP, "--instance", "default"];
    let neither = lab.ikenat(&neither)?.output()?;
    sentence(&neither, &["no ikenat instance default for 198.51.100.1"])?;
    for verb in ["stats", "status", "check"] {
        let mut command = lab.gateway.command(binary()?);
        command
            .args([verb, "--instance", OTHER, "--bpffs"])
            .arg(lab.bpffs());
        let text = String::from_utf8(command.output()?.stdout)?;
        let first = format!("Instance {OTHER}: VIP {OTHER_VIP} -> server");
        ensure!(text.starts_with(&first), "{verb}: {text}");
    }
    second.kill()?;
    let said = execute(&mut lab.ikenat(&["unload", "--instance", OTHER])?)?;
    let expected = format!("{OTHER} ({OTHER_VIP}): detached 5 programs");
    ensure!(said.starts_with(&expected), "{said}");
    everything_crosses(lab)?;
    execute(&mut lab.ikenat(&["unload", "--force"])?)?;
    nothing_is_left(lab, &before).map(drop)
}

/// On other interfaces of the same network namespace.
fn vip_of_another(lab: &Lab) -> Result<()> {
    add_interfaces(&lab.gateway)?;
    let first = Ikenat::start(lab)?;
    let before = attachments(lab)?;
    let text = try_in(lab, &lab.gateway, OTHER, &VIP.to_string())?;
    let owner = format!("process {}", first.id());
    let words = ["instance default", &owner, WAN, "serves 203.0.113.1"];
    let unload = format!("`{}`", unload_command(lab, "default"));
    for word in words.into_iter().chain([unload.as_str()]) {
        ensure!(text.contains(word), "{word:?} is not in: {text}");
    }
    ensure!(attachments(lab)? == before, "something has changed");
    ensure!(
        !lab.bpffs().join("ikenat").join(OTHER).exists(),
        "it has a directory"
    );
    everything_crosses(lab)
}

/// Two network namespaces have it, which is no conflict; `unload` does not guess which one is meant.
fn vip_twice(lab: &Lab) -> Result<()> {
    add_interfaces(&lab.client)?;
    let vip = VIP.to_string();
    Ikenat::start(lab)?.kill()?;
    start_in(lab, &lab.client, &vip)?.kill()?;
    let before = attachments(lab)?;
    let both = lab.ikenat(&["unload", "--vip", &vip])?.output()?;
    let words = ["2 instances", "203.0.113.1: default, other;", "--instance"];
    sentence(&both, &words)?;
    ensure!(attachments(lab)? == before, "something has changed");
    everything_crosses(lab)?;
    let one = ["unload", "--vip", &vip, "--instance", OTHER];
    let said = execute(&mut lab.ikenat(&one)?)?;
    ensure!(said.contains("detached 5 programs"), "{said}");
    everything_crosses(lab)?;
    execute(&mut lab.ikenat(&["unload", "--vip", &vip])?).map(drop)
}

/// Each has looked for others before the other one was there.
fn two_starts(lab: &Lab) -> Result<()> {
    add_interfaces(&lab.gateway)?;
    let before = attachments(lab)?;
    let hold = lab.directory().join("hold");
    fs::write(&hold, "").context("failed to write a file")?;
    let mut command = lab.gateway.command(binary()?);
    command
        .args(arguments(OTHER, &VIP.to_string()))
        .arg("--bpffs")
        .arg(lab.bpffs());
    command.env("IKENAT_HOLD_LOAD", &hold);
    let mut late = Process::spawn(&mut command, lab.log("late"))?;
    late.wait_for_log("the load is held", Duration::from_secs(30))?;
    let _first = Ikenat::start(lab)?;
    fs::remove_file(&hold).context("failed to remove a file")?;
    let status = late.wait(Duration::from_secs(30))?;
    let log = late.log();
    let says = log.contains("the instance default") && log.contains("serves 203.0.113.1");
    ensure!(
        status.code() == Some(1) && says,
        "it ended with {status}: {log}"
    );
    ensure!(
        !lab.bpffs().join("ikenat").join(OTHER).exists(),
        "it has a directory"
    );
    everything_crosses(lab)?;
    execute(&mut lab.ikenat(&["unload", "--force"])?)?;
    nothing_is_left(lab, &before).map(drop)
}

/// A start in the gateway with another VIP, and a wish to the failpoints.
fn with_vip(lab: &Lab, words: &[String], wish: &str, log: &str) -> Result<Process> {
    let mut command = lab.gateway.command(binary()?);
    command.args(words).arg("--bpffs").arg(lab.bpffs());
    if !wish.is_empty() {
        command.env(WISH, wish);
    }
    Process::spawn(&mut command, lab.log(log))
}

/// Two instances exist. What they serve is recorded when they have attached, so while one attaches,
/// the other one waits. One that is killed there holds up none.
fn two_restarts(lab: &Lab) -> Result<()> {
    const NEW: [&str; 2] = ["203.0.113.77", "203.0.113.78"];
    add_interfaces(&lab.gateway)?;
    start_in(lab, &lab.gateway, OTHER_VIP)?.kill()?;
    Ikenat::start(lab)?.kill()?;
    let steps = steps_of(with_vip(lab, &usual_arguments(), "list", "listed")?)?;
    let number = steps.iter().position(|one| one == Step::EgressesSet.name());
    let stop = format!("stop:{}", number.context("no such step")? + 1);
    let pair = |vip: &str| -> Result<(Process, Process)> {
        let words = crate::support::arguments_with("--vip", vip);
        let mut first = with_vip(lab, &words, &stop, &format!("first-{vip}"))?;
        first.wait_for_log(Step::EgressesSet.name(), PATIENCE)?;
        let log = format!("second-{vip}");
        let mut second = with_vip(lab, &arguments(OTHER, vip), "", &log)?;
        let waits = format!("another start (process {}) is attaching", first.id());
        second.wait_for_log(&waits, PATIENCE)?;
        Ok((first, second))
    };
    let (mut first, mut second) = pair(NEW[0])?;
    first.signal(Signal::SIGCONT)?;
    first.wait_for_log("ready: translating", PATIENCE)?;
    let status = second.wait(PATIENCE)?;
    let log = second.log();
    let says = log.contains("the instance default") && log.contains("serves 203.0.113.77");
    ensure!(
        status.code() == Some(1) && says,
        "it ended with {status}: {log}"
    );
    let serves = |vip: &str| -> Result<Vec<String>> {
        let words = ["status", "--json", "--vip", vip];
        let status: Status = serde_json::from_str(&execute(&mut lab.ikenat(&words)?)?)?;
        Ok(status.instances.into_iter().map(|one| one.name).collect())
    };
    ensure!(serves(NEW[0])? == ["default"] && serves(OTHER_VIP)? == [OTHER]);
    first.kill()?;
    let (mut first, mut second) = pair(NEW[1])?;
    first.kill()?;
    second.wait_for_log("ready: translating", PATIENCE)?;
    ensure!(serves(NEW[0])? == ["default"] && serves(NEW[1])? == [OTHER]);
    second.kill().map(drop)
}

fn start(lab: &Lab, more: &[&str]) -> Result<Output> {
    let mut command = timed_command(lab, &usual_arguments())?;
    command.args(more).arg("--bpffs").arg(lab.bpffs());
    command.output().context("failed to start ikenat")
}

fn older(lab: &Lab) -> Result<()> {
    let clean = attachments(lab)?;
    Ikenat::start(lab)?.kill()?;
    let directory = |name: &str| -> PathBuf { lab.bpffs().join("ikenat").join(name) };
    fs::rename(directory("default"), directory("203_0_113_1")).context("failed to rename it")?;
    fs::remove_dir(directory("locks").join("default")).context("failed to remove its lock")?;
    let before = attachments(lab)?;
    for version in [None, Some(3)] {
        if let Some(version) = version {
            let tables = Tables::<AtomicU64>::open(&directory("203_0_113_1"))?;
            tables.meta(meta::VERSION).store(version, Ordering::SeqCst);
        }
        let bpffs = lab.bpffs();
        let remedy = format!(
            "`ikenat unload --vip 203.0.113.1 --bpffs {}`",
            bpffs.display()
        );
        let words = ["older ikenat", "203.0.113.1", &remedy];
        sentence(&start(lab, &[])?, &words).with_context(|| format!("{version:?}"))?;
        // It has the interfaces too.
        let mut command = timed_command(
            lab,
            &[
                "run",
                "--wan",
                WAN,
                "--lan",
                LAN,
                "--vip",
                "203.0.113.77",
                "--server",
            ]
            .map(str::to_owned),
        )?;
        command
            .arg(SERVER.to_string())
            .arg("--bpffs")
            .arg(lab.bpffs());
        let foreign = [WAN, &remedy];
        sentence(&command.output()?, &foreign)?;
        ensure!(attachments(lab)? == before, "something has changed");
        ensure!(!directory("default").exists(), "a directory is left");
    }
    let said = execute(&mut lab.ikenat(&["unload", "--vip", &VIP.to_string()])?)?;
    ensure!(
        said.contains("203.0.113.1") && said.contains("detached 5"),
        "{said}"
    );
    ensure!(attachments(lab)? == clean, "something is left");
    let _ikenat = Ikenat::start(lab)?;
    ensure!(lab.status()?.name == "default");
    everything_crosses(lab)
}
