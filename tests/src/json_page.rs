//! Compares docs/json.md with a document: its tables name every field of the document and no
//! other, each where it belongs, with the type of its values.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

/// The sections of what is the same in all documents.
const SHARED: [&str; 2] = ["Header", "Services"];

/// What there is of each field, by the name of the field that holds its object, or an array of such
/// objects. The name of the document itself is empty.
type Fields<T> = BTreeMap<String, BTreeMap<String, T>>;

/// All values of each field of a document.
type Values<'d> = Fields<Vec<&'d Value>>;

/// The types of the fields in the tables; `None`: the table has no column for it, and its fields are objects.
type Types = Fields<Option<Type>>;

/// The type of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Type {
    kind: Kind,
    or_null: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Integer,
    Number,
    String,
    Boolean,
    Strings,
    Objects,
    Object,
}

impl Type {
    fn read(text: &str) -> Result<Self> {
        let (kind, or_null) = match text.strip_suffix(" or null") {
            Some(kind) => (kind, true),
            None => (text, false),
        };
        let kind = match kind {
            "integer" => Kind::Integer,
            "number" => Kind::Number,
            "string" => Kind::String,
            "boolean" => Kind::Boolean,
            "array of strings" => Kind::Strings,
            "array" => Kind::Objects,
            "object" => Kind::Object,
            _ => bail!("docs/json.md: `{text}` is no type"),
        };
        Ok(Self { kind, or_null })
    }

    fn fits(self, value: &Value) -> bool {
        let all = |fits: fn(&Value) -> bool| {
            let elements = value.as_array();
            elements.is_some_and(|elements| elements.iter().all(fits))
        };
        match self.kind {
            _ if value.is_null() => self.or_null,
            Kind::Integer => value.is_u64(),
            Kind::Number => value.is_f64(),
            Kind::String => value.is_string(),
            Kind::Boolean => value.is_boolean(),
            Kind::Strings => all(Value::is_string),
            Kind::Objects => all(Value::is_object),
            Kind::Object => value.is_object(),
        }
    }
}

/// Fails unless the page describes exactly the fields of this document of a verb, with their types. The
/// document has every field, and each that may be `null` with a value and without one.
///
/// # Errors
/// The page or the document has more, or another type.
pub fn compare(page: &str, verb: &str, document: &Value) -> Result<()> {
    let found = values(document);
    let described = described(page, verb)?;
    let own = section(page, verb)?;
    let mut left: BTreeMap<String, BTreeSet<String>> = described
        .iter()
        .map(|(holder, fields)| (holder.clone(), names(fields)))
        .collect();
    for (holder, fields) in &found {
        let names = names(fields);
        match left.remove(holder) {
            Some(mut rows) => {
                // The answer's own arrays and objects have tables, and no rows in another one.
                if holder.is_empty() {
                    let is_part = |name: &&String| found.contains_key(*name);
                    rows.extend(names.iter().filter(is_part).cloned());
                }
                differ(verb, holder, &rows, &names)?;
            }
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
    if let Some(holder) = left.keys().next() {
        bail!("`{verb} --json` has no `{holder}`, which docs/json.md describes");
    }
    types_fit(verb, &found, &described)?;
    for (holder, name, of, values) in typed(&found, &described) {
        let nulls = values.iter().filter(|value| value.is_null()).count();
        ensure!(
            !of.or_null || (nulls > 0 && nulls < values.len()),
            "`{name}` of {holder} of `{verb} --json` may be null, and the document does not show both"
        );
    }
    Ok(())
}

/// Fails unless the page describes the fields of this document, with their types. A real document may lack
/// elements of arrays.
///
/// # Errors
/// The document has a field that the page does not describe, or another type.
pub fn fits(page: &str, verb: &str, document: &Value) -> Result<()> {
    let (found, described) = (values(document), described(page, verb)?);
    for (holder, fields) in found.iter().filter(|(holder, _)| !holder.is_empty()) {
        let rows = described.get(holder);
        for name in fields.keys() {
            let is_described = match rows {
                Some(rows) => rows.contains_key(name),
                None => PAIRS.contains(&name.as_str()),
            };
            ensure!(
                is_described,
                "docs/json.md does not describe `{name}` of {holder} of `{verb} --json`"
            );
        }
    }
    types_fit(verb, &found, &described)
}

fn names<T>(fields: &BTreeMap<String, T>) -> BTreeSet<String> {
    fields.keys().cloned().collect()
}

fn values(document: &Value) -> Values<'_> {
    let mut found = Values::new();
    collect("", document, &mut found);
    found
}

/// The tables of a verb and of what is the same in all documents.
fn described(page: &str, verb: &str) -> Result<Types> {
    let mut described = tables(&section(page, verb)?)?;
    for shared in SHARED {
        described.extend(tables(&section(page, shared)?)?);
    }
    ensure!(described.contains_key(""), "no table of the header");
    Ok(described)
}

/// The fields with a type: the name of their holder, their own, the type, and their values.
fn typed<'a>(
    found: &'a Values<'a>,
    described: &'a Types,
) -> impl Iterator<Item = (&'a str, &'a str, Type, &'a [&'a Value])> {
    found.iter().flat_map(move |(holder, fields)| {
        fields.iter().filter_map(move |(name, values)| {
            let of = (*described.get(holder)?.get(name)?)?;
            Some((holder.as_str(), name.as_str(), of, values.as_slice()))
        })
    })
}

