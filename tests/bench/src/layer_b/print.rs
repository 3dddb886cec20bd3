//! The figures of layer B as plain lines, for `ikenat-bench b`.

use super::{flows_text, name, row_text};
use crate::results::{LayerB, Spread};

fn spread(s: Spread) -> String {
    format!("{:>9.1}{:>9.1}{:>9.1}", s.median, s.low, s.high)
}

/// Prints the figures as plain lines.
pub fn print(results: &LayerB) {
    println!(
        "{:<48}{:>9}{:>9}{:>9}",
        "ns per packet", "median", "quartile", "quartile"
    );
    for row in &results.programs {
        println!("{:<48}{}", row_text(row), spread(row.nanoseconds));
    }
    for row in &results.against {
        let name = format!(
            "{} {} {} in {} slots",
            name(row.traffic),
            name(row.way),
            flows_text(row.flows),
            flows_text(row.slots)
        );
        println!(
            "{:<48}{}",
            format!("{name}, older object"),
            spread(row.older)
        );
        println!("{:<48}{}", format!("{name}, this one"), spread(row.present));
        let Spread { median, low, high } = row.ratio;
        println!("{name:<42}ratio {median:.3} ({low:.3} to {high:.3})");
    }
    for row in &results.misses {
        let flows = flows_text(row.flows);
        let name = format!("cache miss {flows}, pages of {} KiB", row.page >> 10);
        println!("{name:<48}{}", spread(row.nanoseconds));
    }
    for row in &results.tables {
        let flows = flows_text(row.flows);
        let name = format!("table {} {flows}", row.table);
        println!("{name:<48}{}", spread(row.nanoseconds));
    }
    for row in &results.memory {
        println!(
            "FLOW and SESSION for {:<10}{:>12} bytes, {} a flow",
            flows_text(row.flows),
            row.bytes,
            row.bytes / row.flows
        );
    }
    for row in &results.user {
        let name = format!("{} of {} flows, ms", row.work, row.flows);
        println!(
            "{name:<48}{}{:>9.1} longest",
            spread(row.milliseconds),
            row.longest
        );
    }
    for row in &results.loads {
        println!(
            "load {:.1}, {:<12}{:>9} of {:>9} keys find no slot",
            row.load, row.kind, row.without_slot, row.keys
        );
    }
}
