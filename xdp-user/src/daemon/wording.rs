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

/// The services to whose server no LAN leads.
pub(super) fn absent_servers(plan: &Plan) -> impl Iterator<Item = &Service> {
    let located = plan.settings.services.iter().zip(&plan.locations);
    let absent = located.filter(|(_, location)| location.server == ServerLocation::Absent);
    absent.map(|(service, _)| service)
}

/// So many services or VIPs are named in one line.
pub(super) const NAMED: usize = 8;

/// The services that are translated: those to whose server a LAN leads, and those of this host.
fn present(plan: &Plan) -> Vec<&Service> {
    let located = plan.settings.services.iter().zip(&plan.locations);
    let present = located.filter(|(_, location)| location.server != ServerLocation::Absent);
    present.map(|(service, _)| service).collect()
}

/// What is translated, as `203.0.113.1 to 192.168.0.1; 203.0.113.2 to 192.168.0.2`. Of many services the
/// rest is logged at level debug.
pub(super) fn translations(plan: &Plan) -> String {
    let text = |service: &Service| {
        let (vips, servers) = (vips_of(service), join(&service.servers, ", "));
        format!("{vips} to {servers}")
    };
    let present = present(plan);
    let rest = present.iter().skip(NAMED);
    rest.for_each(|service| tracing::debug!("service {}: {}", service.name, text(service)));
    of_each(&present, text)
}

/// The VIPs that are translated.
pub(super) fn translated_vips(plan: &Plan) -> String {
    of_each(&present(plan), vips_of)
}

/// All VIPs.
pub(super) fn vips(plan: &Plan) -> String {
    let all: Vec<&Service> = plan.settings.services.iter().collect();
    of_each(&all, vips_of)
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
fn of_each(services: &[&Service], text: impl Fn(&Service) -> String) -> String {
    let texts = services.iter().map(|service| text(service)).collect();
    services::listed(texts, (NAMED, "; "), "service")
}
