//! Interfaces that refuse a program while the daemon runs. They do not stop the others.

use crate::error::{Error, Result, causes};
use crate::netlink::Link;

/// The interfaces that refuse a program while the daemon runs.
#[derive(Debug)]
pub(crate) struct Refusals {
    /// The indices of those that keep what is attached to them.
    keeping: Vec<u32>,
    /// Why the first one refuses.
    pub(crate) first: Option<String>,
    /// The names of the others.
    pub(crate) others: Vec<String>,
}

impl Refusals {
    /// The interfaces with these indices may refuse.
    pub(crate) const fn of_all_but(keeping: Vec<u32>) -> Self {
        Self {
            keeping,
            first: None,
            others: Vec::new(),
        }
    }

    /// An interface has refused. Fails unless it may.
    pub(super) fn note(&mut self, link: &Link, error: Error) -> Result<()> {
        self.first.get_or_insert_with(|| causes(&error));
        if self.keeping.contains(&link.index) {
            return Ok(());
        }
        if !self.others.contains(&link.name) {
            self.others.push(link.name.clone());
        }
        Err(error)
    }
}
