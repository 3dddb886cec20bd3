//! What a start changes of the services of the earlier one, as messages for the log.

use crate::config::services::{Service, join};
use crate::tables::services::ServiceRecord;
use std::net::IpAddr;

/// The changes; none of the first start, which has no earlier services.
pub(super) fn changes(before: &[ServiceRecord], now: &[Service]) -> Vec<String> {
    let mut changes = Vec::new();
    for service in now.iter().filter(|_| !before.is_empty()) {
        let name = &service.name;
        let Some(earlier) = before.iter().find(|earlier| earlier.name == *name) else {
            let (vips, servers) = (text(&service.vips), text(&service.servers));
            changes.push(format!(
                "service {name}: new; {vips} is translated to {servers}"
            ));
            continue;
        };
        if earlier.vips != service.vips {
            let (old, new) = (text(&earlier.vips), text(&service.vips));
            changes.push(format!(
                "service {name}: VIP {old} -> {new}; packets to an address that is no VIP any more are left to this host"
            ));
        }
        if earlier.servers != service.servers {
            let (old, new) = (text(&earlier.servers), text(&service.servers));
            changes.push(format!(
                "service {name}: server {old} -> {new}; all live tunnels go to the new server"
            ));
        }
    }
    let is_gone = |earlier: &&ServiceRecord| now.iter().all(|one| one.name != earlier.name);
    for earlier in before.iter().filter(is_gone) {
        let (name, vips) = (&earlier.name, text(&earlier.vips));
        changes.push(format!(
            "service {name}: removed, with {vips}; its entries leave the tables within minutes, and the totals keep their counters"
        ));
    }
    changes
}

fn text(addresses: &[IpAddr]) -> String {
    join(addresses, ", ")
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
}
