//! `--service NAME` of `stats`, `status`, `check` and `unload`: what belongs to other services is left
//! out, what all services share stays, and a name that no service has is refused.

use std::net::Ipv4Addr;

use anyhow::{Context, Result, ensure};
use ikenat_tests::lab::Lab;
use ikenat_tests::lab::frames::{Packet, protocol};
use ikenat_tests::lab::ikenat::{Ikenat, binary};
use ikenat_tests::lab::json::{HostPeer, InstanceStats, InstanceStatus, Stats, Status};
use ikenat_tests::lab::netns::execute;
use ikenat_tests::lab::raw_sender::raw_sender;
use ikenat_tests::lab::three_services::{SERVERS, VIPS, service, start};
use ikenat_tests::lab::topology::{CLIENT, LAN, PEER, WAN};
use ikenat_tests::lab::wire::{Wire, esp};
use ikenat_tests::suite::Scenario;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::lifecycle::instances::{OTHER_VIP, add_interfaces, start_in};
use crate::support::{
    attachments, everything_crosses, force_slow_path, nothing_is_left, sentence, wait_for_log,
};

pub(crate) fn scenarios() -> Vec<Scenario> {
    const TOOLS: &[&str] = &["tc", "bpftool"];
    vec![
        Scenario::new("status_shows_one_service", status),
        Scenario::new("a_service_is_of_one_of_two_instances", instances),
        Scenario::new("unload_removes_no_single_service", unload).with_programs(TOOLS),
        Scenario::new("unload_of_all_services_names_the_instance", unload_all).with_programs(TOOLS),
    ]
}

const VERBS: [&str; 4] = ["stats", "status", "check", "unload"];

/// The peers of the gateway itself, by the VIP that it sends from.
const HOST_PEERS: [Ipv4Addr; 2] = [
    Ipv4Addr::new(198, 51, 100, 11),
    Ipv4Addr::new(198, 51, 100, 12),
];

/// All VIPs are on the WAN, the second server beside the first, and the third on the gateway.
pub(crate) fn addresses(lab: &Lab) -> Result<()> {
    lab.server
        .run(&format!("ip address add {}/24 dev {PEER}", SERVERS[1]))?;
    lab.gateway.shell(&format!(
        "ip address add {}/24 dev {WAN}; ip address add {}/24 dev {WAN}
         ip address add 10.77.0.1/32 dev lo
         ip route replace default via {CLIENT}",
        VIPS[1], VIPS[2]
    ))?;
    Ok(())
}

/// An ordinary service, another one, and one whose server is the gateway.
fn start_three(lab: &Lab) -> Result<Ikenat> {
    addresses(lab)?;
    let (red, green, here) = (
        service(0),
        service(1),
        format!("here:{}=10.77.0.1", VIPS[2]),
    );
    let mut words = vec!["run", "--wan", WAN, "--lan", LAN];
    for one in [&red, &green, &here] {
        words.extend(["--service", one]);
    }
    Ikenat::run(lab, &lab.gateway, "ikenat", &words)
}

/// The gateway sends native ESP to a peer from each of the first two VIPs.
fn send_from_vips(lab: &Lab) -> Result<()> {
    let wire = Wire::open(lab)?;
    for (vip, peer) in VIPS.into_iter().zip(HOST_PEERS) {
        let packet = Packet::raw(vip, peer, protocol::ESP, esp(0xC700_0001, 1, 60));
        let sent = packet.build();
        raw_sender(&lab.gateway)?.send(&sent)?;
        let is_it = |frame: &[u8]| frame.get(30..34) == Some(&peer.octets()[..]);
        let found = wire.client.find(std::time::Duration::from_secs(3), is_it)?;
        ensure!(found.is_some(), "nothing came from {vip}");
    }
    Ok(())
}

/// The one instance of a document with this part selected.
fn one<T: DeserializeOwned>(lab: &Lab, verb: &str, services: &[&str]) -> Result<T> {
    let mut words = vec![verb, "--json"];
    words.extend(services.iter().flat_map(|name| ["--service", name]));
    let text = execute(&mut lab.ikenat(&words)?)?;
    serde_json::from_str(&text).with_context(|| text)
}

fn status_of(lab: &Lab, services: &[&str]) -> Result<InstanceStatus> {
    let mut status: Status = one(lab, "status", services)?;
    ensure!(status.instances.len() == 1, "{status:?}");
    status.instances.pop().context("no instance")
}

fn names(instance: &InstanceStatus) -> Vec<&str> {
    let services = instance.services.iter();
    services.map(|service| service.name.as_str()).collect()
}

