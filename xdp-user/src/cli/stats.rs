//! `ikenat stats`: every SPI and every peer, from the tables alone.

use super::table::{Lean, Table, age, grouped};
use super::{Which, print};
use anyhow::{Context, Result};
use clap::Args;
use std::collections::HashMap;
use std::io::{self, IsTerminal as _};
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};
use xdp_user::report::stats::{Both, Earlier, Instance, Session, Spi, Stats, Sum};
use xdp_user::tables::snapshot::Snapshot;

/// Show every SPI: packets, bytes, rate, loss, age
///
/// Works from any shell and without the daemon: it reads the tables that the programs count into. Bytes are IPv4
/// total lengths. Loss is estimated from the sequence numbers, which nobody has authenticated: the numbers between
/// the first and the highest that did not come. PACKETS/S is the mean over the life of an SPI, from its first packet
/// to its last but over one second at least; with --watch it is the rate since the last refresh.
#[derive(Args, Clone, Debug)]
pub(crate) struct Arguments {
    /// For programs: one JSON document (with --watch one a line)
    #[arg(long)]
    json: bool,
    /// Refresh every two seconds
    #[arg(long)]
    watch: bool,
    #[command(flatten)]
    which: Which,
}

const REFRESH: Duration = Duration::from_secs(2);

type Looks = HashMap<Ipv4Addr, (Earlier, Instant)>;

/// Does it.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let mut looks = Looks::new();
    loop {
        let stats = look(&arguments.which, &mut looks)?;
        print(&show(arguments, &stats)?)?;
        if !arguments.watch {
            return Ok(());
        }
        std::thread::sleep(REFRESH);
    }
}

fn look(which: &Which, looks: &mut Looks) -> Result<Stats> {
    let mut instances = Vec::new();
    for pins in which.some_instances()? {
        let snapshot = Snapshot::take(&pins.directory, pins.vip)
            .with_context(|| format!("failed to read the tables of {}", pins.vip))?;
        let now = Instant::now();
        let earlier = looks
            .get(&pins.vip)
            .map(|(earlier, at)| (earlier, now.duration_since(*at)));
        instances.push(Instance::of(&snapshot, earlier));
        looks.insert(pins.vip, (Earlier::of(&snapshot), now));
    }
    Ok(Stats { instances })
}

fn show(arguments: &Arguments, stats: &Stats) -> Result<String> {
    if arguments.json {
        let text = if arguments.watch {
            serde_json::to_string(stats)?
        } else {
            serde_json::to_string_pretty(stats)?
        };
        return Ok(text + "\n");
    }
    let texts = stats.instances.iter().map(|one| text(one, arguments.watch));
    let texts = texts.collect::<Vec<_>>().join("\n");
    // Home and clear: the screen belongs to the table until Ctrl-C.
    let clear = arguments.watch && io::stdout().is_terminal();
    Ok(if clear {
        format!("\x1b[H\x1b[2J{texts}")
    } else {
        texts
    })
}

fn text(instance: &Instance, watch: bool) -> String {
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
    let mut table = Table::new(&[
        ("PEER", Lean::Left),
        ("KIND", Lean::Left),
        ("SPI", Lean::Left),
        ("DIR", Lean::Left),
        ("PACKETS", Lean::Right),
        ("BYTES", Lean::Right),
        (rate, Lean::Right),
        ("HIGHEST SEQ", Lean::Right),
        ("EST. LOSS", Lean::Right),
        ("REORDERED", Lean::Right),
        ("LAST SEEN", Lean::Right),
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

fn sessions(sessions: &[Session]) -> String {
    let mut table = Table::new(&[
        ("PEER", Lean::Left),
        ("STATE", Lean::Left),
        ("IKE IN/OUT", Lean::Right),
        ("NAT-T IKE IN/OUT", Lean::Right),
        ("KEEPALIVES IN/OUT", Lean::Right),
        ("SPIS", Lean::Right),
        ("LAST SEEN", Lean::Right),
    ]);
    for session in sessions {
        // Before the proof nothing is counted for a peer, so there is no zero to show.
        let counted = session.state == "established";
        let both = |both: &Both<u64>| {
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

fn totals(instance: &Instance) -> String {
    let line = |name: &str, of: fn(&Both<Sum>) -> Sum| {
        let totals = &instance.totals;
        let packets = |both: &Both<Sum>| grouped(of(both).packets);
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
