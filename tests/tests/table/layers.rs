//! Rows about Ethernet, IPv4 and UDP: packets that are not handled, malformed packets, and refused
//! packets.

use super::*;

pub(super) fn layer2() -> Vec<Row> {
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
            "dropped group-frame",
        ),
        row(
            "a later fragment to all stations",
            Side::Wan,
            {
                // Where a UDP header would be stands one to port 500.
                let body = inbound(206, 500, [3; 40]).build()[34..].to_vec();
                let mut later = from_client(Packet::raw(peer(206), VIP, protocol::UDP, body));
                later.flags = 1;
                later.to_mac = [0xff; 6];
                later.build()
            },
            "punted not-our-mac",
        ),
        row(
            "the server's IKE to all stations",
            Side::Lan,
            {
                let mut ike = outbound(207, 500, ike(SPI_R));
                ike.to_mac = [0xff; 6];
                ike.build()
            },
            "punted not-our-mac",
        ),
    ]
}

pub(super) fn ipv4() -> Vec<Row> {
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
    all_options.options = ikenat_tests::lab::frames::timestamp(40);
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
    let rows = vec![
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
        )
        .general(),
        forwarded(
            "a header of 60 bytes",
            Side::Wan,
            &all_options,
            "forward esp in untracked",
        )
        .general(),
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
    ];
    rows
}

pub(super) fn udp() -> Vec<Row> {
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
