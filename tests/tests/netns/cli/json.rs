//! The header of the JSON documents, and the generation that identifies a set of tables.

use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ikenat_tests::json_page;
use ikenat_tests::lab::Lab;
use ikenat_tests::lab::ikenat::{Ikenat, binary, usual_arguments};
use ikenat_tests::lab::json::Header;
use ikenat_tests::lab::netns::execute;
use ikenat_tests::lab::process::Process;
use ikenat_tests::lab::wire::Wire;
use ikenat_tests::suite::Scenario;
use serde_json::Value;
use xdp_user::tables::clock::monotonic;

use crate::topology::addresses::packets;

pub(crate) fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario::new("stats_in_json_begins_with_the_header", stats),
        Scenario::new("stats_of_watch_begins_with_the_header", watch),
        Scenario::new("status_in_json_begins_with_the_header", status),
        Scenario::new("check_in_json_begins_with_the_header", check),
        Scenario::new("the_generation_changes_with_the_tables", generation),
        Scenario::new("real_documents_have_the_documented_types", types),
    ]
}

/// The time, by another program, in the format of a document.
fn date() -> Result<String> {
    let text = execute(Command::new("date").args(["--utc", "+%Y-%m-%dT%H:%M:%SZ"]))?;
    Ok(text.trim().to_owned())
}

/// Expects the text to begin with the schema and a time that is not before `earliest`.
fn expect_header(text: &str, earliest: &str, first_field: &str) -> Result<()> {
    let header: Header =
        serde_json::from_str(text).with_context(|| format!("failed to read {text}"))?;
    ensure!(header.schema == 1, "{header:?}");
    let latest = date()?;
    // Times of one format and zone are sorted like their texts.
    let generated = header.generated.as_str();
    ensure!(
        generated.len() == latest.len() && (earliest..=latest.as_str()).contains(&generated),
        "{header:?} is not between {earliest} and {latest}"
    );
    let compact: String = text.split_whitespace().collect();
    let name = if first_field == "checks" {
        "instance"
    } else {
        "name"
    };
    let expected = format!(
        "{{\"schema\":1,\"generated\":\"{generated}\",\"{first_field}\":[{{\"{name}\":\"default\",\"services\":[{{"
    );
    ensure!(
        compact.starts_with(&expected),
        "{text} does not begin with {expected}"
    );
    Ok(())
}

fn stats(lab: &Lab) -> Result<()> {
    of_an_instance(lab, "stats")
}

fn status(lab: &Lab) -> Result<()> {
    of_an_instance(lab, "status")
}

fn of_an_instance(lab: &Lab, verb: &str) -> Result<()> {
    let _ikenat = Ikenat::start(lab)?;
    let earliest = date()?;
    let text = execute(&mut lab.ikenat(&[verb, "--json"])?)?;
    expect_header(&text, &earliest, "instances")
}

/// Each line has the time at which it was made.
fn watch(lab: &Lab) -> Result<()> {
    let _ikenat = Ikenat::start(lab)?;
    let earliest = date()?;
    let log = lab.log("watch");
    let mut command = lab.ikenat(&["stats", "--watch", "--json"])?;
    let mut watching = Process::spawn(command.stdin(Stdio::null()), log)?;
    watching.wait_for_log("\"untracked\"", Duration::from_secs(10))?;
    std::thread::sleep(Duration::from_secs(3));
    watching.kill()?;
    let text = watching.log();
    let lines: Vec<&str> = text.lines().collect();
    ensure!(lines.len() >= 2, "only {text}");
    let mut before = String::new();
    for line in lines {
        expect_header(line, &earliest, "instances")?;
        let Header { generated, .. } = serde_json::from_str(line)?;
        ensure!(generated > before, "{generated} follows {before}");
        before = generated;
    }
    Ok(())
}

/// The exit status depends on the host of the lab and does not matter here.
fn check(lab: &Lab) -> Result<()> {
    let earliest = date()?;
    let mut command = lab.gateway.command(binary()?);
    command.arg("check").args(&usual_arguments()[1..]);
    command.arg("--bpffs").arg(lab.bpffs()).arg("--json");
    let output = command.output().context("failed to start ikenat")?;
    let text = String::from_utf8_lossy(&output.stdout);
    expect_header(&text, &earliest, "checks")
}

/// The generation of the one instance, which `stats` and `status` agree on.
fn generation_of(lab: &Lab) -> Result<u64> {
    let (stats, status) = (lab.stats()?.generation, lab.status()?.generation);
    ensure!(stats == status, "stats: {stats}, status: {status}");
    Ok(stats)
}

fn generation(lab: &Lab) -> Result<()> {
    let micros = || monotonic() / 1_000;
    let started = micros();
    let ikenat = Ikenat::start(lab)?;
    let first = generation_of(lab)?;
    // It is the time of the creation. A value that contains a word of the key would not be.
    ensure!((started..micros()).contains(&first), "{started}: {first}");
    ikenat.kill()?;
    ensure!(generation_of(lab)? == first, "without a daemon");
    let again = Ikenat::start(lab)?;
    let same = generation_of(lab)?;
    ensure!(same == first, "{first}, and {same} after a restart");
    ensure!(again.terminate()?.success());
    lab.unload()?;
    let _new = Ikenat::start(lab)?;
    let second = generation_of(lab)?;
    ensure!(second > first, "{first}, and {second} with new tables");
    Ok(())
}

/// The documents of an instance with flows and a session.
fn types(lab: &Lab) -> Result<()> {
    let page = include_str!("../../../../docs/json.md");
    let _ikenat = Ikenat::start(lab)?;
    let wire = Wire::open(lab)?;
    for (inbound, outbound) in packets(1) {
        wire.inbound(&inbound)?;
        wire.outbound(&outbound)?;
    }
    let document = |verb: &str, words: &[&str]| -> Result<Value> {
        let mut command = lab.ikenat(&[&[verb, "--json"], words].concat())?;
        let text = command.output()?.stdout;
        let document = serde_json::from_slice(&text)?;
        json_page::fits(page, verb, &document)?;
        Ok(document)
    };
    let has = |document: &Value, parts: &[&str]| -> Result<()> {
        for part in parts {
            let elements = document["instances"][0][part].as_array();
            ensure!(elements.is_some_and(|all| !all.is_empty()), "no {part}");
        }
        Ok(())
    };
    let stats = document("stats", &[])?;
    has(&stats, &["services", "spis", "sessions"])?;
    let status = document("status", &[])?;
    let parts = ["services", "attached", "redirect", "tables", "reasons"];
    has(&status, &parts)?;
    let check = document("check", &["--tunnels", "1000"])?;
    let findings = check["checks"][0]["findings"].as_array();
    ensure!(findings.is_some_and(|all| all.len() > 10), "{check}");
    ensure!(check["tunnels"].is_object(), "{check}");
    Ok(())
}
