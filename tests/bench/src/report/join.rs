//! Joins rows of two runs by key, and lists those of one run alone.

use super::section::Block;
use std::collections::BTreeMap;

/// Rows of two runs by their key, and the names of those in one run only.
pub(super) struct Joined<'a, K, T> {
    /// Rows of both runs: now, before.
    pub(super) both: Vec<(K, &'a T, &'a T)>,
    now: Vec<K>,
    before: Vec<K>,
}

/// Joins the rows of two runs.
pub(super) fn join<'a, K: Ord + Clone, T>(
    now: &'a [T],
    before: &'a [T],
    key: impl Fn(&T) -> K,
) -> Joined<'a, K, T> {
    let index = |rows: &'a [T]| {
        rows.iter()
            .map(|row| (key(row), row))
            .collect::<BTreeMap<K, &'a T>>()
    };
    let (now, before) = (index(now), index(before));
    let both = now
        .iter()
        .filter_map(|(key, &row)| Some((key.clone(), row, *before.get(key)?)))
        .collect();
    let missing = |from: &BTreeMap<K, &T>, other: &BTreeMap<K, &T>| -> Vec<K> {
        from.keys()
            .filter(|key| !other.contains_key(key))
            .cloned()
            .collect()
    };
    Joined {
        both,
        now: missing(&now, &before),
        before: missing(&before, &now),
    }
}

impl<K, T> Joined<'_, K, T> {
    /// A sentence for each run that has rows of its own.
    pub(super) fn alone(&self, what: &str, name: impl Fn(&K) -> String) -> Vec<Block> {
        let sides = [(&self.now, "now"), (&self.before, "before")];
        let sentence = |(keys, side): (&Vec<K>, &str)| {
            let names: Vec<String> = keys.iter().map(&name).collect();
            let text = format!("{what}, only in the run {side}: {}.", names.join("; "));
            (!names.is_empty()).then_some(Block::Text(text))
        };
        sides.into_iter().filter_map(sentence).collect()
    }
}
