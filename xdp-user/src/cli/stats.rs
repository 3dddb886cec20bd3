//! `ikenat stats`: every SPI and every peer, from the tables alone.

use super::table::{Align, TextTable, age, grouped};
use super::{Errors, InstanceFilter, Reader, print, snapshot};
use anyhow::Result;
use clap::Args;
use std::collections::HashMap;
use std::io::{self, IsTerminal as _};
use std::net::Ipv4Addr;
use std::process::ExitCode;
use std::time::{Duration, Instant};
use xdp_user::report::document::Document;
use xdp_user::report::stats::{
    ByDirection, InstanceStats, PreviousCounts, SessionStats, Spi, Stats, Traffic,
};

/// Show every SPI: packets, bytes, rate, loss, age
///
/// Works from any shell and without the daemon: it reads the tables that the programs count into.
/// Bytes are IPv4 total lengths. Loss is estimated from the sequence numbers, which are not
/// authenticated here: it is how many numbers between the first and the highest did not arrive.
/// PACKETS/S is the mean over the life of an SPI, from its first packet to its last but over one
/// second at least; with --watch it is the rate since the last refresh.
#[derive(Args, Clone, Debug)]
pub(crate) struct Arguments {
    /// Print one JSON document; with --watch, one per line
    #[arg(long)]
    json: bool,
    /// Refresh every two seconds
    #[arg(long)]
    watch: bool,
    #[command(flatten)]
    which: InstanceFilter,
}

const REFRESH: Duration = Duration::from_secs(2);

type History = HashMap<Ipv4Addr, (PreviousCounts, Instant)>;

/// Runs the subcommand.
pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let mut history = History::new();
    loop {
        let (stats, errors) = take(&arguments.which, &mut history)?;
        let reader = print(&show(arguments, &stats)?)?;
        let status = errors.report();
        if !arguments.watch || reader == Reader::Gone {
            return Ok(status);
        }
        std::thread::sleep(REFRESH);
    }
}

fn take(which: &InstanceFilter, history: &mut History) -> Result<(Stats, Errors)> {
    let (instances, errors) = which.read(|pins| {
        let snapshot = snapshot(pins)?;
        let now = Instant::now();
        let earlier = history
            .get(&pins.vip)
            .map(|(earlier, at)| (earlier, now.duration_since(*at)));
        let stats = InstanceStats::of(&snapshot, earlier);
        history.insert(pins.vip, (PreviousCounts::of(&snapshot), now));
        Ok(stats)
    })?;
    Ok((Stats { instances }, errors))
}

fn show(arguments: &Arguments, stats: &Stats) -> Result<String> {
    if arguments.json {
        let document = Document::now(stats);
        return Ok(if arguments.watch {
            document.line()?
        } else {
            document.indented()?
        });
    }
    let texts = stats.instances.iter().map(|one| text(one, arguments.watch));
    let texts = texts.collect::<Vec<_>>().join("\n");
    // Cursor home and clear: the tables fill the screen until Ctrl-C.
    let clear = arguments.watch && io::stdout().is_terminal();
    Ok(if clear {
        format!("\x1b[H\x1b[2J{texts}")
    } else {
        texts
    })
}

fn text(instance: &InstanceStats, watch: bool) -> String {
    let mut text = format!("VIP {} -> server {}\n\n", instance.vip, instance.server);
    if instance.spis.is_empty() {
        text.push_str("No ESP has been counted yet.\n");
    } else {
        text.push_str(&spis(&instance.spis, watch));
    }
    text.push('\n');
    if instance.sessions.is_empty() {
        text.push_str("No peer has answered the server's handshake yet.\n");
    } else {
        text.push_str(&sessions(&instance.sessions));
    }
    text.push('\n');
    text.push_str(&totals(instance));
    text
}

fn spis(spis: &[Spi], watch: bool) -> String {
    let rate = if watch {
        "PACKETS/S NOW"
    } else {
        "PACKETS/S MEAN"
    };
    let mut table = TextTable::new(&[
        ("PEER", Align::Left),
        ("KIND", Align::Left),
        ("SPI", Align::Left),
        ("DIR", Align::Left),
        ("PACKETS", Align::Right),
        ("BYTES", Align::Right),
        (rate, Align::Right),
        ("HIGHEST SEQ", Align::Right),
        ("EST. LOSS", Align::Right),
        ("REORDERED", Align::Right),
        ("LAST SEEN", Align::Right),
    ]);
    for spi in spis {
        let peer = match spi.port {
            Some(port) => format!("{}:{port}", spi.peer),
            None => spi.peer.to_string(),
        };
        let kind = if spi.kind == "esp" {
            "ESP"
        } else {
            "ESP-in-UDP"
        };
        table.row([
            peer,
            kind.to_owned(),
            spi.spi.clone(),
            spi.direction.to_owned(),
            grouped(spi.packets),
            grouped(spi.bytes),
            format!("{:.1}", spi.packets_per_second),
            spi.highest_sequence.to_string(),
            grouped(spi.estimated_loss),
            grouped(spi.reordered),
            format!("{} ago", age(spi.last_seen_secs)),
        ]);
    }
    table.text(0)
}

fn sessions(sessions: &[SessionStats]) -> String {
    let mut table = TextTable::new(&[
        ("PEER", Align::Left),
        ("STATE", Align::Left),
        ("IKE IN/OUT", Align::Right),
        ("NAT-T IKE IN/OUT", Align::Right),
        ("KEEPALIVES IN/OUT", Align::Right),
        ("SPIS", Align::Right),
        ("LAST SEEN", Align::Right),
    ]);
    for session in sessions {
        // Nothing is counted for a half-open peer, so there is no zero to show.
        let counted = session.state == "established";
        let both = |both: &ByDirection<u64>| {
            if counted {
                format!("{}/{}", grouped(both.inbound), grouped(both.outbound))
            } else {
                "-".to_owned()
            }
        };
        table.row([
            session.peer.to_string(),
            session.state.to_owned(),
            both(&session.ike),
            both(&session.natt_ike),
            both(&session.keepalive),
            session.spis.to_string(),
            format!("{} ago", age(session.last_seen_secs)),
        ]);
    }
    table.text(0)
}

fn totals(instance: &InstanceStats) -> String {
    let line = |name: &str, of: fn(&ByDirection<Traffic>) -> Traffic| {
        let totals = &instance.totals;
        let packets = |both: &ByDirection<Traffic>| grouped(of(both).packets);
        format!(
            "ESP {name}: {} packets, {} bytes = {} of the SPIs above + {} of expired SPIs + {} untracked\n",
            packets(&totals.esp),
            grouped(of(&totals.esp).bytes),
            packets(&totals.tracked),
            packets(&totals.retired),
            packets(&totals.untracked),
        )
    };
    line("in ", |both| both.inbound) + &line("out", |both| both.outbound)
}
