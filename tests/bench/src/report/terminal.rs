//! The terminal report: sections as text of at most 120 columns, without colours.

use super::section::{Block, Row, Section, Table};
use super::words;

/// Columns of the terminal.
const WIDTH: usize = 120;
/// Columns of running text.
const TEXT: usize = 100;
/// The minimum number of characters of a column of words.
const LEAST: usize = 12;
/// The most characters of a free text in a cell.
const CELL: usize = 44;

/// All sections below each other.
pub(super) fn render(sections: &[Section]) -> String {
    let mut out = String::new();
    for section in sections {
        out.push_str(&format!(
            "\n{}\n{}\n",
            section.title,
            "=".repeat(section.title.chars().count())
        ));
        for block in section.lead.iter().chain(&section.rest) {
            out.push('\n');
            out.push_str(&render_block(block));
        }
    }
    out
}

fn render_block(block: &Block) -> String {
    match block {
        Block::Text(text) => lines(&words::wrap(text, TEXT), ""),
        Block::Loud(text) => {
            let bar = "!".repeat(TEXT + 4);
            format!("{bar}\n{}{bar}\n", lines(&words::wrap(text, TEXT), "!!! "))
        }
        Block::Table(table) => render_table(table),
    }
}

fn lines(lines: &[String], prefix: &str) -> String {
    lines
        .iter()
        .map(|line| format!("{prefix}{line}\n"))
        .collect()
}

fn render_table(table: &Table) -> String {
    let rows: Vec<Vec<String>> = table.rows.iter().map(cells).collect();
    let mut widths: Vec<usize> = table
        .head
        .iter()
        .map(|column| column.name.chars().count())
        .collect();
    for (row, kind) in rows.iter().zip(&table.rows) {
        if matches!(kind, Row::Cells { .. }) {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
    }
    narrow(table, &mut widths);
    let head: Vec<String> = table
        .head
        .iter()
        .map(|column| column.name.clone())
        .collect();
    let caption = if table.caption.is_empty() {
        Vec::new()
    } else {
        words::wrap(&table.caption, TEXT)
    };
    let mut out = lines(&caption, "");
    out.push_str(&line(table, &head, &widths));
    out.push_str(&"-".repeat(across(&widths)));
    out.push('\n');
    for (row, kind) in rows.iter().zip(&table.rows) {
        match kind {
            Row::Group(_) => out.push_str(&format!("{}\n", words::cut(&row[0], WIDTH))),
            Row::Cells { .. } => out.push_str(&line(table, row, &widths)),
        }
    }
    out
}

/// Columns of the whole table.
fn across(widths: &[usize]) -> usize {
    widths.iter().sum::<usize>() + 2 * widths.len().saturating_sub(1)
}

/// Shortens the widest column of words until the table fits the terminal. Figures are never cut.
fn narrow(table: &Table, widths: &mut [usize]) {
    let over = across(widths).saturating_sub(WIDTH);
    let columns = table
        .head
        .iter()
        .zip(widths)
        .filter(|(column, _)| !column.figures);
    if let Some((_, widest)) = columns.max_by_key(|(_, width)| **width) {
        *widest = widest.saturating_sub(over).max(LEAST.min(*widest));
    }
}

/// The cells of a row, cleaned and not too long. A group is one cell.
fn cells(row: &Row) -> Vec<String> {
    match row {
        Row::Group(text) => vec![format!("[{}]", words::clean(text))],
        Row::Cells { cells, .. } => cells
            .iter()
            .map(|cell| words::cut(&words::clean(cell), CELL))
            .collect(),
    }
}

fn line(table: &Table, cells: &[String], widths: &[usize]) -> String {
    let mut text = String::new();
    for ((column, cell), &width) in table.head.iter().zip(cells).zip(widths) {
        let cell = if column.figures {
            format!("{cell:>width$}")
        } else {
            format!("{:<width$}", words::cut(cell, width))
        };
        text.push_str(&cell);
        text.push_str("  ");
    }
    let mut text = text.trim_end().to_owned();
    text.push('\n');
    text
}
