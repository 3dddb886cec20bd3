//! Rows about TCP 4500: IKE, and perhaps ESP, in a stream (RFC 9329).

use super::icmp::{NOTHING, UNREACHABLE, in_tc, inbound_error, outbound_error};
use super::icmp_generated::{answer, answered_row, large};
use super::*;

/// Offsets in a frame without IPv4 options.
const DATA_OFFSET: usize = 46;
const CHECKSUM: std::ops::Range<usize> = 50..52;
const FIN: u8 = 0x11;
const RST: u8 = 0x04;
const SYN: u8 = 0x02;
/// What an originator sends first (RFC 9329 section 4).
const PREFIX: &[u8] = b"IKETCP";
const IN: &str = "forward tcp in untracked";
const OUT: &str = "forward tcp out untracked";

/// A segment from a client.
fn to_vip(number: u8, port: u16, payload: impl Into<Vec<u8>>) -> Packet {
    from_client(Packet::tcp((peer(number), 40_000), (VIP, port), payload))
}

/// A segment from the server.
fn to_peer(number: u8, port: u16, payload: impl Into<Vec<u8>>) -> Packet {
    from_server(Packet::tcp((SERVER, port), (peer(number), 40_000), payload))
}

fn with(mut packet: Packet, wanted: u8, more: &[u8]) -> Packet {
    if let Body::Tcp { flags, options, .. } = &mut packet.body {
        (*flags, *options) = (wanted, more.to_vec());
    }
    packet
}

/// A segment whose translated checksum is zero: RFC 9293 gives it no meaning, and it stays zero.
fn becoming_zero(number: u8) -> Packet {
    let candidates = (0..=u16::MAX).map(|word| to_vip(number, 4500, word.to_be_bytes()));
    let mut found =
        candidates.filter(|packet| translated(packet, Side::Wan).build()[CHECKSUM] == [0, 0]);
    found
        .next()
        .expect("one of 65,536 words makes the sum zero")
}

/// The same for the segment as it comes.
fn from_zero(number: u8) -> Packet {
    let candidates = (0..=u16::MAX).map(|word| to_vip(number, 4500, word.to_be_bytes()));
    let mut found = candidates.filter(|packet| packet.build()[CHECKSUM] == [0, 0]);
    found
        .next()
        .expect("one of 65,536 words makes the sum zero")
}

