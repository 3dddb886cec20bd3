//! Tests of the records of services: what is written is read, and numbers stay.

use super::*;
use std::net::Ipv4Addr;

fn services(texts: &[&str]) -> Vec<Service> {
    texts.iter().map(|text| text.parse().expect(text)).collect()
}

fn wanted(texts: &[&str]) -> Vec<ServiceRecord> {
    services(texts).iter().map(ServiceRecord::of).collect()
}

const UNLOAD: &str = "ikenat unload --instance a";

fn next(before: &Records, texts: &[&str]) -> Records {
    before
        .next(&wanted(texts), UNLOAD)
        .expect("there are numbers")
}

/// As a map has them.
fn written(records: &Records) -> Records {
    let service = |one: &ServiceEntry| ServiceEntry::of(one.id.number, one.words());
    let vip = |one: &VipEntry| VipEntry::of(one.id.number, one.words());
    Records {
        services: records.services.iter().filter_map(service).collect(),
        vips: records.vips.iter().filter_map(vip).collect(),
    }
}

const A: &str = "a:203.0.113.1,203.0.113.2=192.168.0.1";
const B: &str = "b:203.0.113.3=192.168.0.2";

#[test]
fn what_is_written_is_read() {
    let mut records = next(&next(&Records::default(), &[A, B]), &[B]);
    assert_eq!(records.services.len(), 2);
    let six: IpAddr = "2001:db8::7".parse().expect("an address");
    records.services[0].id.key = "x".repeat(32);
    records.services[0].servers.push(six);
    records.vips[0].id.key = six;
    assert_eq!(written(&records), records);
    assert_eq!(ServiceEntry::of(0, [0; service::WORDS]), None);
    assert_eq!(VipEntry::of(0, [0; vip::WORDS]), None);
}

#[test]
fn a_vip_has_a_service_as_long_as_it_has_a_record() {
    let before = next(&Records::default(), &[A, B]);
    // The second VIP of A and all of B are going.
    let records = next(&before, &["a:203.0.113.1,203.0.113.4=192.168.0.1"]);
    let found: Vec<Option<u16>> = (0..5).map(|vip| records.service_of(vip)).collect();
    assert_eq!(found, [Some(0), Some(0), Some(1), Some(0), None]);
}

#[test]
fn an_ipv4_address_is_mapped_and_in_network_order() {
    let records = next(&Records::default(), &[B]);
    let words = records.vips[0].words();
    let bytes: [u8; 32] = bytemuck::cast(words);
    assert_eq!(bytes[8..18], [0; 10]);
    assert_eq!(bytes[18..24], [0xff, 0xff, 203, 0, 113, 3]);
    let words = records.services[0].words();
    let bytes: [u8; 64] = bytemuck::cast(words);
    assert_eq!(bytes[8..10], [b'b', 0]);
    assert_eq!(bytes[40..44], [192, 168, 0, 2]);
}

#[test]
fn current_services_are_shown_with_the_first_vip_first() {
    let records = next(&Records::default(), &[A, B]);
    let exchanged = "a:203.0.113.2,203.0.113.1=192.168.0.9";
    let records = written(&next(&written(&records), &[B, exchanged]));
    let shown: Vec<String> = records
        .current()
        .iter()
        .map(|one| format!("{} {:?} {:?}", one.name, one.vips, one.servers))
        .collect();
    assert_eq!(
        shown,
        [
            "a [203.0.113.2, 203.0.113.1] [192.168.0.9]",
            "b [203.0.113.3] [192.168.0.2]"
        ]
    );
    // The numbers are those of before, and the first VIP is the one that is given first.
    let number = |vip: &str| {
        let vip: IpAddr = vip.parse().expect(vip);
        let found = records.vips.iter().find(|one| one.id.key == vip);
        found.expect("recorded").id.number
    };
    assert_eq!([number("203.0.113.1"), number("203.0.113.2")], [0, 1]);
    let a = records.services.iter().find(|one| one.id.key == "a");
    assert_eq!(a.expect("recorded").first_vip, 1);
}

