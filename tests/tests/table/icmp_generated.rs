//! Rows about the ICMP errors that ikenat generates: the TTL has expired, or the packet is too big.

use super::icmp::{NOTHING, TIME_EXCEEDED, UNREACHABLE, checksum, icmp, message, quote};
use super::*;

/// ikenat's error about a packet, sent back to the packet's sender.
pub(super) fn answer(about: &Packet, from: Ipv4Addr, what: [u8; 2], word: [u8; 4]) -> Vec<u8> {
    let body = message(what, word, &quote(about, 548 - 20));
    let mut packet = icmp(from, about.source, body).with_macs(about.from_mac, about.to_mac);
    (packet.tos, packet.ttl, packet.id, packet.flags) = (0xc0, 64, 0, DONT_FRAGMENT);
    packet.build()
}

pub(super) fn answered_row(
    name: &str,
    side: Side,
    input: &Packet,
    reason: [&str; 2],
    output: Vec<u8>,
) -> Row {
    let mut row = row(name, side, input.build(), &format!("slow {}", reason[0]));
    row.slow_verdict = Some(format!("answered {}", reason[1]));
    row.slow_output = Some(output);
    row
}

/// Padded with ESP to more than an Ethernet frame takes.
pub(super) fn large(mut packet: Packet, flags: u16) -> Packet {
    let (Body::Udp { payload, .. } | Body::Tcp { payload, .. } | Body::Raw { payload, .. }) =
        &mut packet.body;
    payload.resize(1_600, 0xe5);
    packet.flags = flags;
    packet
}

/// The device finishes the quoted checksum, so the sum of the message is that of the finished packet
/// (RFC 792: the checksum covers the message that is sent).
fn partial(expiring: &Packet) -> Row {
    let pseudo_header = bytes::partial_checksum(&expiring.build());
    let mut output = answer(expiring, VIP, [TIME_EXCEEDED, 0], NOTHING);
    output[68..70].copy_from_slice(&pseudo_header);
    let name = "TTL 1, a partial checksum [111]";
    let reason = ["checksum-partial", "time-exceeded"];
    let mut row = answered_row(name, Side::Wan, expiring, reason, output);
    row.input[40..42].copy_from_slice(&pseudo_header);
    row
}

pub(super) fn errors() -> Vec<Row> {
    let expiring = |mut packet: Packet, ttl| {
        packet.ttl = ttl;
        packet
    };
    let ttl_in = expiring(inbound(30, 4500, ESP_PAYLOAD), 1);
    let ttl_0 = expiring(inbound(39, 500, ike([0; 8])), 0);
    let ttl_out = expiring(outbound(37, 4500, ESP_PAYLOAD), 1);
    let big_in = large(inbound(160, 4500, ESP_PAYLOAD), DONT_FRAGMENT);
    let big_out = large(
        from_server(Packet::raw(SERVER, peer(161), protocol::ESP, ESP_PAYLOAD)),
        DONT_FRAGMENT,
    );
    let mut quoted_options = large(inbound(162, 4500, ESP_PAYLOAD), DONT_FRAGMENT);
    quoted_options.options = vec![1; 8];
    let soft_in = large(inbound(163, 4500, ESP_PAYLOAD), 0);
    let soft_out = large(outbound(164, 4500, ESP_PAYLOAD), 0);
    let ([expired, needed], mtu) = ([[TIME_EXCEEDED, 0], [UNREACHABLE, 4]], [0, 0, 5, 0xdc]);
    let time = ["ttl-expired", "time-exceeded"];
    let size = ["too-big", "fragmentation-needed"];
    let mut rows = vec![
        answered_row(
            "TTL 1 in [28]",
            Side::Wan,
            &ttl_in,
            time,
            answer(&ttl_in, VIP, expired, NOTHING),
        ),
        answered_row(
            "TTL 0 in [27]",
            Side::Wan,
            &ttl_0,
            time,
            answer(&ttl_0, VIP, expired, NOTHING),
        ),
        answered_row(
            "TTL 1 out",
            Side::Lan,
            &ttl_out,
            time,
            answer(&ttl_out, GATEWAY_LAN, expired, NOTHING),
        ),
        answered_row(
            "too big, DF, in [112]",
            Side::Wan,
            &big_in,
            size,
            answer(&big_in, VIP, needed, mtu),
        ),
        answered_row(
            "too big, DF, out [112]",
            Side::Lan,
            &big_out,
            size,
            answer(&big_out, GATEWAY_LAN, needed, mtu),
        ),
        answered_row(
            "too big, DF, with options",
            Side::Wan,
            &quoted_options,
            size,
            {
                let body = message(needed, mtu, &quoted_options.build()[14..14 + 548]);
                let mut packet = answer(&quoted_options, VIP, needed, mtu);
                packet.truncate(34);
                packet.extend(body);
                let total = u16::try_from(packet.len() - 14)
                    .expect("small")
                    .to_be_bytes();
                packet[16..18].copy_from_slice(&total);
                packet[24..26].fill(0);
                let sum = checksum(&packet[14..34]);
                packet[24..26].copy_from_slice(&sum);
                packet
            },
        ),
    ];
    // The kernel routes it, decrements the TTL and fragments it.
    let mut stacked = row(
        "too big, no DF, in [112]",
        Side::Wan,
        soft_in.build(),
        "slow too-big",
    );
    stacked.slow_verdict = Some("forward esp-in-udp in untracked".to_owned());
    let mut output = soft_in;
    output.destination = SERVER;
    stacked.slow_output = Some(output.build());
    stacked.to_stack = true;
    rows.push(stacked);
    let mut kept = row(
        "too big, no DF, out [112]",
        Side::Lan,
        soft_out.build(),
        "slow too-big",
    );
    kept.slow_verdict = Some("slow to-fragment".to_owned());
    rows.push(kept);
    // No error is sent about a later fragment (RFC 1122 section 3.2.2).
    let mut later =
        bytes::raw_of(&large(inbound(165, 4500, ESP_PAYLOAD), 0).build_fragments(&[16])[1]);
    later.flags |= DONT_FRAGMENT;
    later = from_client(later);
    let mut fragment = row(
        "too big, DF, a later fragment",
        Side::Wan,
        later.build(),
        "slow fragment-undecided",
    );
    fragment.before = vec![proof(165)];
    fragment.slow_verdict = Some("dropped icmp-limited".to_owned());
    rows.push(fragment);
    rows.push(partial(&expiring(inbound(166, 4500, ESP_PAYLOAD), 1)));
    for row in &mut rows {
        row.name.insert_str(0, "answer: ");
    }
    rows
}
