//! `ikenat stats`: every SPI and every peer, from the tables alone.

use super::printed::Printed;
use super::service_filter::{ServiceFilter, select};
use super::table::{Align, SERVICE, age, grouped, prepended, write_rows};
use super::{Errors, InstanceFilter, Reader, heading, print_with, readable};
use anyhow::Result;
use clap::Args;
use ipnet::Ipv4Net;
use std::collections::HashMap;
use std::io::{self, IsTerminal as _, Write};
use std::process::ExitCode;
use std::time::{Duration, Instant};
use xdp_user::config::peer_lists;
use xdp_user::report;
use xdp_user::report::document::Document;
use xdp_user::report::selection::{PreviousCounts, Selection, Sort};
use xdp_user::report::stats::{ByDirection, InstanceStats, SessionStats, Spi, Stats, Traffic};
use xdp_user::tables::snapshot::Snapshot;

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
    /// Only this peer, or the peers of this prefix
    ///
    /// It may be given any number of times. The totals remain those of all peers.
    #[arg(long, value_name = "PREFIX", value_parser = peer_lists::prefix)]
    peer: Vec<Ipv4Net>,
    /// Only this SPI, for example 0xc1234567, and its peer
    ///
    /// It may be given any number of times.
    #[arg(long, value_name = "SPI", value_parser = spi)]
    spi: Vec<u32>,
    /// What SPIs are sorted by: the largest number or the latest time first
    #[arg(long, value_enum, value_name = "KEY", default_value_t = Sort::Peer)]
    sort: Sort,
    /// Only the first N SPIs of that order, and their peers
    #[arg(long, value_name = "N", value_parser = top)]
    top: Option<usize>,
    #[command(flatten)]
    services: ServiceFilter,
    #[command(flatten)]
    which: InstanceFilter,
}

fn spi(text: &str) -> Result<u32, String> {
    let digits = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X"));
    digits
        .and_then(|digits| u32::from_str_radix(digits, 16).ok())
        .ok_or_else(|| {
            "it is not an SPI; write it as `stats` does, 0x and up to eight hexadecimal digits"
                .to_owned()
        })
}

fn top(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(number) if number > 0 => Ok(number),
        Ok(_) | Err(_) => Err("give a number of SPIs from 1 on, for example 20".to_owned()),
    }
}

impl Arguments {
    fn selection(&self) -> Selection {
        Selection {
            peers: self.peer.clone(),
            spis: self.spi.clone(),
            sort: self.sort,
            top: self.top,
            services: self.services.wanted(),
        }
    }
}

const REFRESH: Duration = Duration::from_secs(2);

type History = HashMap<String, (PreviousCounts, Instant)>;

/// Runs the subcommand.
pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let selection = arguments.selection();
    let mut history = History::new();
    loop {
        let (snapshots, errors) = take(arguments, &selection)?;
        let now = Instant::now();
        let mut instances = Vec::new();
        for (name, snapshot) in &snapshots {
            let earlier = history
                .get(name)
                .map(|(earlier, at)| (earlier, now.duration_since(*at)));
            instances.push(InstanceStats::of(name, snapshot, &selection, earlier));
        }
        let stats = Stats { instances };
        let reader = print_with(|out| show(arguments, &stats, &snapshots, out))?;
        let status = errors.report();
        if !arguments.watch || reader == Reader::Gone {
            return Ok(status);
        }
        history = snapshots
            .into_iter()
            .map(|(name, one)| (name, (PreviousCounts::of(&one), now)))
            .collect();
        std::thread::sleep(REFRESH);
    }
}

/// A snapshot of the instance of this name.
type Named = (String, Snapshot);

/// All snapshots are taken before the first line is written, so that an error leaves no half of a
/// document.
fn take(arguments: &Arguments, selection: &Selection) -> Result<(Vec<Named>, Errors)> {
    let (mut snapshots, errors) = arguments.which.read(|pins| {
        let wanted = |peer| selection.wants(peer);
        let snapshot = readable(pins, report::instance::snapshot(pins, wanted))?;
        Ok((pins.name.clone(), snapshot))
    })?;
    select(&selection.services, &mut snapshots, &errors, |(_, one)| {
        &one.overview.services
    })?;
    Ok((snapshots, errors))
}

fn show(
    arguments: &Arguments,
    stats: &Stats<'_>,
    snapshots: &[Named],
    out: &mut Printed<impl Write>,
) -> io::Result<()> {
    if arguments.json {
        let document = Document::now(stats);
        return if arguments.watch {
            document.write_line(out)
        } else {
            document.write_indented(out)
        };
    }
    // Cursor home and clear: the tables fill the screen until Ctrl-C.
    if arguments.watch && io::stdout().is_terminal() {
        write!(out.0, "\x1b[H\x1b[2J")?;
    }
    for (at, (instance, (_, snapshot))) in stats.instances.iter().zip(snapshots).enumerate() {
        if at > 0 {
            writeln!(out)?;
        }
        text(instance, arguments, snapshot, out)?;
    }
    Ok(())
}

