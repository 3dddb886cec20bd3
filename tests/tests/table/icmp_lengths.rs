//! Rows about ICMP that is too short, cut off, padded or in fragments, and about errors on the wrong
//! side.

use super::icmp::{
    NOTHING, UNREACHABLE, icmp, in_tc, message, quote, received, sent, sent_esp, translatable,
};
use super::*;

/// An error of a router outside with this after its header.
fn to_vip(quoted: &[u8]) -> Packet {
    let body = message([UNREACHABLE, 1], NOTHING, quoted);
    from_client(icmp(peer(250), VIP, body))
}

/// An error about this packet that is larger than the LAN carries: no error is sent about it (RFC
/// 1122 section 3.2.2), and the host's stack fragments it.
fn larger_than_the_lan((mut seen, mut meant): (Packet, Packet)) -> Row {
    for packet in [&mut seen, &mut meant] {
        if let Body::Udp { payload, .. } = &mut packet.body {
            payload.resize(1472, 0x5a);
        }
    }
    let input = to_vip(&quote(&seen, 1480));
    let mut output = to_vip(&quote(&meant, 1480));
    output.destination = SERVER;
    let verdict = "forward icmp in untracked";
    let mut row = in_tc(
        "larger than the LAN",
        Side::Wan,
        &input,
        verdict,
        Some(output),
    );
    row.to_stack = true;
    row
}

pub(super) fn lengths() -> Vec<Row> {
    let left =
        |name: &str, side, packet: &Packet| in_tc(name, side, packet, "punted other-icmp", None);
    let of_others = Packet::udp((GATEWAY_LAN, 500), (peer(180), 40_000), ESP_PAYLOAD);
    let error = to_vip(&quote(&sent(181, 4500).0, 8));
    let mut first = error.clone();
    first.flags = 0x2000;
    let mut later = error.clone();
    later.flags = 1;
    let seven = from_client(icmp(peer(250), VIP, vec![UNREACHABLE, 1, 0, 0, 0, 0, 0]));
    let mut cut = in_tc(
        "one byte less than the total length",
        Side::Wan,
        &error,
        "punted malformed",
        None,
    );
    cut.input.pop();
    let mut padded = translatable("padded by Ethernet", peer(250), sent(182, 4500));
    padded.input.extend([0xa5; 5]);
    let output = padded.slow_output.as_mut().expect("it is translated");
    output.extend([0xa5; 5]);
    let inside = Packet::udp(
        (peer(183), 40_000),
        (Ipv4Addr::new(192, 168, 0, 77), 4500),
        ESP_PAYLOAD,
    );
    let body = message([UNREACHABLE, 1], NOTHING, &quote(&inside, 8));
    let about_inside = from_server(icmp(SERVER, peer(183), body));
    let mut long = received(187, 4500).0;
    if let Body::Udp { payload, .. } = &mut long.body {
        payload.resize(1472, 0x5a);
    }
    let body = message([UNREACHABLE, 3], NOTHING, &quote(&long, 1480));
    let large = from_server(icmp(SERVER, peer(187), body));
    let mut rows = vec![
        left(
            "a header alone is quoted, and is of another host",
            Side::Wan,
            &to_vip(&quote(&of_others, 0)),
        ),
        in_tc(
            "a header alone is quoted, and is the VIP's [98]",
            Side::Wan,
            &to_vip(&quote(&sent(184, 4500).0, 0)),
            "dropped icmp-malformed",
            None,
        ),
        in_tc("seven bytes", Side::Wan, &seven, "punted malformed", None),
        left(
            "an echo request without data",
            Side::Wan,
            &from_client(icmp(peer(250), VIP, message([8, 0], NOTHING, &[]))),
        ),
        left("the first fragment of an error", Side::Wan, &first),
        left("a later fragment of an error", Side::Wan, &later),
        left(
            "about a packet to the server, from outside",
            Side::Wan,
            &to_vip(&quote(&received(185, 4500).0, 8)),
        ),
        left(
            "from inside, about a packet to another host there",
            Side::Lan,
            &about_inside,
        ),
        in_tc(
            "seven bytes of ESP are quoted [98]",
            Side::Wan,
            &to_vip(&quote(&sent_esp(186).0, 7)),
            "dropped icmp-malformed",
            None,
        ),
        // RFC 1122 section 3.2.2: no error about an error.
        in_tc(
            "larger than the WAN",
            Side::Lan,
            &large,
            "dropped icmp-limited",
            None,
        ),
        larger_than_the_lan(sent(188, 4500)),
        cut,
        padded,
    ];
    for row in &mut rows {
        row.name.insert_str(0, "ICMP lengths: ");
    }
    rows
}
