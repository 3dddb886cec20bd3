//! The rows of the golden table. Each peer appears in one row only, so that the rows do not see each other's state.
//!
//! Numbers in brackets are those of the list of malformed and odd inputs in the project's test catalogue.

use ikenat_tests::lab::frames::{Body, Checksum, DONT_FRAGMENT, Packet, protocol};
use ikenat_tests::lab::topology::{
    CLIENT_MAC, GATEWAY_LAN, LAN_MAC, SERVER, SERVER_MAC, VIP, WAN_MAC,
};
use std::net::Ipv4Addr;
use xdp_core::Side;

/// One row.
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) side: Side,
    /// Packets that came before.
    pub(crate) before: Vec<(Side, Vec<u8>)>,
    pub(crate) input: Vec<u8>,
    /// What XDP makes of it.
    pub(crate) verdict: String,
    /// The bytes afterwards; `None`: unchanged.
    pub(crate) output: Option<Vec<u8>>,
    /// What tc makes of it, where that differs.
    pub(crate) slow_verdict: Option<String>,
    /// The bytes after tc, where they differ.
    pub(crate) slow_output: Option<Vec<u8>>,
}

const ESP_PAYLOAD: [u8; 24] = [
    0xc1, 0x02, 0x03, 0x04, 0, 0, 0, 1, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0, 1, 2, 3, 4, 5, 6,
];
const SPI_I: [u8; 8] = [0x11; 8];
const SPI_R: [u8; 8] = [0x22; 8];

fn peer(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(198, 51, 100, number)
}

fn ike(responder: [u8; 8]) -> Vec<u8> {
    let mut message = [SPI_I, responder].concat();
    message.extend([33, 0x20, 34, 8, 0, 0, 0, 0, 0, 0, 0, 40]);
    message.extend([0x55; 12]);
    message
}

fn marked(message: Vec<u8>) -> Vec<u8> {
    [vec![0; 4], message].concat()
}

/// A packet from a client, as it reaches the WAN.
fn from_client(packet: Packet) -> Packet {
    packet.with_macs(WAN_MAC, CLIENT_MAC)
}

/// A packet from the server, as it reaches the LAN.
fn from_server(packet: Packet) -> Packet {
    packet.with_macs(LAN_MAC, SERVER_MAC)
}

/// What the gateway must make of a packet, header by header.
pub(crate) fn translated(packet: &Packet, side: Side) -> Packet {
    let mut packet = packet.clone();
    packet.ttl -= 1;
    match side {
        Side::Lan => {
            packet.source = VIP;
            packet.with_macs(CLIENT_MAC, WAN_MAC)
        }
        Side::Wan | Side::Both => {
            packet.destination = SERVER;
            packet.with_macs(SERVER_MAC, LAN_MAC)
        }
    }
}

fn row(name: &str, side: Side, input: Vec<u8>, verdict: &str) -> Row {
    Row {
        name: name.to_owned(),
        side,
        before: Vec::new(),
        input,
        verdict: verdict.to_owned(),
        output: None,
        slow_verdict: None,
        slow_output: None,
    }
}

fn forwarded(name: &str, side: Side, packet: &Packet, verdict: &str) -> Row {
    let mut row = row(name, side, packet.build(), verdict);
    row.output = Some(translated(packet, side).build());
    row
}

fn inbound(number: u8, port: u16, payload: impl Into<Vec<u8>>) -> Packet {
    from_client(Packet::udp((peer(number), 40_000), (VIP, port), payload))
}

fn outbound(number: u8, port: u16, payload: impl Into<Vec<u8>>) -> Packet {
    from_server(Packet::udp((SERVER, port), (peer(number), 40_000), payload))
}

/// The server's ESP to a peer: the proof that makes it established.
fn proof(number: u8) -> (Side, Vec<u8>) {
    let mut payload = ESP_PAYLOAD;
    payload[0] = 0xee;
    (Side::Lan, outbound(number, 4500, payload).build())
}

