//! Rows about peers of the host itself: what the host sends teaches them, and what comes from them is
//! the host's, unless a flow or a session of the server claims it.

use super::icmp::{NOTHING, UNREACHABLE, icmp, in_tc, message, quote};
use super::*;

/// ESP of a peer of the host: no SPI that another row makes known.
const HOSTS_ESP: [u8; 16] = [0xc7, 7, 7, 7, 0, 0, 0, 1, 9, 8, 7, 6, 5, 4, 3, 2];
/// The peer's port in these rows.
const FAR: u16 = 40_000;

/// A packet that the host sends to a peer, as it leaves by the WAN.
fn sent_udp(number: u8, port: u16) -> Packet {
    Packet::udp((VIP, port), (peer(number), FAR), [7; 40]).with_macs(CLIENT_MAC, WAN_MAC)
}

fn sent_native(number: u8) -> Packet {
    Packet::raw(VIP, peer(number), protocol::ESP, ESP_PAYLOAD).with_macs(CLIENT_MAC, WAN_MAC)
}

fn native(number: u8) -> Packet {
    from_client(Packet::raw(peer(number), VIP, protocol::ESP, ESP_PAYLOAD))
}

fn after(mut row: Row, before: &[(Side, &Packet)]) -> Row {
    let built = |(side, packet): &(Side, &Packet)| (*side, packet.build());
    row.before = before.iter().map(built).collect();
    row
}

/// What teaches, and what does not.
pub(super) fn taught() -> Vec<Row> {
    let side = Side::Out;
    let fragments = Packet::udp((VIP, 4500), (peer(181), FAR), [7; 100])
        .with_macs(CLIENT_MAC, WAN_MAC)
        .build_fragments(&[48]);
    let mut options = sent_udp(182, 500);
    options.options = vec![148, 4, 0, 0];
    let to_multicast = Packet::udp((VIP, 500), (Ipv4Addr::new(224, 0, 0, 5), 500), [7; 40])
        .with_macs(CLIENT_MAC, WAN_MAC);
    let own = "punted host-peer";
    let other = "punted other-address";
    let mut rows = vec![
        row("IKE of the host", side, sent_udp(176, 500).build(), own),
        row("NAT-T of the host", side, sent_udp(177, 4500).build(), own),
        row(
            "native ESP of the host",
            side,
            sent_native(178).build(),
            own,
        ),
        row("IKE of the host with an option", side, options.build(), own),
        row(
            "a first fragment of the host",
            side,
            fragments[0].clone(),
            own,
        ),
        row(
            "a later fragment of the host",
            side,
            fragments[1].clone(),
            other,
        ),
        row(
            "another port of the host",
            side,
            sent_udp(183, 53).build(),
            other,
        ),
        row("the host to a group", side, to_multicast.build(), other),
    ];
    for row in &mut rows {
        row.name.insert_str(0, "egress: ");
    }
    rows
}

