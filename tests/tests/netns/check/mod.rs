//! Tests of `ikenat check`: each condition is provoked, reported with its level and the command
//! that fixes it, and fixed by exactly that command. The tests read the JSON output, as scripts do.

mod capacity;
mod device;
mod firewall;
mod host;
mod memory;
mod network_cards;
mod nft_rules;
mod one_service;
mod policy;
mod quoting;
mod routing;
mod services;
mod vip;

use std::process::{Command, Output};

use anyhow::{Context, Result, bail, ensure};
use ikenat_tests::lab::Lab;
use ikenat_tests::lab::ikenat::{binary, usual_arguments};
use ikenat_tests::lab::json::Service;
use ikenat_tests::lab::topology::WAN;
use ikenat_tests::suite::Scenario;
use serde::Deserialize;

pub(crate) fn scenarios() -> Vec<Scenario> {
    let parts = [
        network_cards::scenarios(),
        capacity::scenarios(),
        device::scenarios(),
        firewall::scenarios(),
        host::scenarios(),
        memory::scenarios(),
        nft_rules::scenarios(),
        one_service::scenarios(),
        vip::scenarios(),
        policy::scenarios(),
        quoting::scenarios(),
        routing::scenarios(),
        services::scenarios(),
    ];
    parts.into_iter().flatten().collect()
}

#[derive(Debug, Deserialize)]
struct Answer {
    checks: Vec<Check>,
}

#[derive(Debug, Deserialize)]
struct Check {
    services: Vec<Service>,
    findings: Vec<Finding>,
}

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Finding {
    pub(crate) code: String,
    on: Option<String>,
    pub(crate) level: String,
    message: String,
    reason: String,
    pub(crate) fix: Vec<String>,
}

/// `ikenat check` with the usual arguments and these, in the gateway.
fn command(lab: &Lab, more: &[&str]) -> Result<Command> {
    let mut command = lab.gateway.command(binary()?);
    command.arg("check").args(&usual_arguments()[1..]);
    command.arg("--bpffs").arg(lab.bpffs()).args(more);
    Ok(command)
}

/// The findings of `ikenat check --json`; the exit status must match.
pub(crate) fn findings_of(mut command: Command) -> Result<Vec<Finding>> {
    let output = command
        .arg("--json")
        .output()
        .context("failed to start ikenat")?;
    findings(&output)
}

fn findings(output: &Output) -> Result<Vec<Finding>> {
    let text = String::from_utf8_lossy(&output.stdout);
    let said = String::from_utf8_lossy(&output.stderr);
    let answer: Answer = serde_json::from_str(&text)
        .with_context(|| format!("failed to read `check --json`: {text}{said}"))?;
    let mut findings = Vec::new();
    for check in answer.checks {
        ensure!(check.services.len() == 1, "{check:?}");
        findings.extend(check.findings);
    }
    ensure!(
        findings.iter().all(|finding| !finding.reason.is_empty()),
        "a finding does not say why it matters"
    );
    let error = findings.iter().any(|finding| finding.level == "error");
    ensure!(
        output.status.code() == Some(i32::from(error)),
        "the exit status is {}: {text}",
        output.status
    );
    Ok(findings)
}

pub(crate) fn check(lab: &Lab) -> Result<Vec<Finding>> {
    findings_of(command(lab, &[])?)
}

/// The findings about the instance that is attached.
pub(crate) fn about_running(lab: &Lab) -> Result<Vec<Finding>> {
    let mut command = lab.gateway.command(binary()?);
    command.arg("check").arg("--bpffs").arg(lab.bpffs());
    findings_of(command)
}

/// The findings of a condition on an interface (or on none), the worst first.
fn about(findings: &[Finding], code: &str, on: Option<&str>) -> Vec<Finding> {
    let fits = |finding: &&Finding| finding.code == code && finding.on.as_deref() == on;
    let mut found: Vec<Finding> = findings.iter().filter(fits).cloned().collect();
    found.sort_by_key(|finding| {
        ["error", "warning", "ok"]
            .iter()
            .position(|level| finding.level == *level)
    });
    found
}

/// Expects a condition to have this level, and what was found to contain these words.
pub(crate) fn expect(
    findings: &[Finding],
    (code, on): (&str, Option<&str>),
    level: &str,
    words: &[&str],
) -> Result<Finding> {
    let Some(worst) = about(findings, code, on).into_iter().next() else {
        bail!("there is no line {code} on {on:?}: {findings:#?}");
    };
    ensure!(worst.level == level, "{code} should be {level}: {worst:#?}");
    for word in words {
        ensure!(
            worst.message.contains(word),
            "{word:?} is not in {worst:#?}"
        );
    }
    if level == "ok" {
        ensure!(worst.fix.is_empty(), "an OK has no fix: {worst:#?}");
    }
    Ok(worst)
}

/// Runs the commands of a finding in the gateway, as an administrator would paste them.
fn apply_fix(lab: &Lab, finding: &Finding) -> Result<()> {
    ensure!(!finding.fix.is_empty(), "no command fixes it: {finding:#?}");
    for line in &finding.fix {
        lab.gateway
            .shell(line)
            .with_context(|| format!("while fixing {}", finding.code))?;
    }
    Ok(())
}

/// Provokes a condition, expects its finding, applies the proposed fix and expects "ok".
fn provoked_and_fixed(
    lab: &Lab,
    provoke: &str,
    line: (&str, Option<&str>),
    level: &str,
    words: &[&str],
    fixes: &[&str],
) -> Result<()> {
    lab.gateway.shell(provoke)?;
    let finding = expect(&check(lab)?, line, level, words)?;
    ensure!(finding.fix == fixes, "the commands are {:#?}", finding.fix);
    apply_fix(lab, &finding)?;
    expect(&check(lab)?, line, "ok", &[])?;
    Ok(())
}

/// About another LAN, VIP or server.
pub(crate) fn question(lab: &Lab, lan: &str, vip: &str, server: &str) -> Result<Vec<Finding>> {
    let mut command = lab.gateway.command(binary()?);
    command.args([
        "check", "--wan", WAN, "--lan", lan, "--vip", vip, "--server", server,
    ]);
    command.arg("--bpffs").arg(lab.bpffs());
    findings_of(command)
}
