//! The command line of `ikenat-bench`: a whole run, the gate of layer A, and each layer by itself.

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use ikenat_bench::boot::{Boot, progress_line};
use ikenat_bench::gate::{self, Record};
use ikenat_bench::results::{LayerC, Run};
use ikenat_bench::run::{self, Layer};
use ikenat_bench::{join, layer_a, layer_b, layer_c, report};
use ikenat_tests::lab::cleanup;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

/// Measures the cost of a packet.
#[derive(Parser)]
#[command(name = "ikenat-bench")]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Measures layers and writes tables, page and raw figures, as `cargo xtask bench` calls it.
    Run(RunArguments),
    /// Compares layer A of ikenat and of the no-op redirect with the committed record, and reports
    /// like the tests.
    Gate(GateArguments),
    /// Inside the emulated machine: measures one boot of layer A, and writes it to $IKENAT_OUTPUT.
    GuestA {
        /// Only these contestants, with their names in the JSON.
        contestants: Vec<String>,
        /// Only rows with this text in their label (`nft esp-in-udp inbound`), in addition to those
        /// of cable and no-op redirect.
        #[arg(long, value_name = "WORD")]
        only: Option<String>,
        /// Fewer rows.
        #[arg(long)]
        quick: bool,
        /// Start this many milliseconds later.
        #[arg(long, value_name = "MILLISECONDS", default_value_t = 0)]
        after: u64,
    },
    /// Layer B: the program alone on this CPU, and its tables compared with the kernel's.
    B {
        /// Fewer and shorter rounds.
        #[arg(long)]
        quick: bool,
        /// Only rows with this text in their label (`esp-in-udp inbound 1 M hit`,
        /// `table ikenat 64 K`, `memory`, `loads`, `user stats`).
        #[arg(long, value_name = "WORD")]
        only: Option<String>,
        /// Measure this older object of ikenat in turns with that of this build, and nothing else.
        #[arg(long, value_name = "FILE")]
        against: Option<PathBuf>,
        /// Write the raw figures to this file.
        #[arg(long, value_name = "FILE")]
        json: Option<PathBuf>,
    },
    /// Inside layer B: measures steps in a chain of pointers, one line for each that it reads.
    Chain {
        /// Bytes of the array.
        bytes: u64,
        /// Bytes of a page.
        page: u64,
    },
    /// Layer C: end to end in network namespaces. The exit status is 3 when the run is void.
    C {
        /// Fewer cases, fewer and shorter blocks.
        #[arg(long)]
        quick: bool,
        /// Only cases with this text in their label
        /// (`esp-in-udp inbound 110 bytes 1 K flows 2 cores`, `loss-free`).
        #[arg(long, value_name = "WORD")]
        only: Option<String>,
        /// Write the raw figures to this file.
        #[arg(long, value_name = "FILE")]
        json: Option<PathBuf>,
        /// The seed of the order of the blocks, to repeat that of an earlier run.
        #[arg(long, value_name = "NUMBER")]
        seed: Option<u64>,
    },
}

#[derive(clap::Args)]
struct RunArguments {
    /// This layer: a, b or c (repeatable).
    #[arg(long, required = true, value_name = "LAYER")]
    layer: Vec<Layer>,
    /// Fewer rounds and cases.
    #[arg(long)]
    quick: bool,
    /// Only rows with this text in their label.
    #[arg(long, value_name = "WORD")]
    only: Option<String>,
    /// The directory for the page and the raw figures.
    #[arg(long, value_name = "DIRECTORY")]
    results: PathBuf,
    /// Write the raw figures to this file as well.
    #[arg(long, value_name = "FILE")]
    save: Option<PathBuf>,
    /// Compare with the raw figures of this earlier run.
    #[arg(long, value_name = "FILE")]
    compare: Option<PathBuf>,
    /// An older object to measure layer B against.
    #[arg(long, value_name = "FILE")]
    against: Option<PathBuf>,
    /// The command line as the user typed it.
    #[arg(long, default_value = "ikenat-bench run", value_name = "TEXT")]
    command: String,
    /// A word of the command that boots a machine (repeatable).
    #[arg(long, allow_hyphen_values = true, value_name = "WORD")]
    boot: Vec<String>,
}

#[derive(clap::Args)]
struct GateArguments {
    /// The file of the record.
    #[arg(long, value_name = "FILE")]
    file: PathBuf,
    /// The compiler of the objects, with its name in the record.
    #[arg(long, value_name = "NAME")]
    compiler: String,
    /// Write the figures into the record instead.
    #[arg(long)]
    record: bool,
    /// A word of the command that boots a machine (repeatable).
    #[arg(long, allow_hyphen_values = true, value_name = "WORD")]
    boot: Vec<String>,
}

/// The exit status of a run whose twin left its bounds: the figures are kept, and do not count.
const VOID: u8 = 3;

fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(status) => status,
        Err(error) => {
            eprintln!("ikenat-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> Result<ExitCode> {
    cleanup::on_interruption()?;
    match arguments.verb {
        Verb::Run(arguments) => return whole(arguments),
        Verb::Gate(arguments) => return gate(&arguments),
        Verb::GuestA {
            contestants,
            only,
            quick,
            after,
        } => {
            std::thread::sleep(Duration::from_millis(after));
            guest_a(&contestants, only, quick)?;
        }
        Verb::B {
            quick,
            only,
            against,
            json,
        } => {
            let options = layer_b::Options {
                quick,
                only,
                against,
                progress: &|done, all, what| eprint!("\r\x1b[K{done}/{all} {what}"),
            };
            let results = layer_b::run(&options);
            eprint!("\r\x1b[K");
            let results = results?;
            layer_b::print(&results);
            write(json, &results)?;
        }
        Verb::Chain { bytes, page } => layer_b::serve(bytes, page)?,
        Verb::C {
            quick,
            only,
            json,
            seed,
        } => {
            let options = layer_c::Options {
                quick,
                only,
                seed: seed.unwrap_or_else(now),
                progress: &|done, all, what| eprint!("\r\x1b[K{done}/{all} {what}"),
            };
            let results = layer_c::run(&options);
            eprint!("\r\x1b[K");
            return print_c(results?, json);
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Seconds since 1970, so that every run has another order.
fn now() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

fn write(path: Option<PathBuf>, results: &impl serde::Serialize) -> Result<()> {
    if let Some(path) = path {
        let text = serde_json::to_string_pretty(results)?;
        std::fs::write(&path, text)
            .with_context(|| format!("failed to write {}", path.display()))?;
    }
    Ok(())
}

/// The tables of layer C, and 3 if they do not count.
fn print_c(results: LayerC, json: Option<PathBuf>) -> Result<ExitCode> {
    write(json, &results)?;
    let void = results.void.is_some();
    let run = Run {
        c: Some(results),
        ..Run::default()
    };
    print!("{}", report::terminal(&run));
    Ok(if void {
        ExitCode::from(VOID)
    } else {
        ExitCode::SUCCESS
    })
}

/// Ends with 1 when the run does not count.
fn whole(arguments: RunArguments) -> Result<ExitCode> {
    let faults = run::run(&run::Options {
        layers: arguments.layer,
        quick: arguments.quick,
        only: arguments.only,
        results: arguments.results,
        save: arguments.save,
        compare: arguments.compare,
        against: arguments.against,
        command: arguments.command,
        boot: arguments.boot,
        seed: now(),
    })?;
    for fault in &faults {
        eprintln!("ikenat-bench: {fault}");
    }
    Ok(if faults.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Other start times, in milliseconds, to measure at again when a row has risen, or is to be
/// recorded.
const AGAIN: [u64; 5] = [7, 13, 29, 53, 97];

/// Ends with 1 when a figure has risen.
fn gate(arguments: &GateArguments) -> Result<ExitCode> {
    let mut record = Record::read(&arguments.file)?;
    let name = format!("ikenat-gate-{}.json", std::process::id());
    let boot = |after: u64| {
        let mut words: Vec<String> = gate::CONTESTANTS.map(layer_a::name).into();
        words.extend(["--after".to_owned(), after.to_string()]);
        let boot = Boot {
            command: &arguments.boot,
            output: std::env::temp_dir().join(&name),
            arguments: words,
        };
        join::join(vec![boot.run(&|_, _, _| ())?])
    };
    let layer = boot(0)?;
    let (mut figures, without) = gate::figures(&layer);
    for after in AGAIN {
        let recorded = record.figures(&layer.kernel, &arguments.compiler);
        let fine = |recorded| gate::judge(&figures, recorded).iter().all(|row| row.passes);
        if without.is_empty() && (arguments.record || recorded.is_some_and(|record| !fine(record)))
        {
            let (other, _) = gate::figures(&boot(after)?);
            gate::keep_lower(&mut figures, &other);
        }
    }
    if arguments.record {
        anyhow::ensure!(
            without.is_empty(),
            "failed to record figures: {}",
            without.join("; ")
        );
        for (label, figure) in &figures {
            println!("{label}: {figure:.1} instructions");
        }
        record.put(&layer.kernel, &arguments.compiler, figures);
        record.write(&arguments.file)?;
        println!(
            "recorded for kernel {} and {} in {}",
            layer.kernel,
            arguments.compiler,
            arguments.file.display()
        );
        return Ok(ExitCode::SUCCESS);
    }
    let recorded = record.figures(&layer.kernel, &arguments.compiler);
    let report = gate::report(
        &layer.kernel,
        &arguments.compiler,
        &figures,
        &without,
        recorded,
    );
    print!("{}", report.text);
    Ok(if report.failed {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

fn guest_a(names: &[String], only: Option<String>, quick: bool) -> Result<()> {
    let contestants = names
        .iter()
        .map(|name| {
            serde_json::from_value(serde_json::Value::String(name.clone()))
                .with_context(|| format!("failed to find a contestant named {name}"))
        })
        .collect::<Result<_>>()?;
    let progress = |done, all, what: &str| println!("{}", progress_line(done, all, what));
    let layer = layer_a::measure(
        &layer_a::Options {
            contestants,
            only,
            quick,
        },
        &progress,
    )?;
    let path = std::env::var_os("IKENAT_OUTPUT")
        .context("failed to find IKENAT_OUTPUT: this runs inside `cargo xtask vm`")?;
    std::fs::write(&path, serde_json::to_string(&layer)?)
        .with_context(|| format!("failed to write {}", path.display()))
}
