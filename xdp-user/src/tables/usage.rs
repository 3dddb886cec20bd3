//! How full FLOW and SESSION are, and when that is worth a warning.

use xdp_common::meta::{FLOW_ENTRIES, SESSION_ENTRIES};

/// A table with a limit that an option raises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LimitedTable {
    /// Its name.
    pub name: &'static str,
    /// What its entries are called.
    pub entries: &'static str,
    /// The word of META with their number.
    pub number: usize,
    /// The option.
    pub option: &'static str,
    /// What becomes of what finds no room.
    pub excess: &'static str,
}

/// The tables whose entries are counted.
pub const TABLES: [LimitedTable; 2] = [
    LimitedTable {
        name: "FLOW",
        entries: "SPIs",
        number: FLOW_ENTRIES,
        option: "--flow-slots",
        excess: "packets of further SPIs are forwarded and counted as untracked",
    },
    LimitedTable {
        name: "SESSION",
        entries: "peers",
        number: SESSION_ENTRIES,
        option: "--session-slots",
        excess: "further peers are forwarded, and their ESP is counted as untracked",
    },
];

/// How full a table is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum FillLevel {
    /// There is room.
    #[default]
    Normal,
    /// 80 % are in use.
    High,
    /// No entry can be added.
    Full,
}

impl FillLevel {
    /// The level of a number of entries.
    pub const fn of(entries: u64, limit: u64) -> Self {
        if entries >= limit {
            Self::Full
        } else if entries * 10 >= limit * 8 {
            Self::High
        } else {
            Self::Normal
        }
    }
}

/// Notices when a table fills up: once at each level, and again after it was below 70 %, so that a
/// table that hovers around a limit causes no flood of messages.
#[derive(Clone, Copy, Debug, Default)]
pub struct Watermark(FillLevel);

impl Watermark {
    /// The level that has been reached, if that is news.
    pub fn reached(&mut self, entries: u64, limit: u64) -> Option<FillLevel> {
        if entries * 10 < limit * 7 {
            self.0 = FillLevel::Normal;
        }
        let level = FillLevel::of(entries, limit);
        let is_news = level > self.0;
        self.0 = self.0.max(level);
        is_news.then_some(level)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_level_is_news_once() {
        let mut mark = Watermark::default();
        let news = [0, 79, 80, 99, 80, 100, 99, 101, 100, 75, 85, 70]
            .map(|entries| mark.reached(entries, 100));
        let mut expected = [None; 12];
        expected[2] = Some(FillLevel::High);
        expected[5] = Some(FillLevel::Full);
        assert_eq!(news, expected);
    }

    #[test]
    fn after_it_was_well_below_it_is_news_again() {
        let mut mark = Watermark::default();
        assert_eq!(
            mark.reached(100, 100),
            Some(FillLevel::Full),
            "at once, without the other"
        );
        assert_eq!(mark.reached(69, 100), None);
        assert_eq!(mark.reached(80, 100), Some(FillLevel::High));
        assert_eq!(mark.reached(100, 100), Some(FillLevel::Full));
    }
}
