//! A parser for the output of `swanctl --raw`: `key=value`, `key=[list]` and `key {section}`.
//!
//! It does not support values with spaces (distinguished names): the lab's identities have none.

use anyhow::{Context, Result, bail};
use serde_json::{Map, Value};

/// All sections of this kind of event (`list-sa event {..}` is `list-sa`), merged in their order.
pub fn events(text: &str, kind: &str) -> Result<Vec<(String, Map<String, Value>)>> {
    let prefix = format!("{kind} event ");
    let mut found = Vec::new();
    for line in text.lines().filter_map(|line| line.strip_prefix(&prefix)) {
        let mut reader = Reader { rest: line };
        reader.expect('{')?;
        let section = reader
            .section()
            .with_context(|| format!("failed to read {line:?}"))?;
        for (name, value) in section {
            let Value::Object(inner) = value else {
                bail!("{name} is {value} instead of a section");
            };
            found.push((name, inner));
        }
    }
    Ok(found)
}

struct Reader<'a> {
    rest: &'a str,
}

impl<'a> Reader<'a> {
    fn expect(&mut self, wanted: char) -> Result<()> {
        self.rest = self
            .rest
            .strip_prefix(wanted)
            .with_context(|| format!("no {wanted:?} before {:?}", self.rest))?;
        Ok(())
    }

    fn until(&mut self, ends: &[char]) -> Result<&'a str> {
        let at = self
            .rest
            .find(ends)
            .with_context(|| format!("none of {ends:?} in {:?}", self.rest))?;
        let (word, rest) = self.rest.split_at(at);
        self.rest = rest;
        Ok(word)
    }

    /// The inside of a section up to and with its closing brace. A key may come twice (several
    /// SAs of one connection): the later ones get a number.
    fn section(&mut self) -> Result<Map<String, Value>> {
        let mut section = Map::new();
        loop {
            self.rest = self.rest.trim_start();
            if self.rest.starts_with('}') {
                self.expect('}')?;
                return Ok(section);
            }
            let key = self.until(&['=', ' ', '}'])?.to_owned();
            let value = if self.rest.starts_with('=') {
                self.expect('=')?;
                self.value()?
            } else {
                self.rest = self.rest.trim_start();
                self.expect('{')?;
                Value::Object(self.section()?)
            };
            let mut name = key.clone();
            let mut number = 2;
            while section.contains_key(&name) {
                name = format!("{key}#{number}");
                number += 1;
            }
            section.insert(name, value);
        }
    }

    fn value(&mut self) -> Result<Value> {
        if self.rest.starts_with('[') {
            self.expect('[')?;
            let items = self.until(&[']'])?;
            self.expect(']')?;
            return Ok(items.split_whitespace().map(Value::from).collect());
        }
        Ok(Value::from(self.until(&[' ', '}'])?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sections_lists_and_repeated_keys_are_read() {
        let text = "list-sa event {demo {uniqueid=1 state=ESTABLISHED child-sas {net-1 {spi-in=f6cc5239 \
                    local-ts=[10.1.0.0/16 10.2.0.0/16]} net-2 {spi-in=5e9b4c58}}} demo {uniqueid=2}}\n\
                    list-sas reply {}\n";
        let events = events(text, "list-sa").expect("readable");
        assert_eq!(events.len(), 2);
        let (name, first) = &events[0];
        assert_eq!(name, "demo");
        assert_eq!(first["child-sas"]["net-1"]["local-ts"][1], "10.2.0.0/16");
        assert_eq!(first["child-sas"]["net-2"]["spi-in"], "5e9b4c58");
        assert_eq!(events[1].1["uniqueid"], "2");
    }

    #[test]
    fn a_cut_text_is_an_error() {
        for text in [
            "list-sa event {demo {uniqueid=1",
            "list-sa event {demo {a=[1 2}",
            "list-sa event demo",
        ] {
            assert!(events(text, "list-sa").is_err(), "{text}");
        }
    }
}
