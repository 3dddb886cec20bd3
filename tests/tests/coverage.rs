//! Every test that a table in `tests/coverage/*.md` names must exist.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use ikenat_tests::lab::Host;

/// Calls that register a test: those of `Scenario`, and the local closures around them. The name is
/// the first argument.
const REGISTER: [(&str, Suffix); 9] = [
    ("Scenario::new(", Suffix::None),
    ("Scenario::on_every_host(", Suffix::Host),
    ("Scenario::on_host(", Suffix::Host),
    ("Scenario::in_a_guest(", Suffix::Guest),
    ("in_a_guest(", Suffix::Guest),
    ("named(", Suffix::Host),
    ("scenario(", Suffix::None),
    ("load(", Suffix::None),
    ("test(", Suffix::None),
];

/// What follows the `@` in a test's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Suffix {
    None,
    Host,
    Guest,
}

fn directory(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn files(directory: &Path, extension: &str, found: &mut Vec<PathBuf>) -> Result<()> {
    let listing = fs::read_dir(directory)
        .with_context(|| format!("failed to list {}", directory.display()))?;
    for entry in listing {
        let path = entry?.path();
        if path.is_dir() {
            files(&path, extension, found)?;
        } else if path.extension().is_some_and(|found| found == extension) {
            found.push(path);
        }
    }
    Ok(())
}

/// The string literal at the start of an argument list.
fn literal(arguments: &str) -> Option<&str> {
    let rest = arguments.trim_start().strip_prefix('"')?;
    let (name, _) = rest.split_once('"')?;
    let is_name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    (!name.is_empty() && name.chars().all(is_name)).then_some(name)
}

/// Adds the tests that a source file registers.
fn registered(text: &str, tests: &mut BTreeMap<String, BTreeSet<Suffix>>) {
    for (call, suffix) in REGISTER {
        for (at, _) in text.match_indices(call) {
            let before = text[..at].chars().next_back();
            if before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':') {
                continue;
            }
            if let Some(name) = literal(&text[at + call.len()..]) {
                tests.entry(name.to_owned()).or_default().insert(suffix);
            }
        }
    }
}

fn exists(name: &str, tests: &BTreeMap<String, BTreeSet<Suffix>>) -> bool {
    let (name, suffix) = match name.split_once('@') {
        None => (name, Suffix::None),
        Some((name, "guest")) => (name, Suffix::Guest),
        Some((name, host)) if Host::ALL.iter().any(|known| known.name() == host) => {
            (name, Suffix::Host)
        }
        Some(_) => return false,
    };
    tests
        .get(name)
        .is_some_and(|suffixes| suffixes.contains(&suffix))
}

/// The names in the test columns of a document, with their line numbers.
fn named(text: &str) -> Vec<(usize, &str)> {
    let mut names = Vec::new();
    let mut column = None;
    for (number, line) in (1..).zip(text.lines()) {
        if !line.starts_with('|') {
            column = None;
            continue;
        }
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let Some(at) = column else {
            column = Some(cells.iter().position(|cell| *cell == "test"));
            continue;
        };
        let cell = at.and_then(|at: usize| cells.get(at)).unwrap_or(&"");
        let quoted = cell.split('`').skip(1).step_by(2);
        names.extend(quoted.map(|name| (number, name)));
    }
    names
}

#[test]
fn every_test_that_a_coverage_table_names_exists() -> Result<()> {
    let mut sources = Vec::new();
    files(&directory("tests"), "rs", &mut sources)?;
    let mut tests = BTreeMap::new();
    for path in &sources {
        registered(&fs::read_to_string(path)?, &mut tests);
    }
    let mut documents = Vec::new();
    files(&directory("coverage"), "md", &mut documents)?;
    let (mut count, mut missing) = (0, Vec::new());
    for path in &documents {
        let text = fs::read_to_string(path)?;
        for (line, name) in named(&text) {
            count += 1;
            if !exists(name, &tests) {
                missing.push(format!("{}:{line}: no test `{name}`", path.display()));
            }
        }
    }
    assert!(missing.is_empty(), "\n{}", missing.join("\n"));
    assert!(count > 100, "only {count} names were found");
    Ok(())
}
