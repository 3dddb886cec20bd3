//! The command line: arguments that are refused, peer lists, dry runs, what is printed, and JSON.

mod arguments;
mod dry_run;
mod json;
pub(crate) mod one_service;
mod output;
mod peer_lists;
mod selection;
mod services;
mod unreadable;

use ikenat_tests::suite::Scenario;

pub(crate) fn scenarios() -> Vec<Scenario> {
    let parts = [
        arguments::scenarios(),
        json::scenarios(),
        one_service::scenarios(),
        output::scenarios(),
        peer_lists::scenarios(),
        selection::scenarios(),
        services::scenarios(),
        dry_run::scenarios(),
        unreadable::scenarios(),
    ];
    parts.into_iter().flatten().collect()
}
