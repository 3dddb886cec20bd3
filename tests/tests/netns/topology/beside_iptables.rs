//! A dry run beside the iptables rules that `ikenat` replaces: it changes no byte of their output.

use std::net::Ipv4Addr;

use anyhow::{Context, Result, ensure};
use ikenat_tests::lab::Lab;
use ikenat_tests::lab::direction::Direction;
use ikenat_tests::lab::frames::{Packet, protocol};
use ikenat_tests::lab::icmp_errors::{Peers, time_exceeded};
use ikenat_tests::lab::ikenat::Ikenat;
use ikenat_tests::lab::topology::CLIENT_2;
use ikenat_tests::lab::wire::{
    Wire, esp, esp_from_server, exchange, from_client, from_server, ike, raw_from_client,
    with_client,
};
use ikenat_tests::suite::Scenario;

pub(crate) fn scenarios() -> Vec<Scenario> {
    vec![Scenario::new(
        "a_dry_run_changes_no_byte_of_the_kernels_nat",
        dry_run,
    )]
}

const SPI: u32 = 0xC321_0006;

/// One packet of each kind each direction, between the server and a client.
fn packets(client: Ipv4Addr, sequence: u32) -> Vec<(Packet, Packet)> {
    let message = ike(1, 2, exchange::IKE_AUTH, false, 120);
    [
        (
            from_client(500, 500, message.clone()),
            from_server(500, 500, message),
        ),
        (
            from_client(4500, 4500, esp(SPI, sequence, 60)),
            from_server(4500, 4500, esp(SPI, sequence, 60)),
        ),
        (
            raw_from_client(protocol::ESP, esp(SPI, sequence, 61)),
            esp_from_server(esp(SPI, sequence, 61)),
        ),
    ]
    .map(|(inbound, outbound)| (with_client(inbound, client), with_client(outbound, client)))
    .into()
}

/// The existing rules keep working: the same bytes with and without the dry run, and its counters
/// show what it would have done.
fn dry_run(lab: &Lab) -> Result<()> {
    let mut peers = Peers::route(lab)?;
    lab.kernel_nat()?;
    let wire = Wire::open(lab)?;
    let clients = [CLIENT_2, peers.fresh()];
    // The kernel's rules translate UDP; its conntrack wants the client to begin.
    let both_ways = |sequences: std::ops::Range<u32>| -> Result<()> {
        for client in clients {
            for sequence in sequences.clone() {
                for (inbound, outbound) in packets(client, sequence) {
                    wire.inbound(&inbound)?;
                    wire.outbound(&outbound)?;
                }
            }
            let mut ends = packets(client, 1)[1].0.clone();
            ends.ttl = 1;
            wire.answered(Direction::Inbound, &ends, &time_exceeded())?;
            wire.client
                .expect_silence(std::time::Duration::from_millis(20), |frame| {
                    frame[12..14] != [8, 0]
                })
                .context("answered twice")?;
        }
        Ok(())
    };
    both_ways(1..6).context("without ikenat")?;
    let ikenat = Ikenat::start_with(lab, &["--dry-run"])?;
    both_ways(6..11).context("with a dry run")?;
    let status = lab.status()?;
    for name in [
        "ike-in",
        "ike-out",
        "esp-in-udp-in",
        "esp-in-udp-out",
        "esp-in",
        "esp-out",
    ] {
        let count = status.count("forwarded", name);
        ensure!(count == 10, "{name} is {count}: {}", status.given());
    }
    let stats = lab.stats()?;
    stats.check_conservation()?;
    ensure!(
        (
            stats.totals.esp.inbound.packets,
            stats.totals.esp.outbound.packets
        ) == (20, 20),
        "{:?}",
        stats.totals
    );
    // It drops no packets either.
    ikenat.terminate()?;
    let _ikenat = Ikenat::start_with(lab, &["--dry-run", "--deny", &format!("{}/32", clients[1])])?;
    both_ways(11..13).context("with a dry run that would deny")?;
    let count = lab.status()?.count("dropped", "denied");
    ensure!(count >= 6, "denied was counted {count} times");
    Ok(())
}
