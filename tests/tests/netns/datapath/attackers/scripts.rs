//! The packets of attackers who can forge any source address, and what a server answers to them.

use std::net::Ipv4Addr;

use ikenat_tests::bpf::pinned::From;
use ikenat_tests::lab::frames::icmp::{code, kind, quote};
use ikenat_tests::lab::frames::{Icmp, Packet, protocol};
use ikenat_tests::lab::topology::{
    CLIENT_MAC, GATEWAY_LAN, LAN_MAC, SERVER, SERVER_MAC, VIP, WAN_MAC,
};
use ikenat_tests::lab::wire::{esp, exchange, ike, marked};
use xdp_common::Direction;

use super::Tunnel;

/// A frame and where it comes in.
pub(super) type Shot = (From, Vec<u8>);

/// What an attacker does about a tunnel whose next packets are about to come.
pub(super) struct Attack {
    pub(super) name: &'static str,
    /// How often it is done before each of them.
    pub(super) burst: u32,
    pub(super) shots: fn(&mut Random, &mut Tunnel) -> Vec<Shot>,
}

pub(super) const ATTACKS: [Attack; 10] = [
    attack("a proof that the server echoes", 4, forged_proof),
    attack("IKE and ESP between ports 500 and 4500", 4, other_ports),
    attack("guesses of inbound SPIs", 16, guessed_spis),
    attack("keepalives", 16, keepalives),
    attack("packets that expire at the gateway", 16, expiring),
    attack("sources inside", 16, inside_sources),
    attack("source routes", 16, source_routes),
    attack("sequence numbers far ahead", 1, poisoned_sequence),
    attack("ICMP errors that are cut off", 16, cut_errors),
    attack("any source, any payload and fragments", 16, flood),
];

const fn attack(
    name: &'static str,
    burst: u32,
    shots: fn(&mut Random, &mut Tunnel) -> Vec<Shot>,
) -> Attack {
    Attack { name, burst, shots }
}

/// Numbers that are the same in each run (xorshift).
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn next(&mut self) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 32) as u32
    }

    fn below(&mut self, end: u32) -> u32 {
        self.next() % end
    }

    /// An SPI that no tunnel has.
    fn spi(&mut self) -> u32 {
        0x8000_0000 | self.next()
    }

    /// An address of no tunnel.
    fn stranger(&mut self) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(Ipv4Addr::new(45, 0, 0, 0)) | self.next() >> 8)
    }

    fn bytes(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_| self.next().to_be_bytes()[0]).collect()
    }
}

fn outside(packet: Packet) -> Shot {
    (From::Wan, packet.with_macs(WAN_MAC, CLIENT_MAC).build())
}

fn udp(peer: Ipv4Addr, ports: (u16, u16), payload: impl Into<Vec<u8>>) -> Shot {
    outside(Packet::udp((peer, ports.0), (VIP, ports.1), payload))
}

/// What the server sends from one of its ports.
fn answer(port: u16, peer: (Ipv4Addr, u16), payload: impl Into<Vec<u8>>) -> Shot {
    let packet = Packet::udp((SERVER, port), peer, payload).with_macs(LAN_MAC, SERVER_MAC);
    (From::Lan, packet.build())
}

/// A message of a major version that the server does not know makes it send both SPIs back (RFC
/// 7296 section 2.5). Then a guessed SPI.
fn forged_proof(random: &mut Random, _: &mut Tunnel) -> Vec<Shot> {
    let stranger = random.stranger();
    let mut forged = ike(0x4141_4141, 0x4242_4242, exchange::IKE_SA_INIT, false, 0);
    forged[16] = 0;
    forged[17] = 0x30;
    let mut echoed = ike(0x4141_4141, 0x4242_4242, exchange::IKE_SA_INIT, true, 8);
    // The first payload is Notify.
    echoed[16] = 41;
    vec![
        udp(stranger, (500, 500), forged.clone()),
        answer(500, (stranger, 500), echoed.clone()),
        udp(stranger, (500, 500), forged.clone()),
        udp(stranger, (4500, 4500), marked(&forged)),
        answer(4500, (stranger, 4500), marked(&echoed)),
        udp(stranger, (4500, 4500), marked(&forged)),
        udp(stranger, (4500, 4500), esp(random.spi(), 1, 40)),
    ]
}

