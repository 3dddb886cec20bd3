//! The parts that terminal and page share: sections of text and tables.

/// A part of the report.
pub(super) struct Section {
    /// Anchor on the page.
    pub(super) id: &'static str,
    /// Heading.
    pub(super) title: String,
    /// Text and tables before the plots.
    pub(super) lead: Vec<Block>,
    /// Text and tables after the plots.
    pub(super) rest: Vec<Block>,
}

impl Section {
    /// A section that only states that its layer is missing.
    pub(super) fn missing(id: &'static str, title: &str) -> Self {
        let text = "This layer is missing: the run was not asked for it.".to_owned();
        Self {
            id,
            title: title.to_owned(),
            lead: vec![Block::Text(text)],
            rest: Vec::new(),
        }
    }
}

/// A piece of a section.
pub(super) enum Block {
    /// A paragraph.
    Text(String),
    /// A paragraph that must stand out.
    Loud(String),
    /// A table.
    Table(Table),
}

/// A table.
pub(super) struct Table {
    /// Caption.
    pub(super) caption: String,
    /// Columns from the left.
    pub(super) head: Vec<Column>,
    /// Rows from the top.
    pub(super) rows: Vec<Row>,
}

impl Table {
    /// A table without rows.
    pub(super) fn new(caption: impl Into<String>, head: Vec<Column>) -> Self {
        Self {
            caption: caption.into(),
            head,
            rows: Vec::new(),
        }
    }

    /// The table without its empty columns, such as a column of notes in a run that needed none.
    pub(super) fn without_empty_columns(mut self) -> Self {
        for at in (0..self.head.len()).rev() {
            let empty = |row: &Row| match row {
                Row::Group(_) => true,
                Row::Cells { cells, .. } => cells.get(at).is_none_or(String::is_empty),
            };
            if self.rows.iter().all(empty) {
                self.head.remove(at);
                for row in &mut self.rows {
                    match row {
                        Row::Group(_) => {}
                        Row::Cells { cells, .. } => {
                            cells.remove(at);
                        }
                    }
                }
            }
        }
        self
    }

    /// Adds a row of figures.
    pub(super) fn push(&mut self, cells: Vec<String>) {
        self.rows.push(Row::Cells {
            cells,
            highlighted: false,
        });
    }
}

/// A column.
pub(super) struct Column {
    /// Heading.
    pub(super) name: String,
    /// Figures are aligned to the right, words to the left.
    pub(super) figures: bool,
}

/// A column of words.
pub(super) fn words(name: &str) -> Column {
    Column {
        name: name.to_owned(),
        figures: false,
    }
}

/// A column of figures.
pub(super) fn figures(name: &str) -> Column {
    Column {
        name: name.to_owned(),
        figures: true,
    }
}

/// A row.
pub(super) enum Row {
    /// A heading for the rows below it: what they have in common.
    Group(String),
    /// One cell a column.
    Cells {
        /// The cells.
        cells: Vec<String>,
        /// The row is ikenat's: the page highlights it.
        highlighted: bool,
    },
}
