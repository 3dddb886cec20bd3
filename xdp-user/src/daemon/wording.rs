//! How the log names the services of a plan, and the interfaces that they are at.

use crate::config::location::ServerLocation;
use crate::config::plan::Plan;
use crate::config::services::{self, Service, join};
use crate::netlink::Link;
use std::net::{IpAddr, Ipv4Addr};

/// The name of the WAN that owns a VIP; of the first one that exists, if none does.
pub(super) fn wan_of(plan: &Plan, vip: Ipv4Addr) -> &str {
    let owner = plan.vips().find(|(address, _)| *address == vip);
    let owner = owner.and_then(|(_, location)| location.wan);
    let first = || plan.wans.iter().position(Link::exists);
    let number = owner.map(|wan| wan.number).or_else(first);
    &plan.wans[number.unwrap_or(0)].name
}

/// The services to whose server no LAN leads yet.
pub(super) fn absent_servers(plan: &Plan) -> impl Iterator<Item = &Service> {
    let located = plan.settings.services.iter().zip(&plan.locations);
    let absent = located.filter(|(_, location)| location.server == ServerLocation::Absent);
    absent.map(|(service, _)| service)
}

/// So many services or VIPs are named in one line.
pub(super) const NAMED: usize = 8;

/// What is translated, as `203.0.113.1 to 192.168.0.1; 203.0.113.2 to 192.168.0.2`.
pub(super) fn translations(plan: &Plan) -> String {
    named(plan, |service| {
        let (vips, servers) = (vips_of(service), join(&service.servers, ", "));
        format!("{vips} to {servers}")
    })
}

/// The VIPs.
pub(super) fn vips(plan: &Plan) -> String {
    named(plan, vips_of)
}

/// The VIPs of a service, the first ones if there are many.
pub(super) fn vips_of(service: &Service) -> String {
    addresses(&service.vips)
}

/// VIPs, the first ones if there are many.
pub(super) fn addresses(all: &[IpAddr]) -> String {
    services::named(all.iter().map(IpAddr::to_string).collect(), NAMED, "VIP")
}

/// A text of each service, of the first ones if there are many.
fn named(plan: &Plan, text: impl Fn(&Service) -> String) -> String {
    let services = &plan.settings.services;
    let mut texts: Vec<String> = services.iter().take(NAMED).map(text).collect();
    if services.len() > NAMED {
        texts.push(format!("and {} more services", services.len() - NAMED));
    }
    texts.join("; ")
}