#[test]
fn what_was_removed_is_going_and_comes_back_with_its_number() {
    let first = next(&Records::default(), &[A, B]);
    let second = written(&next(&first, &[B]));
    assert_eq!(second.current().len(), 1);
    let going = second.vips.iter().filter(|vip| vip.id.going);
    assert!(going.clone().all(|vip| vip.service == 0));
    assert_eq!(going.count(), 2);
    let third = next(&second, &["c:203.0.113.9=192.168.0.9", A]);
    let ids: Vec<_> = third.services.iter().map(|one| one.id.clone()).collect();
    let id = |number, key: &str, going| Numbered {
        number,
        key: key.to_owned(),
        going,
    };
    assert_eq!(
        ids,
        [id(2, "c", false), id(0, "a", false), id(1, "b", true)]
    );
}

#[test]
fn the_numbers_of_a_start_that_dies_are_not_given_to_others() {
    let first = next(&Records::default(), &[A]);
    let second = next(&first, &[A, B]);
    let died = written(&first.reserving(&second));
    assert_eq!(died.current(), first.current());
    let third = next(&died, &[A, "c:203.0.113.9=192.168.0.9"]);
    let number = |records: &Records, name: &str| {
        let found = records.services.iter().find(|one| one.id.key == name);
        found.expect(name).id.number
    };
    assert_ne!(number(&third, "c"), number(&second, "b"));
    let vip = |records: &Records, at: usize| records.vips[at].id.number;
    assert_ne!(vip(&third, 2), vip(&second, 2));
    // The same services again get the numbers that they had.
    assert_eq!(next(&died, &[A, B]), second);
}

#[test]
fn without_a_number_the_error_says_what_frees_one() {
    let mut records = next(&Records::default(), &[B]);
    records.services[0].id.going = true;
    for number in 1..512 {
        let mut more = records.services[0].clone();
        more.id.number = number;
        more.id.key = format!("s{number}");
        records.services.push(more);
    }
    let error = records
        .next(&wanted(&[A]), UNLOAD)
        .expect_err("512 are taken")
        .to_string();
    let start = "first start it with some of the services of before and no new one, wait so long";
    for part in [
        "service a",
        "512",
        "within 118 s",
        start,
        "or run `ikenat unload --instance a` (all",
    ] {
        assert!(error.contains(part), "{part:?} is not in: {error}");
    }
}

/// Twice as many VIPs as there are numbers for both: what the error says leads to the goal.
#[test]
fn a_change_of_all_vips_goes_in_two_steps() {
    let of = |network: u8, number: u16| {
        let vip = |last: u16| {
            Ipv4Addr::from_bits(0xcb00_0000 | u32::from(network) << 16 | u32::from(last))
        };
        let server = Ipv4Addr::new(192, 168, 0, 1);
        ServiceRecord {
            vips: (0..number).map(|last| vip(last).into()).collect(),
            ..ServiceRecord::of(&Service::new("a", server, server))
        }
    };
    let before = Records::default()
        .next(&[of(1, 300)], UNLOAD)
        .expect("300 of 512");
    let error = before
        .next(&[of(2, 300)], UNLOAD)
        .expect_err("600 of 512")
        .to_string();
    let parts = [
        "the VIP 203.2.0.212",
        "0 are still those of removed ones and 300 those of ones that this start would remove",
        "first start it with at most 212 new VIPs and none that is to be removed",
    ];
    for part in parts {
        assert!(error.contains(part), "{part:?} is not in: {error}");
    }
    let mut first = before
        .next(&[of(2, 212)], UNLOAD)
        .expect("what the error says");
    first.vips.retain(|one| !one.id.going);
    let second = first
        .next(&[of(2, 300)], UNLOAD)
        .expect("all that was wanted");
    assert_eq!(second.vips.len(), 300);
}

