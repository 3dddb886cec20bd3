//! Log messages about arguments that are valid but perhaps a mistake, and output into a pipe that
//! the reader closes early.

use std::io::pipe;

use anyhow::{Context, Result, ensure};
use ikenat_tests::lab::Lab;
use ikenat_tests::lab::ikenat::{Ikenat, binary, usual_arguments};
use ikenat_tests::lab::topology::{LAN, WAN};
use ikenat_tests::suite::Scenario;

pub(crate) fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario::new("a_changed_server_is_logged", changed_server),
        Scenario::new("a_vip_that_is_not_local_is_logged", foreign_vip),
        Scenario::new("output_may_be_cut_short", cut_short),
        Scenario::new("an_invalid_rust_log_is_said", invalid_filter),
        Scenario::new("check_that_is_not_read_keeps_its_exit_status", unread_check),
    ]
}

/// The log of a daemon that is stopped after two seconds.
fn log_of_two_seconds(lab: &Lab, vip: &str, server: &str) -> Result<String> {
    let mut command = lab.gateway.command("timeout");
    command.arg("2").arg(binary()?);
    command.args([
        "run", "--wan", WAN, "--lan", LAN, "--vip", vip, "--server", server,
    ]);
    let output = command
        .arg("--bpffs")
        .arg(lab.bpffs())
        .output()
        .context("failed to start ikenat")?;
    let log = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(log.contains("ready"), "it did not start: {log}");
    Ok(log)
}

fn changed_server(lab: &Lab) -> Result<()> {
    let first = log_of_two_seconds(lab, "203.0.113.1", "192.168.0.1")?;
    ensure!(!first.contains("WARN"), "a warning for nothing: {first}");
    let second = log_of_two_seconds(lab, "203.0.113.1", "192.168.0.2")?;
    ensure!(
        second.contains("service default: server 192.168.0.1 -> 192.168.0.2; all live tunnels"),
        "{second}"
    );
    Ok(())
}

fn foreign_vip(lab: &Lab) -> Result<()> {
    let log = log_of_two_seconds(lab, "203.0.113.50", "192.168.0.1")?;
    ensure!(
        log.contains("203.0.113.50 is not an address of this host"),
        "{log}"
    );
    Ok(())
}

/// A reader that closes the pipe early is not an error: ikenat prints no message and no backtrace.
fn cut_short(lab: &Lab) -> Result<()> {
    let _ikenat = Ikenat::start(lab)?;
    for verb in ["stats", "status", "stats --json", "status --json"] {
        for reader in ["true", "head -1 >/dev/null"] {
            let script = format!(
                "{} {verb} --bpffs {} 2>&1 1>&3 3>&- | cat >&2",
                binary()?.display(),
                lab.bpffs().display()
            );
            let output = lab
                .gateway
                .command("sh")
                .args(["-c", &format!("{{ {script}; }} 3>&1 | {reader}")])
                .output()?;
            let said = String::from_utf8_lossy(&output.stderr);
            ensure!(said.is_empty(), "{verb} | {reader}: {said}");
        }
    }
    Ok(())
}

fn invalid_filter(lab: &Lab) -> Result<()> {
    for (filter, is_said) in [
        ("ikenat=loud", true),
        ("xdp_user=debug", false),
        ("", false),
    ] {
        let mut command = lab.gateway.command("timeout");
        command.arg("2").arg(binary()?).args(usual_arguments());
        command.arg("--bpffs").arg(lab.bpffs());
        let output = command.env("RUST_LOG", filter).output()?;
        let log = String::from_utf8_lossy(&output.stderr);
        let said = log.contains("RUST_LOG=ikenat=loud") && log.contains("info");
        ensure!(
            said == is_said && log.contains("ready: "),
            "{filter:?}: {log}"
        );
    }
    Ok(())
}

fn unread_check(lab: &Lab) -> Result<()> {
    let (reader, writer) = pipe().context("failed to open a pipe")?;
    drop(reader);
    let mut command = lab.gateway.command(binary()?);
    command.args(["check", "--wan", "nosuch0", "--lan", LAN]);
    command.args(["--vip", "203.0.113.1", "--server", "192.168.0.1"]);
    let output = command
        .arg("--bpffs")
        .arg(lab.bpffs())
        .stdout(writer)
        .output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.code() == Some(1) && said.is_empty(),
        "{}: {said}",
        output.status
    );
    Ok(())
}
