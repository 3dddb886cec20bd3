//! ICMP errors of other hosts about handled packets, translated by the quoted packet in both
//! directions; and ICMP that is not handled.

use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ikenat_tests::lab::direction::Direction;
use ikenat_tests::lab::frames::icmp::{code, kind};
use ikenat_tests::lab::frames::{Checksum, Icmp, Packet, not_ipv4, protocol};
use ikenat_tests::lab::icmp_errors::{
    Peers, about, counted, error_at_client, error_at_server, error_from_inside, error_from_outside,
};
use ikenat_tests::lab::ikenat::Ikenat;
use ikenat_tests::lab::topology::{CLIENT, CLIENT_2, SERVER, VIP};
use ikenat_tests::lab::wire::{
    Wire, at_client, at_server, esp, esp_from_server, from_client, from_server, raw_from_client,
    with_client, with_zero_sum,
};
use ikenat_tests::lab::{Host, Lab};
use ikenat_tests::suite::Scenario;

pub(crate) fn scenarios() -> Vec<Scenario> {
    let mut all = Scenario::on_every_host("icmp_errors_are_translated_both_ways", translated);
    all.extend([
        Scenario::new("checksums_in_quotes_are_right_afterwards", quoted_checksums),
        Scenario::new("unrelated_icmp_is_punted", left_alone),
        Scenario::new("icmp_errors_are_limited_for_each_peer", limited),
        Scenario::new("icmp_errors_touch_no_session", sessions),
    ]);
    all
}

const SPI: u32 = 0xC321_7654;
/// A router on the Internet.
pub(crate) const ROUTER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 77);
/// A router behind the gateway.
pub(crate) const ROUTER_INSIDE: Ipv4Addr = Ipv4Addr::new(192, 168, 0, 77);
/// The TTL that a quoted packet has left.
const QUOTED_TTL: u8 = 3;

/// One packet of each kind that the server, or a client, has sent.
pub(crate) fn packets(direction: Direction, client: Ipv4Addr) -> Vec<Packet> {
    let packets = match direction {
        Direction::Inbound => [
            from_client(500, 500, [0x5A; 301]),
            from_client(40_000, 4500, esp(SPI, 1, 300)),
            raw_from_client(protocol::ESP, esp(SPI, 1, 300)),
        ],
        Direction::Outbound => [
            from_server(500, 500, [0x5A; 301]),
            from_server(4500, 40_000, esp(SPI, 1, 300)),
            esp_from_server(esp(SPI, 1, 300)),
        ],
    };
    packets.map(|packet| with_client(packet, client)).into()
}

/// The packet that an error in this direction is about: as it arrived where the error is generated,
/// and as its sender knows it. The packets go in the other direction.
fn quoted(direction: Direction, sent: &Packet) -> [Packet; 2] {
    let (mut seen, mut known) = match direction {
        Direction::Inbound => (at_client(sent), sent.clone()),
        Direction::Outbound => (at_server(sent), sent.clone()),
    };
    (seen.ttl, known.ttl) = (QUOTED_TTL, QUOTED_TTL);
    [seen, known]
}

pub(crate) fn other(direction: Direction) -> Direction {
    match direction {
        Direction::Inbound => Direction::Outbound,
        Direction::Outbound => Direction::Inbound,
    }
}

/// The frames of an error about a packet in the other direction: as sent and as it must arrive.
pub(crate) fn frames(
    direction: Direction,
    reporter: Ipv4Addr,
    sent: &Packet,
    error: &Icmp,
    length: usize,
) -> [Packet; 2] {
    let [seen, known] = quoted(direction, sent);
    let (error, wanted) = (about(&seen, error, length), about(&known, error, length));
    match direction {
        Direction::Inbound => {
            let frame = error_from_outside(reporter, &error);
            let wanted = error_at_server(&frame, &wanted);
            [frame, wanted]
        }
        Direction::Outbound => {
            let frame = error_from_inside(reporter, sent.source, &error);
            let wanted = error_at_client(&frame, &wanted);
            [frame, wanted]
        }
    }
}

