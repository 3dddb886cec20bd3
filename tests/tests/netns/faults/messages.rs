//! Messages about what is in the way of a start or of the daemon: they name the cause, not another
//! one that looks like it. And what the end of a terminal does.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use ikenat_tests::lab::Lab;
use ikenat_tests::lab::ikenat::{Ikenat, binary, usual_arguments};
use ikenat_tests::lab::netns::execute;
use ikenat_tests::lab::process::Process;
use ikenat_tests::lab::topology::PEER;
use ikenat_tests::suite::Scenario;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::bpffs::{directory, says};
use super::devices::{plug_in, sides};
use crate::support::{everything_crosses, patience, wait_for_log};

pub(crate) fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario::new("a_pin_that_may_not_be_opened_is_no_foreign_map", closed_pin)
            .with_programs(&["setpriv"]),
        Scenario::new("the_daemon_names_pins_by_their_path", path_of_a_pin),
        Scenario::new("a_daemon_ends_with_its_terminal_and_stays_attached", hangup)
            .with_programs(&["script"]),
        Scenario::new("a_daemon_without_a_terminal_ignores_sighup", no_terminal),
    ]
}

/// Root without the capability to open what it may not read.
fn closed_pin(lab: &Lab) -> Result<()> {
    Ikenat::start(lab)?.kill()?;
    let flow = directory(lab).join("FLOW");
    fs::set_permissions(&flow, fs::Permissions::from_mode(0o000))?;
    let mut command = lab.gateway.command("setpriv");
    command.args(["--bounding-set", "-dac_override,-dac_read_search"]);
    command.arg(binary()?).args(usual_arguments());
    let output = command.arg("--bpffs").arg(lab.bpffs()).output()?;
    let text = String::from_utf8_lossy(&output.stderr);
    ensure!(
        !text.contains("unload") && !text.contains("not a map"),
        "{text}"
    );
    let name = flow.display().to_string();
    says(&output, &[&name, "not accessible", "Permission denied"])?;
    fs::set_permissions(&flow, fs::Permissions::from_mode(0o600))?;
    everything_crosses(lab)
}

/// The daemon holds the file system by a descriptor. Its messages do not.
fn path_of_a_pin(lab: &Lab) -> Result<()> {
    let ikenat = Ikenat::start(lab)?;
    let flow = directory(lab).join("FLOW");
    let aside = lab.bpffs().join("aside");
    fs::rename(&flow, &aside).context("failed to move a pin")?;
    let [side, _] = sides(lab);
    side.peer.run(&format!("ip link del {PEER}"))?;
    wait_for_log(lab, "interface is gone")?;
    plug_in(lab, &side)?;
    wait_for_log(lab, "failed to re-attach")?;
    let log = ikenat.log();
    let path = flow.display().to_string();
    ensure!(
        log.contains(&path) && !log.contains("/proc/self/fd"),
        "{log}"
    );
    fs::rename(&aside, &flow).context("failed to move a pin back")?;
    wait_for_log(lab, "ready again")
}

fn has_daemon(lab: &Lab) -> Result<bool> {
    Ok(execute(&mut lab.ikenat(&["status"])?)?.contains("the daemon is process"))
}

fn hangup(lab: &Lab) -> Result<()> {
    let line = format!(
        "exec {} {} --bpffs {}",
        binary()?.display(),
        usual_arguments().join(" "),
        lab.bpffs().display()
    );
    // `script` has the other end of the terminal: with it, the terminal goes.
    let mut command = lab.gateway.command("script");
    command.args([
        "--quiet",
        "--flush",
        "--return",
        "--command",
        &line,
        "/dev/null",
    ]);
    let mut terminal = Process::spawn(&mut command, lab.log("ikenat"))?;
    terminal.wait_for_log("ready: ", Duration::from_secs(30))?;
    ensure!(has_daemon(lab)?, "no daemon: {}", terminal.log());
    terminal.kill()?;
    let began = Instant::now();
    while has_daemon(lab)? {
        ensure!(
            began.elapsed() < patience(Duration::from_secs(5)),
            "the daemon goes on without its terminal"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
    everything_crosses(lab)
}

fn no_terminal(lab: &Lab) -> Result<()> {
    let ikenat = Ikenat::start(lab)?;
    let pid = Pid::from_raw(ikenat.id());
    for _ in 0..3 {
        kill(pid, Signal::SIGHUP)?;
        std::thread::sleep(Duration::from_millis(100));
    }
    ensure!(has_daemon(lab)?, "it ended: {}", ikenat.log());
    Ok(())
}
