//! How the gateway behaves between real interfaces: hand-made frames in, bytes compared on the other
//! side, and the life of the daemon under traffic.
//!
//! Knows what users and RFCs expect; knows nothing of how it is done.

mod arguments;
mod check;
mod clsact;
mod counters;
mod daemon;
mod dry_run;
mod foreign;
mod forwarding;
mod fragments;
mod instances;
mod interfaces;
mod lists;
mod privileges;
mod restarts;
mod ways;
mod words;

use std::process::ExitCode;

use ikenat_tests::suite;

fn main() -> ExitCode {
    let parts = [
        forwarding::scenarios(),
        fragments::scenarios(),
        ways::scenarios(),
        words::scenarios(),
        foreign::scenarios(),
        counters::scenarios(),
        daemon::scenarios(),
        arguments::scenarios(),
        check::scenarios(),
        clsact::scenarios(),
        restarts::scenarios(),
        interfaces::scenarios(),
        lists::scenarios(),
        dry_run::scenarios(),
        instances::scenarios(),
        privileges::scenarios(),
    ];
    suite::run(parts.into_iter().flatten().collect())
}