fn cross(wire: &Wire, direction: Direction, [frame, wanted]: &[Packet; 2]) -> Result<()> {
    let (sent, wanted) = ([frame.build()], [wanted.build()]);
    match direction {
        Direction::Inbound => wire.inbound_frames(&sent, &wanted),
        Direction::Outbound => wire.outbound_frames(&sent, &wanted),
    }
}

/// The errors seen in practice: each type, the codes of RFC 792 and RFC 1812, their four bytes.
fn errors() -> Vec<Icmp> {
    let mut errors: Vec<Icmp> = (0..=15)
        .filter(|&number| number != code::FRAGMENTATION_NEEDED)
        .map(|number| Icmp::new(kind::UNREACHABLE, number, []))
        .collect();
    errors.extend([0, 67, 68, 1280, 1499, u16::MAX].map(|mtu| Icmp::fragmentation_needed(mtu, [])));
    errors.extend([0, 1].map(|number| Icmp::new(kind::TIME_EXCEEDED, number, [])));
    errors.push(Icmp::new(kind::PARAMETER, 0, []).with_rest([20, 0, 0, 0]));
    errors.push(Icmp::new(kind::PARAMETER, 2, []));
    errors
}

fn translated(lab: &Lab) -> Result<()> {
    let mut peers = Peers::route(lab)?;
    let _ikenat = Ikenat::start(lab)?;
    let wire = Wire::open(lab)?;
    for direction in Direction::BOTH {
        let reporters = match direction {
            // The client itself, and a router before it.
            Direction::Inbound => [CLIENT, ROUTER],
            Direction::Outbound => [SERVER, ROUTER_INSIDE],
        };
        if lab.options.host == Host::NoIpForward {
            without_forwarding(lab, &wire, direction, reporters[1], peers.fresh())?;
            continue;
        }
        for reporter in reporters {
            for error in errors() {
                // RFC 792 promises 8 bytes, many hosts send 28; the last length fills the largest
                // error of a router. Each peer gets only a few: the gateway limits the errors per
                // peer.
                for number in 0..3 {
                    let sent = packets(other(direction), peers.fresh()).swap_remove(number);
                    for length in [8, 9, 28, 1000] {
                        cross(
                            &wire,
                            direction,
                            &frames(direction, reporter, &sent, &error, length),
                        )
                        .with_context(|| {
                            format!("{direction:?}, {reporter} quotes {length} bytes: {error:?}")
                        })?;
                    }
                }
            }
        }
    }
    Ok(())
}

/// The kernel returns no route for such an error.
fn without_forwarding(
    lab: &Lab,
    wire: &Wire,
    direction: Direction,
    reporter: Ipv4Addr,
    client: Ipv4Addr,
) -> Result<()> {
    let reason = match direction {
        Direction::Inbound => ("dropped", "forwarding-disabled-inbound"),
        Direction::Outbound => ("punted", "forwarding-disabled"),
    };
    let error = Icmp::fragmentation_needed(1280, []);
    counted(lab, reason, 3, || {
        let sent = packets(other(direction), client);
        let frames = sent
            .iter()
            .map(|sent| frames(direction, reporter, sent, &error, 8)[0].build());
        wire.swallowed(direction, &frames.collect::<Vec<_>>())
    })
    .with_context(|| format!("{direction:?}"))
}

