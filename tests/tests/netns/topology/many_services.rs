//! As many services as one instance has, and one more.

use std::net::Ipv4Addr;

use anyhow::{Result, ensure};
use ikenat_tests::lab::Lab;
use ikenat_tests::lab::frames::Packet;
use ikenat_tests::lab::ikenat::Ikenat;
use ikenat_tests::lab::topology::{LAN, SERVER, WAN};
use ikenat_tests::lab::wire::{
    Wire, at_client, at_server, esp, from_client, from_server, raw_from_client,
};
use ikenat_tests::suite::Scenario;

use crate::support::{attachments, pins, sentence, timed_command};

pub(crate) fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario::new("as_many_services_as_there_are_numbers", all)
            .with_programs(&["tc", "bpftool"]),
    ]
}

/// How many services one instance has at most.
const COUNT: u16 = 256;

/// The VIP and the server of a service, counted from zero.
fn ends(number: u16) -> [Ipv4Addr; 2] {
    let [high, low] = number.to_be_bytes();
    [
        Ipv4Addr::new(100, 72, high, low),
        Ipv4Addr::new(172, 20, high, low),
    ]
}

/// The options of the first services.
fn options(count: u16) -> Vec<String> {
    let mut words: Vec<String> = ["run", "--wan", WAN, "--lan", LAN]
        .map(str::to_owned)
        .into();
    for number in 0..count {
        let [vip, server] = ends(number);
        words.push("--service".to_owned());
        words.push(format!("office-{number}:{vip}={server}"));
    }
    words
}

/// A packet in each direction arrives by each of some services.
fn cross(wire: &Wire, services: &[u16], sequence: u32) -> Result<()> {
    for number in services {
        let [vip, server] = ends(*number);
        let inbound = |packet: Packet| {
            let (mut sent, mut wanted) = (packet.clone(), at_server(&packet));
            (sent.destination, wanted.destination) = (vip, server);
            wire.inbound_frames(&[sent.build()], &[wanted.build()])
        };
        let outbound = |packet: Packet| {
            let (mut sent, mut wanted) = (packet.clone(), at_client(&packet));
            (sent.source, wanted.source) = (server, vip);
            wire.outbound_frames(&[sent.build()], &[wanted.build()])
        };
        outbound(from_server(4500, 4500, esp(0xC000_0301, sequence, 60)))?;
        inbound(from_client(4500, 4500, esp(0xC000_0302, sequence, 60)))?;
        inbound(raw_from_client(50, esp(0xC000_0303, sequence, 60)))?;
    }
    Ok(())
}

/// The first and the last of 256 services are served, and one more is refused before anything is touched.
fn all(lab: &Lab) -> Result<()> {
    let addresses: String = (0..COUNT)
        .map(|number| format!("ip address add {}/32 dev {WAN}\n", ends(number)[0]))
        .collect();
    lab.gateway.shell(&format!(
        "{addresses}ip route add 172.20.0.0/16 via {SERVER} dev {LAN}"
    ))?;
    let words = options(COUNT);
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let _ikenat = Ikenat::run(lab, &lab.gateway, "ikenat", &words)?;
    let wire = Wire::open(lab)?;
    let some = [0, 1, COUNT / 2, COUNT - 1];
    cross(&wire, &some, 1)?;
    let names = |lab: &Lab| -> Result<Vec<String>> {
        let stats = lab.stats()?;
        Ok(stats.spis.iter().map(|spi| spi.service.clone()).collect())
    };
    for number in some {
        let own = format!("office-{number}");
        let spis = names(lab)?.iter().filter(|name| **name == own).count();
        ensure!(spis == 3, "{own} has {spis} SPIs");
    }
    let (attached, pinned) = (attachments(lab)?, pins(&lab.bpffs())?);
    let mut command = timed_command(lab, &options(COUNT + 1))?;
    let refused = command.arg("--bpffs").arg(lab.bpffs()).output()?;
    sentence(&refused, &["257", "256"])?;
    ensure!(attachments(lab)? == attached, "something has changed");
    ensure!(pins(&lab.bpffs())? == pinned, "a pin has changed");
    cross(&wire, &some, 2)
}
