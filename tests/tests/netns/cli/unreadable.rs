//! `stats`, `status` and `check` while an instance starts, after a start that died, and beside an
//! instance that cannot be read.

use std::fs;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use ikenat_tests::lab::Lab;
use ikenat_tests::lab::ikenat::{Ikenat, binary, usual_arguments};
use ikenat_tests::lab::netns::execute;
use ikenat_tests::lab::process::Process;
use ikenat_tests::lab::topology::WAN;
use ikenat_tests::suite::Scenario;
use nix::sys::signal::Signal;
use xdp_common::{ABI_VERSION, meta};
use xdp_user::failpoints::Step;
use xdp_user::tables::mmap::Tables;

use crate::failpoints::{WISH, died_at};
use crate::faults::bpffs;
use crate::faults::start::steps;
use crate::lifecycle::instances::{OTHER_VIP, add_interfaces, start_in};
use crate::support::{patience, tc_backends, unload_command};

pub(crate) fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario::new("stats_says_that_an_instance_is_starting", starting)
            .with_programs(&["mkfifo"]),
        Scenario::new("stats_says_that_a_start_has_died", died),
        Scenario::new("an_instance_of_another_version_hides_no_other", another),
    ]
}

const VERBS: [&str; 3] = ["stats", "status", "check"];

fn says(output: &Output, words: &[&str], not: &[&str]) -> Result<()> {
    bpffs::says(output, words)?;
    let text = String::from_utf8_lossy(&output.stderr);
    for word in not {
        ensure!(!text.contains(word), "{word:?} is in: {text}");
    }
    Ok(())
}

fn start(lab: &Lab, variable: &str, value: &str) -> Result<Process> {
    let mut command = lab.gateway.command(binary()?);
    command.args(usual_arguments());
    command
        .args(["--tc", tc_backends()?[0], "--bpffs"])
        .arg(lab.bpffs());
    command.env(variable, value);
    Process::spawn(&mut command, lab.log("ikenat-starting"))
}

/// Before the maps are there, and when they are there and empty.
fn starting(lab: &Lab) -> Result<()> {
    const WORDS: [&str; 2] = ["default", "is starting"];
    const NOT: [&str; 2] = ["unload", "version"];
    let object = lab.directory().join("object");
    execute(Command::new("mkfifo").arg(&object))?;
    let mut process = start(lab, "IKENAT_OBJECT", &object.display().to_string())?;
    // Opening a FIFO to write waits until somebody reads it.
    let mut writer = fs::OpenOptions::new();
    let writer = writer.write(true).open(&object).context("no reader")?;
    for verb in VERBS {
        says(&lab.ikenat(&[verb])?.output()?, &WORDS, &NOT).with_context(|| verb.to_owned())?;
    }
    process.kill()?;
    drop(writer);
    lab.unload()?;

    let steps = steps(lab, tc_backends()?[0], WAN)?;
    lab.unload()?;
    let made = steps.iter().rposition(|name| name == Step::MapsMade.name());
    let made = made.context("no maps are made")? + 1;
    let mut process = start(lab, WISH, &format!("stop:{made}"))?;
    process.wait_for_log(&format!("failpoint {made}: "), Duration::from_secs(30))?;
    for verb in VERBS {
        says(&lab.ikenat(&[verb])?.output()?, &WORDS, &NOT).with_context(|| verb.to_owned())?;
    }
    process.signal(Signal::SIGCONT)?;
    process.wait_for_log("ready: translating", Duration::from_secs(30))?;
    lab.stats()?;
    process.kill()?;
    lab.unload()
}

fn died(lab: &Lab) -> Result<()> {
    let steps = steps(lab, tc_backends()?[0], WAN)?;
    lab.unload()?;
    let made = steps.iter().position(|name| name == Step::MapsMade.name());
    let made = made.context("no maps are made")? + 1;
    died_at(start(lab, WISH, &format!("kill:{made}"))?, made)?;
    for verb in VERBS {
        let words = ["default", "died", "ikenat run"];
        says(&lab.ikenat(&[verb])?.output()?, &words, &["version"])
            .with_context(|| verb.to_owned())?;
    }
    Ikenat::start(lab)?.kill()?;
    lab.stats().map(drop)
}

fn another(lab: &Lab) -> Result<()> {
    add_interfaces(&lab.gateway)?;
    let _first = Ikenat::start(lab)?;
    let _second = start_in(lab, &lab.gateway, OTHER_VIP)?;
    let version = |version: u32| -> Result<()> {
        let tables = Tables::<AtomicU64>::open(&lab.bpffs().join("ikenat/other"))?;
        let word = tables.meta(meta::VERSION);
        word.store(u64::from(version), Ordering::SeqCst);
        Ok(())
    };
    version(ABI_VERSION - 1)?;
    for verb in VERBS {
        let output = lab.ikenat(&[verb, "--json"])?.output()?;
        let unload = unload_command(lab, "other");
        let words = ["META", "version", &unload];
        says(&output, &words, &[]).with_context(|| verb.to_owned())?;
        let text = String::from_utf8_lossy(&output.stdout);
        let document: serde_json::Value =
            serde_json::from_str(&text).with_context(|| format!("{verb}: {text}"))?;
        let key = if verb == "check" {
            "checks"
        } else {
            "instances"
        };
        let shown = document[key].as_array().map(Vec::len);
        ensure!(
            shown == Some(1) && document[key][0]["services"][0]["vips"][0] == "203.0.113.1",
            "{verb} shows {shown:?} instances: {text}"
        );
    }
    // The one that cannot be read may have the service.
    let missing = lab.ikenat(&["stats", "--service", "home"])?.output()?;
    says(
        &missing,
        &["no service home", "one of: default", "META", "version"],
        &[],
    )?;
    // `--watch` goes on, and shows it as soon as it can be read.
    let mut command = lab.ikenat(&["stats", "--watch", "--json"])?;
    let mut watching = Process::spawn(&mut command, lab.log("watching"))?;
    watching.wait_for_log("203.0.113.1", Duration::from_secs(10))?;
    version(ABI_VERSION)?;
    let began = Instant::now();
    let both = |log: String| {
        log.lines()
            .any(|line| line.contains("\"203.0.113.1\"") && line.contains("\"198.51.100.1\""))
    };
    while !both(watching.log()) {
        ensure!(
            began.elapsed() < patience(Duration::from_secs(10)),
            "{}",
            watching.log()
        );
        std::thread::sleep(Duration::from_millis(50));
    }
    watching.kill()?;
    lab.ikenat(&["stats"])?
        .output()
        .map(drop)
        .context("failed to run stats")
}
