//! The list of plots of a run, and the contents of those of layers A and B.

use super::chart::{Axis, Head, Line, Series, lines, rows};
use super::figures::{self, Fate};
use super::svg::{Drawing, Shape};
use super::{layer_b, plots_c, words};
use crate::results::{
    ARow, BRow, BTable, Contestant, Direction, LayerA, LayerB, Run, Spread, Traffic, Walk,
};
use std::collections::BTreeMap;

/// A plot.
pub(super) struct Plot {
    /// Name of its file and prefix of its ids.
    pub(super) name: &'static str,
    /// The section that it belongs to.
    pub(super) section: &'static str,
    /// The drawing.
    pub(super) drawing: Drawing,
}

/// All plots for which the run has figures.
pub(super) fn all(run: &Run) -> Vec<Plot> {
    let mut plots = Vec::new();
    let mut add = |name, section, drawing: Option<Drawing>| {
        plots.extend(drawing.map(|drawing| Plot {
            name,
            section,
            drawing,
        }));
    };
    if let Some(a) = &run.a {
        add("instructions", "a", instructions(a));
        add("instructions-by-traffic", "a", by_traffic(a));
    }
    if let Some(b) = &run.b {
        add("nanoseconds-by-flows", "b", programs(b));
        add("tables-by-flows", "b", tables(b));
    }
    if let Some(c) = &run.c {
        add("packets-per-second", "c", plots_c::rates(c));
        add("ratio-to-no-op", "c", plots_c::ratios(c));
        add(
            "packets-per-second-by-flows",
            "c",
            plots_c::rates_by_flows(c),
        );
        add("latency", "c", plots_c::latencies(c));
    }
    plots
}

/// The style class of a contestant's bar: ikenat, the limit, the others.
pub(super) const fn class(contestant: Contestant) -> &'static str {
    match contestant {
        Contestant::Ikenat
        | Contestant::IkenatTwin
        | Contestant::IkenatGeneric
        | Contestant::IkenatOneArmed
        | Contestant::IkenatServices => "c0",
        Contestant::Noop | Contestant::Pass => "c1",
        Contestant::Cable
        | Contestant::Forwarding
        | Contestant::Iptables
        | Contestant::Nft
        | Contestant::NftFlowtable
        | Contestant::Ipvs => "c4",
        Contestant::Broken => "c5",
    }
}

/// The style of a contestant's line: all lines are distinct, also without colours.
pub(super) const fn look(contestant: Contestant) -> (Shape, &'static str, bool) {
    match contestant {
        Contestant::Ikenat => (Shape::Circle, "c0", false),
        Contestant::Noop => (Shape::Diamond, "c1", false),
        Contestant::IkenatGeneric => (Shape::Circle, "c2", true),
        Contestant::IkenatTwin => (Shape::Square, "c0", true),
        Contestant::IkenatOneArmed => (Shape::Triangle, "c0", true),
        Contestant::IkenatServices => (Shape::Diamond, "c0", true),
        Contestant::Forwarding => (Shape::Square, "c4", false),
        Contestant::Iptables => (Shape::Triangle, "c3", false),
        Contestant::Nft => (Shape::Diamond, "c5", false),
        Contestant::NftFlowtable => (Shape::Diamond, "c6", true),
        Contestant::Ipvs => (Shape::Square, "c7", true),
        Contestant::Cable => (Shape::Triangle, "c4", true),
        Contestant::Pass => (Shape::Square, "c1", true),
        Contestant::Broken => (Shape::Triangle, "c5", true),
    }
}

/// An axis from zero.
pub(super) fn linear(label: &str, factor: f64) -> Axis {
    Axis {
        label: label.to_owned(),
        factor,
        logarithmic: false,
    }
}

fn instructions(layer: &LayerA) -> Option<Drawing> {
    let group = figures::main_group(&layer.rows)?;
    let first = group.first()?;
    let head = Head {
        title: "Instructions per packet".to_owned(),
        about: format!(
            "{}, {}. Figures: total (marginal cost). Fewer are better.",
            words::traffic(first.traffic),
            words::way(first.way)
        ),
        legend: vec![
            (Shape::Bar, "harness", "generator and sink".to_owned()),
            (Shape::Bar, "c0", "marginal: ikenat".to_owned()),
            (Shape::Bar, "c1", "the limit".to_owned()),
            (Shape::Bar, "c4", "others".to_owned()),
        ],
    };
    let lines: Vec<Line> = group.into_iter().map(stacked).collect();
    Some(rows(
        &head,
        &linear("instructions per packet", 1.0),
        None,
        &lines,
    ))
}

/// A bar of two parts: the cost of the harness and the gateway's own.
fn stacked(row: &ARow) -> Line {
    let label = words::contestant(row.contestant).to_owned();
    let Some(total) = figures::total(row) else {
        return Line {
            label,
            text: "scores nothing".to_owned(),
            ..Line::default()
        };
    };
    let marginal = figures::marginal(row);
    let own = marginal.unwrap_or(0.0).clamp(0.0, total.max(0.0));
    let text = match marginal {
        Some(marginal) => format!("{} ({})", words::figure(total), words::figure(marginal)),
        None => words::figure(total),
    };
    let bars = vec![("harness", total - own), (class(row.contestant), own)];
    Line {
        label,
        bars,
        text,
        ..Line::default()
    }
}

