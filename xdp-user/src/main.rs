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
    let wanted = std::env::var_os("RUST_LOG").unwrap_or_default();
    let wanted = wanted.to_string_lossy();
    let parsed = EnvFilter::try_new(&wanted);
    let is_default = wanted.is_empty() || parsed.is_err();
    let (filter, invalid) = match parsed {
        Ok(filter) if !is_default => (filter, None),
        parsed => (EnvFilter::new("info"), parsed.err()),
    };
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .with_target(false)
        // They would go to stderr, which is what has failed.
        .log_internal_errors(false);
    if std::env::var_os("JOURNAL_STREAM").is_some() {
        log.without_time().init();
    } else {
        log.init();
    }
    if let Some(error) = invalid {
        tracing::warn!(
            "RUST_LOG={wanted}: {error}; logging at level info (examples: debug, xdp_user=debug)"
        );
    }
}
