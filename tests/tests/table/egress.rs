//! Rows of the egress program: packets of the server that the host's own stack sends to clients.

use super::icmp::{NOTHING, UNREACHABLE, icmp, message, quote, received};
use super::*;

pub(super) fn from_the_stack() -> Vec<Row> {
    let udp = outbound(170, 4500, ESP_PAYLOAD);
    let native = from_server(Packet::raw(SERVER, peer(171), protocol::ESP, ESP_PAYLOAD));
    let long = outbound(172, 500, [ike(SPI_R), vec![3; 64]].concat()).build_fragments(&[48, 80]);
    let stray = outbound(173, 500, [ike(SPI_R), vec![3; 64]].concat()).build_fragments(&[48]);
    let (seen, meant) = received(174, 4500);
    let error = |about: &Packet, from| {
        let body = message([UNREACHABLE, 3], NOTHING, &quote(about, 8));
        from_server(icmp(from, peer(174), body)).build()
    };
    let side = Side::Out;
    let mut later = row(
        "a later fragment whose first went out",
        side,
        long[1].clone(),
        "forward fragment out untracked",
    );
    later.before = vec![(side, long[0].clone())];
    later.output = Some(
        translated(
            &bytes::raw_of(&long[1]).with_macs(LAN_MAC, SERVER_MAC),
            side,
        )
        .build(),
    );
    let mut port_unreachable = row(
        "an ICMP error of the server",
        side,
        error(&seen, SERVER),
        "forward icmp out untracked",
    );
    port_unreachable.output = Some(error(&meant, VIP));
    let mut rows = vec![
        forwarded("ESP in UDP", side, &udp, "forward esp-in-udp out"),
        forwarded("native ESP", side, &native, "forward esp out"),
        later,
        row(
            "a later fragment that nothing connects with us",
            side,
            stray[1].clone(),
            "punted other-fragment",
        ),
        row(
            "another port of the server",
            side,
            outbound(175, 53, [1; 20]).build(),
            "punted other-port",
        ),
        port_unreachable,
    ];
    for row in &mut rows {
        row.name.insert_str(0, "egress: ");
    }
    rows
}
