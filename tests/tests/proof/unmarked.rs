//! IKE between port 500 and 4500 has no Non-ESP Marker, whatever it begins with.

use super::{Fields, SPI_R};
use ikenat_tests::bpf::gateway::{Gateway, NOW};
use ikenat_tests::bpf::tables::Slot;
use ikenat_tests::lab::frames::Packet;
use ikenat_tests::lab::topology::{CLIENT_MAC, LAN_MAC, SERVER, SERVER_MAC, VIP, WAN_MAC};
use std::net::Ipv4Addr;
use xdp_common::slot::{self, session};
use xdp_core::Side;

/// The verdict on a packet at a moment.
type Run = fn(&Gateway, Side, &Packet, u64) -> String;

/// That of XDP, whose fast path does not look at the peer's port, and of tc.
const HOOKS: [(Run, bool); 2] = [(Gateway::verdict_in_xdp, true), (Gateway::verdict, false)];

fn from_server(peer: Ipv4Addr, port: u16, payload: &[u8]) -> Packet {
    Packet::udp((SERVER, 4500), (peer, port), payload).with_macs(LAN_MAC, SERVER_MAC)
}

fn from_peer(peer: Ipv4Addr, port: u16, payload: &[u8]) -> Packet {
    Packet::udp((peer, port), (VIP, 4500), payload).with_macs(WAN_MAC, CLIENT_MAC)
}

/// Between port 500 and 4500 there is no marker: a message whose initiator SPI begins with four zero
/// bytes only looks like a marked one, and would be read four bytes too late.
#[test]
fn ike_between_port_500_and_4500_proves_nothing() {
    let mut gateway = Gateway::default();
    let peer = (gateway.next_peer(), 500);
    let message = |fields: Fields| [&[0; 4][..], &fields.message(SPI_R)].concat();
    for next in [Fields::IKE_SA_INIT, Fields::IKE_AUTH] {
        let sent = gateway.outbound(4500, peer, &message(Fields::IKE_SA_INIT), NOW);
        assert_eq!(sent, "forward natt-ike out untracked");
        let got = gateway.inbound(peer, 4500, &message(next), NOW);
        assert_eq!(got, "forward natt-ike in untracked");
    }
    assert!(gateway.tables.sessions().is_empty());
}

/// An unmarked IKE message from port 500 to port 4500 makes a server that takes everything there
/// for ESP answer to port 500, with the SPI that the message had.
#[test]
fn udp_with_port_500_is_never_esp() {
    for (run, has_fast_path) in HOOKS {
        let mut gateway = Gateway::with_neighbours();
        let peer = gateway.next_peer();
        let message = Fields::IKE_SA_INIT.message(SPI_R);
        let pass = |port: u16, payload: &[u8], [out, into]: [&str; 2]| {
            let packet = from_server(peer, port, payload);
            assert_eq!(run(&gateway, Side::Lan, &packet, NOW), out);
            let packet = from_peer(peer, port, payload);
            assert_eq!(run(&gateway, Side::Wan, &packet, NOW), into);
        };
        let untracked = [
            "forward esp-in-udp out untracked",
            "forward esp-in-udp in untracked",
        ];
        pass(500, &message, untracked);
        assert!(gateway.tables.sessions().is_empty() && gateway.tables.flows().is_empty());
        // The same bytes to another port are the proof that ESP is.
        let tracked = ["forward esp-in-udp out", "forward esp-in-udp in"];
        pass(4500, &message, tracked);
        pass(4500, &message, tracked);
        let flows = gateway.tables.flows();
        assert_eq!(flows.len(), 2);
        // Of a peer with a session neither, whether the SPI is known or not.
        let other = [&[1, 2, 3, 4], &message[4..]].concat();
        pass(500, &other, untracked);
        if !has_fast_path {
            pass(500, &message, untracked);
        }
        let counted = |flow: &Slot| flow.hot[slot::flow::PACKETS];
        let after = gateway.tables.flows();
        assert!(after.iter().map(counted).eq([2, 2]), "{after:?}");
    }
}

/// A reply goes to two addresses, and the first of them is reached from port 4500 at port 500: its first word may
/// be zero, like a marker, or a reserved SPI of ESP (RFC 4303 section 2.1), or anything else, such as the SPI of a
/// flow. Four bytes too late a message ID may look like an encrypted message.
#[test]
fn a_reply_without_a_marker_and_one_to_another_address_prove_nothing() {
    const SPI: u32 = u32::from_be_bytes(*b"iiii");
    let encrypted = u32::from_be_bytes([46, 0x20, 37, 0x20]);
    for (run, has_fast_path) in HOOKS {
        for (first, has_session, id) in [0, 1, 0xff, SPI].into_iter().flat_map(|first| {
            [(false, 0), (true, 0), (true, encrypted)].map(|(known, id)| (first, known, id))
        }) {
            if has_fast_path && has_session && first == SPI {
                continue;
            }
            let message = |fields: Fields| {
                let mut message = fields.message(SPI_R);
                message[..4].copy_from_slice(&first.to_be_bytes());
                message
            };
            let reply = message(Fields {
                id,
                ..Fields::IKE_SA_INIT
            });
            let mut gateway = Gateway::with_neighbours();
            let [stranger, peer] = [(); 2].map(|()| gateway.next_peer());
            if has_session {
                // With a flow that has this SPI.
                let esp = [&SPI.to_be_bytes()[..], &[0; 20]].concat();
                for _ in 0..2 {
                    let packet = from_server(stranger, 4500, &esp);
                    let sent = run(&gateway, Side::Lan, &packet, NOW);
                    assert_eq!(sent, "forward esp-in-udp out");
                }
            }
            let packet = from_server(stranger, 500, &reply);
            let sent = run(&gateway, Side::Lan, &packet, NOW + 1);
            let is_tracked = has_session && first == 0;
            assert_eq!(!sent.ends_with("untracked"), is_tracked, "{sent}");
            for session in gateway.tables.sessions() {
                // What the server sends in the clear keeps no session.
                assert_eq!(session.hot[session::LAST_SEEN] & 0xffff_ffff, NOW);
            }
            gateway.outbound(500, (peer, 500), &reply, NOW);
            let next = message(Fields::IKE_AUTH);
            let got = gateway.inbound((peer, 500), 500, &next, NOW);
            assert_eq!(got, "forward ike in untracked", "{has_session} {first}");
        }
    }
}