fn text(
    instance: &InstanceStats<'_>,
    arguments: &Arguments,
    snapshot: &Snapshot,
    out: &mut dyn Write,
) -> io::Result<()> {
    let is_partial = arguments.selection().is_partial();
    writeln!(out, "{}\n", heading(instance.name, &instance.services))?;
    if !instance.spis.is_empty() {
        spis(instance, arguments.watch, out)?;
    } else if is_partial {
        writeln!(out, "No SPI of this selection.")?;
    } else {
        writeln!(out, "No ESP has been counted yet.")?;
    }
    writeln!(out)?;
    if !instance.sessions.is_empty() {
        sessions(instance, out)?;
    } else if is_partial {
        writeln!(out, "No peer of this selection.")?;
    } else {
        writeln!(out, "No peer has answered the server's handshake yet.")?;
    }
    writeln!(out)?;
    if is_partial {
        writeln!(
            out,
            "{} SPIs are listed; the sums below are those of all {} entries",
            grouped(instance.spis.len() as u64),
            grouped(snapshot.overview.entries("FLOW")),
        )?;
    }
    totals(instance, is_partial, out)
}

/// Whether the rows have to say which service they are of.
fn has_several(instance: &InstanceStats<'_>) -> bool {
    instance.services.len() > 1
}

fn spis(instance: &InstanceStats<'_>, watch: bool, out: &mut dyn Write) -> io::Result<()> {
    let rate = if watch {
        "PACKETS/S NOW"
    } else {
        "PACKETS/S MEAN"
    };
    let columns = [
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
    ];
    let spis = &instance.spis;
    if has_several(instance) {
        let columns: [_; 12] = prepended(SERVICE, columns);
        let row = |spi: Spi<'_>| prepended(spi.service.to_owned(), spi_row(&spi));
        return write_rows(out, columns, || spis.iter().map(row));
    }
    write_rows(out, columns, || spis.iter().map(|spi| spi_row(&spi)))
}

fn spi_row(spi: &Spi<'_>) -> [String; 11] {
    let peer = match spi.port {
        Some(port) => format!("{}:{port}", spi.peer),
        None => spi.peer.to_string(),
    };
    let kind = if spi.kind == "esp" {
        "ESP"
    } else {
        "ESP-in-UDP"
    };
    [
        peer,
        kind.to_owned(),
        format!("{:#010x}", spi.spi),
        spi.direction.to_owned(),
        grouped(spi.packets),
        grouped(spi.bytes),
        format!("{:.1}", spi.packets_per_second),
        spi.highest_sequence.to_string(),
        grouped(spi.estimated_loss),
        grouped(spi.reordered),
        format!("{} ago", age(spi.last_seen_secs)),
    ]
}

fn sessions(instance: &InstanceStats<'_>, out: &mut dyn Write) -> io::Result<()> {
    let columns = [
        ("PEER", Align::Left),
        ("STATE", Align::Left),
        ("IKE IN/OUT", Align::Right),
        ("NAT-T IKE IN/OUT", Align::Right),
        ("KEEPALIVES IN/OUT", Align::Right),
        ("SPIS", Align::Right),
        ("LAST SEEN", Align::Right),
    ];
    let sessions = &instance.sessions;
    if has_several(instance) {
        let columns: [_; 8] = prepended(SERVICE, columns);
        let row = |session: SessionStats<'_>| {
            let service = session.service.unwrap_or("-");
            prepended(service.to_owned(), session_row(&session))
        };
        return write_rows(out, columns, || sessions.iter().map(row));
    }
    write_rows(out, columns, || {
        sessions.iter().map(|session| session_row(&session))
    })
}

fn session_row(session: &SessionStats<'_>) -> [String; 7] {
    // Nothing is counted for a half-open peer, so there is no zero to show.
    let counted = session.state == "established";
    let both = |both: &ByDirection<u64>| {
        if counted {
            format!("{}/{}", grouped(both.inbound), grouped(both.outbound))
        } else {
            "-".to_owned()
        }
    };
    [
        session.peer.to_string(),
        session.state.to_owned(),
        both(&session.ike),
        both(&session.natt_ike),
        both(&session.keepalive),
        session.spis.to_string(),
        format!("{} ago", age(session.last_seen_secs)),
    ]
}

fn totals(instance: &InstanceStats<'_>, is_partial: bool, out: &mut dyn Write) -> io::Result<()> {
    let whose = if is_partial {
        "of SPIs that are counted now"
    } else {
        "of the SPIs above"
    };
    let mut line = |name: &str, of: fn(&ByDirection<Traffic>) -> Traffic| {
        let totals = &instance.totals;
        let packets = |both: &ByDirection<Traffic>| grouped(of(both).packets);
        writeln!(
            out,
            "ESP {name}: {} packets, {} bytes = {} {whose} + {} of expired SPIs + {} untracked",
            packets(&totals.esp),
            grouped(of(&totals.esp).bytes),
            packets(&totals.tracked),
            packets(&totals.retired),
            packets(&totals.untracked),
        )
    };
    line("in ", |both| both.inbound)?;
    line("out", |both| both.outbound)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_spi_is_read_as_it_is_shown() {
        assert_eq!(spi("0xc1234567"), Ok(0xc123_4567));
        assert_eq!(spi("0x100"), Ok(0x100));
        for wrong in ["c1234567", "0x", "0x1c1234567", "256", ""] {
            let error = spi(wrong).expect_err(wrong);
            assert!(error.contains("0x and up to eight"), "{error}");
        }
    }

    #[test]
    fn a_number_of_lines_is_not_zero() {
        assert_eq!(top("20"), Ok(20));
        assert!(top("0").is_err() && top("-1").is_err() && top("x").is_err());
    }
}
