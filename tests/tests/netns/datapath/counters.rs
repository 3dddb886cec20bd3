//! The output of `stats` and `status` about packets that were sent one by one.

use anyhow::{Context, Result, ensure};
use ikenat_tests::lab::Lab;
use ikenat_tests::lab::direction::Direction;
use ikenat_tests::lab::frames::protocol;
use ikenat_tests::lab::ikenat::Ikenat;
use ikenat_tests::lab::json::{Both, InstanceStatus, Kind, State};
use ikenat_tests::lab::topology::{CLIENT, CLIENT_2, LAN, WAN};
use ikenat_tests::lab::wire::{
    Wire, at_client, esp, esp_from_server, exchange, from_client, from_server, ike, marked,
    raw_from_client, with_client,
};
use ikenat_tests::suite::Scenario;

pub(crate) fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario::new("stats_shows_what_was_sent", stats),
        Scenario::new("status_shows_what_is_attached_and_counts_reasons", status),
        Scenario::new(
            "half_open_and_established_peers_are_distinguished",
            half_open,
        ),
    ]
}

fn stats(lab: &Lab) -> Result<()> {
    const NATIVE: u32 = 0xC000_0010;
    const IN_UDP: u32 = 0xC000_0020;
    let _ikenat = Ikenat::start(lab)?;
    let wire = Wire::open(lab)?;
    wire.outbound(&esp_from_server(esp(NATIVE, 7, 52)))?;
    wire.outbound(&from_server(4500, 40_000, esp(IN_UDP, 1, 52)))?;
    for sequence in [10, 11, 15, 14, 16] {
        wire.inbound(&from_client(40_000, 4500, esp(IN_UDP + 1, sequence, 52)))?;
        wire.inbound(&raw_from_client(
            protocol::ESP,
            esp(NATIVE + 1, sequence, 52),
        ))?;
    }
    wire.inbound(&from_client(40_000, 4500, vec![0xFF]))?;

    let stats = lab.stats()?;
    stats.check_conservation()?;
    for (spi, kind, port) in [
        (IN_UDP + 1, Kind::EspInUdp, Some(40_000)),
        (NATIVE + 1, Kind::Esp, None),
    ] {
        let entry = stats
            .spi(CLIENT, spi, Direction::Inbound)
            .with_context(|| format!("{:?}", stats.spis))?;
        ensure!(
            entry.kind == kind
                && entry.port == port
                && entry.packets == 5
                && (5 * 60..=5 * 110).contains(&entry.bytes)
                && (
                    entry.first_sequence,
                    entry.last_sequence,
                    entry.highest_sequence
                ) == (10, 16, 16)
                && (entry.reordered, entry.estimated_loss) == (1, 2)
                && entry.first_seen_secs >= entry.last_seen_secs
                && entry.first_seen_secs < 30.0,
            "10, 11, 15, 14, 16 were sent, shown is {entry:?}"
        );
    }
    let entry = stats
        .spi(CLIENT, NATIVE, Direction::Outbound)
        .with_context(|| format!("{:?}", stats.spis))?;
    ensure!(
        entry.packets == 1 && entry.highest_sequence == 7,
        "one packet was sent, shown is {entry:?}"
    );
    let keepalives: u64 = stats
        .sessions
        .iter()
        .map(|session| session.keepalive.inbound)
        .sum();
    ensure!(
        keepalives == 1,
        "one keepalive was sent: {:?}",
        stats.sessions
    );
    Ok(())
}

