//! A start with other services over the tables of the last one: it is an exchange, and the counters
//! go on.

use std::fs;
use std::net::Ipv4Addr;

use anyhow::{Context, Result, ensure};
use ikenat_tests::lab::Lab;
use ikenat_tests::lab::direction::Direction;
use ikenat_tests::lab::ikenat::{Ikenat, binary};
use ikenat_tests::lab::process::Process;
use ikenat_tests::lab::topology::{CLIENT, LAN, SERVER, VIP, WAN};
use ikenat_tests::lab::wire::{Wire, at_client, at_server, esp, from_client, from_server};
use ikenat_tests::suite::Scenario;
use xdp_user::failpoints::Step;

use crate::failpoints::{WISH, died_at, steps_of};

pub(crate) fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario::new("another_vip_is_an_exchange", another_vip),
        Scenario::new("a_change_of_the_vip_that_dies_is_completed", dies),
        Scenario::new("a_service_of_another_name_is_another_one", another_name),
    ]
}

const NEW: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 9);
const IN: u32 = 0xC000_0101;
const OUT: u32 = 0xC000_0102;

fn start(lab: &Lab, service: &str) -> Result<Ikenat> {
    let words = ["run", "--wan", WAN, "--lan", LAN, "--service", service];
    Ikenat::run(lab, &lab.gateway, "ikenat", &words)
}

/// One packet of each SPI crosses, by this VIP.
fn crosses(wire: &Wire, vip: Ipv4Addr, sequence: u32) -> Result<()> {
    let mut sent = from_client(4500, 4500, esp(IN, sequence, 52));
    let wanted = at_server(&sent);
    sent.destination = vip;
    wire.inbound_frames(&[sent.build()], &[wanted.build()])?;
    let sent = from_server(4500, 4500, esp(OUT, sequence, 52));
    let mut wanted = at_client(&sent);
    wanted.source = vip;
    wire.outbound_frames(&[sent.build()], &[wanted.build()])
}

/// The packets of both SPIs, and the number of the set of tables.
fn counted(lab: &Lab) -> Result<([u64; 2], u64)> {
    let stats = lab.stats()?;
    let packets = |spi, direction| {
        let found = stats.spi(CLIENT, spi, direction);
        found.map_or(0, |found| found.packets)
    };
    let both = [
        packets(IN, Direction::Inbound),
        packets(OUT, Direction::Outbound),
    ];
    ensure!(stats.session(CLIENT).is_some(), "no session: {stats:?}");
    Ok((both, stats.generation))
}

/// The daemon has logged these words.
fn logged(lab: &Lab, words: [&str; 2]) -> Result<()> {
    let log = fs::read_to_string(lab.log("ikenat"))?;
    for words in words {
        ensure!(log.contains(words), "{words:?} is not in: {log}");
    }
    Ok(())
}

fn another_vip(lab: &Lab) -> Result<()> {
    lab.gateway
        .run(&format!("ip address add {NEW}/24 dev {WAN}"))?;
    let wire = Wire::open(lab)?;
    let first = start(lab, &format!("default:{VIP}={SERVER}"))?;
    // The server's packet is the proof, so it is the first one.
    wire.outbound(&from_server(4500, 4500, esp(OUT, 1, 52)))?;
    crosses(&wire, VIP, 2)?;
    let (before, generation) = counted(lab)?;
    ensure!(before == [1, 2], "{before:?}");
    first.terminate()?;
    let second = start(lab, &format!("default:{NEW}={SERVER}"))?;
    logged(
        lab,
        [
            "service default: VIP 203.0.113.1 -> 203.0.113.9;",
            "counters continue",
        ],
    )?;
    ensure!(lab.status()?.serves(NEW) && !lab.status()?.serves(VIP));
    crosses(&wire, NEW, 3)?;
    ensure!(counted(lab)? == ([2, 3], generation), "{:?}", counted(lab)?);
    // The old one is an address of the host like any other.
    let old = from_client(4500, 4500, esp(IN, 4, 52));
    wire.punted_on_wan(&old.build())?;
    // And back.
    second.kill()?;
    let _third = start(lab, &format!("default:{VIP}={SERVER}"))?;
    crosses(&wire, VIP, 4)?;
    ensure!(counted(lab)? == ([3, 4], generation), "{:?}", counted(lab)?);
    Ok(())
}

/// A start with another VIP, with a wish to the failpoints.
fn faulty(lab: &Lab, wish: &str) -> Result<Process> {
    let mut command = lab.gateway.command(binary()?);
    command.args(["run", "--wan", WAN, "--lan", LAN, "--service"]);
    command.arg(format!("default:{NEW}={SERVER}"));
    command.arg("--bpffs").arg(lab.bpffs()).env(WISH, wish);
    Process::spawn(&mut command, lab.log("ikenat-fault"))
}

/// Before anything is exchanged, when META is described, and at the end.
fn dies(lab: &Lab) -> Result<()> {
    lab.gateway
        .run(&format!("ip address add {NEW}/24 dev {WAN}"))?;
    let wire = Wire::open(lab)?;
    let old = format!("default:{VIP}={SERVER}");
    start(lab, &old)?.kill()?;
    let steps = steps_of(faulty(lab, "list")?)?;
    let mut proof = at_client(&from_server(4500, 4500, esp(OUT, 1, 52)));
    proof.source = NEW;
    let sent = from_server(4500, 4500, esp(OUT, 1, 52));
    wire.outbound_frames(&[sent.build()], &[proof.build()])?;
    for (round, step) in (1..).zip([Step::EgressesSet, Step::Described, Step::VersionWritten]) {
        start(lab, &old)?.kill()?;
        let number = steps.iter().rposition(|name| *name == step.name());
        let number = number.with_context(|| format!("no {} in {steps:?}", step.name()))? + 1;
        died_at(faulty(lab, &format!("kill:{number}"))?, number)?;
        // It is readable whatever step was the last one, and the next start completes it.
        let found = lab.status()?;
        ensure!(found.serves(VIP) != found.serves(NEW), "{found:?}");
        let _next = start(lab, &format!("default:{NEW}={SERVER}"))?;
        ensure!(lab.status()?.serves(NEW), "{}", step.name());
        crosses(&wire, NEW, round + 1)?;
        let (counts, _) = counted(lab)?;
        ensure!(
            counts == [u64::from(round), u64::from(round) + 1],
            "{counts:?}"
        );
    }
    Ok(())
}

fn another_name(lab: &Lab) -> Result<()> {
    start(lab, &format!("home:{VIP}={SERVER}"))?.kill()?;
    let _second = start(lab, &format!("office:{VIP}={SERVER}"))?;
    logged(
        lab,
        [
            "service office: new;",
            "service home: removed, with 203.0.113.1;",
        ],
    )?;
    let services = lab.status()?.services;
    ensure!(
        services.len() == 1 && services[0].name == "office",
        "{services:?}"
    );
    let text = lab.status()?;
    ensure!(text.serves(VIP), "{text:?}");
    Ok(())
}
