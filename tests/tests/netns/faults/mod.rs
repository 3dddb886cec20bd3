//! Faults under traffic: what the gateway does, how much is lost, and for how long.

mod absent;
pub(crate) mod bpffs;
mod daemon;
pub(crate) mod devices;
mod events;
mod exchange;
mod interfaces;
mod left_over;
mod messages;
mod moves;
mod neighbours;
mod older;
mod older_interrupted;
mod own_addresses;
mod renumbered;
pub(crate) mod start;

use ikenat_tests::suite::Scenario;

pub(crate) fn scenarios() -> Vec<Scenario> {
    let parts = [
        start::scenarios(),
        absent::scenarios(),
        bpffs::scenarios(),
        interfaces::scenarios(),
        left_over::scenarios(),
        daemon::scenarios(),
        devices::scenarios(),
        neighbours::scenarios(),
        older::scenarios(),
        older_interrupted::scenarios(),
        events::scenarios(),
        exchange::scenarios(),
        messages::scenarios(),
        moves::scenarios(),
        own_addresses::scenarios(),
        renumbered::scenarios(),
    ];
    parts.into_iter().flatten().collect()
}
