//! Which frames were sent to this host: by the MAC address of the interface, by the kernel's decision
//! where there is one, and by the MAC addresses of macvlans.

use xdp_common::Config;
use xdp_common::config::mac_word;
use xdp_core::classify::is_for_us;
use xdp_core::{Frame, Side, Vips};

const WAN: [u8; 6] = [2, 0, 0, 0, 1, 1];
const LAN: [u8; 6] = [2, 0, 0, 0, 2, 1];
const VRRP: [u8; 6] = [0, 0, 0x5e, 0, 1, 51];
const OTHER: [u8; 6] = [2, 0, 0, 0, 9, 9];
const BROADCAST: [u8; 6] = [0xff; 6];

/// A frame, and the kernel's decision about it, if there is one.
struct Decided(Vec<u8>, Option<bool>);

impl Vips for Decided {}

impl Frame for Decided {
    fn array<const N: usize>(&self, at: usize) -> Option<&[u8; N]> {
        self.0.get(at..)?.first_chunk()
    }
    fn array_mut<const N: usize>(&mut self, at: usize) -> Option<&mut [u8; N]> {
        self.0.get_mut(at..)?.first_chunk_mut()
    }
    fn length(&self) -> usize {
        self.0.len()
    }
    fn is_to_host(&self) -> Option<bool> {
        self.1
    }
}

fn is_taken(config: Config, side: Side, to: [u8; 6], decided: Option<bool>) -> bool {
    let frame = [&to[..], &OTHER, &[8, 0]].concat();
    is_for_us(&Decided(frame, decided), &config.seal(), side)
}

fn plain() -> Config {
    Config {
        wan_mac: WAN,
        lan_mac: LAN,
        ..Config::ZERO
    }
}

#[test]
fn in_xdp_the_mac_address_of_the_interface_decides() {
    for (side, own) in [(Side::Wan, WAN), (Side::Both, WAN), (Side::Lan, LAN)] {
        for to in [WAN, LAN, OTHER, VRRP, BROADCAST, [0; 6]] {
            let expected = to == own;
            assert_eq!(
                is_taken(plain(), side, to, None),
                expected,
                "{side:?} {to:?}"
            );
        }
    }
}

#[test]
fn in_tc_the_kernel_decides() {
    for to in [WAN, LAN, OTHER, BROADCAST, [0; 6]] {
        for side in [Side::Wan, Side::Lan, Side::Both] {
            assert!(is_taken(plain(), side, to, Some(true)), "{side:?} {to:?}");
            assert!(!is_taken(plain(), side, to, Some(false)), "{side:?} {to:?}");
        }
        assert!(
            is_taken(plain(), Side::Out, to, Some(false)),
            "egress {to:?}"
        );
    }
}

#[test]
fn virtual_interfaces_have_addresses_too() {
    // The loader keeps the interface's own in the list when a virtual one takes its place.
    let mut config = Config {
        main_mac: VRRP,
        ..plain()
    };
    for (place, mac) in [WAN, VRRP, OTHER].into_iter().enumerate() {
        config.accepted_macs[place] = mac_word(mac);
    }
    for decided in [None, Some(false), Some(true)] {
        for to in [WAN, VRRP, OTHER] {
            assert!(is_taken(config, Side::Wan, to, decided), "{to:?}");
        }
        let host = decided == Some(true);
        for to in [LAN, BROADCAST, [0; 6]] {
            assert_eq!(is_taken(config, Side::Wan, to, decided), host, "{to:?}");
        }
    }
    let mut full = plain();
    for (number, place) in (1..).zip(&mut full.accepted_macs) {
        *place = mac_word([2, 0, 0, 0, 5, number]);
    }
    assert!(
        is_taken(full, Side::Wan, [2, 0, 0, 0, 5, 8], None),
        "the last"
    );
    assert!(!is_taken(full, Side::Wan, [2, 0, 0, 0, 5, 9], None));
}
