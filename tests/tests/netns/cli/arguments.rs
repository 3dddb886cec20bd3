//! Invalid arguments: one sentence names the fault, and nothing stays attached.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use ikenat_tests::lab::Lab;
use ikenat_tests::lab::ikenat::{Ikenat, binary, usual_arguments};
use ikenat_tests::lab::topology::WAN;
use ikenat_tests::suite::Scenario;

use crate::support::{arguments_with, attachments, pins, refused, sentence, timed_command};

pub(crate) fn scenarios() -> Vec<Scenario> {
    const TOOLS: &[&str] = &["tc", "bpftool"];
    vec![
        Scenario::new("an_interface_that_does_not_exist_is_named", no_interface)
            .with_programs(TOOLS),
        Scenario::new("an_invalid_address_is_named", no_address).with_programs(TOOLS),
        Scenario::new("an_invalid_name_is_named", no_name).with_programs(TOOLS),
        Scenario::new("a_server_without_a_route_is_named", no_route).with_programs(TOOLS),
        Scenario::new("another_xdp_program_is_named_and_left_alone", other_program)
            .with_programs(TOOLS),
        Scenario::new("an_address_that_no_host_has_is_named", no_host).with_programs(TOOLS),
        Scenario::new("a_missing_bpffs_is_named", no_bpffs).with_programs(TOOLS),
        Scenario::new("missing_privilege_is_named", no_privilege)
            .with_programs(&["tc", "bpftool", "setpriv"]),
        Scenario::new("a_second_daemon_of_an_instance_refuses", second_daemon).with_programs(TOOLS),
        Scenario::new("questions_without_an_instance_say_so", nothing_to_show),
    ]
}

fn usual(lab: &Lab, option: &str, value: &str) -> Result<Command> {
    let mut command = timed_command(lab, &arguments_with(option, value))?;
    command.arg("--bpffs").arg(lab.bpffs());
    Ok(command)
}

fn no_interface(lab: &Lab) -> Result<()> {
    refused(lab, usual(lab, "--wan", "nosuch0")?, &["nosuch0"])?;
    // By then the first is attached, unless everything is checked before.
    refused(lab, usual(lab, "--lan", "nosuch1")?, &["nosuch1"])
}

fn no_address(lab: &Lab) -> Result<()> {
    refused(
        lab,
        usual(lab, "--vip", "203.0.113.256")?,
        &["203.0.113.256", "--vip"],
    )?;
    refused(
        lab,
        usual(lab, "--server", "vpn.example")?,
        &["vpn.example", "--server"],
    )
}

fn no_name(lab: &Lab) -> Result<()> {
    for (name, words) in [
        ("a.b", "letters (a to z, A to Z), digits"),
        ("locks", "another name"),
        ("203_0_113_1", "older versions"),
    ] {
        let mut command = timed_command(lab, &usual_arguments())?;
        command
            .args(["--instance", name, "--bpffs"])
            .arg(lab.bpffs());
        refused(lab, command, &[name, "--instance", words])?;
    }
    Ok(())
}

fn no_route(lab: &Lab) -> Result<()> {
    refused(
        lab,
        usual(lab, "--server", "198.51.100.77")?,
        &["198.51.100.77"],
    )
}

/// The network has no host with these addresses.
fn no_host(lab: &Lab) -> Result<()> {
    for (option, address, why) in [
        (
            "--server",
            "192.168.0.255",
            "the broadcast address of 192.168.0.0/24",
        ),
        (
            "--server",
            "192.168.0.0",
            "the network address of 192.168.0.0/24",
        ),
        (
            "--vip",
            "203.0.113.255",
            "the broadcast address of 203.0.113.0/24",
        ),
    ] {
        refused(lab, usual(lab, option, address)?, &[address, why])?;
        let mut check = lab.gateway.command(binary()?);
        check
            .arg("check")
            .args(&arguments_with(option, address)[1..]);
        let output = check.arg("--bpffs").arg(lab.bpffs()).output()?;
        let text = String::from_utf8_lossy(&output.stdout);
        ensure!(
            output.status.code() == Some(1) && text.contains(why),
            "check: {text}"
        );
    }
    Ok(())
}

fn other_program(lab: &Lab) -> Result<()> {
    // Any XDP program will do, and ikenat has one: another instance of it is another owner's.
    let other = lab.directory().join("other");
    fs::create_dir(&other).context("failed to create a directory")?;
    let mount = |arguments: &[&str]| {
        Command::new(arguments[0])
            .args(&arguments[1..])
            .arg(&other)
            .output()
    };
    ensure!(
        mount(&["mount", "-t", "bpf", "bpf"])?.status.success(),
        "failed to mount bpffs"
    );
    let outcome = beside_another(lab, &other.display().to_string());
    ensure!(
        mount(&["umount", "--lazy"])?.status.success(),
        "failed to unmount bpffs"
    );
    outcome
}

fn beside_another(lab: &Lab, bpffs: &str) -> Result<()> {
    let _first = Ikenat::start(lab)?;
    let before = attachments(lab)?;
    let mut command = timed_command(lab, &usual_arguments())?;
    let output = command
        .args(["--bpffs", bpffs])
        .output()
        .context("failed to start ikenat")?;
    sentence(&output, &[WAN, "XDP"])?;
    ensure!(attachments(lab)? == before, "the other program was touched");
    ensure!(pins(bpffs.as_ref())?.is_empty(), "pins are left");
    Ok(())
}

fn second_daemon(lab: &Lab) -> Result<()> {
    let first = Ikenat::start(lab)?;
    let before = attachments(lab)?;
    let mut command = timed_command(lab, &usual_arguments())?;
    let output = command
        .arg("--bpffs")
        .arg(lab.bpffs())
        .output()
        .context("failed to start ikenat")?;
    sentence(
        &output,
        &["instance default", "--instance", &first.id().to_string()],
    )?;
    ensure!(
        attachments(lab)? == before,
        "the first daemon's programs were touched"
    );
    Ok(())
}

fn no_bpffs(lab: &Lab) -> Result<()> {
    let plain = lab.directory().join("plain");
    fs::create_dir(&plain).context("failed to create a directory")?;
    for path in [plain, lab.directory().join("missing")] {
        let path = path.display().to_string();
        let mut command = timed_command(lab, &usual_arguments())?;
        command.args(["--bpffs", &path]);
        refused(lab, command, &[&path, "bpf"])?;
    }
    Ok(())
}

fn no_privilege(lab: &Lab) -> Result<()> {
    // The user 65534 cannot read the target directory, so the binary must be elsewhere.
    let copy = lab.directory().join("ikenat-unprivileged");
    fs::copy(binary()?, &copy).context("failed to copy ikenat")?;
    let mut command = lab.gateway.command("setpriv");
    command
        .args([
            "--reuid=65534",
            "--regid=65534",
            "--clear-groups",
            "--inh-caps=-all",
            "--bounding-set=-all",
        ])
        .args(["timeout", "--signal=KILL", "20"])
        .arg(&copy)
        .args(usual_arguments())
        .arg("--bpffs")
        .arg(lab.bpffs());
    refused(lab, command, &["CAP_BPF", "as root"])
}

fn nothing_to_show(lab: &Lab) -> Result<()> {
    for verb in ["stats", "status"] {
        let output = lab
            .ikenat(&[verb])?
            .output()
            .context("failed to start ikenat")?;
        let bpffs = lab.bpffs().display().to_string();
        sentence(&output, &["no ikenat", &bpffs, "ikenat run"]).with_context(|| verb.to_owned())?;
    }
    Ok(())
}
