//! Three services of one WAN, each with a server of its own.

use std::net::Ipv4Addr;

use anyhow::Result;

use super::ikenat::Ikenat;
use super::topology::{LAN, Lab, SERVER, VIP, WAN};

/// Their VIPs.
pub const VIPS: [Ipv4Addr; 3] = [
    VIP,
    Ipv4Addr::new(203, 0, 113, 2),
    Ipv4Addr::new(203, 0, 113, 3),
];
/// Their servers.
pub const SERVERS: [Ipv4Addr; 3] = [
    SERVER,
    Ipv4Addr::new(192, 168, 0, 2),
    Ipv4Addr::new(192, 168, 0, 3),
];
/// Their names.
pub const NAMES: [&str; 3] = ["red", "green", "blue"];

/// One of them, as `--service` has it.
#[must_use]
pub fn service(at: usize) -> String {
    format!("{}:{}={}", NAMES[at], VIPS[at], SERVERS[at])
}

/// Starts ikenat with these of them, in this order.
///
/// # Errors
/// It does not start.
pub fn start(lab: &Lab, services: &[usize]) -> Result<Ikenat> {
    let services: Vec<String> = services.iter().map(|at| service(*at)).collect();
    let mut words = vec!["run", "--wan", WAN, "--lan", LAN];
    for service in &services {
        words.extend(["--service", service]);
    }
    Ikenat::run(lab, &lab.gateway, "ikenat", &words)
}
