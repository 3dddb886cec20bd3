//! Placements of the gateway: addresses, uplinks, several interfaces, a server on the same host.

pub(crate) mod addresses;
mod beside_iptables;
mod bond;
mod interfaces;
mod keepalived;
mod local_server;
mod two_gateways;
pub(crate) mod uplinks;
mod vrrp;

use ikenat_tests::suite::Scenario;

pub(crate) fn scenarios() -> Vec<Scenario> {
    let parts = [
        addresses::scenarios(),
        local_server::scenarios(),
        uplinks::scenarios(),
        two_gateways::scenarios(),
        beside_iptables::scenarios(),
        interfaces::scenarios(),
        bond::scenarios(),
        keepalived::scenarios(),
        vrrp::scenarios(),
    ];
    parts.into_iter().flatten().collect()
}
