//! How the gateway behaves between real interfaces: hand-made frames in, bytes compared on the other
//! side, and the life of the daemon under traffic.
//!
//! Knows what users and RFCs expect; knows nothing of how it is done.

mod arguments;
mod clsact;
mod counters;
mod daemon;
mod dry_run;
mod faults_daemon;
mod faults_devices;
mod faults_neighbours;
mod faults_pins;
mod faults_places;
mod faults_start;
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
        clsact::scenarios(),
        restarts::scenarios(),
        interfaces::scenarios(),
        lists::scenarios(),
        dry_run::scenarios(),
        instances::scenarios(),
        privileges::scenarios(),
        faults_start::scenarios(),
        faults_pins::scenarios(),
        faults_places::scenarios(),
        faults_daemon::scenarios(),
        faults_devices::scenarios(),
        faults_neighbours::scenarios(),
    ];
    suite::run(parts.into_iter().flatten().collect())
}
