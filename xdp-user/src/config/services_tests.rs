//! Tests of services: how they are read and printed, and what is refused.

use super::*;

fn service(text: &str) -> Service {
    text.parse().expect(text)
}

fn all(texts: &[&str]) -> Vec<Service> {
    texts.iter().map(|text| service(text)).collect()
}

/// The error of services that are refused, which names these parts.
fn refused(texts: &[&str], parts: &[&str]) {
    let error = check(&all(texts)).expect_err("refused").to_string();
    for part in parts {
        assert!(error.contains(part), "{part:?} is not in: {error}");
    }
}

#[test]
fn a_service_is_printed_as_it_is_read() {
    for (text, name, vips) in [
        ("203.0.113.1=192.168.0.1", "203.0.113.1", 1),
        ("203.0.113.1,203.0.113.2=192.168.0.1", "203.0.113.1", 2),
        ("office-2.eu:203.0.113.1=192.168.0.1", "office-2.eu", 1),
        ("a_b:203.0.113.1,203.0.113.2=192.168.0.1", "a_b", 2),
        ("default:203.0.113.1=192.168.0.1", "default", 1),
    ] {
        let service = service(text);
        assert_eq!((service.name.as_str(), service.vips.len()), (name, vips));
        assert_eq!(service.server_v4(), Some(Ipv4Addr::new(192, 168, 0, 1)));
        assert_eq!(service.option(), text);
    }
}

#[test]
fn malformed_text_is_an_error_that_shows_the_form() {
    let long = format!("{}:203.0.113.1=192.168.0.1", "x".repeat(33));
    for (wrong, part) in [
        ("203.0.113.1", "no `=`"),
        ("", "no `=`"),
        ("=192.168.0.1", "not an IPv4 address"),
        ("203.0.113.1=", "not an IPv4 address"),
        ("203.0.113.1,=192.168.0.1", "not an IPv4 address"),
        ("203.0.113.1=192.168.0.1=192.168.0.2", "not an IPv4 address"),
        ("203.0.113.1=192.168.0.1,192.168.0.2", "not an IPv4 address"),
        ("a b:203.0.113.1=192.168.0.1", "`a b`"),
        (":203.0.113.1=192.168.0.1", "letters"),
        (long.as_str(), "32 letters"),
        ("2001:db8::1=192.168.0.1", "IPv6 is not supported yet"),
        ("x:2001:db8::1=192.168.0.1", "IPv6 is not supported yet"),
        ("203.0.113.1=fd00::1", "IPv6 is not supported yet"),
    ] {
        let error = Service::from_str(wrong).expect_err(wrong);
        assert!(error.contains(part), "{part:?} is not in: {error}");
        assert!(error.contains("203.0.113.1=192.168.0.1"), "{error}");
    }
}

#[test]
fn the_513th_vip_is_refused() {
    let vips = |number: u32| {
        let first = u32::from(Ipv4Addr::new(203, 0, 112, 0));
        let all = (first..first + number).map(|one| IpAddr::V4(one.into()));
        vec![Service {
            vips: all.collect(),
            ..service("203.0.113.1=192.168.0.1")
        }]
    };
    assert!(check(&vips(512)).is_ok());
    let error = check(&vips(513)).expect_err("one too many").to_string();
    assert!(
        error.contains("513 VIPs") && error.contains("512"),
        "{error}"
    );
}

#[test]
fn services_that_contradict_each_other_are_refused() {
    refused(
        &["a:203.0.113.1=192.168.0.1", "a:203.0.113.2=192.168.0.2"],
        &["the name a", "--service"],
    );
    refused(
        &["a:203.0.113.1=192.168.0.1", "b:203.0.113.1=192.168.0.2"],
        &["203.0.113.1", "services a and b", "--service"],
    );
    refused(
        &["a:203.0.113.1,203.0.113.1=192.168.0.1"],
        &["203.0.113.1", "twice"],
    );
    // In either order.
    let parts = ["192.168.0.1", "of the service b", "of the service a"];
    refused(
        &["a:203.0.113.1=192.168.0.1", "b:192.168.0.1=192.168.0.2"],
        &parts,
    );
    refused(
        &["b:192.168.0.1=192.168.0.2", "a:203.0.113.1=192.168.0.1"],
        &parts,
    );
    refused(&["203.0.113.1=203.0.113.1"], &["are both 203.0.113.1"]);
    refused(
        &["a:203.0.113.1=192.168.0.1", "b:203.0.113.2=192.168.0.1"],
        &["`--service a:203.0.113.1,203.0.113.2=192.168.0.1`"],
    );
}

#[test]
fn the_257th_service_is_refused() {
    let many = |number: u32| -> Vec<Service> {
        let address = |base, at| Ipv4Addr::from_bits(u32::from(Ipv4Addr::from(base)) + at);
        let one = |at| {
            let vip = address([203, 0, 112, 0], at);
            Service::new(&vip.to_string(), vip, address([10, 0, 0, 0], at))
        };
        (0..number).map(one).collect()
    };
    let error = check(&many(257)).expect_err("one too many").to_string();
    assert!(error.contains("257") && error.contains("256"), "{error}");
    assert!(check(&many(256)).is_ok());
}

#[test]
fn the_lists_of_each_service_are_checked() {
    let mut services = all(&["203.0.113.1=192.168.0.1"]);
    let prefix = "198.51.100.0/24".parse().expect("a prefix");
    services[0].lists.except.push(prefix);
    services[0].lists.deny.push(prefix);
    let error = check(&services).expect_err("in both lists").to_string();
    assert!(
        error.contains("--deny") && error.contains("198.51.100.0/24"),
        "{error}"
    );
}

/// They share a map.
#[test]
fn the_prefixes_of_all_lists_are_counted_together() {
    let prefixes = |first: u32, number: u32| -> Vec<_> {
        let all = (first..first + number).map(|one| Ipv4Addr::from(one).into());
        all.collect()
    };
    let mut services = all(&["203.0.113.1=192.168.0.1", "203.0.113.2=192.168.0.2"]);
    for service in &mut services {
        service.lists.deny = prefixes(0x0a00_0000, 1024);
    }
    assert!(check(&services).is_ok(), "the same list is one");
    services[1].lists.deny = prefixes(0x0b00_0000, 1);
    let error = check(&services).expect_err("too many").to_string();
    assert!(error.contains("1025") && error.contains("1024"), "{error}");
}