/// The traffic in few characters, since two texts of bars stand beside the plot.
const fn brief(traffic: Traffic) -> &'static str {
    match traffic {
        Traffic::EspInUdp => "UDP 4500",
        Traffic::EspInUdpChecksum => "UDP 4500, checksum",
        Traffic::Esp => "native ESP",
        Traffic::Ike => "IKE",
        Traffic::Keepalive => "keepalive",
        Traffic::OtherPort => "another port",
        Traffic::NotIpv4 => "not IPv4",
        Traffic::Mix => "mix",
    }
}

fn by_traffic(layer: &LayerA) -> Option<Drawing> {
    let groups = figures::groups(&layer.rows);
    let lines: Vec<Line> = groups
        .into_iter()
        .filter_map(|((traffic, way), group)| {
            let ikenat = group
                .iter()
                .find(|row| row.contestant == Contestant::Ikenat)?;
            let way = match way {
                Direction::Inbound => "in",
                Direction::Outbound => "out",
            };
            let label = format!("{}, {way}", brief(traffic));
            let Some(cost) = figures::marginal(ikenat) else {
                return Some(Line {
                    label,
                    text: "scores nothing".to_owned(),
                    ..Line::default()
                });
            };
            let limit = figures::yardstick(&group).and_then(figures::marginal);
            let text = match figures::quotient(Some(cost), limit) {
                Some(ratio) => format!("{} (×{})", words::figure(cost), words::ratio(ratio)),
                None => words::figure(cost),
            };
            let points = limit
                .map(|limit| (Shape::Stroke, "c1", limit))
                .into_iter()
                .collect();
            Some(Line {
                label,
                bars: vec![("c0", cost.max(0.0))],
                points,
                text,
                whisker: None,
            })
        })
        .collect();
    let head = Head {
        title: "What ikenat adds, by traffic".to_owned(),
        about: "Marginal instructions per packet; in parentheses the ratio to the limit. Fewer are better.".to_owned(),
        legend: vec![
            (Shape::Bar, "c0", "ikenat".to_owned()),
            (Shape::Stroke, "c1", "no-op redirect; not handled: XDP pass".to_owned()),
        ],
    };
    (!lines.is_empty()).then(|| rows(&head, &linear("instructions per packet", 1.0), None, &lines))
}

fn programs(layer: &LayerB) -> Option<Drawing> {
    let first = layer.programs.iter().map(|row| row.traffic).min()?;
    let mut by_fate: BTreeMap<(Fate, Direction), Vec<&BRow>> = BTreeMap::new();
    let shown = |row: &&BRow| row.traffic == first && row.walk == Walk::Random;
    for row in layer.programs.iter().filter(shown) {
        by_fate
            .entry((figures::fate(row), row.way))
            .or_default()
            .push(row);
    }
    let series: Vec<Series> = by_fate
        .into_iter()
        .map(|((fate, way), rows)| {
            let class = match fate {
                Fate::Hit => "c0",
                Fate::Stale => "c6",
                Fate::Miss => "c5",
                Fate::NotHandled => "c4",
            };
            let (shape, dashed) = match way {
                Direction::Inbound => (Shape::Circle, false),
                Direction::Outbound => (Shape::Square, true),
            };
            let name = format!("{}, {}", words::way(way), fate.name());
            let points = rows
                .iter()
                .map(|row| point(row.flows, &row.nanoseconds))
                .collect();
            Series {
                name,
                shape,
                class,
                dashed,
                points,
            }
        })
        .collect();
    let head = Head {
        title: "The program alone, by number of flows".to_owned(),
        about: format!(
            "{}, ns beyond a program that only passes; median and quartiles. Lower is better.",
            words::traffic(first)
        ),
        legend: Vec::new(),
    };
    Some(lines(
        &head,
        &linear("ns per packet", 1.0),
        "flows in the table",
        &series,
    ))
}

fn point(flows: u64, spread: &Spread) -> (u64, f64, (f64, f64)) {
    (flows, spread.median, (spread.low, spread.high))
}

fn tables(layer: &LayerB) -> Option<Drawing> {
    let looks = [
        (Shape::Square, "c4", false),
        (Shape::Triangle, "c3", true),
        (Shape::Diamond, "c6", false),
        (Shape::Square, "c5", true),
    ];
    let mut names: Vec<&str> = Vec::new();
    for row in &layer.tables {
        if !names.contains(&row.table.as_str()) {
            names.push(&row.table);
        }
    }
    let others = names
        .iter()
        .filter(|name| **name != layer_b::IKENAT)
        .zip(looks.iter().cycle());
    let mut styled: Vec<_> = names
        .iter()
        .filter(|name| **name == layer_b::IKENAT)
        .map(|name| (*name, look(Contestant::Ikenat)))
        .collect();
    styled.extend(others.map(|(name, look)| (*name, *look)));
    let series: Vec<Series> = styled
        .into_iter()
        .map(|(name, (shape, class, dashed))| {
            let rows = layer
                .tables
                .iter()
                .filter(|row: &&BTable| row.table == name);
            let points = rows.map(|row| point(row.flows, &row.nanoseconds)).collect();
            Series {
                name: name.to_owned(),
                shape,
                class,
                dashed,
                points,
            }
        })
        .collect();
    let head = Head {
        title: "A look-up and two counts alone".to_owned(),
        about: "ikenat's table beside the kernel's maps; median and quartiles. Lower is better."
            .to_owned(),
        legend: Vec::new(),
    };
    (!series.is_empty()).then(|| {
        lines(
            &head,
            &linear("ns per look-up", 1.0),
            "flows in the table",
            &series,
        )
    })
}
