//! How the gateway behaves between real interfaces: hand-made frames in, bytes compared on the other
//! side, and the life of the daemon under traffic.
//!
//! Knows what users and RFCs expect; knows nothing of how it is done.

mod answers;
mod arguments;
mod check;
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
mod fragment_attacks;
mod fragments;
mod icmp;
mod icmp_refused;
mod instances;
mod interfaces;
mod lists;
mod local;
mod old_rules;
mod pmtu;
mod privileges;
mod restarts;
mod restarts_load;
mod side_by_side;
mod slow_path;
mod topology;
mod uplinks;
mod ways;
mod words;

use std::process::ExitCode;

use ikenat_tests::suite;

fn main() -> ExitCode {
    let parts = [
        forwarding::scenarios(),
        fragments::scenarios(),
        fragment_attacks::scenarios(),
        answers::scenarios(),
        icmp::scenarios(),
        icmp_refused::scenarios(),
        slow_path::scenarios(),
        local::scenarios(),
        pmtu::scenarios(),
        topology::scenarios(),
        uplinks::scenarios(),
        side_by_side::scenarios(),
        old_rules::scenarios(),
        ways::scenarios(),
        words::scenarios(),
        foreign::scenarios(),
        counters::scenarios(),
        daemon::scenarios(),
        arguments::scenarios(),
        check::scenarios(),
        clsact::scenarios(),
        restarts::scenarios(),
        restarts_load::scenarios(),
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