/// What comes from such peers.
pub(super) fn inbound_packets() -> Vec<Row> {
    let own = "punted host-peer";
    let answer = |name, packet: &Packet, taught: &Packet| {
        let row = row(name, Side::Wan, packet.build(), own);
        after(row, &[(Side::Out, taught)])
    };
    let not_its = |name, packet: &Packet, before: &[(Side, &Packet)], verdict: &str| {
        let row = forwarded(name, Side::Wan, packet, verdict);
        after(row, before)
    };
    let large = inbound(190, 500, [7; 100]);
    let pieces = large.build_fragments(&[48]);
    let mut later = row(
        "host peer: a later fragment follows its first one",
        Side::Wan,
        pieces[1].clone(),
        "punted other-fragment",
    );
    later.before = vec![
        (Side::Out, sent_udp(190, 500).build()),
        (Side::Wan, pieces[0].clone()),
    ];
    let native_pieces =
        from_client(Packet::raw(peer(201), VIP, protocol::ESP, [7; 100])).build_fragments(&[48]);
    let unordered = bytes::undecided(row(
        "host peer: a later fragment of ESP before its first one",
        Side::Wan,
        native_pieces[1].clone(),
        bytes::UNDECIDED,
    ));
    let unordered = after(unordered, &[(Side::Out, &sent_native(201))]);
    let other_port = from_client(Packet::udp((peer(192), FAR + 1), (VIP, 500), ike([0; 8])));
    let session = |number| outbound(number, 4500, marked(ike(SPI_R)));
    let claimed = session(195);
    let mut key = ESP_PAYLOAD;
    key[0] = 0xee;
    let proof = |number| outbound(number, 4500, key);
    let native_out = |number| from_server(Packet::raw(SERVER, peer(number), protocol::ESP, key));
    let new_spi = from_client(Packet::raw(peer(202), VIP, protocol::ESP, HOSTS_ESP));
    let mut shared = after(
        row(
            "host peer: a new SPI of native ESP, beside a client of the server",
            Side::Wan,
            new_spi.build(),
            "slow esp-undecided",
        ),
        &[
            (Side::Lan, &native_out(202)),
            (Side::Out, &sent_native(202)),
        ],
    );
    shared.slow_verdict = Some("forward esp in untracked".to_owned());
    shared.slow_output = Some(translated(&new_spi, Side::Wan).build());
    vec![
        answer(
            "host peer: IKE",
            &inbound(184, 500, ike([0; 8])),
            &sent_udp(184, 500),
        ),
        answer(
            "host peer: NAT-T",
            &inbound(185, 4500, marked(ike(SPI_R))),
            &sent_udp(185, 4500),
        ),
        answer(
            "host peer: ESP in UDP",
            &inbound(186, 4500, HOSTS_ESP),
            &sent_udp(186, 4500),
        ),
        answer(
            "host peer: keepalive",
            &inbound(187, 4500, [0xff]),
            &sent_udp(187, 4500),
        ),
        answer(
            "host peer: native ESP",
            &from_client(Packet::raw(peer(188), VIP, protocol::ESP, HOSTS_ESP)),
            &sent_native(188),
        ),
        later,
        unordered,
        shared,
        not_its(
            "host peer: the VIP's other port",
            &inbound(191, 4500, marked(ike([0; 8]))),
            &[(Side::Out, &sent_udp(191, 500))],
            "forward natt-ike in untracked",
        ),
        not_its(
            "host peer: another port of the peer",
            &other_port,
            &[(Side::Out, &sent_udp(192, 500))],
            "forward ike in untracked",
        ),
        not_its(
            "host peer: native ESP where UDP was taught",
            &native(193),
            &[(Side::Out, &sent_udp(193, 4500))],
            "forward esp in untracked",
        ),
        not_its(
            "host peer: another peer",
            &inbound(194, 500, ike([0; 8])),
            &[(Side::Out, &sent_udp(184, 500))],
            "forward ike in untracked",
        ),
        not_its(
            "host peer: a session of the server claims the port",
            &inbound(195, 4500, marked(ike(SPI_R))),
            &[
                (Side::Lan, &proof(195)),
                (Side::Lan, &claimed),
                (Side::Out, &sent_udp(195, 4500)),
            ],
            "forward natt-ike in",
        ),
        not_its(
            "host peer: a flow of the server claims the SPI",
            &native(196),
            &[
                (Side::Lan, &native_out(196)),
                (Side::Wan, &native(196)),
                (Side::Out, &sent_native(196)),
            ],
            "forward esp in",
        ),
        after(
            row(
                "host peer: a session with another port does not claim it",
                Side::Wan,
                inbound(197, 500, ike([0; 8])).build(),
                own,
            ),
            &[(Side::Lan, &proof(197)), (Side::Out, &sent_udp(197, 500))],
        ),
    ]
}

/// ICMP errors about what the host has sent.
pub(super) fn errors() -> Vec<Row> {
    let about = |packet: &Packet| {
        let body = message([UNREACHABLE, 3], NOTHING, &quote(packet, 8));
        from_client(icmp(Ipv4Addr::new(198, 51, 100, 250), VIP, body))
    };
    let own = |name, sent: &Packet| {
        let row = in_tc(name, Side::Wan, &about(sent), "punted host-peer", None);
        after(row, &[(Side::Out, sent)])
    };
    vec![
        own("host peer: an error about IKE", &sent_udp(198, 500)),
        own("host peer: an error about NAT-T", &sent_udp(199, 4500)),
        own("host peer: an error about native ESP", &sent_native(200)),
    ]
}
