//! The first look at a frame: whatever it finds, the whole classification would find, too, and it
//! leaves every unusual frame to that.

#![cfg(not(loom))]

use xdp_common::{Config, Hook, Reason, Vip};
use xdp_core::Side;
use xdp_core::classify::{classify, is_for_us, not_handled};

const WAN: [u8; 6] = [2, 0, 0, 0, 1, 1];
const LAN: [u8; 6] = [2, 0, 0, 0, 2, 1];
const VIP: [u8; 4] = [203, 0, 113, 1];
const SERVER: [u8; 4] = [192, 168, 0, 199];
const CLIENT: [u8; 4] = [198, 51, 100, 7];

/// Offsets in a frame without options.
const ETHER_TYPE: usize = 12;
const VERSION_LENGTH: usize = 14;
const TOTAL: usize = 16;
const FLAGS: usize = 20;
const PROTOCOL: usize = 23;
const SOURCE: usize = 26;
const DESTINATION: usize = 30;
const PORTS: usize = 34;
const HEADERS: usize = 42;

/// A datagram without a payload to a port of the VIP (RFC 791 section 3.1, RFC 768).
fn to_vip(port: u16) -> Vec<u8> {
    let mut frame = [&WAN[..], &[2, 0, 0, 0, 9, 9], &[8, 0]].concat();
    frame.extend([0x45, 0, 0, 28, 0x12, 0x34, 0, 0, 64, 17, 0, 0]);
    frame.extend([CLIENT, VIP].concat());
    frame.extend(40_000_u16.to_be_bytes());
    frame.extend(port.to_be_bytes());
    frame.extend([0, 8, 0, 0]);
    assert_eq!(frame.len(), HEADERS);
    frame
}

/// The same from a port of the server.
fn from_server(port: u16) -> Vec<u8> {
    let mut frame = with(to_vip(500), SOURCE, &[SERVER, CLIENT].concat());
    frame[..6].copy_from_slice(&LAN);
    with(frame, PORTS, &port.to_be_bytes())
}

fn with(mut frame: Vec<u8>, at: usize, bytes: &[u8]) -> Vec<u8> {
    frame[at..at + bytes.len()].copy_from_slice(bytes);
    frame
}

fn cut(mut frame: Vec<u8>, length: usize) -> Vec<u8> {
    frame.truncate(length);
    frame
}

/// What the first look finds, and what the classification does.
#[track_caller]
fn check(side: Side, frame: &[u8], first: Option<Reason>, whole: Option<Reason>) {
    let config = Config {
        vip: Vip {
            address: VIP,
            server: SERVER,
            ..Vip::default()
        },
        wan_mac: WAN,
        lan_mac: LAN,
        ..Config::ZERO
    }
    .seal();
    assert_eq!(not_handled(frame, &config, side), first);
    let for_us = is_for_us(frame, &config, side);
    let classified = match classify::<_, false>(frame, &config, side, Hook::Tc, for_us) {
        Err(Reason::OtherProtocol) => classify::<_, true>(frame, &config, side, Hook::Tc, for_us),
        classified => classified,
    };
    assert_eq!(classified.err(), whole);
}

/// Both find the same.
#[track_caller]
fn both(side: Side, frame: &[u8], reason: Reason) {
    check(side, frame, Some(reason), Some(reason));
}

/// The first look leaves it to the classification.
#[track_caller]
fn left(side: Side, frame: &[u8], whole: Option<Reason>) {
    check(side, frame, None, whole);
}

#[test]
fn what_is_not_for_ikenat_shows_at_the_first_look() {
    let frame = to_vip(53);
    both(Side::Wan, &frame, Reason::OtherPort);
    both(Side::Lan, &from_server(53), Reason::OtherPort);
    let padded = [&frame[..], &[0; 18]].concat();
    both(Side::Wan, &padded, Reason::OtherPort);
    let unfragmented = with(to_vip(53), FLAGS, &[0x40, 0]);
    both(Side::Wan, &unfragmented, Reason::OtherPort);
    both(
        Side::Wan,
        &with(frame, ETHER_TYPE, &[8, 6]),
        Reason::NotIpv4,
    );
    both(Side::Wan, &cut(to_vip(53), 13), Reason::NotIpv4);
    let elsewhere = with(to_vip(500), DESTINATION, &CLIENT);
    both(Side::Wan, &elsewhere, Reason::OtherAddress);
    both(Side::Wan, &with(to_vip(500), PROTOCOL, &[1]), Reason::Icmp);
    let tcp = with(to_vip(500), PROTOCOL, &[6]);
    both(Side::Wan, &tcp, Reason::OtherPort);
    let gre = with(to_vip(500), PROTOCOL, &[47]);
    both(Side::Wan, &gre, Reason::OtherProtocol);
}

#[test]
fn what_may_be_handled_is_left_to_the_classification() {
    for port in [500, 4500] {
        left(Side::Wan, &to_vip(port), None);
        left(Side::Lan, &from_server(port), None);
    }
    // The port of the other side does not matter.
    let frame = with(to_vip(53), PORTS, &500_u16.to_be_bytes());
    both(Side::Wan, &frame, Reason::OtherPort);
    left(Side::Wan, &with(to_vip(4500), PROTOCOL, &[6]), None);
    let esp = with(to_vip(53), PROTOCOL, &[50]);
    left(Side::Wan, &esp, None);
}

/// To a foreign port, but the frame is unusual.
#[test]
fn what_is_unusual_is_left_to_the_classification() {
    let foreign = || to_vip(53);
    let other = Some(Reason::OtherPort);
    let mut options = with(foreign(), VERSION_LENGTH, &[0x46]);
    options[TOTAL + 1] += 4;
    options.splice(PORTS..PORTS, [1; 4]);
    left(Side::Wan, &options, other);
    // It has to be remembered for the later ones, which have no ports.
    left(Side::Wan, &with(foreign(), FLAGS, &[0x20, 0]), other);
    left(Side::Wan, &with(foreign(), FLAGS, &[0, 1]), None);
    left(Side::Wan, &with(foreign(), TOTAL, &[0, 27]), other);
    let malformed = Some(Reason::Malformed);
    left(Side::Wan, &cut(foreign(), HEADERS - 1), malformed);
    left(Side::Wan, &cut(foreign(), PORTS - 1), malformed);
    let elsewhere = with(foreign(), 0, &LAN);
    left(Side::Wan, &elsewhere, Some(Reason::NotOurMac));
}