/// The sum over the pseudo-header, as a sender leaves it to its device.
fn partial_checksum(frame: &[u8]) -> [u8; 2] {
    let length = u16::try_from(frame.len() - 34).expect("a short frame");
    let mut sum = 6 + u32::from(length);
    for pair in frame[26..34].chunks(2) {
        sum += u32::from(u16::from_be_bytes([pair[0], pair[1]]));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    u16::try_from(sum).expect("folded").to_be_bytes()
}

/// The same segment with this in place of its checksum.
fn with_field(packet: &Packet, field: [u8; 2]) -> Packet {
    let frame = packet.build();
    let right = u16::from_be_bytes([frame[50], frame[51]]);
    // In one's complement: right + error = field.
    let (error, borrow) = u16::from_be_bytes(field).overflowing_sub(right);
    let wrong = Checksum::OffBy(error - u16::from(borrow));
    packet.clone().with_checksum(wrong)
}

/// XDP hands it over; in `BPF_PROG_TEST_RUN` tc has no offload, so the field changes by the difference
/// of the addresses: the output's checksum is wrong by as much as the input's.
fn partial(packet: &Packet) -> Row {
    let wrong = with_field(packet, partial_checksum(&packet.build()));
    let mut row = row(
        "a partial checksum is handed over",
        Side::Wan,
        wrong.build(),
        "slow checksum-partial",
    );
    row.slow_verdict = Some(IN.to_owned());
    row.slow_output = Some(translated(&wrong, Side::Wan).build());
    row
}

fn named(mut rows: Vec<Row>) -> Vec<Row> {
    for row in &mut rows {
        row.name.insert_str(0, "TCP: ");
    }
    rows
}

pub(super) fn segments() -> Vec<Row> {
    let after_proof = |name: &str, number, flags| {
        let segment = with(to_vip(number, 4500, []), flags, &[]);
        let mut row = forwarded(name, Side::Wan, &segment, "forward tcp in");
        row.before = vec![proof(number)];
        row
    };
    let options = vec![1; 40];
    let mut ip_options = to_vip(213, 4500, PREFIX);
    ip_options.options = vec![1; 8];
    let mut padded = to_vip(214, 4500, []);
    padded.padding = vec![0x49; 6];
    let in_ = |name: &str, packet: &Packet| forwarded(name, Side::Wan, packet, IN);
    let other = "punted other-port";
    named(vec![
        in_(
            "SYN with options",
            &with(to_vip(208, 4500, []), SYN, &[2, 4, 5, 0xb4]),
        ),
        in_("the prefix of a stream", &to_vip(209, 4500, PREFIX)),
        in_(
            "as many options as there can be",
            &with(to_vip(210, 4500, PREFIX), 0x18, &options),
        ),
        in_("IPv4 options", &ip_options),
        in_("Ethernet padding", &padded),
        in_("a computed zero stays zero", &becoming_zero(211)),
        in_("a checksum of zero is one", &from_zero(212)),
        in_(
            "a wrong checksum stays wrong",
            &to_vip(215, 4500, [7; 33]).with_checksum(Checksum::OffBy(0x0102)),
        ),
        forwarded("out", Side::Lan, &to_peer(216, 4500, [9; 50]), OUT),
        partial(&to_vip(217, 4500, [1, 2, 3])),
        after_proof("a peer with a session", 218, 0x18),
        after_proof("FIN", 219, FIN),
        after_proof("RST", 220, RST),
        row(
            "port 500 in",
            Side::Wan,
            to_vip(221, 500, []).build(),
            other,
        ),
        row(
            "port 443 in",
            Side::Wan,
            to_vip(221, 443, []).build(),
            other,
        ),
        row(
            "port 500 out",
            Side::Lan,
            to_peer(221, 500, []).build(),
            other,
        ),
        row(
            "from the VIP",
            Side::Wan,
            from_client(Packet::tcp((VIP, 4500), (VIP, 4500), [])).build(),
            "dropped bogus-source",
        ),
        forwarded("egress: out", Side::Out, &to_peer(222, 4500, [9; 50]), OUT),
    ])
}

pub(super) fn damaged() -> Vec<Row> {
    let bytes = |name: &str, change: fn(&mut Vec<u8>)| {
        let mut frame = to_vip(223, 4500, [5; 8]).build();
        change(&mut frame);
        row(name, Side::Wan, frame, "punted malformed")
    };
    named(vec![
        bytes("a header of 16 bytes", |f| f[DATA_OFFSET] = 0x40),
        bytes("a header beyond the packet", |f| f[DATA_OFFSET] = 0x80),
        bytes("19 bytes", |f| f[17] = 39),
        bytes("from port 0", |f| f[34..36].fill(0)),
        bytes("cut off behind the ports", |f| {
            f[17] = 24;
            f.truncate(38);
        }),
        bytes("without ports", |f| {
            f[17] = 23;
            f.truncate(37);
        }),
        forwarded(
            "a header up to the end of the packet",
            Side::Wan,
            &with(to_vip(224, 4500, []), 0x10, &[1; 40]),
            IN,
        ),
    ])
}

pub(super) fn fragments() -> Vec<Row> {
    let cut = |packet: Packet| packet.build_fragments(&[40]);
    let handled = cut(to_vip(225, 4500, [3; 64]));
    let back = cut(to_peer(226, 4500, [3; 64]));
    let foreign = cut(to_vip(227, 443, [3; 64]));
    let unknown = cut(to_vip(228, 4500, [3; 64]));
    let of_session = cut(to_vip(229, 4500, [3; 64]));
    let at_24 = to_vip(230, 4500, [3; 64]).build_fragments(&[24]);
    // More fragments follow, from this place on, this long.
    let part = |number, offset: u16, length| {
        let body = to_vip(number, 4500, [3; 64]).build()[34..][..length].to_vec();
        let mut packet = from_client(Packet::raw(peer(number), VIP, protocol::TCP, body));
        packet.flags = 0x2000 | offset;
        packet.build()
    };
    let first = |name: &str, side, packet: &Packet, frame: &[u8], verdict: &str| {
        let mut row = row(name, side, frame.to_vec(), verdict);
        let output = translated(packet, side).build_fragments(&[frame.len() - 34]);
        row.output = Some(output[0].clone());
        row
    };
    let later = |name: &str, side, before: Vec<(Side, Vec<u8>)>, frame: &[u8], verdict: &str| {
        let mut row = row(name, side, frame.to_vec(), verdict);
        row.before = before;
        if verdict.starts_with("forward") {
            row.output = Some(translated(&bytes::raw_of(frame), side).build());
        }
        row
    };
    named(vec![
        first(
            "a first fragment",
            Side::Wan,
            &to_vip(225, 4500, [3; 64]),
            &handled[0],
            IN,
        ),
        first(
            "a first fragment of 24 bytes",
            Side::Wan,
            &to_vip(230, 4500, [3; 64]),
            &at_24[0],
            IN,
        ),
        later(
            "a later fragment whose first came first",
            Side::Wan,
            vec![(Side::Wan, handled[0].clone())],
            &handled[1],
            "forward fragment in untracked",
        ),
        later(
            "a later fragment out",
            Side::Lan,
            vec![(Side::Lan, back[0].clone())],
            &back[1],
            "forward fragment out untracked",
        ),
        later(
            "a later fragment of another port, of a peer with a session",
            Side::Wan,
            vec![proof(227), (Side::Wan, foreign[0].clone())],
            &foreign[1],
            "punted other-fragment",
        ),
        later(
            "a later fragment that nothing connects with us",
            Side::Wan,
            vec![],
            &unknown[1],
            "punted other-fragment",
        ),
        bytes::undecided(later(
            "a later fragment of a peer with a session",
            Side::Wan,
            vec![proof(229)],
            &of_session[1],
            bytes::UNDECIDED,
        )),
        later(
            "a first fragment of 16 bytes",
            Side::Wan,
            vec![],
            &part(231, 0, 16),
            "dropped fragment-tiny",
        ),
        later(
            "a later fragment at eight bytes",
            Side::Wan,
            vec![proof(232)],
            &part(232, 1, 24),
            "dropped fragment-tiny",
        ),
        later(
            "a later fragment at 16 bytes",
            Side::Wan,
            vec![proof(233)],
            &part(233, 2, 24),
            "dropped fragment-tiny",
        ),
        later(
            "a later fragment over the end of the first",
            Side::Wan,
            vec![(Side::Wan, cut(to_vip(234, 4500, [3; 64]))[0].clone())],
            &part(234, 4, 24),
            "dropped fragment-overlap",
        ),
    ])
}

/// ICMP errors about segments, with as much of them as an error quotes.
pub(super) fn errors() -> Vec<Row> {
    let router = peer(250);
    let unreachable = ([UNREACHABLE, 1], NOTHING);
    let sent = |number, port| {
        let one = |from| Packet::tcp((from, port), (peer(number), 40_000), [4; 40]);
        (one(VIP), one(SERVER))
    };
    let received = |number, port| {
        let one = |to| Packet::tcp((peer(number), 40_000), (to, port), [4; 40]);
        (one(SERVER), one(VIP))
    };
    let mut rows = Vec::new();
    let field = |packet: &Packet| {
        let frame = packet.build();
        [frame[50], frame[51]]
    };
    // A checksum of which one byte is quoted stays as it is.
    let unchanged = |(seen, meant): (Packet, Packet), bytes| match bytes {
        17 => (seen.clone(), with_field(&meant, field(&seen))),
        _ => (seen, meant),
    };
    for (number, bytes) in [(100, 8), (101, 17), (102, 18), (103, 60)] {
        let name = format!("an error about {bytes} bytes of a segment out");
        rows.push(inbound_error(
            &name,
            router,
            unreachable,
            unchanged(sent(number, 4500), bytes),
            bytes,
        ));
        let name = format!("an error about {bytes} bytes of a segment in");
        rows.push(outbound_error(
            &name,
            SERVER,
            unreachable,
            unchanged(received(number + 10, 4500), bytes),
            bytes,
        ));
    }
    let body = icmp::message(
        unreachable.0,
        unreachable.1,
        &icmp::quote(&sent(104, 500).0, 20),
    );
    let other = from_client(icmp::icmp(router, VIP, body));
    rows.push(in_tc(
        "an error about port 500",
        Side::Wan,
        &other,
        "punted other-icmp",
        None,
    ));
    named(rows)
}

/// Errors that ikenat sends.
pub(super) fn answered() -> Vec<Row> {
    let mut expiring = to_vip(235, 4500, [6; 30]);
    expiring.ttl = 1;
    let big = large(to_peer(236, 4500, []), DONT_FRAGMENT);
    // The device finishes the quoted checksum.
    let mut offloaded = to_vip(237, 4500, [6; 30]);
    offloaded.ttl = 1;
    let field = partial_checksum(&offloaded.build());
    let mut output = answer(&offloaded, VIP, [11, 0], NOTHING);
    output[78..80].copy_from_slice(&field);
    let mut partial = answered_row(
        "TTL 1, a partial checksum",
        Side::Wan,
        &offloaded,
        ["ttl-expired", "time-exceeded"],
        output,
    );
    partial.input[CHECKSUM].copy_from_slice(&field);
    named(vec![
        answered_row(
            "TTL 1",
            Side::Wan,
            &expiring,
            ["ttl-expired", "time-exceeded"],
            answer(&expiring, VIP, [11, 0], NOTHING),
        ),
        answered_row(
            "too big, DF, out",
            Side::Lan,
            &big,
            ["too-big", "fragmentation-needed"],
            answer(&big, GATEWAY_LAN, [UNREACHABLE, 4], [0, 0, 5, 0xdc]),
        ),
        partial,
    ])
}