/// The quoted UDP checksum is the one that the sender computed, even if it is zero or all ones.
fn quoted_checksums(lab: &Lab) -> Result<()> {
    let mut peers = Peers::route(lab)?;
    let _ikenat = Ikenat::start(lab)?;
    let wire = Wire::open(lab)?;
    let error = Icmp::fragmentation_needed(1280, []);
    for direction in Direction::BOTH {
        let client = peers.fresh();
        let plain = packets(other(direction), client).remove(1);
        let seen = |packet: &Packet| quoted(direction, packet)[0].clone();
        let cases = [
            ("zero", plain.clone().with_checksum(Checksum::Zero)),
            (
                "wrong",
                plain.clone().with_checksum(Checksum::OffBy(0x0204)),
            ),
            ("all ones as sent", with_zero_sum(&plain, Packet::clone)),
            ("all ones as seen", with_zero_sum(&plain, seen)),
        ];
        for (what, sent) in cases {
            for length in [8, 1000] {
                cross(
                    &wire,
                    direction,
                    &frames(direction, ROUTER, &sent, &error, length),
                )
                .with_context(|| format!("{direction:?}, a UDP checksum that is {what}"))?;
            }
        }
        let client = peers.fresh();
        for mut sent in packets(other(direction), client) {
            sent.options = vec![1; 12];
            cross(
                &wire,
                direction,
                &frames(direction, ROUTER, &sent, &error, 8),
            )
            .with_context(|| format!("{direction:?}, options in the quote"))?;
        }
        // An error with options of its own, DSCP and a TTL that just suffices.
        let client = peers.fresh();
        for sent in packets(other(direction), client) {
            let mut frames = frames(direction, ROUTER, &sent, &error, 28);
            for frame in &mut frames {
                frame.options = vec![1; 4];
                frame.tos = 0xC0;
                frame.ttl -= 62;
            }
            cross(&wire, direction, &frames)
                .with_context(|| format!("{direction:?}, an error with options"))?;
        }
    }
    Ok(())
}

/// ICMP that reaches the gateway's kernel unchanged: its pings, and errors about its own packets.
fn left_alone(lab: &Lab) -> Result<()> {
    let _ikenat = Ikenat::start(lab)?;
    let wire = Wire::open(lab)?;
    let echo = |number| Icmp::new(number, 0, [0x42; 56]).with_rest([0, 1, 0, 1]);
    let own = |source, destination, port| Packet::udp((source, port), (destination, 4500), [1; 60]);
    let unreachable = Icmp::new(kind::UNREACHABLE, code::PORT, []);
    // The gateway's own DNS, L2TP, TCP and GRE, and packets that it has sent from another address.
    let mut own_errors: Vec<Icmp> = [53, 1701, 499, 4501]
        .map(|port| about(&own(VIP, CLIENT, port), &unreachable, 28))
        .into();
    own_errors.extend(
        [6, 47, 51]
            .map(|number| about(&Packet::raw(VIP, CLIENT, number, [0; 40]), &unreachable, 28)),
    );
    own_errors.push(about(
        &own(Ipv4Addr::new(203, 0, 113, 9), CLIENT, 500),
        &unreachable,
        28,
    ));
    // About an echo reply of the gateway's: no error about an error.
    own_errors.push(about(
        &Packet::icmp(VIP, CLIENT, &echo(kind::ECHO_REPLY)),
        &unreachable,
        28,
    ));
    // Source quench and redirect are not translated (RFC 6633, RFC 1812).
    let handled = at_client(&from_server(4500, 4500, [1; 60]));
    own_errors.extend(
        [kind::SOURCE_QUENCH, kind::REDIRECT]
            .map(|number| about(&handled, &Icmp::new(number, 0, []), 28)),
    );
    own_errors.extend([
        echo(kind::ECHO),
        echo(kind::ECHO_REPLY),
        Icmp::new(13, 0, [0; 12]),
    ]);
    for error in own_errors {
        wire.punted_on_wan(&error_from_outside(CLIENT, &error).build())
            .with_context(|| format!("{error:02x?}"))?;
    }
    // The server's own pings, and its errors about packets that are not handled: only routed.
    let query = Packet::udp((CLIENT_2, 53), (SERVER, 53), [1; 60]);
    let foreign = about(&query, &unreachable, 28);
    for message in [echo(kind::ECHO), echo(kind::ECHO_REPLY), foreign] {
        let frame = error_from_inside(SERVER, CLIENT, &message);
        wire.punted_on_lan(&frame.build())
            .with_context(|| format!("{message:02x?}"))?;
    }
    Ok(())
}