fn types_fit(verb: &str, found: &Values<'_>, described: &Types) -> Result<()> {
    for (holder, name, of, values) in typed(found, described) {
        if let Some(value) = values.iter().find(|value| !of.fits(value)) {
            bail!("`{name}` of {holder} of `{verb} --json` is {value}, and in docs/json.md {of:?}");
        }
    }
    // Those without a column for it, or without a table, are amounts and objects of them.
    for (holder, fields) in found.iter().filter(|(holder, _)| !holder.is_empty()) {
        for (name, values) in fields {
            let known = described.get(holder).and_then(|rows| rows.get(name));
            let is_typed = known.is_some_and(Option::is_some);
            let mut values = values.iter();
            ensure!(
                is_typed || values.all(|value| value.is_u64() || value.is_object()),
                "`{name}` of {holder} of `{verb} --json` is no integer and no object"
            );
        }
    }
    Ok(())
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

/// The fields of the tables and their types. The paragraph before a table begins with the name of
/// the holder in backticks or has it first; that of the header has none.
fn tables(section: &str) -> Result<Types> {
    let mut fields = Types::new();
    let paragraphs: Vec<&str> = section.split("\n\n").collect();
    for pair in paragraphs.windows(2) {
        let (before, table) = (pair[0], pair[1]);
        if !table.starts_with("| field |") {
            continue;
        }
        let holder = backticked(before).unwrap_or_default();
        let has_types = table.starts_with("| field | type |");
        let rows = table.lines().skip(2).map(|row| {
            let mut cells = row.split('|').map(str::trim).skip(1);
            let name = backticked(cells.next().unwrap_or_default());
            let name = name.with_context(|| format!("docs/json.md: no field in {row}"))?;
            let of = cells.next().filter(|_| has_types);
            Ok((name, of.map(Type::read).transpose()?))
        });
        fields.insert(holder, rows.collect::<Result<_>>()?);
    }
    Ok(fields)
}

fn backticked(text: &str) -> Option<String> {
    Some(text.split('`').nth(1)?.to_owned())
}

/// Adds the fields of an object, or of all objects of an array, at every depth.
fn collect<'d>(holder: &str, value: &'d Value, fields: &mut Values<'d>) {
    match value {
        Value::Object(object) => {
            for (name, value) in object {
                let of_holder = fields.entry(holder.to_owned()).or_default();
                of_holder.entry(name.clone()).or_default().push(value);
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

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "# JSON\n\n## Header\n\nFirst:\n\n| field | type |\n| --- | --- |\n\
        | `schema` | integer |\n\n## Services\n\nAn element of `services`:\n\n\
        | field | type |\n| --- | --- |\n| `name` | string |\n\n## show\n\n\
        `things` has one element per thing.\n\n| field | type |\n| --- | --- |\n\
        | `services` | array |\n| `size` | integer |\n";

    fn document(thing: &str) -> Result<Value> {
        Ok(serde_json::from_str(&format!(
            r#"{{"schema": 1, "things": [{{"services": [{{"name": "a"}}], {thing}}}]}}"#
        ))?)
    }

    #[test]
    fn a_field_too_many_and_a_field_too_few_are_found() -> Result<()> {
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
        // A real document may have less.
        fits(
            PAGE,
            "show",
            &serde_json::from_str(r#"{"schema": 1, "things": []}"#)?,
        )?;
        let error = fits(PAGE, "show", &document(r#""other": 1"#)?).expect_err("a new field");
        ensure!(error.to_string().contains("`other` of things"), "{error}");
        let more = PAGE.replace("| `size` |", "| `old` | integer |\n| `size` |");
        let error = compare(&more, "show", &document(r#""size": 1"#)?).expect_err("a row too many");
        ensure!(
            error.to_string().contains("describes `old` of things"),
            "{error}"
        );
        let more = format!("{PAGE}\nAn element of `gone`:\n\n| field |\n| --- |\n| `x` |\n");
        let error =
            compare(&more, "show", &document(r#""size": 1"#)?).expect_err("a table too many");
        ensure!(error.to_string().contains("has no `gone`"), "{error}");
        Ok(())
    }

    type Judge = fn(&str, &str, &Value) -> Result<()>;

    #[test]
    fn another_type_is_found() -> Result<()> {
        let of = |kind: &str| PAGE.replace("`size` | integer", &format!("`size` | {kind}"));
        let size = |value: &str| document(&format!(r#""size": {value}"#));
        let is_found = |kind: &str, value: &str| -> Result<bool> {
            let (page, document) = (of(kind), size(value)?);
            let judges: [Judge; 2] = [compare, fits];
            let results = judges.map(|judge| judge(&page, "show", &document));
            let is_type = |error: &anyhow::Error| error.to_string().contains("`size` of things");
            ensure!(
                results
                    .iter()
                    .all(|one| one.as_ref().err().is_none_or(is_type))
            );
            Ok(results.iter().all(Result::is_err))
        };
        let values = ["1", "1.0", r#""1""#, "true", r#"["1"]"#, "null"];
        let kinds = ["integer", "number", "string", "boolean", "array of strings"];
        for (value, own) in values.iter().zip(kinds.iter().map(Some).chain([None])) {
            for kind in kinds {
                let found = is_found(kind, value)?;
                ensure!(found == (Some(&kind) != own), "{value} as {kind}");
            }
        }
        // Both have to be shown, and a real document may have either.
        let both = of("integer or null");
        for value in ["1", "null"] {
            fits(&both, "show", &size(value)?)?;
            ensure!(compare(&both, "show", &size(value)?).is_err(), "{value}");
        }
        ensure!(is_found("text", "1").is_err(), "no type");
        Ok(())
    }
}
