//! Rows about checksums and fragments.

use super::*;

/// A payload with which the translated packet's checksum computes to zero.
fn payload_with_zero_sum(number: u8) -> Packet {
    for word in 0..=u16::MAX {
        let mut payload = ESP_PAYLOAD.to_vec();
        payload[10..12].copy_from_slice(&word.to_be_bytes());
        let packet = inbound(number, 4500, payload);
        if translated(&packet, Side::Wan).build()[40..42] == [0xff, 0xff] {
            return packet;
        }
    }
    unreachable!("one of 65,536 words makes the sum zero")
}

/// The sum over the pseudo-header, as a sender leaves it to its device (RFC 768).
pub(super) fn partial_checksum(frame: &[u8]) -> [u8; 2] {
    // The addresses, and the length in the UDP header.
    let mut sum = 17;
    for pair in frame[26..34].chunks(2).chain([&frame[38..40]]) {
        sum += u32::from(u16::from_be_bytes([pair[0], pair[1]]));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    u16::try_from(sum).expect("a folded sum").to_be_bytes()
}

pub(super) fn checksums() -> Vec<Row> {
    let esp = |number| inbound(number, 4500, ESP_PAYLOAD);
    let zero = esp(10).with_checksum(Checksum::Zero);
    let wrong = esp(11).with_checksum(Checksum::OffBy(0x0102));
    let becomes_zero = payload_with_zero_sum(12);
    let mut header = esp(13);
    header.header_checksum_off_by = 0x0304;
    let verdict = "forward esp-in-udp in untracked";
    vec![
        forwarded("checksum zero stays zero [59]", Side::Wan, &zero, verdict),
        forwarded(
            "a wrong checksum stays wrong [62]",
            Side::Wan,
            &wrong,
            verdict,
        ),
        forwarded(
            "a computed zero becomes 0xFFFF [61]",
            Side::Wan,
            &becomes_zero,
            verdict,
        ),
        forwarded(
            "a bad header checksum stays bad [26]",
            Side::Wan,
            &header,
            verdict,
        ),
        partial(&esp(14)),
    ]
}

/// CHECKSUM_PARTIAL: the field holds the sum over the pseudo-header, and XDP passes it on. In
/// `BPF_PROG_TEST_RUN` tc sees a packet without offload, so its update is the ordinary one: the
/// field changes by the difference of the addresses.
fn partial(packet: &Packet) -> Row {
    let mut frame = packet.build();
    let mut output = translated(packet, Side::Wan).build();
    for bytes in [&mut frame, &mut output] {
        let field = partial_checksum(bytes);
        bytes[40..42].copy_from_slice(&field);
    }
    // Read as a full checksum, the field of the output is the input's, less the address's change.
    let change = |from: Ipv4Addr, to: Ipv4Addr| -> u16 {
        let words = |a: Ipv4Addr| {
            let [a, b, c, d] = a.octets();
            [u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])]
        };
        let mut sum = u32::from(!u16::from_be_bytes([frame[40], frame[41]]));
        for word in words(from) {
            sum += u32::from(!word);
        }
        for word in words(to) {
            sum += u32::from(word);
        }
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        !u16::try_from(sum).expect("a folded sum")
    };
    let field = change(VIP, SERVER);
    output[40..42].copy_from_slice(&field.to_be_bytes());
    let mut row = row(
        "a partial checksum is handed over [111]",
        Side::Wan,
        frame,
        "slow checksum-partial",
    );
    row.slow_verdict = Some("forward esp-in-udp in untracked".to_owned());
    row.slow_output = Some(output);
    row
}

