//! Packets through the gateway: what arrives on the other side, byte for byte, and what does not.

mod attackers;
mod counters;
mod forwarding;
mod fragment_attacks;
mod fragments;
mod hooks;
mod icmp_generated;
mod icmp_refused;
mod icmp_translated;
mod kernel_fragments;
mod losses;
mod merged;
mod path_mtu;
mod punted;
mod tcp;

use ikenat_tests::suite::Scenario;

pub(crate) fn scenarios() -> Vec<Scenario> {
    let parts = [
        forwarding::scenarios(),
        fragments::scenarios(),
        fragment_attacks::scenarios(),
        icmp_generated::scenarios(),
        icmp_translated::scenarios(),
        icmp_refused::scenarios(),
        kernel_fragments::scenarios(),
        path_mtu::scenarios(),
        hooks::scenarios(),
        losses::scenarios(),
        merged::scenarios(),
        punted::scenarios(),
        tcp::scenarios(),
        counters::scenarios(),
        attackers::scenarios(),
    ];
    parts.into_iter().flatten().collect()
}