fn peers(instance: &InstanceStatus) -> Vec<(&str, Ipv4Addr)> {
    let peer = |one: &'_ HostPeer| one.peer;
    let all = instance.host_peers.iter();
    let mut all: Vec<_> = all.map(|one| (one.service.as_str(), peer(one))).collect();
    all.sort_unstable();
    all
}

pub(crate) fn says(text: &str, words: &[&str], others: &[&str]) -> Result<()> {
    for word in words {
        ensure!(text.contains(word), "{word:?} is not in: {text}");
    }
    for other in others {
        ensure!(!text.contains(other), "{other:?} is in: {text}");
    }
    Ok(())
}

fn status(lab: &Lab) -> Result<()> {
    let _ikenat = start_three(lab)?;
    send_from_vips(lab)?;
    let all = status_of(lab, &[])?;
    let [red, green] = [("red", HOST_PEERS[0]), ("green", HOST_PEERS[1])];
    ensure!(names(&all) == ["red", "green", "here"], "{all:?}");
    ensure!(peers(&all) == [green, red], "{:?}", all.host_peers);
    let own = status_of(lab, &["green"])?;
    ensure!(
        names(&own) == ["green"] && peers(&own) == [green],
        "{own:?}"
    );
    // What the services share is still there.
    let shared = |one: &InstanceStatus| {
        let tables = one.tables.iter().map(|table| table.name.clone());
        let tables: Vec<String> = tables.collect();
        (
            one.attached.len(),
            one.redirect.len(),
            tables,
            one.reasons.len(),
        )
    };
    ensure!(shared(&own) == shared(&all), "{own:?} of {all:?}");
    let two = status_of(lab, &["here", "red"])?;
    ensure!(
        names(&two) == ["red", "here"] && peers(&two) == [red],
        "{two:?}"
    );
    status_as_text(lab)?;
    stats(lab)?;
    unknown(lab, "one of: green, here, red")
}

fn text(lab: &Lab, words: &[&str]) -> Result<String> {
    execute(&mut lab.ikenat(words)?)
}

/// How what is said of one service begins.
fn first_words() -> String {
    format!("Instance default: service green: VIP {}", VIPS[1])
}

fn status_as_text(lab: &Lab) -> Result<()> {
    let (vips, local) = (VIPS.map(|vip| vip.to_string()), "The server is this host");
    says(
        &text(lab, &["status"])?,
        &[
            "here: The server is this host",
            "SERVICE",
            &vips[0],
            &vips[1],
        ],
        &["below are those of all"],
    )?;
    let shown = text(lab, &["status", "--service", "green"])?;
    ensure!(shown.starts_with(&first_words()), "{shown}");
    says(
        &shown,
        &[
            "below are those of all services",
            "FLOW",
            "native",
            "198.51.100.12",
        ],
        &[
            "service red",
            &vips[0],
            "service here",
            local,
            "SERVICE",
            "198.51.100.11",
        ],
    )?;
    says(
        &text(lab, &["status", "--service", "here"])?,
        &[local, &vips[2]],
        &["here: The", &vips[1], "PEER OF THIS HOST"],
    )?;
    // Devices are those of all services: also for the one whose packets XDP does not redirect.
    force_slow_path(lab)?;
    for interface in [WAN, LAN] {
        wait_for_log(lab, &format!("{interface}: driver has no XDP transmit"))?;
    }
    for words in [&["status"][..], &["status", "--service", "here"]] {
        let lines = [WAN, LAN].map(|name| format!("{name}: no XDP transmit"));
        says(&text(lab, words)?, &[&lines[0], &lines[1]], &[])?;
    }
    Ok(())
}

/// `stats` leaves out the same.
fn stats(lab: &Lab) -> Result<()> {
    let mut stats: Stats = one(lab, "stats", &["green", "here"])?;
    let stats: InstanceStats = stats.instances.pop().context("no instance")?;
    let found: Vec<&str> = stats.services.iter().map(|one| one.name.as_str()).collect();
    ensure!(found == ["green", "here"], "{stats:?}");
    let shown = text(lab, &["stats", "--service", "green"])?;
    ensure!(shown.starts_with(&first_words()), "{shown}");
    let red = VIPS[0].to_string();
    says(
        &shown,
        &["No SPI of this selection"],
        &["service red", &red],
    )
}

/// Each verb refuses a name that no service has, and prints nothing else.
fn unknown(lab: &Lab, exist: &str) -> Result<()> {
    for (verb, status) in VERBS.into_iter().zip([1, 1, 2, 1]) {
        let mut command = lab.gateway.command(binary()?);
        command.args([verb, "--service", "red", "--service", "home"]);
        let output = command.arg("--bpffs").arg(lab.bpffs()).output()?;
        sentence(&output, &["no service home", "--service", exist])
            .with_context(|| verb.to_owned())?;
        ensure!(
            output.stdout.is_empty() && output.status.code() == Some(status),
            "{verb}: {output:?}"
        );
    }
    Ok(())
}

