//! The top of the report: the conditions of the run, its result in three sentences, and what the
//! figures do not show.

use super::figures::{self, quotient};
use super::section::{Block, Section, Table, words as column};
use super::{layer_b, words};
use crate::results::{
    ARow, BRow, Contestant, Direction, LayerA, LayerB, LayerC, Run, Traffic, Walk,
};

/// Where and how the run was made.
pub(super) fn conditions(run: &Run) -> Section {
    let c = &run.conditions;
    let said = |text: &str| {
        if text.trim().is_empty() {
            "unknown".to_owned()
        } else {
            text.to_owned()
        }
    };
    let mut table = Table::new("", vec![column("condition"), column("value")]);
    let mut add = |name: &str, value: String| table.push(vec![name.to_owned(), value]);
    add("date (UTC)", said(&c.date));
    add("commit", said(&c.commit));
    add("binaries", said(&c.profile));
    add("kernel", said(&c.kernel));
    if let Some(a) = &run.a {
        add("kernel of layer A", said(&a.kernel));
    }
    let machine = if c.virtualized {
        "a virtual machine"
    } else {
        "not known to be virtual"
    };
    add("CPU", said(&c.cpu));
    add(
        "machine",
        format!("{}, {machine}", words::plural(c.cpus as u64, "CPU")),
    );
    if c.quick {
        add("rounds", "--quick: fewer rounds and cases".to_owned());
    }
    let mitigations = match c.mitigations.as_slice() {
        [] => "Mitigations of the CPU's faults: none is named.".to_owned(),
        named => format!("Mitigations of the CPU's faults: {}.", named.join("; ")),
    };
    let mut lead: Vec<Block> = figures::void_sentence(run.c.as_ref())
        .map(Block::Loud)
        .into_iter()
        .collect();
    lead.push(Block::Text(format!("Command: {}", said(&c.command))));
    lead.push(Block::Table(table));
    lead.push(Block::Text(mitigations));
    Section {
        id: "conditions",
        title: "ikenat benchmark".to_owned(),
        lead,
        rest: Vec::new(),
    }
}

/// One sentence a layer.
pub(super) fn short(run: &Run) -> Section {
    let missing = |layer: &str| format!("Layer {layer} is missing: the run was not asked for it.");
    let a = run.a.as_ref().map_or_else(|| missing("A"), short_a);
    let b = run.b.as_ref().map_or_else(|| missing("B"), short_b);
    let c = run.c.as_ref().map_or_else(|| missing("C"), short_c);
    let lead = [a, b, c].map(Block::Text).into();
    Section {
        id: "short",
        title: "In short".to_owned(),
        lead,
        rest: Vec::new(),
    }
}

fn short_a(layer: &LayerA) -> String {
    let rows = figures::main_group(&layer.rows).unwrap_or_default();
    let cost = |who| {
        rows.iter()
            .find(|row: &&&ARow| row.contestant == who)
            .and_then(|row| figures::marginal(row))
    };
    let (Some(ikenat), Some(first)) = (cost(Contestant::Ikenat), rows.first()) else {
        return "Layer A has no figure for ikenat.".to_owned();
    };
    let mut text = format!(
        "Layer A: ikenat costs {} instructions per packet beyond generator and sink ({}, {})",
        words::figure(ikenat),
        words::traffic(first.traffic),
        words::way(first.way)
    );
    for who in [
        Contestant::Noop,
        Contestant::Iptables,
        Contestant::Nft,
        Contestant::Ipvs,
    ] {
        if let Some(theirs) = cost(who) {
            text.push_str(&format!(
                "; {} {}",
                words::contestant(who),
                words::figure(theirs)
            ));
        }
    }
    text.push('.');
    text
}

fn short_b(layer: &LayerB) -> String {
    let main = (
        Traffic::EspInUdp,
        Direction::Inbound,
        figures::Fate::Hit,
        Walk::Random,
    );
    let ikenat = |row: &&BRow| layer_b::kind(row) == main;
    let mut rows: Vec<_> = layer.programs.iter().filter(ikenat).collect();
    rows.sort_by_key(|row| row.flows);
    let figures: Vec<String> = rows
        .iter()
        .map(|row| {
            format!(
                "{} ns with {}",
                words::figure(row.nanoseconds.median),
                words::plural(row.flows, "flow")
            )
        })
        .collect();
    if figures.is_empty() {
        return "Layer B has no figure for inbound ESP in UDP that finds its flow.".to_owned();
    }
    format!(
        "Layer B: the program alone takes, beyond one that only passes, {} (ESP in UDP 4500, inbound, hit).",
        figures.join(", ")
    )
}

fn short_c(layer: &LayerC) -> String {
    let Some((case, rows)) = figures::main_case(&layer.rows, |row| !row.blocks.is_empty()) else {
        return "Layer C has no row.".to_owned();
    };
    let find = |who| rows.iter().copied().find(|row| row.contestant == who);
    let Some(ikenat) = find(Contestant::Ikenat) else {
        return "Layer C has no figure for ikenat.".to_owned();
    };
    let score = figures::score(ikenat);
    let mut text = format!(
        "Layer C: ikenat forwards {} packets/s",
        words::maybe(score, words::rate)
    );
    if let Some(ratio) = figures::ratio(ikenat) {
        text.push_str(&format!(
            ", {} of the no-op redirect",
            words::interval(&ratio)
        ));
    }
    for who in [Contestant::Iptables, Contestant::Nft, Contestant::Ipvs] {
        if let Some(times) = quotient(score, find(who).and_then(figures::score)) {
            text.push_str(&format!(
                ", {} times {}",
                words::ratio(times),
                words::contestant(who)
            ));
        }
    }
    let void = if figures::void(layer).is_some() {
        "VOID! "
    } else {
        ""
    };
    format!("{void}{text} ({}).", figures::case_name(case))
}

/// Conclusions that the figures do not allow.
pub(super) fn limits() -> Section {
    let lead = [
        "veth is not a NIC. There is no DMA, no interrupt, no driver ring and no receive-side scaling in these \
         figures. On hardware the absolute rates differ, and the ratios may differ, too.",
        "Emulated instructions are not time. Layer A knows neither caches nor pipelines nor branch prediction; \
         programs with the same count can differ in nanoseconds, above all when the table outgrows the cache.",
        "Layer B measures the program alone, in a loop: its code is in the cache, nothing is received, and nothing is \
         sent.",
        "In layer C generator, gateway and sink share the machine. What they cost themselves pulls every ratio \
         towards one: a gateway that is twice as cheap does not forward twice as much here.",
        "Latency in layer C runs from the generator to the sink on one machine and contains the scheduler's part.",
        "Nothing here measures IKE daemons, encryption or the servers behind the gateway.",
    ];
    let lead = lead.map(|text| Block::Text(text.to_owned())).into();
    Section {
        id: "limits",
        title: "What these figures do not say".to_owned(),
        lead,
        rest: Vec::new(),
    }
}
