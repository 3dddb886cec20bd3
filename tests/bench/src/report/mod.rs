//! The report of a run: tables for a terminal, one self-contained HTML page, and the plots as
//! separate files.
//!
//! Invariant: these are pure functions of [`Run`]. They measure, read and write nothing.

mod axis;
mod chart;
mod compare;
mod figures;
mod join;
mod layer_a;
mod layer_b;
mod layer_c;
mod page;
mod plots;
mod plots_c;
mod section;
mod style;
mod summary;
mod svg;
mod terminal;
mod words;

#[cfg(test)]
mod example;
#[cfg(test)]
mod page_tests;
#[cfg(test)]
mod tests;

use crate::results::Run;
use section::Section;

/// The tables of a run for a terminal of 120 columns, without colours.
pub fn terminal(run: &Run) -> String {
    let mut sections = vec![summary::conditions(run), summary::short(run)];
    sections.extend(layers(run));
    terminal::render(&sections)
}

/// The changes since an earlier run, row by row, for a terminal of 120 columns.
pub fn compare(now: &Run, before: &Run) -> String {
    terminal::render(&[compare::section(now, before)])
}

/// One HTML page that needs neither network nor scripts: plots, tables, and what they do not show.
pub fn html(run: &Run, before: Option<&Run>) -> String {
    page::render(run, before)
}

/// The plots of a run as standalone SVG files: a name without its extension, and the text.
pub fn svgs(run: &Run) -> Vec<(&'static str, String)> {
    plots::all(run)
        .into_iter()
        .map(|plot| (plot.name, plot.drawing.standalone(plot.name)))
        .collect()
}

/// The three layers, missing ones included.
fn layers(run: &Run) -> [Section; 3] {
    [
        layer_a::section(run.a.as_ref()),
        layer_b::section(run.b.as_ref()),
        layer_c::section(run.c.as_ref()),
    ]
}
