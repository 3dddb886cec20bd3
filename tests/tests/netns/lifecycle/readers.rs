//! The users that may read the tables (`--group`): what they see, and what they cannot do.

use std::collections::BTreeSet;
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
use ikenat_tests::lab::topology::{CLIENT, VIP};
use ikenat_tests::lab::wire::{Wire, exchange, from_server, ike};
use ikenat_tests::suite::Scenario;
use xdp_core::Word;
use xdp_user::tables::mmap::{Memory, ReadOnlyWord};

use super::privileges::{Place, USER, prepare};
use crate::faults::bpffs::directory;
use crate::support::everything_crosses;
use crate::topology::host_peers;

pub(crate) fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario::new("only_members_of_the_group_read", group).with_programs(&["setpriv"]),
        Scenario::new("a_readers_locks_hold_up_nothing", readers_locks)
            .with_programs(&["setpriv", "flock"]),
        Scenario::new("readers_cannot_open_the_hash_key", hash_key),
        Scenario::new(
            "readers_see_the_hosts_peers_and_no_handshakes",
            what_is_seen,
        )
        .with_programs(&["setpriv", "iptables"]),
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
        .arg("default");
    let mut holder = Process::spawn(&mut holder, lab.log("holder"))?;
    holder.wait_for_log("locked ikenat/default", Duration::from_secs(10))?;
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

/// No pin that the group can open has a word of the key, and none shows digests or places of entries
/// that were made with the key of the tables that only root can open.
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
    let mut readable = BTreeSet::new();
    for entry in fs::read_dir(&pins)? {
        let entry = entry?;
        if entry.metadata()?.permissions().mode() & 0o077 != 0 {
            readable.insert(entry.file_name().to_string_lossy().into_owned());
        }
    }
    let expected = [
        "CPU",
        "FLOW",
        "FLOW_COLD",
        "HOSTPEER",
        "META",
        "NEXTHOP",
        "SERVICE",
        "SESSION",
        "SESSION_COLD",
        "VIP",
    ];
    ensure!(
        readable.iter().eq(expected),
        "the group can read {readable:?}"
    );
    for name in expected {
        let leaked = words(name)?.into_iter().any(|word| secret.contains(&word));
        ensure!(!leaked, "a word of the key is in {name}");
    }
    Ok(())
}

/// A member of the group sees the peers of the host, and no handshakes: HALF is closed.
fn what_is_seen(lab: &Lab) -> Result<()> {
    let place = prepare(lab)?;
    host_peers::prepare(lab)?;
    let _ikenat = Ikenat::start_with(lab, &["--group", &MEMBERS.to_string()])?;
    let wire = Wire::open(lab)?;
    host_peers::tunnel(&wire)?;
    wire.outbound(&from_server(
        500,
        500,
        ike(1, 2, exchange::IKE_SA_INIT, true, 200),
    ))?;
    let seen = |verb: &str| -> Result<serde_json::Value> {
        let json = execute(&mut as_member(lab, &place, MEMBERS, &[verb, "--json"]))?;
        let json: serde_json::Value = serde_json::from_str(&json).context("not JSON")?;
        Ok(json["instances"][0].clone())
    };
    let status = seen("status")?;
    let own = lab.status()?;
    let peers = status["host_peers"].as_array().context("no host_peers")?;
    ensure!(
        !peers.is_empty() && peers.len() == own.host_peers.len(),
        "{status}"
    );
    let tables = status["tables"].as_array().into_iter().flatten();
    let tables: Vec<&str> = tables.filter_map(|table| table["name"].as_str()).collect();
    ensure!(
        tables == ["FLOW", "SESSION", "HOSTPEER", "NEXTHOP"],
        "{tables:?}"
    );
    ensure!(own.tables.len() == 7, "{:?}", own.tables);
    let stats = seen("stats")?;
    ensure!(stats["sessions"] == serde_json::json!([]), "{stats}");
    ensure!(lab.stats()?.session(CLIENT).is_some(), "no handshake");
    Ok(())
}

fn closed_to(lab: &Lab, place: &Place, group: u32) -> Result<()> {
    let vip = VIP.to_string();
    for words in [&["stats"][..], &["status"], &["status", "--vip", &vip]] {
        let verb = words.join(" ");
        let output = as_member(lab, place, group, words).output()?;
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
