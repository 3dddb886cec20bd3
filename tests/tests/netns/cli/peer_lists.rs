//! `--except-peer` and `--deny`: which peers' packets are left to the gateway, which are dropped,
//! and the messages about invalid lists.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ikenat_tests::lab::Lab;
use ikenat_tests::lab::frames::{Packet, not_ipv4, protocol};
use ikenat_tests::lab::ikenat::{Ikenat, usual_arguments};
use ikenat_tests::lab::netns::execute;
use ikenat_tests::lab::topology::{CLIENT_2, CLIENT_MAC, WAN_MAC};
use ikenat_tests::lab::wire::{
    Wire, esp, esp_from_server, exchange, from_client, from_server, ike, raw_from_client,
    with_client,
};
use ikenat_tests::suite::Scenario;

use crate::support::{count, everything_crosses, refused, timed_command};

pub(crate) fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario::new("a_denied_peer_gets_nothing_and_others_all", denied),
        Scenario::new("an_excepted_peer_is_left_to_the_gateway", excepted),
        Scenario::new("a_new_deny_stops_a_flow_of_the_fast_path_at_once", at_once),
        Scenario::new("the_longest_prefix_of_both_lists_counts", longest),
        Scenario::new("invalid_peer_lists_are_named", impossible).with_programs(&["tc", "bpftool"]),
    ]
}

const SILENCE: Duration = Duration::from_millis(100);

/// One packet of each kind from the client, and one of each to it.
fn of_each_kind() -> (Vec<Packet>, Vec<Packet>) {
    let message = ike(0x1111, 0x2222, exchange::IKE_AUTH, false, 120);
    let inbound = vec![
        from_client(500, 500, message.clone()),
        from_client(4500, 4500, esp(0xC000_0001, 1, 60)),
        raw_from_client(protocol::ESP, esp(0xC000_0003, 1, 60)),
    ];
    let outbound = vec![
        from_server(500, 500, message),
        from_server(4500, 4500, esp(0xC000_0002, 1, 60)),
        esp_from_server(esp(0xC000_0004, 1, 60)),
    ];
    (inbound, outbound)
}

fn nothing_crosses(wire: &Wire) -> Result<()> {
    let (inbound, outbound) = of_each_kind();
    for (from, to, packets) in [
        (&wire.client, &wire.server, inbound),
        (&wire.server, &wire.client, outbound),
    ] {
        to.drain()?;
        for packet in packets {
            from.send(&packet.build())?;
        }
        to.expect_silence(SILENCE, not_ipv4)?;
    }
    Ok(())
}

fn second_client_crosses(wire: &Wire) -> Result<()> {
    let (inbound, outbound) = of_each_kind();
    for packet in inbound {
        wire.inbound(&with_client(packet, CLIENT_2))?;
    }
    for packet in outbound {
        wire.outbound(&with_client(packet, CLIENT_2))?;
    }
    Ok(())
}

fn denied(lab: &Lab) -> Result<()> {
    let _ikenat = Ikenat::start_with(lab, &["--deny", "203.0.113.10"])?;
    let wire = Wire::open(lab)?;
    nothing_crosses(&wire)?;
    let found = count(lab, "xdp", "denied")? + count(lab, "tc", "denied")?;
    ensure!(found == 6, "{found} of 6 packets are counted as denied");
    second_client_crosses(&wire)?;
    let status = execute(&mut lab.ikenat(&["status"])?)?;
    ensure!(status.contains("1 prefix of --deny"), "{status}");
    Ok(())
}

fn excepted(lab: &Lab) -> Result<()> {
    let _ikenat = Ikenat::start_with(lab, &["--except-peer", "203.0.113.8/30"])?;
    let wire = Wire::open(lab)?;
    let (inbound, outbound) = of_each_kind();
    for packet in inbound {
        wire.punted_on_wan(&packet.build())?;
    }
    // The kernel routes them as they are.
    for packet in outbound {
        let mut routed = packet.clone().with_macs(CLIENT_MAC, WAN_MAC);
        routed.ttl -= 1;
        wire.outbound_frames(&[packet.build()], &[routed.build()])?;
    }
    let found = count(lab, "xdp", "except-peer")?;
    ensure!(
        found == 6,
        "{found} of 6 packets are counted as except-peer"
    );
    // 203.0.113.11 is in 203.0.113.8/30 as well; the next one up is not.
    let outside = with_client(
        from_client(4500, 4500, esp(0xC000_0005, 1, 60)),
        [203, 0, 113, 12].into(),
    );
    wire.inbound(&outside)
}

/// The flow has a next hop, by which the fast path sends without asking anything.
fn at_once(lab: &Lab) -> Result<()> {
    let ikenat = Ikenat::start(lab)?;
    let wire = Wire::open(lab)?;
    for sequence in 1..=40 {
        wire.outbound(&from_server(4500, 4500, esp(0xC000_0002, sequence, 60)))?;
        wire.inbound(&from_client(4500, 4500, esp(0xC000_0001, sequence, 60)))?;
    }
    ensure!(count(lab, "xdp", "esp-in-udp-in")? > 30, "no fast path");
    ikenat.kill()?;
    let ikenat = Ikenat::start_with(lab, &["--deny", "203.0.113.0/24"])?;
    let [server, client] = [&wire.server, &wire.client];
    server.drain()?;
    client.drain()?;
    for sequence in 41..=60 {
        server.send(&from_server(4500, 4500, esp(0xC000_0002, sequence, 60)).build())?;
        client.send(&from_client(4500, 4500, esp(0xC000_0001, sequence, 60)).build())?;
    }
    server
        .expect_silence(SILENCE, not_ipv4)
        .context("at the server")?;
    client
        .expect_silence(SILENCE, not_ipv4)
        .context("at the client")?;
    let found = count(lab, "xdp", "denied")?;
    ensure!(found == 40, "{found} of 40 packets are counted as denied");
    ikenat.kill()?;
    // And back.
    let _ikenat = Ikenat::start(lab)?;
    everything_crosses(lab)
}

fn longest(lab: &Lab) -> Result<()> {
    let lists = ["--deny", "203.0.113.0/24", "--except-peer", "203.0.113.11"];
    let _ikenat = Ikenat::start_with(lab, &lists)?;
    let wire = Wire::open(lab)?;
    nothing_crosses(&wire)?;
    let (inbound, _) = of_each_kind();
    for packet in inbound {
        wire.punted_on_wan(&with_client(packet, CLIENT_2).build())?;
    }
    Ok(())
}

fn impossible(lab: &Lab) -> Result<()> {
    let many: Vec<String> = (0..1025_u32)
        .map(|number| format!("--deny=10.0.{}.{}", number / 256, number % 256))
        .collect();
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
    let cases: [(Vec<String>, &[&str]); 5] = [
        (
            words(&["--deny", "203.0.113.10/24"]),
            &["--deny", "203.0.113.0/24", "203.0.113.10/32"],
        ),
        (
            words(&["--except-peer", "vpn.example"]),
            &["--except-peer", "vpn.example", "198.51.100.0/24"],
        ),
        (
            words(&["--deny", "203.0.113.0/33"]),
            &["--deny", "at most 32"],
        ),
        (
            words(&["--deny", "10.0.0.0/8", "--except-peer", "10.0.0.0/8"]),
            &["10.0.0.0/8", "--except-peer", "--deny", "remove one"],
        ),
        (many, &["1025", "1024"]),
    ];
    for (more, names) in cases {
        let mut command = timed_command(lab, &[usual_arguments(), more].concat())?;
        command.arg("--bpffs").arg(lab.bpffs());
        refused(lab, command, names)?;
    }
    Ok(())
}
