//! What the source and the documents have to look like: arrows between rooms, no circles, lengths,
//! words, links. `cargo xtask ci` prints every finding, and so does the test at the end.

use std::{fmt, fs, path::Path};

use anyhow::{Context as _, Result};

mod arrows;
mod links;
mod rooms;
mod source;
#[cfg(test)]
mod tests;
mod tokens;
mod words;

/// A file of the repository: its path from the root, and its text.
#[derive(Debug)]
pub(crate) struct File {
    pub(crate) path: String,
    pub(crate) text: String,
}

/// What is wrong, where, and what to do.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Finding {
    path: String,
    line: usize,
    text: String,
}

impl Finding {
    fn new(path: &str, line: usize, text: String) -> Self {
        let path = path.to_owned();
        Self { path, line, text }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(to, "{}:{}: {}.", self.path, self.line, self.text)
    }
}

/// Directories with source or documents, besides the files at the root.
const DIRECTORIES: [&str; 8] = [
    ".cargo",
    ".ci",
    "docs",
    "tests",
    "xdp-common",
    "xdp-core",
    "xdp-ebpf",
    "xdp-user",
];

/// This program is source as well.
const OWN: &str = "xtask";

/// The ends of files that hold text written by people. Records of measurements are data.
const TEXTS: [&str; 6] = ["rs", "md", "toml", "sh", "txt", "yml"];

/// Lines of a Rust file, unless its head argues with a line that begins with [`ARGUMENT`].
const LINES: usize = 400;

/// How a longer file begins its argument.
const ARGUMENT: &str = "//! Length: ";

/// The most of what a document may have.
const LIMITS: [(&str, Unit, usize); 2] = [
    ("README.md", Unit::Lines, 90),
    ("ARCHITECTURE.md", Unit::Words, 1500),
];

#[derive(Clone, Copy)]
enum Unit {
    Lines,
    Words,
}

/// Reads the repository and reports everything that is wrong, by file and line.
pub(crate) fn check(root: &Path) -> Result<Vec<Finding>> {
    let mut files = Vec::new();
    for directory in DIRECTORIES.into_iter().chain([OWN]) {
        collect(root, directory, &mut files)?;
    }
    for name in names(root, "")? {
        if root.join(&name).is_file() {
            read(root, name, &mut files)?;
        }
    }
    let exists = |path: &str| root.join(path).exists();
    Ok(findings(&files, &rooms::CRATES, &exists))
}

fn findings(
    files: &[File],
    crates: &[rooms::Crate],
    exists: &dyn Fn(&str) -> bool,
) -> Vec<Finding> {
    let mut found: Vec<Finding> = crates
        .iter()
        .flat_map(|of| arrows::check(of, files))
        .collect();
    found.extend(lengths(files));
    found.extend(words::check(files));
    found.extend(links::check(files, exists));
    found.sort();
    found.dedup();
    found
}

fn lengths(files: &[File]) -> Vec<Finding> {
    let mut found = Vec::new();
    for file in files {
        let lines = file.text.lines().count();
        let argues = || file.text.lines().any(|line| line.starts_with(ARGUMENT));
        if file.path.ends_with(".rs") && lines > LINES && !argues() {
            let text = format!(
                "the file has {lines} lines, more than {LINES}: divide it by subject, or argue in its head with a line `{ARGUMENT}…`"
            );
            found.push(Finding::new(&file.path, lines, text));
        }
        for (name, unit, most) in LIMITS {
            let (size, what) = match unit {
                Unit::Lines => (lines, "lines"),
                Unit::Words => (file.text.split_whitespace().count(), "words"),
            };
            if file.path == name && size > most {
                let text = format!(
                    "the document has {size} {what}, more than {most}: move details to a page under docs"
                );
                found.push(Finding::new(&file.path, lines, text));
            }
        }
    }
    found
}

/// The text files at and below a directory.
fn collect(root: &Path, directory: &str, files: &mut Vec<File>) -> Result<()> {
    for name in names(root, directory)? {
        let path = format!("{directory}/{name}");
        if root.join(&path).is_dir() {
            if name != "target" {
                collect(root, &path, files)?;
            }
        } else {
            read(root, path, files)?;
        }
    }
    Ok(())
}

fn read(root: &Path, path: String, files: &mut Vec<File>) -> Result<()> {
    let end = Path::new(&path).extension().and_then(|end| end.to_str());
    // The scripts of CI have no end.
    if end.is_some_and(|end| TEXTS.contains(&end)) || path.starts_with(".ci/") {
        let text = fs::read_to_string(root.join(&path))
            .with_context(|| format!("failed to read {path}"))?;
        files.push(File { path, text });
    }
    Ok(())
}

fn names(root: &Path, directory: &str) -> Result<Vec<String>> {
    let path = root.join(directory);
    let failed = || format!("failed to list {}", path.display());
    let mut names = Vec::new();
    for entry in fs::read_dir(&path).with_context(failed)? {
        names.extend(entry.with_context(failed)?.file_name().into_string());
    }
    names.sort_unstable();
    Ok(names)
}
