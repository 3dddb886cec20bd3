//! The daemon's life under traffic: start, restart, upgrade, end, and several instances.

mod clsact;
mod daemon;
mod grace_period;
pub(crate) mod instances;
mod names;
mod privileges;
mod readers;
mod restarts_load;
mod restarts_slow_path;
mod services;
mod unload;
mod unprivileged_moves;

use ikenat_tests::suite::Scenario;

pub(crate) fn scenarios() -> Vec<Scenario> {
    let parts = [
        daemon::scenarios(),
        grace_period::scenarios(),
        clsact::scenarios(),
        restarts_slow_path::scenarios(),
        services::scenarios(),
        restarts_load::scenarios(),
        instances::scenarios(),
        names::scenarios(),
        privileges::scenarios(),
        readers::scenarios(),
        unload::scenarios(),
        unprivileged_moves::scenarios(),
    ];
    parts.into_iter().flatten().collect()
}