#[test]
fn a_service_without_a_name_stays_the_same_with_another_first_vip() {
    let number = |records: &Records, name: &str| {
        let mut all = records.services.iter().filter(|one| !one.id.going);
        all.find(|one| one.id.key == name).map(|one| one.id.number)
    };
    let first = next(&Records::default(), &[B, "203.0.113.1=192.168.0.1"]);
    let second = written(&next(&first, &["203.0.113.9,203.0.113.1=192.168.0.1", B]));
    assert_eq!(number(&second, "203.0.113.9"), Some(1));
    assert_eq!(second.services.len(), 2, "nothing is going: {second:?}");
    assert_eq!(second.numbers_of([203, 0, 113, 1].into()), Some((1, 1)));
    // What the log compares has the new name.
    let now = wanted(&["203.0.113.9,203.0.113.1=192.168.0.1", B]);
    let names: Vec<String> = first
        .current_as(&now)
        .into_iter()
        .map(|one| one.name)
        .collect();
    assert_eq!(names, ["b", "203.0.113.9"]);
    // With another server it is another one, and so is one with a name.
    for other in ["203.0.113.8=192.168.0.8", "c:203.0.113.8=192.168.0.1"] {
        let third = next(&second, &[other, B]);
        assert_eq!(third.services.len(), 3, "{third:?}");
        assert_eq!(third.services[0].id.number, 2);
    }
    // The name of one that is still there, or is going, decides.
    let third = written(&next(
        &second,
        &["203.0.113.9=192.168.0.1", "203.0.113.7=192.168.0.7", B],
    ));
    assert_eq!(number(&third, "203.0.113.9"), Some(1));
    assert_eq!(number(&third, "203.0.113.7"), Some(2));
    let fourth = written(&next(&third, &["203.0.113.9=192.168.0.1", B]));
    let fifth = next(&fourth, &["203.0.113.7=192.168.0.1", B]);
    assert_eq!(number(&fifth, "203.0.113.7"), Some(2));
}

#[test]
fn a_service_that_gets_its_first_name_or_loses_it_stays_the_same() {
    let short = || {
        let service = Service::new("default", [203, 0, 113, 1].into(), [192, 168, 0, 1].into());
        vec![ServiceRecord::of(&service)]
    };
    let number = |from: &[ServiceRecord], to: &[ServiceRecord]| {
        let first = Records::default().next(from, UNLOAD).expect("a number");
        let second = first.next(to, UNLOAD).expect("a number");
        second.services[0].id.number
    };
    let unnamed = || wanted(&["203.0.113.1=192.168.0.1"]);
    let named = || wanted(&["office:203.0.113.1=192.168.0.1"]);
    let more = || wanted(&["office:203.0.113.7,203.0.113.1=192.168.0.1"]);
    for (from, to) in [
        (short(), named()),
        (short(), more()),
        (short(), unnamed()),
        (unnamed(), named()),
        (unnamed(), more()),
        (unnamed(), short()),
        (named(), short()),
        (named(), unnamed()),
    ] {
        assert_eq!(number(&from, &to), 0, "{from:?} -> {to:?}");
    }
    // Another name, server or VIP is another service.
    for (from, other) in [
        (named(), "home:203.0.113.1=192.168.0.1"),
        (unnamed(), "office:203.0.113.1=192.168.0.2"),
        (short(), "office:203.0.113.2=192.168.0.1"),
    ] {
        assert_eq!(number(&from, &wanted(&[other])), 1, "{from:?} -> {other}");
    }
    // One that shares a VIP goes before one that shares the server alone.
    let first = next(&Records::default(), &["203.0.113.1=192.168.0.1", B]);
    let both = [
        "203.0.113.9=192.168.0.1",
        "office:203.0.113.1=192.168.0.1",
        B,
    ];
    let second = next(&first, &both);
    assert_eq!(second.services[1].id.number, 0, "{second:?}");
}
