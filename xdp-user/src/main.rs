//! `ikenat`: a fast-path NAT gateway for IPsec. Arguments in, exit status out; the verbs are in `cmd`.

mod cmd;

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
    Check(cmd::check::Arguments),
    Run(cmd::run::Arguments),
    Stats(cmd::stats::Arguments),
    Status(cmd::status::Arguments),
    Unload(cmd::unload::Arguments),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = match &cli.verb {
        Verb::Check(arguments) => cmd::check::run(arguments),
        Verb::Run(arguments) => {
            log_to_stderr();
            cmd::run::run(arguments).map(|()| ExitCode::SUCCESS)
        }
        Verb::Stats(arguments) => cmd::stats::run(arguments).map(|()| ExitCode::SUCCESS),
        Verb::Status(arguments) => cmd::status::run(arguments).map(|()| ExitCode::SUCCESS),
        Verb::Unload(arguments) => cmd::unload::run(arguments).map(|()| ExitCode::SUCCESS),
    };
    match done {
        Ok(status) => status,
        Err(error) => {
            eprintln!("ikenat: {error:#}");
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