/// A valid error in this direction.
pub(crate) fn good(direction: Direction, client: Ipv4Addr) -> Packet {
    let sent = packets(other(direction), client).remove(1);
    let reporter = match direction {
        Direction::Inbound => ROUTER,
        Direction::Outbound => ROUTER_INSIDE,
    };
    let error = Icmp::fragmentation_needed(1280, []);
    let [frame, _] = frames(direction, reporter, &sent, &error, 28);
    frame
}

fn limited(lab: &Lab) -> Result<()> {
    const SENT: u64 = 500;
    // Peers share buckets by a keyed hash: one in some thousands has that of the first peer.
    const OTHERS: u64 = 8;
    let mut peers = Peers::route(lab)?;
    let _ikenat = Ikenat::start(lab)?;
    let wire = Wire::open(lab)?;
    for direction in Direction::BOTH {
        let client = peers.fresh();
        let (from, to) = wire.ends(direction);
        to.drain()?;
        let before = lab.status()?;
        for _ in 0..SENT {
            from.send(&good(direction, client).build())?;
        }
        let error = Icmp::fragmentation_needed(1280, []);
        let reporter = match direction {
            Direction::Inbound => ROUTER,
            Direction::Outbound => ROUTER_INSIDE,
        };
        let mut lasts = Vec::new();
        for _ in 0..OTHERS {
            let sent = packets(other(direction), peers.fresh()).remove(1);
            let [frame, last] = frames(direction, reporter, &sent, &error, 28);
            from.send(&frame.build())?;
            lasts.push(last.build());
        }
        let (mut passed, mut of_others) = (0, 0);
        while let Some(frame) = to.find(Duration::from_millis(500), |frame| !not_ipv4(frame))? {
            if lasts.contains(&frame) {
                of_others += 1;
            } else {
                passed += 1;
            }
        }
        let after = lab.status()?;
        let refused =
            after.count("dropped", "icmp-limited") - before.count("dropped", "icmp-limited");
        ensure!(
            (10..=100).contains(&passed)
                && (OTHERS - 1..=OTHERS).contains(&of_others)
                && passed + of_others + refused == SENT + OTHERS,
            "{direction:?}: {passed} and {of_others} of others passed, {refused} were refused"
        );
    }
    Ok(())
}

/// RFC 4787 REQ-12: an error ends no mapping. Nor does it make one or keep one alive.
fn sessions(lab: &Lab) -> Result<()> {
    let mut peers = Peers::route(lab)?;
    let _ikenat = Ikenat::start(lab)?;
    let wire = Wire::open(lab)?;
    let error = Icmp::new(kind::UNREACHABLE, code::PORT, []);
    let send_all = |client| -> Result<()> {
        for direction in Direction::BOTH {
            for sent in packets(other(direction), client) {
                cross(
                    &wire,
                    direction,
                    &frames(direction, ROUTER, &sent, &error, 28),
                )?;
            }
        }
        Ok(())
    };
    send_all(peers.fresh())?;
    let stats = lab.stats()?;
    ensure!(
        stats.sessions.is_empty() && stats.spis.is_empty(),
        "errors have made entries: {:?} {:?}",
        stats.sessions,
        stats.spis
    );

    let client = peers.fresh();
    let data = with_client(from_server(4500, 40_000, esp(SPI, 1, 300)), client);
    wire.outbound(&data)?;
    let before = lab.stats()?;
    // The clock of the tables has steps of about a second.
    std::thread::sleep(Duration::from_millis(2500));
    send_all(client)?;
    let after = lab.stats()?;
    let (session, spi) = (
        after.session(client).context("the session is gone")?,
        after.spis.first().context("the SPI is gone")?,
    );
    ensure!(
        before.session(client).map(|session| session.state) == Some(session.state)
            && session.last_seen_secs >= 1.0
            && spi.last_seen_secs >= 1.0
            && after.spis.len() == 1
            && spi.packets == 1,
        "an error about a session has touched it: {session:?} {spi:?}"
    );
    after.check_conservation()
}
