//! Text tables with columns as wide as they need to be, and numbers for people.

use std::io::{self, Write};

/// The alignment of a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Align {
    /// For words.
    Left,
    /// For numbers.
    Right,
}

/// The column of the service, where there are several.
pub(crate) const SERVICE: (&str, Align) = ("SERVICE", Align::Left);

/// A table. The first row has the headers.
#[derive(Clone, Debug)]
pub(crate) struct TextTable {
    columns: Vec<Align>,
    rows: Vec<Vec<String>>,
}

impl TextTable {
    /// A table with these columns.
    pub(crate) fn new(columns: &[(&str, Align)]) -> Self {
        Self {
            columns: columns.iter().map(|(_, align)| *align).collect(),
            rows: vec![columns.iter().map(|(name, _)| (*name).to_owned()).collect()],
        }
    }

    /// Adds a row.
    pub(crate) fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.rows.push(cells.into());
    }

    /// The text, two spaces between columns, nothing after the last one.
    pub(crate) fn text(&self, indent: usize) -> String {
        let mut widths = vec![0; self.columns.len()];
        for row in &self.rows {
            widen(&mut widths, row);
        }
        let mut text = String::new();
        for row in &self.rows {
            text.extend(std::iter::repeat_n(' ', indent));
            push_line(&mut text, row, &widths, &self.columns);
        }
        text
    }
}

/// Makes columns as wide as the cells of a row need.
fn widen(widths: &mut [usize], row: &[String]) {
    for (width, cell) in widths.iter_mut().zip(row) {
        *width = (*width).max(cell.chars().count());
    }
}

fn push_line(text: &mut String, row: &[String], widths: &[usize], columns: &[Align]) {
    for ((cell, width), align) in row.iter().zip(widths).zip(columns) {
        let padding = std::iter::repeat_n(' ', width - cell.chars().count());
        match align {
            Align::Left => {
                text.push_str(cell);
                text.extend(padding);
            }
            Align::Right => {
                text.extend(padding);
                text.push_str(cell);
            }
        }
        text.push_str("  ");
    }
    text.truncate(text.trim_end_matches(' ').len());
    text.push('\n');
}

/// A row with one more column in front.
pub(crate) fn prepended<T, const N: usize, const M: usize>(first: T, rest: [T; N]) -> [T; M] {
    const { assert!(M == N + 1) };
    let mut all = std::iter::once(first).chain(rest);
    // As many as there are, so the closure is not called more often.
    std::array::from_fn(|_| match all.next() {
        Some(one) => one,
        None => unreachable!(),
    })
}

/// Writes a table without keeping it: the rows are made twice, once to learn how wide they are.
pub(crate) fn write_rows<const N: usize, R: Iterator<Item = [String; N]>>(
    out: &mut dyn Write,
    columns: [(&str, Align); N],
    rows: impl Fn() -> R,
) -> io::Result<()> {
    let header = columns.map(|(name, _)| name.to_owned());
    let columns = columns.map(|(_, align)| align);
    let mut widths = [0; N];
    widen(&mut widths, &header);
    rows().for_each(|row| widen(&mut widths, &row));
    let mut line = String::new();
    for row in std::iter::once(header).chain(rows()) {
        line.clear();
        push_line(&mut line, &row, &widths, &columns);
        out.write_all(line.as_bytes())?;
    }
    Ok(())
}

/// A number, as `1,234,567`.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let (first, rest) = digits.split_at((digits.len() - 1) % 3 + 1);
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    text.push_str(first);
    for at in (0..rest.len()).step_by(3) {
        text.push(',');
        text.push_str(&rest[at..at + 3]);
    }
    text
}

/// An age, as `0.4 s`, `12 s`, `3 min 5 s` or `2 h 7 min`.
pub(crate) fn age(seconds: f64) -> String {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "an age is positive and far below 2^64 seconds"
    )]
    let whole = seconds as u64;
    match whole {
        0..=9 => format!("{seconds:.1} s"),
        10..=99 => format!("{whole} s"),
        100..=5999 => format!("{} min {} s", whole / 60, whole % 60),
        _ => format!("{} h {} min", whole / 3600, whole % 3600 / 60),
    }
}

/// A size, as `64 KiB` or `8 MiB`.
pub(crate) fn size(bytes: u64) -> String {
    const UNITS: [(u64, &str); 3] = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    for (unit, name) in UNITS {
        if bytes >= unit && bytes.is_multiple_of(unit) {
            return format!("{} {name}", bytes / unit);
        }
    }
    format!("{bytes} B")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut table = TextTable::new(&[("PEER", Align::Left), ("N", Align::Right)]);
        table.row(["203.0.113.10".to_owned(), "5".to_owned()]);
        table.row(["a".to_owned(), "1,234".to_owned()]);
        assert_eq!(
            table.text(1),
            " PEER              N\n 203.0.113.10      5\n a             1,234\n"
        );
    }

    #[test]
    fn rows_that_are_not_kept_look_the_same() {
        let columns = [("PEER", Align::Left), ("N", Align::Right)];
        let rows = [["203.0.113.10", "5"], ["a", "1,234"]].map(|row| row.map(str::to_owned));
        let mut table = TextTable::new(&columns);
        rows.clone().into_iter().for_each(|row| table.row(row));
        let mut text = Vec::new();
        write_rows(&mut text, columns, || rows.iter().cloned()).expect("memory");
        assert_eq!(String::from_utf8(text).expect("text"), table.text(0));
    }

    #[test]
    fn numbers_are_easy_to_read() {
        assert_eq!(grouped(0), "0");
        assert_eq!(grouped(999), "999");
        assert_eq!(grouped(1_234_567), "1,234,567");
        assert_eq!(age(0.44), "0.4 s");
        assert_eq!(age(185.0), "3 min 5 s");
        assert_eq!(age(7_620.0), "2 h 7 min");
        assert_eq!(size(8 << 20), "8 MiB");
        assert_eq!(size(1234), "1234 B");
    }
}