/// All rows.
pub(crate) fn rows() -> Vec<Row> {
    [
        ordinary(),
        checksums(),
        layer2(),
        ipv4(),
        udp(),
        esp_and_ike(),
        fragments(),
        state(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn ordinary() -> Vec<Row> {
    let esp_in = from_client(Packet::raw(peer(5), VIP, protocol::ESP, ESP_PAYLOAD));
    let esp_out = from_server(Packet::raw(SERVER, peer(6), protocol::ESP, ESP_PAYLOAD));
    vec![
        forwarded(
            "IKE in",
            Side::Wan,
            &inbound(1, 500, ike([0; 8])),
            "forward ike in untracked",
        ),
        forwarded(
            "IKE out",
            Side::Lan,
            &outbound(2, 500, ike(SPI_R)),
            "forward ike out untracked",
        ),
        forwarded(
            "NAT-T IKE in",
            Side::Wan,
            &inbound(3, 4500, marked(ike([0; 8]))),
            "forward natt-ike in untracked",
        ),
        forwarded(
            "ESP in UDP out",
            Side::Lan,
            &outbound(4, 4500, ESP_PAYLOAD),
            "forward esp-in-udp out",
        ),
        forwarded(
            "native ESP in from a stranger [95]",
            Side::Wan,
            &esp_in,
            "forward esp in untracked",
        ),
        forwarded("native ESP out", Side::Lan, &esp_out, "forward esp out"),
        forwarded(
            "keepalive in [68]",
            Side::Wan,
            &inbound(7, 4500, [0xff]),
            "forward keepalive in untracked",
        ),
    ]
}

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

fn checksums() -> Vec<Row> {
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

/// CHECKSUM_PARTIAL: the field holds the sum over the pseudo-header. XDP hands it over. In `BPF_PROG_TEST_RUN` tc sees a
/// packet without offload, so that its update is the ordinary one: the field's difference is that of the addresses.
fn partial(packet: &Packet) -> Row {
    let mut frame = packet.build();
    let mut output = translated(packet, Side::Wan).build();
    for (bytes, to) in [(&mut frame, VIP), (&mut output, SERVER)] {
        let addresses = [peer(14).octets(), to.octets()].concat();
        let mut sum: u32 = 17 + 8 + 24;
        for pair in addresses.chunks(2) {
            sum += u32::from(u16::from_be_bytes([pair[0], pair[1]]));
        }
        sum = (sum & 0xffff) + (sum >> 16);
        let field = u16::try_from((sum & 0xffff) + (sum >> 16)).expect("a folded sum");
        bytes[40..42].copy_from_slice(&field.to_be_bytes());
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

fn layer2() -> Vec<Row> {
    let packet = inbound(20, 4500, ESP_PAYLOAD);
    let with = |change: fn(&mut Vec<u8>)| {
        let mut frame = packet.build();
        change(&mut frame);
        frame
    };
    let tagged = with(|frame| {
        frame.splice(12..12, [0x81, 0x00, 0x00, 0x05]);
    });
    let other = "punted not-ipv4";
    vec![
        row(
            "ARP [10]",
            Side::Wan,
            with(|f| f[12..14].copy_from_slice(&[8, 6])),
            other,
        ),
        row("one VLAN tag [3]", Side::Wan, tagged, other),
        row(
            "EtherType IPv6 with an IPv4 body [11]",
            Side::Wan,
            with(|f| f[12..14].copy_from_slice(&[0x86, 0xdd])),
            other,
        ),
        row(
            "802.3 length instead of a type [2]",
            Side::Wan,
            with(|f| f[12..14].copy_from_slice(&[0, 60])),
            other,
        ),
        row(
            "to another station [12]",
            Side::Wan,
            with(|f| f[5] ^= 1),
            "punted not-our-mac",
        ),
        row(
            "to all stations [13]",
            Side::Wan,
            with(|f| f[..6].fill(0xff)),
            "punted not-our-mac",
        ),
    ]
}

fn ipv4() -> Vec<Row> {
    let build = |change: fn(&mut Packet)| {
        let mut packet = inbound(30, 4500, ESP_PAYLOAD);
        change(&mut packet);
        packet.build()
    };
    let bytes = |change: fn(&mut Vec<u8>)| {
        let mut frame = inbound(31, 4500, ESP_PAYLOAD).build();
        change(&mut frame);
        frame
    };
    let mut options = inbound(32, 4500, ESP_PAYLOAD);
    options.options = vec![1; 8];
    let mut all_options = from_client(Packet::raw(peer(33), VIP, protocol::ESP, ESP_PAYLOAD));
    all_options.options = vec![1; 40];
    let mut padded = inbound(34, 4500, [0xff]);
    padded.padding = vec![0xff; 17];
    let mut marked = inbound(35, 4500, ESP_PAYLOAD);
    marked.tos = 0xb9;
    marked.ttl = 255;
    marked.flags = DONT_FRAGMENT;
    let from = |source: [u8; 4]| {
        let mut packet = inbound(36, 4500, ESP_PAYLOAD);
        packet.source = source.into();
        packet.build()
    };
    let malformed = "punted malformed";
    let bogus = "dropped bogus-source";
    let mut rows = vec![
        row(
            "version 6 [16]",
            Side::Wan,
            bytes(|f| f[14] = 0x65),
            malformed,
        ),
        row(
            "header of 16 bytes [17]",
            Side::Wan,
            bytes(|f| f[14] = 0x44),
            malformed,
        ),
        row(
            "header longer than the packet [18]",
            Side::Wan,
            bytes(|f| {
                f[14] = 0x4f;
                f[17] = 40;
            }),
            malformed,
        ),
        row(
            "total length 0 [25]",
            Side::Wan,
            bytes(|f| f[16..18].fill(0)),
            malformed,
        ),
        row(
            "total length beyond the frame [23]",
            Side::Wan,
            bytes(|f| f[17] += 1),
            malformed,
        ),
        forwarded(
            "options are carried along [20]",
            Side::Wan,
            &options,
            "forward esp-in-udp in untracked",
        ),
        forwarded(
            "a header of 60 bytes",
            Side::Wan,
            &all_options,
            "forward esp in untracked",
        ),
        forwarded(
            "Ethernet padding [24]",
            Side::Wan,
            &padded,
            "forward keepalive in untracked",
        ),
        forwarded(
            "DSCP, ECN, DF and TTL 255 [29, 53]",
            Side::Wan,
            &marked,
            "forward esp-in-udp in untracked",
        ),
        row(
            "TTL 1 in [28]",
            Side::Wan,
            build(|p| p.ttl = 1),
            "dropped ttl-expired-inbound",
        ),
        row(
            "TTL 0 in [27]",
            Side::Wan,
            build(|p| p.ttl = 0),
            "dropped ttl-expired-inbound",
        ),
        row("from the VIP [41]", Side::Wan, from(VIP.octets()), bogus),
        row(
            "from the server, outside [48]",
            Side::Wan,
            from(SERVER.octets()),
            bogus,
        ),
        row("from loopback [43]", Side::Wan, from([127, 0, 0, 1]), bogus),
        row("from 0.0.0.0 [44]", Side::Wan, from([0; 4]), bogus),
        row("from broadcast [45]", Side::Wan, from([255; 4]), bogus),
        row(
            "from multicast [46]",
            Side::Wan,
            from([224, 0, 0, 1]),
            bogus,
        ),
        row(
            "to another address",
            Side::Wan,
            build(|p| p.destination = GATEWAY_LAN),
            "punted other-address",
        ),
        row(
            "AH [51]",
            Side::Wan,
            bytes(|f| f[23] = 51),
            "punted other-protocol",
        ),
        row(
            "GRE [52]",
            Side::Wan,
            bytes(|f| f[23] = 47),
            "punted other-protocol",
        ),
        row(
            "ICMP echo to the VIP [96]",
            Side::Wan,
            bytes(|f| f[23] = 1),
            "punted other-protocol",
        ),
    ];
    let mut expired = outbound(37, 4500, ESP_PAYLOAD);
    expired.ttl = 1;
    rows.push(row(
        "TTL 1 out",
        Side::Lan,
        expired.build(),
        "punted ttl-expired-outbound",
    ));
    rows
}

fn udp() -> Vec<Row> {
    let bytes = |change: fn(&mut Vec<u8>)| {
        let mut frame = inbound(50, 4500, ESP_PAYLOAD).build();
        change(&mut frame);
        frame
    };
    let port = |port| inbound(51, port, ESP_PAYLOAD).build();
    let malformed = "punted malformed";
    let other = "punted other-port";
    let mut to_gateway = from_server(Packet::udp((SERVER, 500), (GATEWAY_LAN, 500), ike(SPI_R)));
    let mut rows = vec![
        row(
            "UDP length 0 [55]",
            Side::Wan,
            bytes(|f| f[38..40].fill(0)),
            malformed,
        ),
        row(
            "UDP length 7 [56]",
            Side::Wan,
            bytes(|f| f[39] = 7),
            malformed,
        ),
        row(
            "UDP length beyond the packet [57]",
            Side::Wan,
            bytes(|f| f[39] += 1),
            malformed,
        ),
        row(
            "UDP header cut off [54]",
            Side::Wan,
            bytes(|f| {
                f[17] = 27;
                f.truncate(14 + 27);
            }),
            malformed,
        ),
        row("port 0 [64]", Side::Wan, port(0), other),
        row("port 499 [66]", Side::Wan, port(499), other),
        row("port 501 [66]", Side::Wan, port(501), other),
        row("port 4499 [66]", Side::Wan, port(4499), other),
        row("port 4501 [66]", Side::Wan, port(4501), other),
        row("L2TP in the clear", Side::Wan, port(1701), other),
        row("DNS", Side::Wan, port(53), other),
        row(
            "the server's DNS out",
            Side::Lan,
            outbound(52, 5353, [1; 20]).build(),
            other,
        ),
        row(
            "the server's IKE with the gateway",
            Side::Lan,
            to_gateway.build(),
            "punted not-by-wan",
        ),
    ];
    to_gateway.destination = VIP;
    rows.push(row(
        "the server to the VIP",
        Side::Lan,
        to_gateway.build(),
        "punted not-by-wan",
    ));
    to_gateway.destination = Ipv4Addr::new(192, 168, 0, 77);
    rows.push(row(
        "to the server's neighbour through us, unresolved",
        Side::Lan,
        to_gateway.build(),
        "punted not-by-wan",
    ));
    to_gateway.destination = SERVER;
    rows.push(row(
        "to a resolved neighbour inside",
        Side::Lan,
        to_gateway.build(),
        "punted not-by-wan",
    ));
    to_gateway.destination = Ipv4Addr::new(192, 168, 0, 77);
    to_gateway.to_mac = SERVER_MAC;
    rows.push(row(
        "the server's IKE inside the LAN",
        Side::Lan,
        to_gateway.build(),
        "punted not-our-mac",
    ));
    rows
}

fn esp_and_ike() -> Vec<Row> {
    let esp = |number, payload: &[u8]| {
        from_client(Packet::raw(peer(number), VIP, protocol::ESP, payload))
    };
    let mut seven = inbound(59, 4500, [1; 7]);
    seven.padding = vec![1; 11];
    let sport_500 = from_client(Packet::udp((peer(66), 500), (VIP, 500), ike([0; 8])));
    let sport_0 = from_client(Packet::udp((peer(67), 0), (VIP, 500), ike([0; 8])));
    vec![
        forwarded(
            "4500 without payload [67]",
            Side::Wan,
            &inbound(60, 4500, []),
            "forward other in untracked",
        ),
        forwarded(
            "one byte that is not 0xFF [69]",
            Side::Wan,
            &inbound(61, 4500, [0xfe]),
            "forward other in untracked",
        ),
        forwarded(
            "three bytes [70]",
            Side::Wan,
            &inbound(62, 4500, [0xff; 3]),
            "forward other in untracked",
        ),
        forwarded(
            "marker only [71]",
            Side::Wan,
            &inbound(63, 4500, [0; 4]),
            "forward other in untracked",
        ),
        forwarded(
            "marker and 5 bytes of IKE [72]",
            Side::Wan,
            &inbound(64, 4500, [0; 9]),
            "forward natt-ike in untracked",
        ),
        forwarded(
            "7 bytes and padding are no ESP [90]",
            Side::Wan,
            &seven,
            "forward other in untracked",
        ),
        forwarded(
            "IKE of 27 bytes [73]",
            Side::Wan,
            &inbound(65, 500, [7; 27]),
            "forward ike in untracked",
        ),
        forwarded(
            "source port 500 [65]",
            Side::Wan,
            &sport_500,
            "forward ike in untracked",
        ),
        forwarded(
            "source port 0 [63]",
            Side::Wan,
            &sport_0,
            "forward ike in untracked",
        ),
        forwarded(
            "ESP of 7 bytes [90]",
            Side::Wan,
            &esp(68, &[1; 7]),
            "forward other in untracked",
        ),
        forwarded(
            "ESP of 8 bytes [91]",
            Side::Wan,
            &esp(69, &[1; 8]),
            "forward esp in untracked",
        ),
        forwarded(
            "native SPI 0 [87]",
            Side::Wan,
            &esp(70, &[0; 16]),
            "forward esp in untracked",
        ),
    ]
}

fn fragments() -> Vec<Row> {
    let long = vec![0xc2; 64];
    let native =
        from_client(Packet::raw(peer(80), VIP, protocol::ESP, long.clone())).build_fragments(&[32]);
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
            "forward fragment in untracked",
        ),
        make(
            "later fragment of IKE out",
            Side::Lan,
            vec![(Side::Lan, back[0].clone())],
            &back[1],
            "forward fragment out untracked",
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

/// A fragment as a packet whose body has no checksum to translate.
fn raw_of(frame: &[u8]) -> Packet {
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

fn state() -> Vec<Row> {
    let known = |number, verdict: &str, packet: Packet, name: &str| {
        let mut row = forwarded(name, Side::Wan, &packet, verdict);
        row.before = vec![proof(number)];
        row
    };
    let native = from_client(Packet::raw(peer(91), VIP, protocol::ESP, ESP_PAYLOAD));
    let mut rows = vec![
        known(
            90,
            "forward esp-in-udp in",
            inbound(90, 4500, ESP_PAYLOAD),
            "ESP in UDP in, established by the server's ESP",
        ),
        known(
            91,
            "forward esp in",
            native,
            "native ESP in, established by the server's ESP",
        ),
        known(
            92,
            "forward keepalive in",
            inbound(92, 4500, [0xff]),
            "keepalive of a session",
        ),
        known(
            93,
            "forward natt-ike in",
            inbound(93, 4500, marked(ike(SPI_R))),
            "IKE of a session",
        ),
        known(
            94,
            "forward esp-in-udp in untracked",
            inbound(94, 4500, [0, 0, 0, 255, 0, 0, 0, 1]),
            "reserved SPI 255 [88]",
        ),
    ];
    let mut proven = forwarded(
        "IKE with both SPIs of the server's reply completes the proof",
        Side::Wan,
        &inbound(95, 4500, marked(ike(SPI_R))),
        "forward natt-ike in",
    );
    proven.before = vec![(Side::Lan, outbound(95, 500, ike(SPI_R)).build())];
    rows.push(proven);
    let mut cookie = forwarded(
        "a reply without responder SPI (COOKIE) is no half of a proof [86]",
        Side::Wan,
        &inbound(89, 500, ike([0; 8])),
        "forward ike in untracked",
    );
    cookie.before = vec![(Side::Lan, outbound(89, 500, ike([0; 8])).build())];
    rows.push(cookie);
    let mut forged = forwarded(
        "IKE with another responder SPI does not [79]",
        Side::Wan,
        &inbound(96, 4500, marked(ike([0x23; 8]))),
        "forward natt-ike in untracked",
    );
    forged.before = vec![(Side::Lan, outbound(96, 500, ike(SPI_R)).build())];
    rows.push(forged);
    let mut stranger = forwarded(
        "nor does the pair of another peer's reply",
        Side::Wan,
        &inbound(97, 4500, marked(ike(SPI_R))),
        "forward natt-ike in untracked",
    );
    stranger.before = vec![(Side::Lan, outbound(98, 500, ike(SPI_R)).build())];
    rows.push(stranger);
    let mut keepalive = forwarded(
        "a keepalive creates no session",
        Side::Wan,
        &inbound(99, 4500, ESP_PAYLOAD),
        "forward esp-in-udp in untracked",
    );
    keepalive.before = vec![(Side::Wan, inbound(99, 4500, [0xff]).build())];
    rows.push(keepalive);
    rows
}
