//! Rows about IKE, NAT-T and ESP: how they are distinguished, and which packets prove
//! establishment.

use super::*;

pub(super) fn ordinary() -> Vec<Row> {
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

pub(super) fn esp_and_ike() -> Vec<Row> {
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
        )
        // A frame that short is none of Ethernet's, which pads it to 60 bytes.
        .general(),
        forwarded(
            "native SPI 0 [87]",
            Side::Wan,
            &esp(70, &[0; 16]),
            "forward esp in untracked",
        )
        .general(),
    ]
}

/// The class is decided by what belongs to the datagram and is in this packet.
pub(super) fn ends() -> Vec<Row> {
    let side = Side::Wan;
    let longer = inbound(203, 4500, [[0xff; 4], [0; 4], [7; 4], [7; 4]].concat())
        .with_checksum(Checksum::Zero);
    let keepalive = |packet: &Packet| {
        let mut frame = packet.build();
        frame[38..40].copy_from_slice(&[0, 9]);
        frame
    };
    let mut behind = row(
        "a keepalive with bytes behind the datagram",
        side,
        keepalive(&longer),
        "forward keepalive in untracked",
    );
    behind.output = Some(keepalive(&translated(&longer, side)));
    // From port 40,000 to port 4500, of 100 bytes.
    let header = [0x9c, 0x40, 0x11, 0x94, 0, 100, 0, 0];
    let mut first = from_client(Packet::raw(peer(204), VIP, protocol::UDP, header));
    first.flags = 0x2000;
    first.padding = vec![0; 18];
    let first = forwarded(
        "a first fragment without payload, and padding",
        side,
        &first,
        "forward other in untracked",
    );
    vec![behind, first]
}

pub(super) fn state() -> Vec<Row> {
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
        )
        .general(),
        known(
            205,
            "forward esp-in-udp in",
            inbound(205, 4500, [&[0, 0, 1, 0][..], &ESP_PAYLOAD[4..]].concat()),
            "SPI 256, the first that is not reserved",
        ),
    ];
    let mut proven = forwarded(
        "IKE with both SPIs of the server's reply completes the proof",
        Side::Wan,
        &inbound(95, 4500, marked(ike(SPI_R))),
        "forward natt-ike in",
    );
    proven.before = vec![(Side::Lan, outbound(95, 500, ike_response(SPI_R)).build())];
    rows.push(proven);
    let mut cookie = forwarded(
        "a reply without responder SPI (COOKIE) is no half of a proof [86]",
        Side::Wan,
        &inbound(89, 500, ike([0; 8])),
        "forward ike in untracked",
    );
    cookie.before = vec![(Side::Lan, outbound(89, 500, ike_response([0; 8])).build())];
    rows.push(cookie);
    let mut forged = forwarded(
        "IKE with another responder SPI does not [79]",
        Side::Wan,
        &inbound(96, 4500, marked(ike([0x23; 8]))),
        "forward natt-ike in untracked",
    );
    forged.before = vec![(Side::Lan, outbound(96, 500, ike_response(SPI_R)).build())];
    rows.push(forged);
    let mut unproved = forwarded(
        "nor does the pair of another peer's reply",
        Side::Wan,
        &inbound(97, 4500, marked(ike(SPI_R))),
        "forward natt-ike in untracked",
    );
    unproved.before = vec![(Side::Lan, outbound(98, 500, ike_response(SPI_R)).build())];
    rows.push(unproved);
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
