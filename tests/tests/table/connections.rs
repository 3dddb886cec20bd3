//! Rows about connections of TCP to a service with two VIPs: by which VIP the server's segments leave, and
//! which RST is refused.

use super::*;
use ikenat_tests::bpf::fixture::VIP_2;

const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const PSH: u8 = 0x08;
const ACK: u8 = 0x10;
const IN: &str = "forward tcp in untracked";
const OUT: &str = "forward tcp out untracked";
/// The first sequence number of the server in its first connection with a port of the peer, and in the next one.
const FIRST: u32 = 0x7000_0000;
const NEXT: u32 = 0x7100_0000;

/// A segment with these numbers: sequence and acknowledgment. It carries eight bytes, if any.
fn numbered(mut packet: Packet, wanted: u8, wanted_numbers: [u32; 2]) -> Packet {
    if let Body::Tcp {
        flags,
        numbers,
        payload,
        ..
    } = &mut packet.body
    {
        (*flags, *numbers) = (wanted, wanted_numbers);
        if wanted & PSH != 0 {
            *payload = vec![1; 8];
        }
    }
    packet
}

/// What a connection's peer sends, or somebody in its name, and what the server sends.
struct Connection(u8);

impl Connection {
    /// A segment to a VIP that acknowledges what the server has sent before this number.
    fn to(&self, vip: Ipv4Addr, flags: u8, acknowledged: u32) -> Packet {
        let packet = Packet::tcp((peer(self.0), 40_000), (vip, 4500), []);
        numbered(from_client(packet), flags, [0x1000_0000, acknowledged])
    }

    fn answer(&self, flags: u8, number: u32) -> Packet {
        let packet = Packet::tcp((SERVER, 4500), (peer(self.0), 40_000), []);
        numbered(from_server(packet), flags, [number, 0x1000_0001])
    }

    /// The three segments that establish it (RFC 9293 section 3.5); the server sends from this side.
    fn handshake(&self, vip: Ipv4Addr, first: u32, server: Side) -> Vec<(Side, Vec<u8>)> {
        vec![
            (Side::Wan, self.to(vip, SYN, 0).build()),
            (server, self.answer(SYN | ACK, first).build()),
            (Side::Wan, self.to(vip, ACK, first + 1).build()),
        ]
    }
}

/// A segment of the server that leaves by a VIP.
fn leaves(name: &str, side: Side, packet: &Packet, vip: Ipv4Addr) -> Row {
    let mut row = forwarded(name, side, packet, OUT);
    let mut output = translated(packet, side);
    output.source = vip;
    row.output = Some(output.build());
    row
}

/// A RST of the peer's side that the server must not get.
fn refused(name: &str, packet: &Packet) -> Row {
    row(name, Side::Wan, packet.build(), "dropped other-vip")
}

fn named(mut rows: Vec<Row>) -> Vec<Row> {
    for row in &mut rows {
        row.name.insert_str(0, "connection: ");
        row.only_several = true;
    }
    rows
}

fn after(before: Vec<(Side, Vec<u8>)>, mut row: Row) -> Row {
    row.before = before;
    row
}

/// Connections of two peers, one by each VIP.
pub(super) fn by_each_vip() -> Vec<Row> {
    let mut rows = Vec::new();
    for (number, vip, other) in [(238, VIP_2, VIP), (241, VIP, VIP_2)] {
        let one = |more: u8| Connection(number + more);
        let proven = |more: u8| one(more).handshake(vip, FIRST, Side::Lan);
        let data = one(0).answer(PSH | ACK, FIRST + 1);
        let what = format!("data leaves by the connection's VIP {vip}");
        rows.push(after(proven(0), leaves(&what, Side::Lan, &data, vip)));
        let reset = one(1).to(other, RST, 0);
        let what = format!("a RST to {other} is refused");
        rows.push(after(proven(1), refused(&what, &reset)));
        let reset = one(2).to(vip, RST, 0);
        let what = format!("a RST to {vip} is not");
        rows.push(after(proven(2), forwarded(&what, Side::Wan, &reset, IN)));
    }
    named(rows)
}

/// What comes to the other VIP.
pub(super) fn to_the_other_vip() -> Vec<Row> {
    let with = |number, more: Vec<Packet>| {
        let mut before = Connection(number).handshake(VIP_2, FIRST, Side::Lan);
        before.extend(more.into_iter().map(|packet| (Side::Wan, packet.build())));
        before
    };
    let data = |number, at| Connection(number).answer(PSH | ACK, at + 1);
    let syn = |number| Connection(number).to(VIP, SYN, 0);
    let mut moved = with(246, vec![]);
    moved.extend(Connection(246).handshake(VIP, NEXT, Side::Lan));
    let mut ended = with(247, vec![Connection(247).to(VIP_2, FIN | ACK, FIRST + 1)]);
    let end = Connection(247).answer(FIN | ACK, FIRST + 1);
    ended.push((Side::Lan, end.build()));
    let claims = [VIP_2, VIP].map(|vip| (Side::Wan, Connection(249).to(vip, ACK, 0).build()));
    named(vec![
        after(
            with(244, vec![Connection(244).to(VIP, ACK, FIRST + 1)]),
            leaves("a claim moves nothing", Side::Lan, &data(244, FIRST), VIP_2),
        ),
        after(
            with(245, vec![syn(245)]),
            leaves(
                "a SYN is acknowledged by the connection's VIP",
                Side::Lan,
                &Connection(245).answer(ACK, FIRST + 1),
                VIP_2,
            ),
        ),
        after(
            moved,
            leaves(
                "one that the server accepts moves it",
                Side::Lan,
                &data(246, NEXT),
                VIP,
            ),
        ),
        after(
            ended,
            forwarded(
                "a RST after both FINs is not refused",
                Side::Wan,
                &Connection(247).to(VIP, RST, 0),
                IN,
            ),
        ),
        after(
            with(248, vec![syn(248)]),
            leaves(
                "a SYN and ACK with another number leaves by the other VIP",
                Side::Lan,
                &Connection(248).answer(SYN | ACK, NEXT),
                VIP,
            ),
        ),
        after(
            claims.into(),
            leaves("the last claim counts", Side::Lan, &data(249, FIRST), VIP),
        ),
    ])
}

/// A server on the gateway itself: tc sees what comes, the egress program what leaves.
pub(super) fn on_egress() -> Vec<Row> {
    let side = Side::Out;
    let proven = |number| Connection(number).handshake(VIP_2, FIRST, side);
    let data = Connection(251).answer(PSH | ACK, FIRST + 1);
    let mut claimed = proven(252);
    claimed.push((Side::Wan, Connection(252).to(VIP, SYN, 0).build()));
    let acknowledged = Connection(252).answer(ACK, FIRST + 1);
    let moves = Connection(253).answer(SYN | ACK, NEXT);
    let mut moved = proven(253);
    moved.push((Side::Wan, Connection(253).to(VIP, SYN, 0).build()));
    named(vec![
        after(
            proven(251),
            leaves("egress: data leaves by the second VIP", side, &data, VIP_2),
        ),
        after(
            claimed,
            leaves("egress: a SYN moves nothing", side, &acknowledged, VIP_2),
        ),
        after(
            moved,
            leaves("egress: one that is accepted does", side, &moves, VIP),
        ),
    ])
}
