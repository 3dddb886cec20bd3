//! The section of layer B as text and tables: nanoseconds of the program alone, tables, memory,
//! loads.

use super::figures::{Fate, fate, quotient, range};
use super::section::{Block, Row, Section, Table, figures as number, words as column};
use super::words;
use crate::results::{
    BAgainst, BLoad, BMemory, BMiss, BRow, BTable, BUser, Direction, Interval, LayerB, Spread,
    Traffic, Walk,
};
use std::collections::{BTreeMap, BTreeSet};

const TITLE: &str = "B: nanoseconds of the program alone";
/// Columns of figures that fit a terminal beside the name.
const ACROSS: usize = 4;

/// The section of layer B.
pub(super) fn section(layer: Option<&LayerB>) -> Section {
    let Some(layer) = layer else {
        return Section::missing("b", TITLE);
    };
    let lead = vec![Block::Text(
        "The program on the real CPU (BPF_PROG_TEST_RUN), nanoseconds per packet beyond a program that only passes. \
         Flows are visited in random order; with Zipf's law the k-th has the weight 1/k, and in trains each has eight packets in a row. Hit: every packet finds its flow or session, with a next hop learnt in the \
         same tick; stale: the FIB is asked for each packet; miss: no packet finds a flow. Rounds are interleaved; figures are median (lower quartile–upper quartile)."
            .to_owned(),
    )];
    let mut rest = Vec::new();
    let about = "The dataplane, ns per packet, by the number of flows in the table.";
    rest.extend(pivot(about, "packets", &programs(&layer.programs)));
    if let Some((low, high)) = packets(&layer.programs) {
        let range = if low == high {
            low
        } else {
            format!("{low} to {high}")
        };
        rest.push(Block::Text(format!("Packets per round: {range}.")));
    }
    if !layer.against.is_empty() {
        rest.push(Block::Table(against(&layer.against)));
    }
    if !layer.misses.is_empty() {
        rest.push(Block::Table(misses(layer)));
    }
    let about = "A look-up and two counts alone, ns, by the number of flows: ikenat's table beside the kernel's maps.";
    rest.extend(pivot(about, "table", &tables(&layer.tables)));
    let about = "The kernel's maps as multiples of ikenat's table.";
    rest.extend(pivot(about, "table", &multiples(&layer.tables)));
    if !layer.memory.is_empty() {
        rest.push(Block::Table(memory(&layer.memory)));
    }
    if !layer.loads.is_empty() {
        rest.push(Block::Table(loads(&layer.loads)));
    }
    if !layer.user.is_empty() {
        rest.push(Block::Table(user(&layer.user)));
    }
    if rest.is_empty() {
        rest.push(Block::Text("Layer B has no row.".to_owned()));
    }
    Section {
        id: "b",
        title: TITLE.to_owned(),
        lead,
        rest,
    }
}

/// Rows in order: the heading that they share with their neighbours, their name, and their cells by
/// the number of flows.
type Cells = Vec<((String, String), BTreeMap<u64, String>)>;

/// The key of a row of the dataplane, except for the number of flows.
pub(super) type Kind = (Traffic, Direction, Fate, Walk);

/// The kind of a row.
pub(super) const fn kind(row: &BRow) -> Kind {
    (row.traffic, row.way, fate(row), row.walk)
}

/// A kind in words.
pub(super) fn kind_name((traffic, way, fate, walk): Kind) -> String {
    format!(
        "{}, {}, {}{}",
        words::traffic(traffic),
        words::way(way),
        fate.name(),
        words::walk(walk)
    )
}

fn programs(rows: &[BRow]) -> Cells {
    let mut sorted: Vec<&BRow> = rows.iter().collect();
    sorted.sort_by_key(|row| kind(row));
    gather(sorted.into_iter().map(|row| {
        let group = format!("{}, {}", words::traffic(row.traffic), words::way(row.way));
        (
            (group, fate(row).name().to_owned() + words::walk(row.walk)),
            row.flows,
            words::spread(&row.nanoseconds),
        )
    }))
}

fn tables(rows: &[BTable]) -> Cells {
    gather(rows.iter().map(|row| {
        (
            (String::new(), row.table.clone()),
            row.flows,
            words::spread(&row.nanoseconds),
        )
    }))
}

/// ikenat's table in layer B.
pub(super) const IKENAT: &str = "ikenat";

fn multiples(rows: &[BTable]) -> Cells {
    let ikenat = |flows| {
        let row = rows
            .iter()
            .find(|row| row.table == IKENAT && row.flows == flows)?;
        Some(row.nanoseconds.median)
    };
    let others = rows.iter().filter(|row| row.table != IKENAT);
    gather(others.filter_map(|row| {
        let times = quotient(Some(row.nanoseconds.median), ikenat(row.flows))?;
        Some((
            (String::new(), row.table.clone()),
            row.flows,
            words::ratio(times),
        ))
    }))
}

fn gather(rows: impl Iterator<Item = ((String, String), u64, String)>) -> Cells {
    let mut cells: Cells = Vec::new();
    for (name, flows, text) in rows {
        match cells.iter_mut().find(|(known, _)| *known == name) {
            Some((_, by_flows)) => {
                by_flows.insert(flows, text);
            }
            None => cells.push((name, BTreeMap::from([(flows, text)]))),
        }
    }
    cells
}

