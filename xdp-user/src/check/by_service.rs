//! The conditions that depend on a VIP and its server, examined for each of them. What is the same for
//! all services is one finding.

use super::context::Context;
use super::firewall::{self, Rules};
use super::{Finding, route, sysctl, vip};
use crate::config::services::Service;
use std::collections::{HashMap, HashSet};
use std::net::Ipv4Addr;

/// The findings of all services.
pub(super) fn all(context: &mut Context<'_>) -> Vec<Finding> {
    let rules = Rules::read();
    let services = &context.settings.services;
    let mut found = Vec::with_capacity(services.len());
    for service in services {
        let server = service.server_v4().unwrap_or(Ipv4Addr::UNSPECIFIED);
        let (mut findings, mut seen) = (Vec::new(), HashSet::new());
        for vip in service.vips_v4() {
            context.look_at(vip, server);
            for finding in of_vip(context, &rules) {
                if seen.insert(finding.clone()) {
                    findings.push(finding);
                }
            }
        }
        found.push((service, findings));
    }
    merge(found)
}

fn of_vip(context: &Context<'_>, rules: &Rules) -> Vec<Finding> {
    let mut findings = sysctl::all(context);
    findings.extend(vip::all(context));
    findings.extend(route::all(context));
    findings.extend(firewall::all(context, rules));
    findings
}

/// Findings that are not those of all services name their service.
fn merge(found: Vec<(&Service, Vec<Finding>)>) -> Vec<Finding> {
    // A service has none twice.
    let mut services: HashMap<&Finding, usize> = HashMap::new();
    for finding in found.iter().flat_map(|(_, findings)| findings) {
        *services.entry(finding).or_default() += 1;
    }
    let mut all: Vec<Finding> = Vec::new();
    for (number, (service, findings)) in found.iter().enumerate() {
        for finding in findings {
            if services.get(finding) != Some(&found.len()) {
                all.push(Finding {
                    service: Some(service.name.clone()),
                    ..finding.clone()
                });
            } else if number == 0 {
                all.push(finding.clone());
            }
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_differs_names_a_service() {
        let service = |text: &str| -> Service { text.parse().expect(text) };
        let services = [
            service("a:203.0.113.1=192.168.0.1"),
            service("b:203.0.113.2=192.168.0.2"),
        ];
        let shared = Finding::ok("rp-filter", "off", "a reason").on("wan0");
        let own = |message: &str| Finding::ok("server-route", message, "a reason");
        let found = merge(vec![
            (&services[0], vec![own("leaves by lan0"), shared.clone()]),
            (&services[1], vec![own("leaves by lan1"), shared.clone()]),
        ]);
        let of = |name: &str, finding: Finding| Finding {
            service: Some(name.to_owned()),
            ..finding
        };
        let expected = [
            of("a", own("leaves by lan0")),
            shared.clone(),
            of("b", own("leaves by lan1")),
        ];
        assert_eq!(found, expected);
        // One service is all of them.
        let found = merge(vec![(&services[0], vec![shared.clone(), own("x")])]);
        assert_eq!(found, [shared, own("x")]);
    }
}
