//! Where ikenat's own ICMP errors come from and go to.

#![cfg(not(loom))]

use xdp_common::{Config, Reason, Vip};
use xdp_core::Side;
use xdp_core::icmp::error::{self, ErrorCause};

const VIP: [u8; 4] = [203, 0, 113, 1];
const LAN: [u8; 4] = [192, 168, 0, 254];
const SERVER: [u8; 4] = [192, 168, 0, 1];
const PEER: [u8; 4] = [198, 51, 100, 9];
const GATEWAY_MAC: [u8; 6] = [2, 0, 0, 0, 1, 1];
const SENDER_MAC: [u8; 6] = [2, 0, 0, 0, 1, 10];

/// ESP without data whose TTL has expired.
fn frame(source_mac: [u8; 6], source: [u8; 4], destination: [u8; 4]) -> Vec<u8> {
    let mut frame = [GATEWAY_MAC.as_slice(), &source_mac, &[8, 0]].concat();
    frame.extend([0x45, 0, 0, 28, 0, 0, 0, 0, 1, 50, 0, 0]);
    frame.extend([source, destination].concat());
    frame.extend([0xc1, 2, 3, 4, 0, 0, 0, 1]);
    frame
}

fn config() -> Config {
    let vip = Vip {
        address: VIP,
        server: SERVER,
        lan_address: LAN,
        ..Vip::default()
    };
    let config = Config {
        vip,
        ..Config::ZERO
    };
    config.seal()
}

/// The MAC addresses and the IPv4 addresses of the error, the destinations first.
fn answer(side: Side, frame: &[u8]) -> Option<([u8; 12], [u8; 8])> {
    let cause = ErrorCause {
        side,
        reason: Reason::TimeExceeded,
        mtu: 0,
    };
    let head = error::build(frame, &config(), &cause)?.head;
    let mut addresses = [0; 8];
    addresses[..4].copy_from_slice(&head[30..34]);
    addresses[4..].copy_from_slice(&head[26..30]);
    let macs = head.first_chunk().expect("a whole header");
    Some((*macs, addresses))
}

/// RFC 1122 section 3.2.2: to the source of the packet. A peer knows the VIP and the server the
/// gateway's own address, also where both are behind one interface.
#[test]
fn an_error_comes_from_the_address_that_its_receiver_knows() {
    let inbound = frame(SENDER_MAC, PEER, VIP);
    let outbound = frame(SENDER_MAC, SERVER, PEER);
    let macs: [u8; 12] = [SENDER_MAC, GATEWAY_MAC]
        .concat()
        .try_into()
        .expect("12 bytes");
    let to = |receiver: [u8; 4], from: [u8; 4]| {
        let addresses: [u8; 8] = [receiver, from].concat().try_into().expect("8 bytes");
        Some((macs, addresses))
    };
    for side in [Side::Wan, Side::Both] {
        assert_eq!(answer(side, &inbound), to(PEER, VIP), "{side:?}");
    }
    for side in [Side::Lan, Side::Both] {
        assert_eq!(answer(side, &outbound), to(SERVER, LAN), "{side:?}");
    }
}

/// RFC 1122 section 3.2.2: a frame that names no single host as its sender is not answered. A
/// packet that leaves has come in before, and was answered there.
#[test]
fn a_group_and_the_egress_get_no_error() {
    let group = frame([3, 0, 0, 0, 1, 10], PEER, VIP);
    assert_eq!(answer(Side::Wan, &group), None);
    assert_eq!(answer(Side::Out, &frame(SENDER_MAC, SERVER, PEER)), None);
}

/// RFC 1812 section 4.3.2.3: as much of the packet as fits into 576 bytes.
#[test]
fn an_error_is_no_longer_than_576_bytes() {
    for (total, quoted) in [(28, 28), (547, 547), (548, 548), (549, 548), (1500, 548)] {
        let mut frame = frame(SENDER_MAC, PEER, VIP);
        frame.resize(14 + usize::from(total), 0x5a);
        frame[16..18].copy_from_slice(&u16::to_be_bytes(total));
        let cause = ErrorCause {
            side: Side::Wan,
            reason: Reason::TimeExceeded,
            mtu: 0,
        };
        let answer = error::build(frame.as_slice(), &config(), &cause).expect("an error");
        assert_eq!(answer.quote, quoted, "{total}");
        let length = u16::from_be_bytes([answer.head[16], answer.head[17]]);
        assert_eq!(length, quoted + 28, "{total}");
    }
}
