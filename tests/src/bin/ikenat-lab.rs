//! `ikenat-lab demo` runs the whole setup once, with real IKE daemons, in namespaces of its own,
//! and checks what it shows; `ikenat-lab clean` removes what a killed run has left.

use std::net::Ipv4Addr;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::{Parser, Subcommand};
use ikenat_tests::lab::direction::Direction;
use ikenat_tests::lab::ikenat::{self, Ikenat};
use ikenat_tests::lab::netns::{Namespace, execute};
use ikenat_tests::lab::strongswan::{ChildSa, End, Settings, Tunnel};
use ikenat_tests::lab::topology::{CLIENT, LAN, SERVER, VIP, WAN};
use ikenat_tests::lab::{Lab, Options, cleanup};

/// Pings of the demo.
const PINGS: u32 = 20;
/// The counters are read again for this long before they are said to differ: the last packet may
/// still be in transit.
const PATIENCE: Duration = Duration::from_secs(2);

/// A gateway with ikenat between two real strongSwan daemons, all in network namespaces.
#[derive(Parser)]
#[command(name = "ikenat-lab")]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Bring up an IKEv2 tunnel through the gateway and compare the counters with strongSwan's.
    Demo {
        /// Leave everything running and say how to enter it.
        #[arg(long)]
        keep: bool,
    },
    /// Remove the namespaces, processes, directories and mounts of runs that have ended.
    Clean {
        /// Only this one, as `demo --keep` has named it.
        lab: Option<String>,
    },
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ikenat-lab: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<()> {
    cleanup::on_interruption()?;
    match &arguments.verb {
        Verb::Demo { keep } => demo(*keep),
        Verb::Clean { lab } => clean(lab.as_deref()),
    }
}

/// One line per step, with the time since the start.
struct Progress {
    began: Instant,
}

impl Progress {
    fn step(&self, text: &str) {
        println!("[{:6.2} s] {text}", self.began.elapsed().as_secs_f64());
    }
}

fn demo(keep: bool) -> Result<()> {
    let progress = Progress {
        began: Instant::now(),
    };
    let binary = ikenat::binary()?;
    progress.step(&format!(
        "client {CLIENT}, gateway {VIP} (the VIP), server {SERVER}: namespaces and wires"
    ));
    let lab = Lab::new(Options::default())?;
    let outcome = walk(&lab, &progress).and_then(|kept| {
        if keep {
            explain(&lab, &binary.display().to_string(), &kept.1)?;
            cleanup::keep_everything();
            std::mem::forget(kept);
        }
        Ok(())
    });
    if let Err(error) = outcome {
        return Err(error.context(format!("{}--- the demo failed", lab.evidence())));
    }
    if keep {
        std::mem::forget(lab);
        return Ok(());
    }
    drop(lab);
    progress.step("done, everything removed");
    Ok(())
}

/// Runs the demo and returns the running parts, because they end when they are dropped.
fn walk<'lab>(lab: &'lab Lab, progress: &Progress) -> Result<(Ikenat, Tunnel<'lab>)> {
    progress.step(&format!(
        "starting `ikenat run --wan {WAN} --lan {LAN} --vip {VIP} --server {SERVER}`"
    ));
    let ikenat = Ikenat::start(lab)?;
    progress.step("starting two strongSwan daemons");
    let tunnel = Tunnel::configure(lab, Settings::default())?;
    let took = tunnel.initiate()?;
    progress.step(&format!(
        "IKEv2 tunnel established through the gateway in {} ms",
        took.as_millis()
    ));
    tunnel.ping(PINGS, Duration::from_millis(20))?;
    progress.step(&format!(
        "{PINGS} pings through the tunnel, {PINGS} answers"
    ));
    progress.step("ikenat stats:");
    println!("\n{}", execute(&mut lab.ikenat(&["stats"])?)?);
    let compared = compare(lab, &tunnel)?;
    progress.step(&compared);
    Ok((ikenat, tunnel))
}

/// Compares the counters of both directions of the tunnel with strongSwan's at both ends.
fn compare(lab: &Lab, tunnel: &Tunnel) -> Result<String> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let client = tunnel.installed_sa(End::Client)?;
        let server = tunnel.installed_sa(End::Server)?;
        let inbound = counted(lab, CLIENT, &client, Direction::Inbound)?;
        let outbound = counted(lab, CLIENT, &client, Direction::Outbound)?;
        let agree = [client.packets_out, server.packets_in]
            .iter()
            .all(|&n| n == inbound)
            && [client.packets_in, server.packets_out]
                .iter()
                .all(|&n| n == outbound);
        if agree {
            return Ok(format!(
                "ikenat and swanctl --list-sas agree: SPI 0x{:08x} in {inbound} packets, SPI 0x{:08x} out {outbound} packets",
                client.spi_out, client.spi_in
            ));
        }
        ensure!(
            Instant::now() < deadline,
            "the counters differ: ikenat has {inbound} in and {outbound} out, strongSwan has {client:?} at the client and {server:?} at the server"
        );
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn counted(lab: &Lab, peer: Ipv4Addr, client: &ChildSa, direction: Direction) -> Result<u64> {
    let spi = match direction {
        Direction::Inbound => client.spi_out,
        Direction::Outbound => client.spi_in,
    };
    let stats = lab.stats()?;
    stats.check_conservation()?;
    let entry = stats.spi(peer, spi, direction).with_context(|| {
        format!(
            "`ikenat stats` has no single entry for SPI 0x{spi:08x} ({direction:?}): {:?}",
            stats.spis
        )
    })?;
    Ok(entry.packets)
}

/// Prints how to use a lab that stays.
fn explain(lab: &Lab, ikenat: &str, tunnel: &Tunnel) -> Result<()> {
    let shell = |namespace: &Namespace| format!("{} bash", namespace.entry());
    let own = std::env::current_exe().context("failed to find the running program")?;
    let bpffs = lab.bpffs();
    let bpffs = bpffs.display();
    println!(
        "\nThe lab stays. Enter it with\n\
         \x20 client   {}\n\
         \x20 gateway  {}\n\
         \x20 server   {}\n\
         Send something:\n\
         \x20 {} ping -I 10.10.1.1 10.10.2.1\n\
         Watch it, from any shell:\n\
         \x20 {ikenat} stats --watch --bpffs {bpffs}\n\
         \x20 {ikenat} status --bpffs {bpffs}\n\
         \x20 swanctl --list-sas --uri {}\n\
         \x20 swanctl --list-sas --uri {}\n\
         Logs and configuration: {}\n\
         End it:\n\
         \x20 {} clean {}",
        shell(&lab.client),
        shell(&lab.gateway),
        shell(&lab.server),
        lab.client.entry(),
        tunnel.uri(End::Client),
        tunnel.uri(End::Server),
        lab.directory().display(),
        own.display(),
        lab.id(),
    );
    Ok(())
}

fn clean(lab: Option<&str>) -> Result<()> {
    let cleaned = cleanup::clean(lab)?;
    for name in &cleaned.namespaces {
        println!("removed namespace {name}");
    }
    for pid in &cleaned.processes {
        println!("ended process {pid}");
    }
    for path in &cleaned.directories {
        println!("removed {}", path.display());
    }
    if cleaned.namespaces.is_empty() && cleaned.directories.is_empty() {
        println!("nothing was left");
    }
    Ok(())
}
