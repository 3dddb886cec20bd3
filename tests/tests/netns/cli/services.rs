//! `--service`: the short form and the long one, and services that are refused before anything is
//! touched.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use ikenat_tests::lab::Lab;
use ikenat_tests::lab::ikenat::{Ikenat, binary};
use ikenat_tests::lab::json::Service;
use ikenat_tests::lab::netns::execute;
use ikenat_tests::lab::topology::{LAN, SERVER, VIP, WAN};
use ikenat_tests::suite::Scenario;

use crate::support::{everything_crosses, refused, sentence, timed_command};

pub(crate) fn scenarios() -> Vec<Scenario> {
    const TOOLS: &[&str] = &["tc", "bpftool"];
    vec![
        Scenario::new("a_service_is_given_in_one_option", one_option),
        Scenario::new("services_that_are_impossible_are_named", impossible).with_programs(TOOLS),
        Scenario::new("check_takes_services", check),
    ]
}

fn words(verb: &str, more: &[&str]) -> Vec<String> {
    let usual = [verb, "--wan", WAN, "--lan", LAN];
    let all = usual.iter().chain(more);
    all.map(|word| (*word).to_owned()).collect()
}

fn one_option(lab: &Lab) -> Result<()> {
    let service = format!("office:{VIP}={SERVER}");
    let words = words("run", &["--service", &service]);
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let _ikenat = Ikenat::run(lab, &lab.gateway, "ikenat", &words)?;
    let services = lab.status()?.services;
    let expected = Service {
        name: "office".to_owned(),
        vips: vec![VIP.into()],
        servers: vec![SERVER.into()],
        server_is_local: false,
        dedicated: false,
        except_peers: 0,
        denied: 0,
    };
    ensure!(services == [expected], "{services:?}");
    for verb in ["status", "stats", "check"] {
        let mut command = lab.gateway.command(binary()?);
        command.args([verb, "--bpffs"]).arg(lab.bpffs());
        let text = String::from_utf8(command.output()?.stdout)?;
        let first = format!("Instance default: service office: VIP {VIP} -> server {SERVER}");
        ensure!(text.starts_with(&first), "{verb}: {text}");
    }
    let stats = execute(&mut lab.ikenat(&["stats", "--service", "office"])?)?;
    ensure!(
        stats.starts_with("Instance default: service office"),
        "{stats}"
    );
    let other = lab.ikenat(&["stats", "--service", "home"])?.output()?;
    sentence(&other, &["no service home", "--service", "office"])?;
    everything_crosses(lab)
}

fn run(lab: &Lab, more: &[&str]) -> Result<Command> {
    let mut command = timed_command(lab, &words("run", more))?;
    command.arg("--bpffs").arg(lab.bpffs());
    Ok(command)
}

fn impossible(lab: &Lab) -> Result<()> {
    const A: &str = "a:203.0.113.1=192.168.0.1";
    for (second, expected) in [
        ("a:203.0.113.2=192.168.0.2", "the name a"),
        ("b:203.0.113.1=192.168.0.2", "services a and b"),
        ("b:203.0.113.2=203.0.113.1", "is a VIP of the service a"),
        ("b:192.168.0.1=192.168.0.2", "is a VIP of the service b"),
        ("b:203.0.113.2=192.168.0.1", "the same server 192.168.0.1"),
        ("b=192.168.0.2", "not an IPv4 address"),
        ("b:fd00::1=192.168.0.2", "IPv6 is not supported yet"),
    ] {
        let command = run(lab, &["--service", A, "--service", second])?;
        refused(lab, command, &[expected, "--service"]).with_context(|| second.to_owned())?;
    }
    let both = run(
        lab,
        &[
            "--service",
            A,
            "--vip",
            "203.0.113.1",
            "--server",
            "192.168.0.1",
        ],
    )?;
    refused(lab, both, &["--service", "--vip"])?;
    refused(lab, run(lab, &["--vip", "203.0.113.1"])?, &["--server"])?;
    refused(lab, run(lab, &[])?, &["--vip", "--server"])?;
    let six = run(lab, &["--vip", "2001:db8::1", "--server", "192.168.0.1"])?;
    refused(lab, six, &["--vip", "IPv6 is not supported yet"])
}

fn check(lab: &Lab) -> Result<()> {
    let check = |more: &[&str]| -> Result<std::process::Output> {
        let mut command = lab.gateway.command(binary()?);
        command.args(words("check", more));
        Ok(command.arg("--bpffs").arg(lab.bpffs()).output()?)
    };
    let found = check(&["--service", &format!("{VIP}={SERVER}")])?;
    let text = String::from_utf8_lossy(&found.stdout);
    ensure!(
        text.contains(&format!("VIP {VIP} -> server {SERVER}")),
        "{text}"
    );
    let two = [
        "--service",
        "203.0.113.1=192.168.0.1",
        "--service",
        "203.0.113.2=192.168.0.2",
    ];
    let text = String::from_utf8_lossy(&check(&two)?.stdout).into_owned();
    for part in [
        "203.0.113.1 -> server 192.168.0.1",
        "203.0.113.2 -> server 192.168.0.2",
    ] {
        ensure!(text.contains(part), "{part}: {text}");
    }
    sentence(&check(&[])?, &["--service", "none of them"])
}
