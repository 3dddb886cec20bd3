//! Compares docs/json.md with a document: its tables name every field of the document and no
//! other, each where it belongs.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

/// The sections of what is the same in all documents.
const SHARED: [&str; 2] = ["Header", "Services"];

/// The names of fields, by the name of the field that holds their object, or an array of such
/// objects. The name of the document itself is empty.
type Fields = BTreeMap<String, BTreeSet<String>>;

/// Fails unless the page describes exactly the fields of this document of a verb.
pub(crate) fn compare(page: &str, verb: &str, document: &Value) -> Result<()> {
    let mut found = Fields::new();
    collect("", document, &mut found);
    let own = section(page, verb)?;
    let mut described = tables(&own)?;
    for shared in SHARED {
        described.extend(tables(&section(page, shared)?)?);
    }
    // The answer's own arrays and objects have tables, and no rows in another one.
    let top = found.remove("").context("the document is no object")?;
    let header = described.remove("").context("no table of the header")?;
    let parts = top
        .difference(&header)
        .filter(|name| found.contains_key(*name));
    let expected: BTreeSet<String> = header.iter().chain(parts).cloned().collect();
    differ(verb, "the document", &expected, &top)?;
    for (holder, names) in &found {
        match described.remove(holder) {
            Some(rows) => differ(verb, holder, &rows, names)?,
            // A sentence describes those.
            None => {
                let is_pair = names.iter().all(|name| {
                    PAIRS.contains(&name.as_str()) && own.contains(&format!("`{name}`"))
                });
                ensure!(
                    is_pair,
                    "docs/json.md has no table of `{holder}` of `{verb} --json`"
                );
            }
        }
    }
    match described.keys().next() {
        Some(holder) => bail!("`{verb} --json` has no `{holder}`, which docs/json.md describes"),
        None => Ok(()),
    }
}

/// Fields of both directions, and of amounts.
const PAIRS: [&str; 4] = ["in", "out", "packets", "bytes"];

fn differ(
    verb: &str,
    holder: &str,
    described: &BTreeSet<String>,
    found: &BTreeSet<String>,
) -> Result<()> {
    if let Some(name) = found.difference(described).next() {
        bail!("docs/json.md does not describe `{name}` of {holder} of `{verb} --json`");
    }
    if let Some(name) = described.difference(found).next() {
        bail!("docs/json.md describes `{name}` of {holder}, which `{verb} --json` does not have");
    }
    Ok(())
}

/// A section of the page, from its heading to the next one of its level.
fn section(page: &str, heading: &str) -> Result<String> {
    let mut sections = page.split("\n## ");
    let found = sections.find(|text| text.lines().next() == Some(heading));
    let found = found.with_context(|| format!("docs/json.md has no section `{heading}`"))?;
    Ok(found.to_owned())
}

/// The first columns of the tables of fields. The paragraph before a table begins with the name of
/// the holder in backticks or has it first; that of the header has none.
fn tables(section: &str) -> Result<Fields> {
    let mut fields = Fields::new();
    let paragraphs: Vec<&str> = section.split("\n\n").collect();
    for pair in paragraphs.windows(2) {
        let (before, table) = (pair[0], pair[1]);
        if !table.starts_with("| field |") {
            continue;
        }
        let holder = backticked(before).unwrap_or_default();
        let rows = table.lines().skip(2).map(|row| {
            let cell = backticked(row.split('|').nth(1).unwrap_or_default());
            cell.with_context(|| format!("docs/json.md: no field in {row}"))
        });
        fields.insert(holder, rows.collect::<Result<_>>()?);
    }
    Ok(fields)
}

fn backticked(text: &str) -> Option<String> {
    Some(text.split('`').nth(1)?.to_owned())
}

/// Adds the fields of an object, or of all objects of an array, at every depth.
fn collect(holder: &str, value: &Value, fields: &mut Fields) {
    match value {
        Value::Object(object) => {
            for (name, value) in object {
                fields
                    .entry(holder.to_owned())
                    .or_default()
                    .insert(name.clone());
                collect(name, value, fields);
            }
        }
        Value::Array(elements) => {
            for element in elements {
                collect(holder, element, fields);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[test]
fn a_field_too_many_and_a_field_too_few_are_found() -> Result<()> {
    const PAGE: &str = "# JSON\n\n## Header\n\nFirst:\n\n| field |\n| --- |\n| `schema` |\n\n\
                        ## Services\n\nAn element of `services`:\n\n| field |\n| --- |\n| `name` |\n\n\
                        ## show\n\n`things` has one element per thing.\n\n| field |\n| --- |\n\
                        | `services` |\n| `size` |\n";
    let document = |thing: &str| -> Result<Value> {
        Ok(serde_json::from_str(&format!(
            r#"{{"schema": 1, "things": [{{"services": [{{"name": "a"}}], {thing}}}]}}"#
        ))?)
    };
    compare(PAGE, "show", &document(r#""size": 1"#)?)?;
    for (thing, expected) in [
        (
            r#""size": 1, "new": 2"#,
            "does not describe `new` of things",
        ),
        (r#""other": 1"#, "does not describe `other` of things"),
        (r#""size": {"new": 1}"#, "no table of `size`"),
    ] {
        let error = compare(PAGE, "show", &document(thing)?)
            .expect_err(thing)
            .to_string();
        ensure!(error.contains(expected), "{error}");
    }
    let more = PAGE.replace("| `size` |", "| `size` |\n| `old` |");
    let error = compare(&more, "show", &document(r#""size": 1"#)?).expect_err("a row too many");
    ensure!(
        error.to_string().contains("describes `old` of things"),
        "{error}"
    );
    let more = format!("{PAGE}\nAn element of `gone`:\n\n| field |\n| --- |\n| `x` |\n");
    let error = compare(&more, "show", &document(r#""size": 1"#)?).expect_err("a table too many");
    ensure!(error.to_string().contains("has no `gone`"), "{error}");
    Ok(())
}
