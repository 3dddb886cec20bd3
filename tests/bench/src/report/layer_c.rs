//! The section of layer C as text and tables: packets per second, ratios, loss-free rates, latency.

use super::figures::{self, quotient};
use super::layer_a::{is_ikenat, missing};
use super::section::{Block, Row, Section, Table, figures as number, words as column};
use super::words;
use crate::results::{CRow, Contestant, Latency, LayerC};
use std::collections::BTreeMap;

const TITLE: &str = "C: packets per second, end to end in namespaces";

/// The section of layer C.
pub(super) fn section(layer: Option<&LayerC>) -> Section {
    let Some(layer) = layer else {
        return Section::missing("c", TITLE);
    };
    let mut lead: Vec<Block> = figures::void_sentence(Some(layer))
        .map(Block::Loud)
        .into_iter()
        .collect();
    lead.push(Block::Text(
        "A generator, the gateway and a sink that checks address, checksum and sequence of what arrives. Packets per \
         second are the median over the blocks (lowest–highest block). The ratio to the no-op redirect is the median \
         of the per-block ratios with its bootstrap 95 % interval: it is the figure to compare, since both ran in the \
         same block. A contestant that delivers one wrong packet scores zero."
            .to_owned(),
    ));
    lead.push(Block::Text(
        "With veth, generator, gateway and sink run one after the other on the CPU that sends. So packets per second at \
         saturation are the inverse of the whole cost of a packet, generator and sink included: a ratio is nearer to 1 \
         than that of the gateways' own costs, which layer A has."
            .to_owned(),
    ));
    lead.push(Block::Text(twin(layer)));
    lead.extend(missing(&layer.missing));
    let mut rest = Vec::new();
    if layer.rows.is_empty() {
        rest.push(Block::Text("Layer C has no row.".to_owned()));
    } else {
        rest.push(Block::Table(saturation(layer).without_empty_columns()));
        rest.extend(lossless(layer).map(Block::Table));
        rest.extend(scaling(layer).map(Block::Table));
    }
    Section {
        id: "c",
        title: TITLE.to_owned(),
        lead,
        rest,
    }
}

fn twin(layer: &LayerC) -> String {
    if layer.twin.median > 0.0 {
        format!(
            "ikenat ran a second time as its own twin in every block. The twin's ratio to ikenat: {}. Outside [0.98, \
             1.02] the run would be void. The order of the blocks came from seed {}.",
            words::interval(&layer.twin),
            layer.seed
        )
    } else {
        "ikenat had no twin in this run, so nothing says how large its noise is.".to_owned()
    }
}

fn saturation(layer: &LayerC) -> Table {
    let head = vec![
        column("contestant"),
        number("packets/s"),
        number("lowest–highest block"),
        number("× no-op [95 %]"),
        number("lost"),
        column("note"),
    ];
    let mut table = Table::new(
        "Packets per second at saturation, as they must arrive.",
        head,
    );
    for (case, rows) in figures::cases(&layer.rows) {
        table.rows.push(Row::Group(figures::case_name(case)));
        for row in rows {
            table.rows.push(Row::Cells {
                cells: cells(row),
                highlighted: is_ikenat(row.contestant),
            });
        }
    }
    table
}

fn cells(row: &CRow) -> Vec<String> {
    let wrong = row.wrong > 0;
    let blocks = figures::range(&row.blocks).filter(|_| !wrong).map_or_else(
        || words::NONE.to_owned(),
        |(low, high)| format!("{} – {}", words::rate(low), words::rate(high)),
    );
    let lost = quotient(Some(row.lost as f64), Some(row.sent as f64));
    let note = if wrong {
        format!("{} WRONG: scores zero", words::plural(row.wrong, "packet"))
    } else if row.blocks.is_empty() {
        "no block".to_owned()
    } else {
        String::new()
    };
    vec![
        words::contestant(row.contestant).to_owned(),
        words::maybe(figures::score(row), words::rate),
        blocks,
        figures::ratio(row).map_or_else(|| words::NONE.to_owned(), |ratio| words::interval(&ratio)),
        words::maybe(lost, words::percent),
        note,
    ]
}

/// Loss-free rates and latencies, where there are any.
fn lossless(layer: &LayerC) -> Option<Table> {
    let head = ["loss-free packets/s", "p50", "p99", "p99.9"].map(number);
    let head = std::iter::once(column("contestant")).chain(head).collect();
    let about = "Highest rate with a loss below 1e-4, and the latency at half of that rate. Packets come in bursts of 32 \
                 at fixed times and wait in a queue of 1,024; what finds it full is lost. Latency counts from when a burst \
                 is due until the sink has seen the packet, known to an eighth of a power of two.";
    let mut table = Table::new(about, head);
    for (case, rows) in figures::cases(&layer.rows) {
        let measured =
            |row: &&CRow| row.wrong == 0 && (row.lossless.is_some() || row.latency.is_some());
        let mut rows = rows.into_iter().filter(measured).peekable();
        if rows.peek().is_some() {
            table.rows.push(Row::Group(figures::case_name(case)));
        }
        for row in rows {
            let time = |of: fn(&Latency) -> f64| {
                words::maybe(row.latency.as_ref().map(of), words::duration)
            };
            let cells = vec![
                words::contestant(row.contestant).to_owned(),
                words::maybe(row.lossless, words::rate),
                time(|latency| latency.p50),
                time(|latency| latency.p99),
                time(|latency| latency.p999),
            ];
            table.rows.push(Row::Cells {
                cells,
                highlighted: is_ikenat(row.contestant),
            });
        }
    }
    (!table.rows.is_empty()).then_some(table)
}

/// The speed-up of more cores, where a case ran on several.
fn scaling(layer: &LayerC) -> Option<Table> {
    let mut cores: BTreeMap<_, BTreeMap<(Contestant, u32), f64>> = BTreeMap::new();
    for row in &layer.rows {
        if let Some(score) = figures::score(row) {
            let (traffic, way, frame, flows, _) = figures::case(row);
            let rates = cores.entry((traffic, way, frame, flows)).or_default();
            rates.insert((row.contestant, row.cores), score);
        }
    }
    let head = ["contestant", "cores", "packets/s", "× one core"];
    let head = head.into_iter().map(|name| {
        if name == "contestant" {
            column(name)
        } else {
            number(name)
        }
    });
    let mut table = Table::new(
        "Scaling: the same case on one core and on more.",
        head.collect(),
    );
    for (&(traffic, way, frame, flows), rates) in &cores {
        let more = rates.iter().filter(|((_, cores), _)| *cores > 1);
        let mut rows = more
            .filter_map(|(&(who, cores), &rate)| {
                let times = quotient(Some(rate), rates.get(&(who, 1)).copied())?;
                let cells = vec![
                    words::contestant(who).to_owned(),
                    cores.to_string(),
                    words::rate(rate),
                    words::ratio(times),
                ];
                Some(Row::Cells {
                    cells,
                    highlighted: is_ikenat(who),
                })
            })
            .peekable();
        if rows.peek().is_some() {
            table.rows.push(Row::Group(format!(
                "{}, {} · {} · {}",
                words::traffic(traffic),
                words::way(way),
                words::plural(u64::from(frame), "byte"),
                words::plural(flows, "flow")
            )));
            table.rows.extend(rows);
        }
    }
    (!table.rows.is_empty()).then_some(table)
}
