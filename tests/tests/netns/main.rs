//! Tests of the gateway between real interfaces: hand-made frames in, bytes compared on the other
//! side, and the life of the daemon under traffic. They check what users and RFCs expect, not how
//! it is done.

mod check;
mod cli;
mod datapath;
mod failpoints;
mod faults;
mod lifecycle;
mod support;
mod topology;

use std::process::ExitCode;

use ikenat_tests::suite;

fn main() -> ExitCode {
    let parts = [
        datapath::scenarios(),
        topology::scenarios(),
        cli::scenarios(),
        check::scenarios(),
        lifecycle::scenarios(),
        faults::scenarios(),
    ];
    suite::run(parts.into_iter().flatten().collect())
}
