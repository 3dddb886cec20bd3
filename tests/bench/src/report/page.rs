//! The HTML page of sections and plots, which is well-formed XML too.
//!
//! Invariant: every text goes through `escape`.

use super::section::{Block, Row, Table};
use super::words::escape;
use super::{compare, layers, plots, style, summary};
use crate::results::Run;

/// The whole page.
pub(super) fn render(run: &Run, before: Option<&Run>) -> String {
    let conditions = summary::conditions(run);
    let mut sections = vec![summary::short(run)];
    sections.extend(layers(run));
    sections.extend(before.map(|before| compare::section(run, before)));
    sections.push(summary::limits());
    let plots = plots::all(run);
    let mut body = format!("<h1>{}</h1>\n", escape(&conditions.title));
    body.push_str("<section id=\"conditions\" class=\"conditions\">\n");
    body.push_str(&blocks(&conditions.lead));
    body.push_str("</section>\n<nav>");
    for section in &sections {
        body.push_str(&format!(
            "<a href=\"#{}\">{}</a> ",
            section.id,
            escape(&section.title)
        ));
    }
    body.push_str("</nav>\n");
    for section in &sections {
        body.push_str(&format!(
            "<section id=\"{}\">\n<h2>{}</h2>\n",
            section.id,
            escape(&section.title)
        ));
        body.push_str(&blocks(&section.lead));
        body.push_str(&figures(&plots, section.id));
        body.push_str(&blocks(&section.rest));
        body.push_str("</section>\n");
    }
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n\
         <meta name=\"color-scheme\" content=\"light dark\"/>\n<link rel=\"icon\" href=\"data:,\"/>\n\
         <title>ikenat benchmark, {}</title>\n<style>\n{}{}{}</style>\n</head>\n<body>\n<main>\n{body}</main>\n\
         </body>\n</html>\n",
        escape(&run.conditions.date),
        style::theme(),
        style::PLOT,
        style::PAGE
    )
}

fn figures(plots: &[plots::Plot], section: &str) -> String {
    let figures: String = plots
        .iter()
        .filter(|plot| plot.section == section)
        .map(|plot| format!("<figure>\n{}</figure>\n", plot.drawing.inline(plot.name)))
        .collect();
    if figures.is_empty() {
        figures
    } else {
        format!("<div class=\"plots\">\n{figures}</div>\n")
    }
}

fn blocks(blocks: &[Block]) -> String {
    let block = |block: &Block| match block {
        Block::Text(text) => format!("<p>{}</p>\n", escape(text)),
        Block::Loud(text) => format!("<p class=\"loud\" role=\"alert\">{}</p>\n", escape(text)),
        Block::Table(table) => render_table(table),
    };
    blocks.iter().map(block).collect()
}

fn render_table(table: &Table) -> String {
    // Users without a mouse must be able to scroll a wide table too.
    let mut out = String::from("<div class=\"wide\" tabindex=\"0\">\n<table>\n");
    if !table.caption.is_empty() {
        out.push_str(&format!("<caption>{}</caption>\n", escape(&table.caption)));
    }
    out.push_str("<thead><tr>");
    for column in &table.head {
        let class = if column.figures { " class=\"n\"" } else { "" };
        out.push_str(&format!(
            "<th scope=\"col\"{class}>{}</th>",
            escape(&column.name)
        ));
    }
    out.push_str("</tr></thead>\n<tbody>\n");
    for row in &table.rows {
        out.push_str(&render_row(table, row));
    }
    out.push_str("</tbody>\n</table>\n</div>\n");
    out
}

fn render_row(table: &Table, row: &Row) -> String {
    match row {
        Row::Group(text) => format!(
            "<tr class=\"group\"><th scope=\"rowgroup\" colspan=\"{}\"><span>{}</span></th></tr>\n",
            table.head.len(),
            escape(text)
        ),
        Row::Cells { cells, highlighted } => {
            let mut out = String::from(if *highlighted {
                "<tr class=\"ikenat\">"
            } else {
                "<tr>"
            });
            for (at, (column, cell)) in table.head.iter().zip(cells).enumerate() {
                let (tag, scope) = if at == 0 {
                    ("th", " scope=\"row\"")
                } else {
                    ("td", "")
                };
                let class = if column.figures { " class=\"n\"" } else { "" };
                out.push_str(&format!("<{tag}{scope}{class}>{}</{tag}>", escape(cell)));
            }
            out.push_str("</tr>\n");
            out
        }
    }
}