/// Another instance, without such a service, is not shown.
fn instances(lab: &Lab) -> Result<()> {
    add_interfaces(&lab.gateway)?;
    addresses(lab)?;
    let _first = start(lab, &[0, 1])?;
    let _second = start_in(lab, &lab.gateway, OTHER_VIP)?;
    for verb in VERBS {
        let key = if verb == "check" {
            "checks"
        } else {
            "instances"
        };
        let mut command = lab.gateway.command(binary()?);
        command.args([verb, "--service", "green"]);
        if verb == "unload" {
            let output = command.arg("--bpffs").arg(lab.bpffs()).output()?;
            sentence(&output, &["the instance default"])?;
            let text = String::from_utf8_lossy(&output.stderr);
            says(&text, &[], &["the instance other"])?;
            continue;
        }
        let output = command
            .arg("--json")
            .arg("--bpffs")
            .arg(lab.bpffs())
            .output()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let document: Value = serde_json::from_str(&text).with_context(|| text.clone())?;
        let shown = document[key].as_array().context("an array")?;
        ensure!(
            shown.len() == 1 && shown[0]["services"][0]["name"] == "green",
            "{verb}: {text}"
        );
    }
    unknown(lab, "one of: default, green, red")
}

/// `unload` with these words refuses with these sentences and not with others, and changes nothing.
fn refuses(lab: &Lab, words: &[&str], said: &[&str], not: &[&str]) -> Result<()> {
    let attached = attachments(lab)?;
    let output = lab.ikenat(&[&["unload"], words].concat())?.output()?;
    sentence(&output, said).with_context(|| format!("{words:?}"))?;
    ensure!(output.stdout.is_empty(), "{output:?}");
    says(&String::from_utf8_lossy(&output.stderr), &[], not)?;
    ensure!(attachments(lab)? == attached, "{words:?} changed something");
    everything_crosses(lab)
}

/// One of two services stays if it is started alone, with the options of the daemon.
fn unload(lab: &Lab) -> Result<()> {
    addresses(lab)?;
    let ikenat = start(lab, &[0, 1])?;
    let run = format!(
        "ikenat run --wan {WAN} --lan {LAN} --service {}",
        service(0)
    );
    let other = format!("green:{}", VIPS[1]);
    let green = ["--service", "green"];
    let stop = "stop its daemon (SIGTERM)";
    refuses(lab, &green, &["nothing is removed", stop, &run], &[&other])?;
    let forced = ["--service", "green", "--force"];
    refuses(lab, &forced, &["nothing is removed", &run], &[&other])?;
    ikenat.kill()?;
    refuses(lab, &green, &["nothing is removed", &run], &[&other])?;
    let bpffs = format!("--bpffs {}", lab.bpffs().display());
    let more = format!("{run} {bpffs} # and --except-peer, --deny");
    refuses(lab, &green, &[&more], &[])?;
    // The daemon has options that the tables do not hold.
    let options = "--except-peer 198.51.100.0/24 --deny 192.0.2.7/32 --idle-timeout 600";
    let more = format!(
        "run --wan {WAN} --lan {LAN} --service {} --service {} {options}",
        service(0),
        service(1)
    );
    let words: Vec<&str> = more.split(' ').collect();
    let _ikenat = Ikenat::run(lab, &lab.gateway, "ikenat", &words)?;
    let said = format!("{run} {options} {bpffs}");
    refuses(lab, &green, &[&said, "systemd unit"], &["# and", &other])
}

/// Without one that stays it is the whole instance, and that is removed by its name.
fn unload_all(lab: &Lab) -> Result<()> {
    let before = attachments(lab)?;
    addresses(lab)?;
    start(lab, &[0, 1])?.kill()?;
    let bpffs = format!("--bpffs {}", lab.bpffs().display());
    let whole = &format!("ikenat unload --instance default {bpffs}");
    let both = ["--service", "green", "--service", "red"];
    let said = ["no other service than red, green", whole];
    refuses(lab, &both, &said, &["ikenat run"])?;
    let one = start(lab, &[0])?;
    ensure!(names(&lab.status()?) == ["red"], "{:?}", lab.status()?);
    let red = ["--service", "red", "--force"];
    refuses(lab, &red, &["no other service than red", whole], &[])?;
    one.kill()?;
    // What it says, done.
    execute(&mut lab.ikenat(&["unload", "--instance", "default"])?)?;
    nothing_is_left(lab, &before)?;
    let output = lab.ikenat(&["unload", "--service", "red"])?.output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    ensure!(
        output.status.success() && text.contains("Nothing to remove"),
        "{output:?}"
    );
    Ok(())
}
