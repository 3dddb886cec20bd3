//! The tables of VIPs: each address is found by one probe, and contradictions are refused.

use std::collections::BTreeSet;
use xdp_common::vips::{Egress, Index, VIPS};
use xdp_common::{Config, Vip};
use xdp_core::vip;

/// As many different addresses, scattered or one after the other.
fn addresses(count: usize, step: u32) -> Vec<([u8; 4], u16)> {
    let mut seen = BTreeSet::new();
    let address = |at: u32| {
        at.wrapping_mul(step)
            .wrapping_add(0xcb00_7100)
            .to_be_bytes()
    };
    let all = (0..).map(address).filter(|address| seen.insert(*address));
    all.take(count).zip(0..).collect()
}

#[test]
fn every_address_is_found_by_one_probe() {
    for count in [0, 1, 2, 3, 100, 256, VIPS] {
        for step in [1, 2, 256, 0x1_0000, 0x9e37_79b1, 0x0101_0101] {
            let addresses = addresses(count, step);
            let index = Index::of(&addresses).expect("room for all");
            for (address, number) in addresses {
                assert_eq!(
                    index.candidate(address),
                    number,
                    "{count} {step:x} {address:?}"
                );
            }
        }
    }
}

#[test]
fn an_address_twice_and_too_many_are_refused() {
    let mut twice = addresses(20, 7);
    twice[3].0 = twice[11].0;
    assert_eq!(Index::of(&twice), None);
    assert_eq!(Index::of(&addresses(VIPS + 1, 7)), None);
}

fn vips(count: u16) -> Vec<(Vip, [Egress; 2])> {
    let vip = |number: u16| {
        let [high, low] = number.to_be_bytes();
        Vip {
            address: [203, 0, high, low],
            server: [10, 0, high, low],
            service: number / 2,
            number,
            first: number,
            ..Vip::default()
        }
    };
    (0..count)
        .map(|number| (vip(number), [Egress::default(); 2]))
        .collect()
}

/// What other hosts have is no VIP, also where the place in the table is that of one.
#[test]
fn a_vip_is_found_by_its_address_its_server_and_its_number() {
    let config = Config::ZERO.with_vips(&vips(512)).expect("all different");
    for number in 0..512_u16 {
        let [high, low] = number.to_be_bytes();
        let found = [
            vip::by_address::<[u8]>(&config, [203, 0, high, low]),
            vip::by_server::<[u8]>(&config, [10, 0, high, low]),
            Some(vip::by_number::<[u8]>(&config, number)),
        ];
        assert_eq!(
            found.map(|vip| vip.map(|vip| vip.number)),
            [Some(number); 3]
        );
        let other = [203, 1, high, low];
        assert_eq!(vip::by_address::<[u8]>(&config, other), None);
        assert_eq!(vip::by_server::<[u8]>(&config, other), None);
    }
    assert_eq!(vip::by_address::<[u8]>(&config, [0; 4]), None);
}

#[test]
fn vips_that_contradict_each_other_are_refused() {
    for change in [
        |vip: &mut Vip| vip.address = [203, 0, 0, 1],
        |vip: &mut Vip| vip.server = [10, 0, 0, 1],
        |vip: &mut Vip| vip.number = 1,
    ] {
        let mut vips = vips(4);
        assert!(Config::ZERO.with_vips(&vips).is_some());
        change(&mut vips[2].0);
        assert!(Config::ZERO.with_vips(&vips).is_none());
    }
    assert!(Config::ZERO.with_vips(&[]).is_none());
}

/// The programs for one VIP know its numbers, so another one is looked up like one of several.
#[test]
fn one_vip_with_other_numbers_is_looked_up() {
    let with = |number| {
        let mut vips = vips(8);
        let config = Config::ZERO.with_vips(&[vips.swap_remove(number)]);
        config.expect("one VIP").several_vips
    };
    assert_eq!((with(0), with(1), with(7)), (0, 1, 1));
}