/// Tables with the number of flows across, as many as it takes.
fn pivot(about: &str, name: &str, cells: &Cells) -> Vec<Block> {
    let flows: BTreeSet<u64> = cells
        .iter()
        .flat_map(|(_, by_flows)| by_flows.keys().copied())
        .collect();
    let flows: Vec<u64> = flows.into_iter().collect();
    let tables = flows.chunks(ACROSS).map(|across| {
        let mut head = vec![column(name)];
        head.extend(
            across
                .iter()
                .map(|flows| number(&words::plural(*flows, "flow"))),
        );
        let mut table = Table::new(about, head);
        let mut last = "";
        for ((group, name), by_flows) in cells {
            if !across.iter().any(|flows| by_flows.contains_key(flows)) {
                continue;
            }
            if group != last {
                table.rows.push(Row::Group(group.clone()));
                last = group;
            }
            let figure = |flows| {
                by_flows
                    .get(flows)
                    .cloned()
                    .unwrap_or_else(|| words::NONE.to_owned())
            };
            let mut cells = vec![name.clone()];
            cells.extend(across.iter().map(figure));
            table.rows.push(Row::Cells {
                cells,
                highlighted: name == IKENAT,
            });
        }
        Block::Table(table)
    });
    tables.collect()
}

fn packets(rows: &[BRow]) -> Option<(String, String)> {
    let counts: Vec<f64> = rows.iter().map(|row| row.packets as f64).collect();
    range(&counts).map(|(low, high)| (words::figure(low), words::figure(high)))
}

fn against(rows: &[BAgainst]) -> Table {
    let head = vec![
        column("packets"),
        number("flows"),
        number("slots"),
        number("older object"),
        number("this one"),
        number("ratio"),
    ];
    let objects: BTreeSet<&str> = rows.iter().map(|row| row.object.as_str()).collect();
    let objects: Vec<&str> = objects.into_iter().collect();
    let about = format!(
        "ns per packet of an older object ({}) and of this one, measured in turns; every packet finds its flow. The \
         ratio is the median over the rounds.",
        objects.join(", ")
    );
    let mut table = Table::new(&about, head);
    for row in rows {
        let Spread { median, low, high } = row.ratio;
        table.push(vec![
            format!("{}, {}", words::traffic(row.traffic), words::way(row.way)),
            words::grouped(row.flows),
            words::grouped(row.slots),
            words::spread(&row.older),
            words::spread(&row.present),
            words::interval(&Interval { median, low, high }),
        ]);
    }
    table
}

/// The rows whose packets have their flows, as multiples of a cache miss.
fn misses(layer: &LayerB) -> Table {
    let head = vec![
        column("page"),
        number("flows"),
        number("array"),
        number("ns per miss"),
        number("ESP in UDP, inbound"),
    ];
    let mut table = Table::new(
        "One cache miss on which the next one depends (a chain of pointers through an array as large as the hot \
         halves of the table, in the same run), and how many of them a packet of a known flow costs.",
        head,
    );
    let known = (
        Traffic::EspInUdp,
        Direction::Inbound,
        Fate::Hit,
        Walk::Random,
    );
    for BMiss {
        flows,
        bytes,
        page,
        nanoseconds,
    } in &layer.misses
    {
        let is_known = |row: &&BRow| row.flows == *flows && kind(row) == known;
        let program = layer.programs.iter().find(is_known);
        let program = program.map(|row| row.nanoseconds.median);
        table.push(vec![
            words::bytes(*page),
            words::grouped(*flows),
            words::bytes(*bytes),
            words::spread(nanoseconds),
            words::maybe(quotient(program, Some(nanoseconds.median)), words::ratio),
        ]);
    }
    table
}

fn memory(rows: &[BMemory]) -> Table {
    let head = vec![
        number("flows"),
        number("memory"),
        number("bytes"),
        number("bytes per flow"),
    ];
    let mut table = Table::new(
        "What a table costs in memory, by the flows that it may hold.",
        head,
    );
    for row in rows {
        let each = quotient(Some(row.bytes as f64), Some(row.flows as f64));
        table.push(vec![
            words::grouped(row.flows),
            words::bytes(row.bytes),
            words::grouped(row.bytes),
            words::maybe(each, words::figure),
        ]);
    }
    table
}

fn user(rows: &[BUser]) -> Table {
    let head = vec![
        column("work"),
        number("flows"),
        number("milliseconds"),
        number("longest"),
    ];
    let mut table = Table::new(
        "User space with full tables: a whole run of the command, and one of the passes of expiry, of which the \
         daemon makes one a second beside its event loop (with everything old it includes grace periods).",
        head,
    );
    for row in rows {
        table.push(vec![
            row.work.clone(),
            words::grouped(row.flows),
            words::spread(&row.milliseconds),
            words::figure(row.longest),
        ]);
    }
    table
}

fn loads(rows: &[BLoad]) -> Table {
    let head = vec![
        column("keys"),
        number("load"),
        number("offered"),
        number("without slot"),
        number("share"),
    ];
    let mut table = Table::new(
        "How many keys find no slot, by the keys offered as a share of the slots. Their packets are forwarded and \
         counted as untracked.",
        head,
    );
    for row in rows {
        let share = quotient(Some(row.without_slot as f64), Some(row.keys as f64));
        table.push(vec![
            row.kind.clone(),
            words::percent(row.load),
            words::grouped(row.keys),
            words::grouped(row.without_slot),
            words::maybe(share, words::percent),
        ]);
    }
    table
}