fn status(lab: &Lab) -> Result<()> {
    let _ikenat = Ikenat::start(lab)?;
    let wire = Wire::open(lab)?;
    let sum = |status: &InstanceStatus, outcome: &str| -> u64 {
        status
            .reasons
            .iter()
            .filter(|reason| reason.outcome == outcome)
            .map(|reason| reason.count)
            .sum()
    };
    wire.inbound(&from_client(4500, 4500, esp(0xC000_0001, 1, 52)))?;
    let before = lab.status()?;
    // The slow path is attached by whichever of the two the kernel has.
    let slow = ["tcx", "clsact"].as_slice();
    for (interface, hooks, mode) in [
        (WAN, ["xdp"].as_slice(), "native"),
        (LAN, &["xdp"], "native"),
        (WAN, slow, "ingress"),
        (LAN, slow, "ingress"),
        (WAN, slow, "egress"),
    ] {
        let here = before
            .attached
            .iter()
            .filter(|program| program.interface == interface && program.mode == mode)
            .filter(|program| hooks.contains(&program.hook.as_str()));
        ensure!(
            here.count() == 1,
            "not one {hooks:?} program, {mode}, on {interface}: {:?}",
            before.attached
        );
    }
    ensure!(before.attached.len() == 5, "{:?}", before.attached);
    let xdp = before
        .attached
        .iter()
        .filter(|program| program.hook == "xdp");
    ensure!(
        xdp.clone().all(|program| program.mode == "native"),
        "not native: {:?}",
        before.attached
    );
    ensure!(!before.tables.is_empty(), "no table is shown");
    for table in &before.tables {
        ensure!(
            table.entries <= table.limit
                && table.limit > 0
                && table.bytes > 0
                && !table.when_full.is_empty(),
            "a table that says too little: {table:?}"
        );
    }
    for sequence in 2..=11 {
        wire.inbound(&from_client(4500, 4500, esp(0xC000_0001, sequence, 52)))?;
    }
    for _ in 0..10 {
        wire.punted_on_wan(&from_client(4500, 53, vec![1; 30]).build())?;
    }
    let after = lab.status()?;
    let (forwarded, punted) = (
        sum(&after, "forwarded") - sum(&before, "forwarded"),
        sum(&after, "punted") - sum(&before, "punted"),
    );
    // Neighbour discovery of the lab itself is punted too.
    ensure!(
        forwarded == 10 && punted >= 10,
        "10 and 10 were sent, counted {forwarded} and {punted}: {:?}",
        after.reasons
    );
    ensure!(
        sum(&after, "dropped") == 0,
        "something was dropped: {:?}",
        after.reasons
    );
    Ok(())
}

fn half_open(lab: &Lab) -> Result<()> {
    const INITIATOR: u64 = 0xAAAA_BBBB_CCCC_DDDD;
    const RESPONDER: u64 = 0x1234_5678_9ABC_DEF0;
    const RESPONDER_2: u64 = RESPONDER + 2;
    let _ikenat = Ikenat::start(lab)?;
    let wire = Wire::open(lab)?;
    let init = ike(INITIATOR, 0, exchange::IKE_SA_INIT, false, 200);
    let answer = ike(INITIATOR, RESPONDER, exchange::IKE_SA_INIT, true, 200);
    let state = |client| -> Result<Option<State>> {
        Ok(lab.stats()?.session(client).map(|session| session.state))
    };

    wire.inbound(&from_client(500, 500, init.clone()))?;
    wire.inbound(&with_client(from_client(500, 500, init), CLIENT_2))?;
    // The server answers every spoofed IKE_SA_INIT: that proves nothing.
    wire.outbound(&from_server(500, 500, answer))?;
    let answer = ike(INITIATOR, RESPONDER_2, exchange::IKE_SA_INIT, true, 200);
    let packet = with_client(from_server(500, 500, answer), CLIENT_2);
    wire.outbound_frames(&[packet.build()], &[at_client(&packet).build()])?;
    ensure!(
        state(CLIENT)? == Some(State::HalfOpen),
        "after the answer: {:?}",
        state(CLIENT)?
    );

    // A guessed responder SPI proves nothing either.
    let guessed = marked(&ike(
        INITIATOR,
        RESPONDER + 1,
        exchange::IKE_AUTH,
        false,
        300,
    ));
    wire.inbound(&with_client(from_client(4500, 4500, guessed), CLIENT_2))?;
    ensure!(
        state(CLIENT_2)? == Some(State::HalfOpen),
        "after a guess: {:?}",
        state(CLIENT_2)?
    );
    // Only the receiver of the answer knows its SPI.
    let proof = marked(&ike(INITIATOR, RESPONDER, exchange::IKE_AUTH, false, 300));
    wire.inbound(&from_client(4500, 4500, proof))?;
    let stats = lab.stats()?;
    let session = stats.session(CLIENT).context("the session is gone")?;
    ensure!(
        session.state == State::Established,
        "after the proof: {session:?}"
    );
    ensure!(
        session.natt_ike
            == Both {
                inbound: 1,
                outbound: 0
            },
        "one message on 4500: {session:?}"
    );
    Ok(())
}
