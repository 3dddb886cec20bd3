//! The users that may read the tables (`--group`): what they see, and what they cannot do.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use aya::maps::MapData;
use ikenat_tests::lab::Lab;
use ikenat_tests::lab::ikenat::{Ikenat, usual_arguments};
use ikenat_tests::lab::netns::execute;
use ikenat_tests::lab::process::Process;
use ikenat_tests::suite::Scenario;
use xdp_core::Word;
use xdp_user::tables::mmap::{Memory, ReadOnlyWord};

use super::privileges::{Place, USER, prepare};
use crate::faults::bpffs::directory;
use crate::support::everything_crosses;

pub(crate) fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario::new("only_members_of_the_group_read", group).with_programs(&["setpriv"]),
        Scenario::new("a_readers_locks_hold_up_nothing", readers_locks)
            .with_programs(&["setpriv", "flock"]),
        Scenario::new("readers_cannot_open_the_hash_key", hash_key),
        Scenario::new("a_group_that_does_not_exist_is_named", no_group)
            .with_programs(&["tc", "bpftool"]),
    ]
}

/// A group that does not exist on the host.
const MEMBERS: u32 = 64_322;

/// A query by a user without any capability.
fn as_member(lab: &Lab, place: &Place, group: u32, words: &[&str]) -> Command {
    let mut command = Command::new("setpriv");
    command
        .arg(format!("--reuid={USER}"))
        .arg(format!("--regid={group}"))
        .args(["--clear-groups", "--inh-caps=-all", "--bounding-set=-all"])
        .arg(&place.ikenat)
        .args(words)
        .arg("--bpffs")
        .arg(lab.bpffs());
    command
}

fn group(lab: &Lab) -> Result<()> {
    let place = prepare(lab)?;
    let members = MEMBERS.to_string();
    let ikenat = Ikenat::start_with(lab, &["--group", &members])?;
    everything_crosses(lab)?;
    let json = execute(&mut as_member(lab, &place, MEMBERS, &["stats", "--json"]))?;
    let json: serde_json::Value = serde_json::from_str(&json).context("failed to read stats")?;
    let theirs = &json["instances"][0];
    let own = lab.stats()?;
    ensure!(own.spis.len() == 4, "{:?}", own.spis);
    for spi in &own.spis {
        let found = theirs["spis"].as_array().into_iter().flatten();
        let mut found = found.filter(|found| found["spi"] == spi.spi.as_str());
        ensure!(
            found.any(|found| found["packets"] == spi.packets && found["bytes"] == spi.bytes),
            "{spi:?} is not in {theirs}"
        );
    }
    ensure!(theirs["totals"]["esp"]["in"]["packets"] == own.totals.esp.inbound.packets);
    let status = execute(&mut as_member(lab, &place, MEMBERS, &["status"]))?;
    for word in [
        "the daemon is process",
        "wan0",
        "native",
        "egress",
        "esp-in-udp-in",
    ] {
        ensure!(status.contains(word), "{word:?} is not in {status}");
    }
    // The group may only read.
    let unload = as_member(lab, &place, MEMBERS, &["unload", "--force"]).output()?;
    ensure!(!unload.status.success(), "a reader could unload");
    closed_to(lab, &place, USER)?;
    everything_crosses(lab).context("after the readers")?;
    // Without the option, only root can read.
    ikenat.kill()?;
    let _again = Ikenat::start(lab)?;
    closed_to(lab, &place, MEMBERS)
}

/// A reader holds all locks that it can get: a start and `unload` take no notice.
fn readers_locks(lab: &Lab) -> Result<()> {
    let members = ["--group", &MEMBERS.to_string()];
    Ikenat::start_with(lab, &members)?.kill()?;
    let mut holder = Command::new("setpriv");
    holder
        .arg(format!("--reuid={USER}"))
        .arg(format!("--regid={MEMBERS}"))
        .args(["--clear-groups", "--inh-caps=-all", "--bounding-set=-all"])
        .args(["sh", "-c", LOCK_ALL, "sh"])
        .arg(lab.bpffs())
        .arg("203_0_113_1");
    let mut holder = Process::spawn(&mut holder, lab.log("holder"))?;
    holder.wait_for_log("locked ikenat/203_0_113_1", Duration::from_secs(10))?;
    let ikenat = Ikenat::start_with(lab, &members).context("under a reader's locks")?;
    everything_crosses(lab)?;
    ikenat.terminate()?;
    lab.unload().context("under a reader's locks")?;
    ensure!(!lab.bpffs().join("ikenat").exists(), "something is left");
    Ok(())
}

/// Locks each directory of ikenat that can be opened; those that cannot be listed by their names.
const LOCK_ALL: &str = "cd $1 || exit
    for one in $(find ikenat -type d) ikenat/locks ikenat/locks/$2; do
        flock --exclusive --nonblock $one sh -c 'echo locked $0; exec sleep 120' $one &
    done
    wait";

/// No pin that the group can open has a word of the key.
fn hash_key(lab: &Lab) -> Result<()> {
    let _ikenat = Ikenat::start_with(lab, &["--group", &MEMBERS.to_string()])?;
    let pins = directory(lab);
    let words = |name: &str| -> Result<Vec<u64>> {
        let map = MapData::from_pin(pins.join(name))?;
        let memory = Memory::<ReadOnlyWord>::of(&map, name)?;
        Ok(memory.words().iter().map(Word::load).collect())
    };
    let secret = words("SECRET")?;
    let secret = &secret[..16];
    ensure!(secret.iter().all(|word| *word != 0), "{secret:?}");
    let mut readable = 0;
    for name in ["META", "SECRET", "CPU", "FLOW", "SESSION", "HALF", "LIMIT"] {
        let path = pins.join(name);
        let found = fs::metadata(&path).with_context(|| path.display().to_string())?;
        if found.permissions().mode() & 0o077 == 0 {
            continue;
        }
        readable += 1;
        let leaked = words(name)?.into_iter().any(|word| secret.contains(&word));
        ensure!(!leaked, "a word of the key is in {name}");
    }
    ensure!(readable == 6, "the group can read {readable} pins");
    Ok(())
}

fn closed_to(lab: &Lab, place: &Place, group: u32) -> Result<()> {
    for verb in ["stats", "status"] {
        let output = as_member(lab, place, group, &[verb]).output()?;
        let text = String::from_utf8_lossy(&output.stderr);
        ensure!(
            !output.status.success() && text.contains("--group") && output.stdout.is_empty(),
            "{verb} of another user: {text}"
        );
    }
    Ok(())
}

fn no_group(lab: &Lab) -> Result<()> {
    let mut arguments = usual_arguments();
    arguments.extend(["--group".to_owned(), "no-such-group".to_owned()]);
    let mut command = crate::support::timed_command(lab, &arguments)?;
    command.arg("--bpffs").arg(lab.bpffs());
    crate::support::refused(lab, command, &["no-such-group", "groupadd", "number"])
}
