//! Entries that were retired and wait for a grace period, after which they are reclaimed.

use crate::error::Result;
use crate::tables::reclaim::{self, Reclaimed, TableWords};
use crate::tables::retired::EntryKind;
use xdp_core::Word;
use xdp_core::table;

/// The most entries of a table that are retired before a grace period. It bounds the memory that is
/// needed to remember them, which is allocated once.
pub(super) const BATCH: usize = 4096;

/// The indices of entries that wait.
#[derive(Debug)]
pub(super) struct Retiring {
    pub(super) flows: Vec<usize>,
    pub(super) sessions: Vec<usize>,
}

impl Default for Retiring {
    fn default() -> Self {
        Self {
            flows: Vec::with_capacity(BATCH),
            sessions: Vec::with_capacity(BATCH),
        }
    }
}

impl Retiring {
    /// Retires an entry, if it is still in the life with this state word. Reclaims all that wait when
    /// they are many.
    pub(super) fn retire<W: Word>(
        &mut self,
        (kind, index, state): (EntryKind, usize, u64),
        words: TableWords<'_, W>,
        grace: impl Fn() -> Result<()>,
    ) -> Result<Reclaimed> {
        let (slots, waiting) = match kind {
            EntryKind::Flow => (words.flows, &mut self.flows),
            EntryKind::Session => (words.sessions, &mut self.sessions),
        };
        if !table::retire(&slots.hot()[index], state) {
            return Ok(Reclaimed::default());
        }
        waiting.push(index);
        if waiting.len() < BATCH {
            return Ok(Reclaimed::default());
        }
        self.reclaim(words, grace)
    }

    /// Reclaims all that wait.
    pub(super) fn reclaim<W: Word>(
        &mut self,
        words: TableWords<'_, W>,
        grace: impl Fn() -> Result<()>,
    ) -> Result<Reclaimed> {
        if self.flows.is_empty() && self.sessions.is_empty() {
            return Ok(Reclaimed::default());
        }
        grace()?;
        let freed = reclaim::reclaim(words, &self.flows, &self.sessions);
        self.flows.clear();
        self.sessions.clear();
        Ok(freed)
    }
}
