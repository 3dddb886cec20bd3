//! What a start changes of the services of the earlier one, as messages for the log.

use crate::config::services::Service;
use crate::daemon::service_log::lines;
use crate::daemon::wording::addresses;
use crate::tables::services::ServiceRecord;
use std::collections::{HashMap, HashSet};

/// The changes; none of the first start, which has no earlier services.
pub(super) fn changes(before: &[ServiceRecord], now: &[Service]) -> Vec<String> {
    let (mut new, mut vips, mut servers) = (Vec::new(), Vec::new(), Vec::new());
    let earlier: HashMap<&str, &ServiceRecord> = before
        .iter()
        .map(|earlier| (earlier.name.as_str(), earlier))
        .collect();
    for service in now.iter().filter(|_| !before.is_empty()) {
        let Some(earlier) = earlier.get(service.name.as_str()) else {
            new.push(service);
            continue;
        };
        if earlier.vips != service.vips {
            vips.push((service, *earlier));
        }
        if earlier.servers != service.servers {
            servers.push((service, *earlier));
        }
    }
    let names: HashSet<&str> = now.iter().map(|one| one.name.as_str()).collect();
    let is_gone = |earlier: &&ServiceRecord| !names.contains(earlier.name.as_str());
    let gone: Vec<&ServiceRecord> = before.iter().filter(is_gone).collect();
    let all = [
        added(&new),
        other_vips(&vips),
        other_servers(&servers),
        removed(&gone),
    ];
    all.concat()
}

const WHAT: &str = "service";

/// A service, and what it was before.
type Pair<'s> = (&'s Service, &'s ServiceRecord);

fn name(pair: &Pair<'_>) -> String {
    pair.0.name.clone()
}

fn added(all: &[&Service]) -> Vec<String> {
    lines(
        all,
        WHAT,
        |service| service.name.clone(),
        |service| {
            let (vips, servers) = (addresses(&service.vips), addresses(&service.servers));
            format!(
                "service {}: new; {vips} is translated to {servers}",
                service.name
            )
        },
        |_, names| format!("services {names}: new"),
    )
}

fn other_vips(all: &[Pair<'_>]) -> Vec<String> {
    const AND: &str = "packets to an address that is no VIP any more are left to this host";
    lines(
        all,
        WHAT,
        name,
        |(service, earlier)| {
            let (old, new) = (addresses(&earlier.vips), addresses(&service.vips));
            format!("service {}: VIP {old} -> {new}; {AND}", service.name)
        },
        |_, names| format!("services {names}: other VIPs than before; {AND}"),
    )
}

fn other_servers(all: &[Pair<'_>]) -> Vec<String> {
    lines(
        all,
        WHAT,
        name,
        |(service, earlier)| {
            let (old, new) = (addresses(&earlier.servers), addresses(&service.servers));
            format!(
                "service {}: server {old} -> {new}; all live tunnels go to the new server",
                service.name
            )
        },
        |_, names| {
            format!(
                "services {names}: other servers than before; all live tunnels go to the new servers"
            )
        },
    )
}

fn removed(all: &[&ServiceRecord]) -> Vec<String> {
    lines(
        all,
        WHAT,
        |service| service.name.clone(),
        |service| {
            format!(
                "service {}: removed, with {}; its entries leave the tables within minutes, and the totals keep their counters",
                service.name,
                addresses(&service.vips)
            )
        },
        |_, names| {
            format!(
                "services {names}: removed; their entries leave the tables within minutes, and the totals keep their counters"
            )
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn services(texts: &[&str]) -> Vec<Service> {
        texts.iter().map(|text| text.parse().expect(text)).collect()
    }

    fn recorded(texts: &[&str]) -> Vec<ServiceRecord> {
        services(texts).iter().map(ServiceRecord::of).collect()
    }

    const A: &str = "a:203.0.113.1=192.168.0.1";

    #[test]
    fn nothing_has_changed() {
        assert_eq!(changes(&[], &services(&[A])), Vec::<String>::new());
        assert_eq!(
            changes(&recorded(&[A]), &services(&[A])),
            Vec::<String>::new()
        );
    }

    #[test]
    fn each_change_is_a_message() {
        let other = "a:203.0.113.9,203.0.113.1=192.168.0.2";
        let found = changes(&recorded(&[A]), &services(&[other]));
        let starts = [
            "service a: VIP 203.0.113.1 -> 203.0.113.9, 203.0.113.1;",
            "service a: server 192.168.0.1 -> 192.168.0.2; all live tunnels",
        ];
        assert_eq!(found.len(), starts.len(), "{found:?}");
        assert!(
            found
                .iter()
                .zip(starts)
                .all(|(text, start)| text.starts_with(start)),
            "{found:?}"
        );
        let found = changes(&recorded(&[A]), &services(&["b:203.0.113.1=192.168.0.1"]));
        let expected = [
            "service b: new; 203.0.113.1 is translated to 192.168.0.1",
            "service a: removed, with 203.0.113.1; its entries leave the tables within minutes, and the totals keep their counters",
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn a_change_of_all_services_is_a_few_messages() {
        let all = |network: u8, server: u8| {
            let of = |last| format!("s{last}:203.0.{network}.{last}=192.168.{server}.{last}");
            let texts: Vec<String> = (1..=200).map(of).collect();
            let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
            services(&texts)
        };
        let before: Vec<ServiceRecord> = all(113, 0).iter().map(ServiceRecord::of).collect();
        let found = changes(&before, &all(114, 1));
        let first = "services s1, s2, s3, s4, s5, s6, s7, s8 and 192 more services: other";
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(
            found.iter().all(|text| text.starts_with(first)),
            "{found:?}"
        );
        let found = changes(&before, &services(&["b:203.0.113.1=192.168.0.1"]));
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(
            found[1].contains("and 192 more services: removed"),
            "{found:?}"
        );
    }
}
