//! Rows about ICMP: errors that are translated, and errors that are refused. Errors that ikenat
//! generates are in `icmp_generated.rs`.

use super::*;

pub(super) const UNREACHABLE: u8 = 3;
pub(super) const TIME_EXCEEDED: u8 = 11;
pub(super) const NOTHING: [u8; 4] = [0; 4];
/// A router inside.
const INSIDE: Ipv4Addr = Ipv4Addr::new(192, 168, 0, 77);

/// The checksum of bytes, as RFC 1071 defines it: over all words at once.
pub(super) fn checksum(bytes: &[u8]) -> [u8; 2] {
    let mut sum: u32 = 0;
    for pair in bytes.chunks(2) {
        sum += u32::from(u16::from_be_bytes([
            pair[0],
            pair.get(1).copied().unwrap_or(0),
        ]));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    (!u16::try_from(sum).expect("folded")).to_be_bytes()
}

/// An ICMP message: type, code, second word, and what follows.
pub(super) fn message([kind, code]: [u8; 2], word: [u8; 4], rest: &[u8]) -> Vec<u8> {
    let mut bytes = vec![kind, code, 0, 0];
    bytes.extend(word);
    bytes.extend(rest);
    let sum = checksum(&bytes);
    bytes[2..4].copy_from_slice(&sum);
    bytes
}

/// What an error quotes of a packet: its IPv4 header and some bytes behind.
pub(super) fn quote(about: &Packet, bytes: usize) -> Vec<u8> {
    let packet = about.build()[14..].to_vec();
    let header = usize::from(packet[0] & 15) * 4;
    packet[..packet.len().min(header + bytes)].to_vec()
}

pub(super) fn icmp(from: Ipv4Addr, to: Ipv4Addr, body: Vec<u8>) -> Packet {
    Packet::raw(from, to, protocol::ICMP, body)
}

/// The gateway's packet to a peer as it was seen outside, and as the server sent it.
pub(super) fn sent(number: u8, port: u16) -> (Packet, Packet) {
    let one = |from| Packet::udp((from, port), (peer(number), 40_000), ESP_PAYLOAD);
    (one(VIP), one(SERVER))
}

pub(super) fn sent_esp(number: u8) -> (Packet, Packet) {
    let one = |from| Packet::raw(from, peer(number), protocol::ESP, ESP_PAYLOAD);
    (one(VIP), one(SERVER))
}

/// A peer's packet as the server saw it, and as the peer sent it.
pub(super) fn received(number: u8, port: u16) -> (Packet, Packet) {
    let one = |to| Packet::udp((peer(number), 40_000), (to, port), ESP_PAYLOAD);
    (one(SERVER), one(VIP))
}

/// XDP passes it on; tc produces this.
pub(super) fn in_tc(
    name: &str,
    side: Side,
    input: &Packet,
    verdict: &str,
    output: Option<Packet>,
) -> Row {
    let mut row = row(name, side, input.build(), "slow icmp");
    row.slow_verdict = Some(verdict.to_owned());
    row.slow_output = output.map(|packet| packet.build());
    row
}

/// An error to the VIP about the first packet, which must become an error to the server about the
/// second packet.
pub(super) fn inbound_error(
    name: &str,
    from: Ipv4Addr,
    what: ([u8; 2], [u8; 4]),
    (seen, meant): (Packet, Packet),
    bytes: usize,
) -> Row {
    let error = |to, about| icmp(from, to, message(what.0, what.1, &quote(about, bytes)));
    let input = from_client(error(VIP, &seen));
    let mut output = translated(&input, Side::Wan);
    output.body = error(SERVER, &meant).body;
    in_tc(
        name,
        Side::Wan,
        &input,
        "forward icmp in untracked",
        Some(output),
    )
}

/// Host unreachable, to be translated.
pub(super) fn translatable(name: &str, from: Ipv4Addr, about: (Packet, Packet)) -> Row {
    inbound_error(name, from, ([UNREACHABLE, 1], NOTHING), about, 8)
}

/// An error to a peer about the first packet, which must become an error from the VIP about the
/// second packet.
pub(super) fn outbound_error(
    name: &str,
    from: Ipv4Addr,
    what: ([u8; 2], [u8; 4]),
    (seen, meant): (Packet, Packet),
    bytes: usize,
) -> Row {
    let error = |about| {
        icmp(
            from,
            seen.source,
            message(what.0, what.1, &quote(about, bytes)),
        )
    };
    let input = from_server(error(&seen));
    let mut output = translated(&input, Side::Lan);
    output.body = error(&meant).body;
    in_tc(
        name,
        Side::Lan,
        &input,
        "forward icmp out untracked",
        Some(output),
    )
}

pub(super) fn errors() -> Vec<Row> {
    let router = peer(250);
    let zero = |packet: Packet| packet.with_checksum(Checksum::Zero);
    let (seen, meant) = sent(122, 4500);
    let no_checksum = (zero(seen), zero(meant));
    let (mut seen, mut meant) = sent(123, 4500);
    (seen.options, meant.options) = (vec![1; 12], vec![1; 12]);
    let options = (seen, meant);
    let cut = |(seen, meant): (Packet, Packet)| {
        let later = |packet: &Packet| bytes::raw_of(&packet.build_fragments(&[16])[1]);
        (later(&seen), later(&meant))
    };
    let mtu = ([UNREACHABLE, 4], [0, 0, 5, 0]);
    let mut rows = vec![
        inbound_error(
            "host unreachable about UDP 4500 [105]",
            router,
            ([UNREACHABLE, 1], NOTHING),
            sent(120, 4500),
            8,
        ),
        inbound_error(
            "fragmentation needed about native ESP [97]",
            router,
            mtu,
            sent_esp(121),
            8,
        ),
        inbound_error(
            "fragmentation needed, UDP checksum zero",
            router,
            mtu,
            no_checksum,
            8,
        ),
        inbound_error(
            "time exceeded about a packet with options [99]",
            router,
            ([TIME_EXCEEDED, 0], NOTHING),
            options,
            12,
        ),
        inbound_error(
            "parameter problem about UDP 500, all of it quoted",
            peer(124),
            ([12, 0], [20, 0, 0, 0]),
            sent(124, 500),
            100,
        ),
        inbound_error(
            "port unreachable from the peer itself",
            peer(125),
            ([UNREACHABLE, 3], NOTHING),
            sent(125, 4500),
            8,
        ),
        inbound_error(
            "about a later fragment of ESP [100]",
            router,
            ([TIME_EXCEEDED, 1], NOTHING),
            cut(sent_esp(126)),
            8,
        ),
        outbound_error(
            "the server's port unreachable",
            SERVER,
            ([UNREACHABLE, 3], NOTHING),
            received(127, 500),
            8,
        ),
        outbound_error(
            "fragmentation needed from a router inside",
            INSIDE,
            mtu,
            received(128, 4500),
            8,
        ),
    ];
    // XDP looks at addresses alone.
    rows[8].verdict = "punted other-address".to_owned();
    for row in &mut rows {
        row.name.insert_str(0, "ICMP: ");
    }
    rows
}

fn changed(packet: &Packet, change: impl Fn(&mut Vec<u8>)) -> Packet {
    let mut packet = packet.clone();
    let Body::Raw { payload, .. } = &mut packet.body else {
        unreachable!("ICMP is raw")
    };
    change(payload);
    packet
}

pub(super) fn refused() -> Vec<Row> {
    let about = |packet: &Packet, bytes| {
        let body = message([UNREACHABLE, 1], NOTHING, &quote(packet, bytes));
        from_client(icmp(peer(250), VIP, body))
    };
    let of = |number| sent(number, 4500).0;
    let drop = |name: &str, input: &Packet, reason: &str| {
        in_tc(name, Side::Wan, input, &format!("dropped {reason}"), None)
    };
    let punt =
        |name: &str, input: &Packet| in_tc(name, Side::Wan, input, "punted other-icmp", None);
    let plain = |what, word| {
        from_client(icmp(
            peer(250),
            VIP,
            message(what, word, &quote(&of(140), 8)),
        ))
    };
    let mut wrong_header = of(141);
    wrong_header.header_checksum_off_by = 0x0101;
    let gateway_error = icmp(
        VIP,
        peer(142),
        message([UNREACHABLE, 3], NOTHING, &quote(&of(142), 8)),
    );
    let gateway_echo = icmp(VIP, peer(142), message([8, 0], NOTHING, &[1; 8]));
    let mut expiring = about(&of(143), 8);
    expiring.ttl = 1;
    let mut forged = about(&of(144), 8);
    forged.source = Ipv4Addr::new(127, 0, 0, 1);
    let later = bytes::raw_of(&of(145).build_fragments(&[16])[1]);
    let other_port = Packet::udp((VIP, 53), (peer(146), 40_000), ESP_PAYLOAD);
    let elsewhere = Packet::udp((GATEWAY_LAN, 500), (peer(146), 40_000), ESP_PAYLOAD);
    let mut astray = icmp(
        SERVER,
        peer(147),
        message([UNREACHABLE, 3], NOTHING, &quote(&received(148, 500).0, 8)),
    );
    astray = from_server(astray);
    let short = changed(&about(&of(158), 8), |p| {
        *p = message([UNREACHABLE, 1], NOTHING, &p[8..27]);
    });
    let in_transit = Packet {
        destination: Ipv4Addr::new(192, 168, 0, 7),
        ..short
    };
    let mut rows = vec![
        Row {
            slow_verdict: Some("punted other-icmp".to_owned()),
            ..row(
                "ICMP refused: no whole header quoted, in transit to another host [98]",
                Side::Wan,
                in_transit.build(),
                "punted other-address",
            )
        },
        punt(
            "echo request [96]",
            &from_client(icmp(peer(139), VIP, message([8, 0], NOTHING, &[7; 32]))),
        ),
        punt("source quench [105]", &plain([4, 0], NOTHING)),
        punt("redirect [105]", &plain([5, 1], NOTHING)),
        punt("about another port [101]", &about(&other_port, 8)),
        punt("about another address [101]", &about(&elsewhere, 8)),
        punt("about an echo of the gateway", &about(&gateway_echo, 8)),
        punt(
            "about a later UDP fragment that nothing connects with us [100]",
            &about(&later, 8),
        ),
        drop(
            "no whole header quoted [98]",
            &changed(&about(&of(149), 8), |p| {
                *p = message([UNREACHABLE, 1], NOTHING, &p[8..27]);
            }),
            "icmp-malformed",
        ),
        drop(
            "seven bytes behind the quoted header [98]",
            &about(&of(150), 7),
            "icmp-malformed",
        ),
        drop(
            "wrong ICMP checksum [106]",
            &changed(&about(&of(151), 8), |p| p[2] ^= 1),
            "icmp-malformed",
        ),
        drop(
            "wrong checksum of the quoted header",
            &about(&wrong_header, 8),
            "icmp-malformed",
        ),
        drop(
            "an error about an error [103]",
            &about(&gateway_error, 28),
            "icmp-nested",
        ),
        drop(
            "about the server, from outside [102]",
            &about(&sent(152, 4500).1, 8),
            "icmp-spoofed",
        ),
        drop("its own TTL ends here", &expiring, "icmp-limited"),
        drop("from loopback", &forged, "bogus-source"),
        in_tc(
            "to somebody else than the sender of what it quotes",
            Side::Lan,
            &astray,
            "punted other-icmp",
            None,
        ),
    ];
    for row in &mut rows {
        row.name.insert_str(0, "ICMP refused: ");
    }
    rows
}