pub(super) fn fragments() -> Vec<Row> {
    let long = vec![0xc2; 64];
    let native =
        from_client(Packet::raw(peer(80), VIP, protocol::ESP, long)).build_fragments(&[32]);
    let big = |number| inbound(number, 500, [ike([0; 8]), vec![3; 64]].concat());
    let known = big(81).build_fragments(&[48, 80]);
    let unknown = big(82).build_fragments(&[48]);
    // Where the bytes of a UDP header would be stands one to port 500.
    let mut far = from_client(Packet::raw(
        peer(86),
        VIP,
        protocol::UDP,
        unknown[0][34..74].to_vec(),
    ));
    far.flags = 0x1000;
    let of_session = big(83).build_fragments(&[48]);
    let back = outbound(84, 500, [ike(SPI_R), vec![3; 64]].concat()).build_fragments(&[48]);
    let dns =
        from_client(Packet::udp((peer(85), 53), (VIP, 3333), vec![7; 64])).build_fragments(&[32]);
    // More fragments follow, from this place on, this long.
    let tiny = |number, offset: u16, length| {
        let body = vec![0x11; length];
        let mut packet = from_client(Packet::raw(peer(number), VIP, protocol::UDP, body));
        packet.flags = 0x2000 | offset;
        packet.build()
    };
    let overlapped = big(89).build_fragments(&[48]);
    let over = big(89).build_fragments(&[40])[1].clone();
    let expect = |frame: &[u8], side| {
        let fragment = raw_of(frame);
        translated(&fragment, side).build()
    };
    let make = |name: &str, side, before: Vec<(Side, Vec<u8>)>, frame: &Vec<u8>, verdict: &str| {
        let mut row = row(name, side, frame.clone(), verdict);
        row.before = before;
        if verdict.starts_with("forward") {
            row.output = Some(expect(frame, side));
        }
        if verdict == UNDECIDED {
            return undecided(row);
        }
        row
    };
    vec![
        make(
            "later fragment of ESP [93]",
            Side::Wan,
            vec![],
            &native[1],
            "forward fragment in untracked",
        ),
        make(
            "later fragment of IKE whose first came first [33]",
            Side::Wan,
            vec![(Side::Wan, known[0].clone())],
            &known[1],
            "forward fragment in untracked",
        ),
        make(
            "last fragment of the same [34]",
            Side::Wan,
            vec![(Side::Wan, known[0].clone()), (Side::Wan, known[1].clone())],
            &known[2],
            "forward fragment in untracked",
        ),
        make(
            "later fragment that nothing connects with us [35]",
            Side::Wan,
            vec![],
            &unknown[1],
            "punted other-fragment",
        ),
        make(
            "a fragment at offset 32,768",
            Side::Wan,
            vec![],
            &far.build(),
            "punted other-fragment",
        ),
        make(
            "later fragment of a peer with a session",
            Side::Wan,
            vec![proof(83)],
            &of_session[1],
            UNDECIDED,
        ),
        make(
            "later fragment of IKE out",
            Side::Lan,
            vec![(Side::Lan, back[0].clone())],
            &back[1],
            "forward fragment out untracked",
        ),
        make(
            "a first fragment without a whole UDP header [38]",
            Side::Wan,
            vec![],
            &tiny(87, 0, 4),
            "dropped fragment-tiny",
        ),
        make(
            "a fragment that ends beyond 65,535 [39]",
            Side::Wan,
            vec![proof(88)],
            &tiny(88, 8190, 24),
            "dropped fragment-past-end",
        ),
        make(
            "a fragment that ends at 65,535",
            Side::Wan,
            vec![proof(202)],
            &tiny(202, 8189, 3),
            UNDECIDED,
        ),
        make(
            "a later fragment over the end of the first [36]",
            Side::Wan,
            vec![(Side::Wan, overlapped[0].clone())],
            &over,
            "dropped fragment-overlap",
        ),
        make(
            "a fragment of a peer that the server has answered",
            Side::Wan,
            vec![(Side::Lan, outbound(90, 500, ike(SPI_R)).build())],
            &big(90).build_fragments(&[48])[1],
            UNDECIDED,
        ),
        make(
            "later fragment of the gateway's DNS, of a peer with a session",
            Side::Wan,
            vec![proof(85), (Side::Wan, dns[0].clone())],
            &dns[1],
            "punted other-fragment",
        ),
        make(
            "later fragment of the gateway's DNS",
            Side::Wan,
            vec![(Side::Wan, dns[0].clone())],
            &dns[1],
            "punted other-fragment",
        ),
    ]
}

/// XDP's verdict on a fragment that may be the server's or the host's.
pub(super) const UNDECIDED: &str = "slow fragment-undecided";

/// What tc does with such a fragment: the server gets it, and the host a copy, which no row shows.
pub(super) fn undecided(mut row: Row) -> Row {
    row.slow_verdict = Some("forward fragment in untracked".to_owned());
    row.slow_output = Some(translated(&raw_of(&row.input), row.side).build());
    row
}

/// A fragment as a packet whose body has no checksum to translate.
pub(super) fn raw_of(frame: &[u8]) -> Packet {
    let ip = &frame[14..];
    let address = |at: usize| Ipv4Addr::new(ip[at], ip[at + 1], ip[at + 2], ip[at + 3]);
    let body = Body::Raw {
        protocol: ip[9],
        payload: ip[20..].to_vec(),
    };
    let mut packet = Packet::new(address(12), address(16), body);
    packet.ttl = ip[8];
    packet.flags = u16::from_be_bytes([ip[6], ip[7]]);
    packet
}
