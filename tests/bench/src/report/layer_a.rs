//! The section of layer A: instructions per packet, as text and a table.

use super::figures::{self, quotient};
use super::section::{Block, Row, Section, Table, figures as number, words as column};
use super::words;
use crate::results::{ARow, Contestant, LayerA};

const TITLE: &str = "A: instructions per packet";

/// The section of layer A.
pub(super) fn section(layer: Option<&LayerA>) -> Section {
    let Some(layer) = layer else {
        return Section::missing("a", TITLE);
    };
    let mut lead = vec![Block::Text(
        "One emulated CPU whose clock counts instructions. The total is everything that a packet costs there: the \
         generator that makes it, the gateway, and the sink that checks it. The cable is the same generator and the \
         same sink with no gateway between them. The marginal cost is the total less the cable's, so it is the \
         gateway's own part: the kernel's receiving and sending included, generator and sink not."
            .to_owned(),
    )];
    lead.push(Block::Text(format!(
        "Guest kernel: {}. Largest difference between two boots over all totals: {}.",
        if layer.kernel.is_empty() {
            "unknown"
        } else {
            &layer.kernel
        },
        words::percent(layer.largest_difference)
    )));
    lead.extend(missing(&layer.missing));
    let rest = if layer.rows.is_empty() {
        vec![Block::Text("Layer A has no row.".to_owned())]
    } else {
        vec![Block::Table(table(layer).without_empty_columns())]
    };
    Section {
        id: "a",
        title: TITLE.to_owned(),
        lead,
        rest,
    }
}

/// A sentence for the contestants that a kernel lacks.
pub(super) fn missing(missing: &[(Contestant, String)]) -> Option<Block> {
    let named: Vec<String> = missing
        .iter()
        .map(|(who, why)| format!("{} ({why})", words::contestant(*who)))
        .collect();
    (!named.is_empty()).then(|| Block::Text(format!("Not measured: {}.", named.join("; "))))
}

fn table(layer: &LayerA) -> Table {
    let mut table = Table::new(
        "Instructions per packet. The last ratio is that of the marginal cost to the no-op redirect's; for traffic \
         that ikenat does not handle, to that of a program of one instruction that passes.",
        vec![
            column("contestant"),
            number("total"),
            number("marginal"),
            number("× yardstick"),
            number("boots differ"),
            number("packets"),
            column("note"),
        ],
    );
    for ((traffic, way), rows) in figures::groups(&layer.rows) {
        let yardstick = figures::yardstick(&rows);
        let name = yardstick.map_or("no yardstick", |row| words::contestant(row.contestant));
        table.rows.push(Row::Group(format!(
            "{}, {} · yardstick: {name}",
            words::traffic(traffic),
            words::way(way)
        )));
        for row in rows {
            let ratio = quotient(
                figures::marginal(row),
                yardstick.and_then(figures::marginal),
            );
            table.rows.push(Row::Cells {
                cells: cells(row, ratio),
                highlighted: is_ikenat(row.contestant),
            });
        }
    }
    table
}

/// The page highlights ikenat's own rows.
pub(super) const fn is_ikenat(contestant: Contestant) -> bool {
    matches!(
        contestant,
        Contestant::Ikenat
            | Contestant::IkenatTwin
            | Contestant::IkenatGeneric
            | Contestant::IkenatOneArmed
            | Contestant::IkenatServices
    )
}

fn cells(row: &ARow, ratio: Option<f64>) -> Vec<String> {
    let mean = figures::total(row);
    let differ = figures::range(&row.totals).filter(|_| row.totals.len() > 1);
    let differ = quotient(differ.map(|(low, high)| high - low), mean);
    let note = if row.sent == 0 {
        "nothing was sent: scores nothing".to_owned()
    } else if figures::scores(row) {
        String::new()
    } else {
        format!(
            "{} arrived as they must: scores nothing",
            words::grouped(row.arrived)
        )
    };
    vec![
        words::contestant(row.contestant).to_owned(),
        words::maybe(mean, words::figure),
        words::maybe(figures::marginal(row), words::figure),
        words::maybe(ratio, words::ratio),
        words::maybe(differ, words::percent),
        words::grouped(row.sent),
        note,
    ]
}
