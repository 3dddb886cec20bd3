//! Placements of the gateway: addresses, uplinks, several interfaces, a server on the same host.

pub(crate) mod addresses;
mod beside_iptables;
mod bond;
pub(crate) mod host_peers;
mod host_peers_learned;
mod inside;
mod interfaces;
mod keepalived;
mod local_server;
mod many_services;
mod office;
mod office_tcp;
mod rules;
mod several_services;
mod two_gateways;
pub(crate) mod uplinks;
mod vrrp;

use ikenat_tests::suite::Scenario;

pub(crate) fn scenarios() -> Vec<Scenario> {
    let parts = [
        addresses::scenarios(),
        local_server::scenarios(),
        uplinks::scenarios(),
        rules::scenarios(),
        many_services::scenarios(),
        several_services::scenarios(),
        office::scenarios(),
        office_tcp::scenarios(),
        two_gateways::scenarios(),
        beside_iptables::scenarios(),
        host_peers::scenarios(),
        host_peers_learned::scenarios(),
        inside::scenarios(),
        interfaces::scenarios(),
        bond::scenarios(),
        keepalived::scenarios(),
        vrrp::scenarios(),
    ];
    parts.into_iter().flatten().collect()
}