/// Without the Non-ESP Marker a message looks like ESP, and so does the answer.
fn other_ports(random: &mut Random, tunnel: &mut Tunnel) -> Vec<Shot> {
    let peer = [random.stranger(), tunnel.peer][random.below(2) as usize];
    let message = ike(random.next().into(), 0, exchange::IKE_SA_INIT, false, 60);
    let reply = ike(
        random.next().into(),
        random.next().into(),
        exchange::IKE_SA_INIT,
        true,
        60,
    );
    vec![
        udp(peer, (500, 4500), message),
        answer(4500, (peer, 500), reply),
        udp(peer, (500, 4500), esp(random.spi(), 1, 40)),
        udp(peer, (4500, 500), esp(random.spi(), 1, 40)),
    ]
}

fn guessed_spis(random: &mut Random, tunnel: &mut Tunnel) -> Vec<Shot> {
    let spi = random.spi();
    vec![outside(tunnel.inbound(spi, 1))]
}

fn keepalives(random: &mut Random, tunnel: &mut Tunnel) -> Vec<Shot> {
    [random.stranger(), tunnel.peer]
        .map(|peer| udp(peer, (4500, 4500), [0xFF]))
        .into()
}

fn expiring(random: &mut Random, tunnel: &mut Tunnel) -> Vec<Shot> {
    let spi = random.spi();
    let mut packet = tunnel.inbound(spi, 1);
    packet.ttl = 1;
    vec![outside(packet)]
}

fn inside_sources(random: &mut Random, tunnel: &mut Tunnel) -> Vec<Shot> {
    let mut packet = tunnel.inbound(random.spi(), 1);
    let neighbour = Ipv4Addr::new(192, 168, 0, 77);
    packet.source = [SERVER, GATEWAY_LAN, neighbour, VIP][random.below(4) as usize];
    vec![outside(packet)]
}

/// With the SPI of the tunnel itself.
fn source_routes(random: &mut Random, tunnel: &mut Tunnel) -> Vec<Shot> {
    const LOOSE: u8 = 131;
    const STRICT: u8 = 137;
    let mut packet = tunnel.inbound(tunnel.spis[0], random.next());
    let kind = [LOOSE, STRICT][random.below(2) as usize];
    let [a, b, c, d] = random.stranger().octets();
    packet.options = vec![kind, 7, 4, a, b, c, d, 0];
    vec![outside(packet)]
}

/// The one forged packet that looks like those of the peer: it is counted in its SPI.
fn poisoned_sequence(_: &mut Random, tunnel: &mut Tunnel) -> Vec<Shot> {
    let sequence = tunnel.sequence.wrapping_add(1 << 30);
    let packet = tunnel.inbound(tunnel.spis[0], sequence);
    tunnel.count(Direction::Inbound, &packet.build());
    vec![outside(packet)]
}

fn cut_errors(random: &mut Random, tunnel: &mut Tunnel) -> Vec<Shot> {
    let mut about = tunnel.outbound(tunnel.spis[1], 1);
    about.source = VIP;
    let mut quoted = quote(&about, 8);
    quoted.truncate(random.below(32) as usize);
    let error = Icmp::new(kind::UNREACHABLE, code::HOST, quoted);
    vec![outside(Packet::icmp(random.stranger(), VIP, &error))]
}

fn flood(random: &mut Random, _: &mut Tunnel) -> Vec<Shot> {
    let source = Ipv4Addr::from(random.next());
    let length = 16 + 4 * random.below(300) as usize;
    let payload = random.bytes(length);
    let port = [500, 4500][random.below(2) as usize];
    let any_port = random.next().to_be_bytes();
    let any_port = u16::from_be_bytes([any_port[0], any_port[1]]);
    let packet = match random.below(3) {
        0 => Packet::raw(source, VIP, protocol::ESP, payload),
        _ => Packet::udp((source, any_port), (VIP, port), payload),
    };
    let mut packet = packet.with_macs(WAN_MAC, CLIENT_MAC);
    packet.id = any_port;
    let frames = match random.below(2) {
        0 => vec![packet.build()],
        _ => packet.build_fragments(&[8]),
    };
    let frames = frames.into_iter().map(|frame| (From::Wan, frame));
    // Some fragments never come.
    frames.filter(|_| random.below(4) > 0).collect()
}
