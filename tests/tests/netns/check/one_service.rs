//! `check --service NAME`: the findings about that service and those that are the same for all, the exit
//! status that follows from them, and names beside the arguments of `run`.

use std::process::Output;

use anyhow::{Context, Result, ensure};
use ikenat_tests::lab::Lab;
use ikenat_tests::lab::ikenat::binary;
use ikenat_tests::lab::three_services::{SERVERS, VIPS, service, start};
use ikenat_tests::lab::topology::{LAN, WAN};
use ikenat_tests::suite::Scenario;
use serde_json::Value;

use crate::cli::one_service::{addresses, says};
use crate::support::sentence;

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario::new("check_is_about_one_service", check),
        Scenario::new(
            "check_says_what_a_start_refuses_beside_a_service",
            start_refused,
        ),
    ]
}

fn ask(lab: &Lab, words: &str) -> Result<Output> {
    let mut command = lab.gateway.command(binary()?);
    command.arg("check").args(words.split_whitespace());
    Ok(command.arg("--bpffs").arg(lab.bpffs()).output()?)
}

/// The names of services and the findings of the one instance: each as level, code and service.
/// Messages have numbers that change, as that of free memory.
fn found(output: &Output) -> Result<(Vec<String>, Vec<[String; 3]>)> {
    let text = String::from_utf8_lossy(&output.stdout);
    let document: Value = serde_json::from_str(&text)
        .with_context(|| format!("{text}{}", String::from_utf8_lossy(&output.stderr)))?;
    let checks = document["checks"].as_array().context("no checks")?;
    ensure!(checks.len() == 1, "{text}");
    let word = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    let all = |name: &str| checks[0][name].as_array().into_iter().flatten();
    let services = all("services").map(|one| word(&one["name"])).collect();
    let keys = ["level", "code", "service"];
    let findings = all("findings").map(|one| keys.map(|key| word(&one[key])));
    Ok((services, findings.collect()))
}

/// The server of one service does not answer ARP.
fn check(lab: &Lab) -> Result<()> {
    addresses(lab)?;
    lab.gateway.run(&format!(
        "ip neighbour replace {} dev {LAN} nud failed",
        SERVERS[1]
    ))?;
    let given = format!(
        "--wan {WAN} --lan {LAN} --service {} --service {}",
        service(0),
        service(1)
    );
    let (_, all) = found(&ask(lab, &format!("{given} --json"))?)?;
    for (name, status, other) in [("red", 0, "green"), ("green", 1, "red")] {
        let output = ask(lab, &format!("{given} --service {name} --json"))?;
        ensure!(output.status.code() == Some(status), "{name}: {output:?}");
        let (services, findings) = found(&output)?;
        ensure!(services == [name], "{services:?}");
        // As without the name, but for the other service.
        let expected = all.iter().filter(|[.., service]| service != other);
        ensure!(expected.eq(&findings), "{name}: {findings:#?} of {all:#?}");
        for of in [name, "-"] {
            let is_of = |[.., service]: &[String; 3]| service == of;
            ensure!(findings.iter().any(is_of), "none of {of}: {findings:#?}");
        }
        let text = ask(lab, &format!("{given} --service {name}"))?;
        ensure!(text.status.code() == Some(status), "{name}: {text:?}");
        let text = String::from_utf8_lossy(&text.stdout).into_owned();
        let words = format!("Instance default: service {name}: VIP");
        says(&text, &[&words], &[&format!("service {other}")])?;
    }
    rules(lab, &given)?;
    // The same of what is attached.
    let _ikenat = start(lab, &[0, 1])?;
    let output = ask(lab, "--service red --json")?;
    let (services, findings) = found(&output)?;
    ensure!(services == ["red"], "{services:?}");
    let others = |[.., service]: &[String; 3]| service == "green";
    let attached = |[_, code, ..]: &[String; 3]| code == "attached";
    ensure!(
        !findings.iter().any(others) && findings.iter().any(attached),
        "{findings:#?}"
    );
    let both = ask(lab, &format!("--vip {} --service red --json", VIPS[0]))?;
    ensure!(found(&both)?.0 == ["red"], "{both:?}");
    arguments(lab, &given)
}

/// A rule by the server of one service.
fn rules(lab: &Lab, given: &str) -> Result<()> {
    lab.gateway.run(&format!(
        "ip rule add priority 100 from {} lookup 7",
        SERVERS[1]
    ))?;
    for (name, expected) in [("red", "ok"), ("green", "warning")] {
        let (_, findings) = found(&ask(lab, &format!("{given} --service {name} --json"))?)?;
        let rules = findings
            .iter()
            .filter(|[_, code, _]| code == "routing-rules");
        let levels: Vec<&str> = rules.map(|[level, ..]| level.as_str()).collect();
        ensure!(levels == [expected], "{name}: {levels:?}");
    }
    Ok(())
}

/// Names beside the arguments of `run`.
fn arguments(lab: &Lab, given: &str) -> Result<()> {
    // Not half of an instance.
    let none = ask(lab, &format!("--wan {WAN} --service red"))?;
    sentence(&none, &["give all of", "--service"])?;
    let twice = ask(lab, &format!("{given} --vip {}", VIPS[0]))?;
    sentence(&twice, &["--service", "cannot be used with --vip"])?;
    let short = format!(
        "--wan {WAN} --lan {LAN} --vip {} --server {}",
        VIPS[0], SERVERS[0]
    );
    let (services, _) = found(&ask(lab, &format!("{short} --service default --json"))?)?;
    ensure!(services == ["default"], "{services:?}");
    sentence(
        &ask(lab, &format!("{short} --service red"))?,
        &["no service red", "one of: default"],
    )?;
    sentence(
        &ask(lab, &format!("{given} --service red:{}", VIPS[0]))?,
        &["--service", "no `=` before the server"],
    )
}

/// What is wrong with one service keeps the whole instance from starting, so it is not hidden from
/// who asks about another one.
fn start_refused(lab: &Lab) -> Result<()> {
    let given = format!(
        "--wan {WAN} --lan {LAN} --service {} --service bad:224.0.0.7={} --json",
        service(0),
        SERVERS[1]
    );
    let codes = |output: &Output| -> Result<Vec<String>> {
        let (_, findings) = found(output)?;
        let errors = findings.into_iter().filter(|[level, ..]| level == "error");
        Ok(errors.map(|[_, code, ..]| code).collect())
    };
    let all = ask(lab, &given)?;
    ensure!(codes(&all)? == ["address"], "{all:?}");
    let red = ask(lab, &format!("{given} --service red"))?;
    ensure!(
        codes(&red)? == ["start"] && red.status.code() == Some(1),
        "{red:?}"
    );
    let text = String::from_utf8_lossy(&red.stdout);
    says(&text, &["224.0.0.7"], &[])
}
