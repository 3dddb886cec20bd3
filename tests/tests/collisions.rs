//! Two keys with one digest: what the small buckets decide, they decide by the whole key.
//!
//! The packets go through the slow path's packet logic on the host.

use ikenat_tests::bpf::fixture;
use ikenat_tests::bpf::host::{self, Tables};
use ikenat_tests::lab::frames::Packet;
use ikenat_tests::lab::topology::{CLIENT_MAC, LAN_MAC, SERVER, SERVER_MAC, VIP, WAN_MAC};
use std::net::Ipv4Addr;
use xdp_common::{Config, Hook};
use xdp_core::Side;

const A: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 7);
const B: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 8);
const PORT: u16 = 500;

/// A gateway whose secret multiplies the first word of a key by zero, which is the peer: with it,
/// the keys of two peers that differ in nothing else have one digest.
struct Colliding {
    config: Config,
    tables: Tables,
}

impl Colliding {
    fn new() -> Self {
        let mut config = fixture::config();
        config.secret[1] = 0;
        let config = config.seal();
        Self {
            tables: Tables::new(&config),
            config,
        }
    }

    fn verdict(&self, side: Side, packet: &Packet) -> String {
        let fib = |_: [u8; 4], destination, length| fixture::fib(&self.config, destination, length);
        let mut frame = packet.build();
        let hook = if side == Side::Out {
            Hook::Egress
        } else {
            Hook::Tc
        };
        let ran = host::run_in(hook, (&self.tables, &fib, &self.config), side, &mut frame);
        host::word(ran.verdict)
    }

    fn inbound(&self, peer: Ipv4Addr, payload: Vec<u8>) -> String {
        let packet = Packet::udp((peer, PORT), (VIP, PORT), payload);
        self.verdict(Side::Wan, &packet.with_macs(WAN_MAC, CLIENT_MAC))
    }

    fn outbound(&self, peer: Ipv4Addr, payload: Vec<u8>) -> String {
        let packet = Packet::udp((SERVER, PORT), (peer, PORT), payload);
        self.verdict(Side::Lan, &packet.with_macs(LAN_MAC, SERVER_MAC))
    }
}

/// An IKEv2 message of this kind: first payload, version, exchange type, flags.
fn ike(kind: [u8; 4], id: u32) -> Vec<u8> {
    let [id, length] = [id, 40].map(u32::to_be_bytes);
    [&b"initiatoresponde"[..], &kind, &id, &length, &[0x55; 12]].concat()
}

#[test]
fn the_reply_to_one_peer_is_no_proof_of_another() {
    let gateway = Colliding::new();
    // RFC 7296 section 1.2: the response of IKE_SA_INIT begins with SA, IKE_AUTH with SK.
    gateway.outbound(A, ike([33, 0x20, 34, 0x20], 0));
    let next = || ike([46, 0x20, 35, 0x08], 1);
    assert_eq!(gateway.inbound(B, next()), "forward ike in untracked");
    assert_eq!(gateway.inbound(A, next()), "forward ike in");
}
