//! `ikenat`: a fast-path NAT gateway for IPsec. Arguments in, exit status out; the verbs are in `cli`.

mod cli;

use clap::{Parser, Subcommand};
use std::io::{self, IsTerminal as _};
use std::process::ExitCode;
use tracing_subscriber::EnvFilter;

/// Fast-path NAT gateway for IPsec: IKE, NAT-T and ESP through XDP
#[derive(Parser)]
#[command(name = "ikenat", version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    Check(cli::check::Arguments),
    Run(cli::run::Arguments),
    Stats(cli::stats::Arguments),
    Status(cli::status::Arguments),
    Unload(cli::unload::Arguments),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = match &cli.verb {
        Verb::Check(arguments) => cli::check::run(arguments),
        Verb::Run(arguments) => {
            log_to_stderr();
            cli::run::run(arguments).map(|()| ExitCode::SUCCESS)
        }
        Verb::Stats(arguments) => cli::stats::run(arguments),
        Verb::Status(arguments) => cli::status::run(arguments),
        Verb::Unload(arguments) => cli::unload::run(arguments),
    };
    match done {
        Ok(status) => status,
        Err(error) => {
            cli::complain(&error);
            ExitCode::FAILURE
        }
    }
}

/// The log of the daemon, also for what aya-log says through `log`. The journal has a clock of its own;
/// RUST_LOG chooses what is said, `info` by default.
fn log_to_stderr() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .with_target(false);
    if std::env::var_os("JOURNAL_STREAM").is_some() {
        log.without_time().init();
    } else {
        log.init();
    }
}
