//! Tests that the harness of layer C can fail: gateways that corrupt, lose or delay packets on
//! purpose, and what it reports.
//!
//! Each test has a lab of its own; they need root and the built objects.

use anyhow::{Result, ensure};
use ikenat_bench::contest::{Standing, Start};
use ikenat_bench::kinds::Case;
use ikenat_bench::layer_c::BASE;
use ikenat_bench::layer_c::blocks::Scores;
use ikenat_bench::layer_c::paced::{self, LOSS, QUEUE};
use ikenat_bench::order::Random;
use ikenat_bench::results::{CRow, Contestant, Traffic};
use ikenat_bench::rig::Bench;
use ikenat_bench::wire::Outcome;
use ikenat_bench_abi::traffic::Wrong;
use std::time::Duration;

/// Packets of a single run: whole batches.
const PACKETS: u32 = 6_400;

fn standings<const N: usize>(contestants: [Contestant; N]) -> Result<Vec<Standing>> {
    let bench = Bench::new()?;
    let set_up = |contestant| Standing::on(&bench, contestant, 64, Start::Object);
    contestants.into_iter().map(set_up).collect()
}

/// Two blocks of a case.
fn rows(standings: &mut [Standing], case: Case) -> Result<Vec<CRow>> {
    let mut random = Random::new(1);
    let mut scores = Scores::new(case);
    scores.begin(standings, Duration::from_millis(2))?;
    for _ in 0..2 {
        scores.block(standings, &mut random)?;
    }
    scores.rows(&mut random)
}

/// The result of a case when the kernel forwards and does this with every packet on its way.
fn spoiled(standing: &mut Standing, case: Case, statement: &str) -> Result<Outcome> {
    standing.warm_up(&case)?;
    let before = standing.run(&case, PACKETS)?;
    before.complete()?;
    ensure!(before.gaps == 0, "{before:?}");
    standing.lab().gateway.shell(&format!(
        "nft add table ip spoil
         nft 'add chain ip spoil forward {{ type filter hook forward priority 0; }}'
         nft 'add rule ip spoil forward {statement}'"
    ))?;
    let outcome = standing.run(&case, PACKETS)?;
    standing.lab().gateway.run("nft delete table ip spoil")?;
    ensure!(outcome.complete().is_err(), "{outcome:?}");
    Ok(outcome)
}

#[test]
fn who_delivers_wrong_bytes_scores_zero() -> Result<()> {
    let mut standings = standings([Contestant::Noop, Contestant::Broken])?;
    let rows = rows(&mut standings, BASE)?;
    let [noop, broken] = &rows[..] else {
        anyhow::bail!("{rows:?}");
    };
    assert_eq!((noop.wrong, noop.lost), (0, 0));
    assert!(noop.blocks.iter().all(|&rate| rate > 10_000.0), "{noop:?}");
    // It has delivered as much as the no-op redirect, and as fast.
    assert_eq!((broken.wrong, broken.lost), (broken.sent, 0));
    assert_eq!(broken.blocks, [0.0, 0.0]);
    assert_eq!(broken.ratio.map(|ratio| ratio.high), Some(0.0));
    Ok(())
}

#[test]
fn a_harness_that_spoils_packets_itself_gives_no_rows() -> Result<()> {
    // A router between generator and sink, where none is expected.
    let mut standings = standings([Contestant::Forwarding])?;
    standings[0].contestant = Contestant::Noop;
    let error = rows(&mut standings, BASE).expect_err("its packets are wrong");
    assert!(
        error.to_string().contains("the harness is broken"),
        "{error:#}"
    );
    Ok(())
}

#[test]
fn every_kind_of_damage_is_found() -> Result<()> {
    let with_checksum = Case {
        traffic: Traffic::EspInUdpChecksum,
        ..BASE
    };
    let mut standing = standings([Contestant::Forwarding])?.remove(0);
    for (statement, case, wrong) in [
        ("udp checksum set 0x1234", with_checksum, Wrong::UdpChecksum),
        ("udp checksum set 0x1234", BASE, Wrong::UdpChecksum),
        ("ip ttl set 9", BASE, Wrong::IpField),
        ("ip saddr set 192.0.2.7", BASE, Wrong::Address),
        ("udp dport set 4501", BASE, Wrong::Header),
        // The SPI, after the eight bytes of UDP.
        ("@th,64,32 set 0x12345678", BASE, Wrong::Payload),
    ] {
        let outcome = spoiled(&mut standing, case, statement)?;
        assert_eq!(
            outcome.wrong[wrong as usize],
            u64::from(PACKETS),
            "{statement}: {:?}",
            outcome.wrong
        );
        assert_eq!(outcome.arrived, 0, "{statement}");
    }
    Ok(())
}

#[test]
fn lost_packets_and_the_gaps_they_leave_are_counted() -> Result<()> {
    let mut standing = standings([Contestant::Forwarding])?.remove(0);
    // One ESP sequence number in 64.
    let outcome = spoiled(&mut standing, BASE, "@th,96,32 & 0x3f == 5 drop")?;
    let lost = u64::from(PACKETS / 64);
    assert_eq!((outcome.lost(), outcome.wrongs()), (lost, 0));
    assert_eq!(outcome.gaps, lost);
    let loss = paced::loss(&outcome);
    assert!((loss - 1.0 / 64.0).abs() < 1e-9 && loss > LOSS, "{loss}");
    Ok(())
}

#[test]
fn more_than_the_cpu_can_take_is_lost() -> Result<()> {
    let mut standing = standings([Contestant::Noop])?.remove(0);
    let much = paced::at(&mut standing, &BASE, 100e6, 0.01, QUEUE)?;
    assert!(much.missed > 0 && paced::loss(&much) > 0.5, "{much:?}");
    assert_eq!((much.lost(), much.wrongs()), (0, 0));
    Ok(())
}

#[test]
fn at_a_pace_every_packet_has_an_age() -> Result<()> {
    let stamped = Case {
        stamped: true,
        ..BASE
    };
    let mut standing = standings([Contestant::Noop])?.remove(0);
    let little = paced::at(&mut standing, &stamped, 500e3, 0.05, u32::MAX)?;
    little.complete()?;
    assert_eq!(little.gaps, 0);
    assert_eq!(little.ages.iter().sum::<u64>(), little.sent);
    assert_eq!(little.missed, 0);
    let slow = paced::at(&mut standing, &stamped, 5e3, 0.05, u32::MAX);
    let error = slow.expect_err("6.4 ms from burst to burst");
    assert!(error.to_string().contains("keep the pace"), "{error:#}");
    Ok(())
}
