//! Words that the repository does not use, each with the one to use instead. This file holds the
//! list, so it is the only one that may quote them.

use super::{File, Finding};

/// Not in prose, identifiers or file names, in any case: the words, and what to write.
const WORDS: [(&[&str], &str); 10] = [
    (&["ours"], "ikenat's, or handled"),
    (&["nobody"], "no one, or the passive: \"is not read\""),
    (&["anew"], "again"),
    (&["mend", "mends", "mended", "mending"], "fix"),
    (&["told"], "reported, or notified"),
    (
        &["trial", "trials"],
        "test (the type `Trial` of libtest-mimic keeps its name)",
    ),
    (&["seat", "seats"], "filter slot"),
    (&["spot", "spots"], "hook point"),
    (&["books"], "retired totals"),
    (&["housekeeping"], "maintenance"),
];

/// Not as the name of a file, a module or a type.
const NAMES: [(&str, &str); 12] = [
    ("again", "reattach"),
    ("books", "retired"),
    ("forget", "invalidate"),
    ("house", "maintenance"),
    ("notes", "pins"),
    ("others", "foreign_xdp"),
    ("ready", "egress"),
    ("seat", "filter slot"),
    ("settle", "reclaim"),
    ("spots", "interfaces"),
    ("sweep", "cleanup"),
    ("way", "route or direction"),
];

/// The list itself.
const LIST: &str = "xtask/src/layout/words.rs";

/// The one word that is a name in another crate.
const FOREIGN: &str = "Trial";

/// Reports every such word.
pub(crate) fn check(files: &[File]) -> Vec<Finding> {
    let mut found = Vec::new();
    for file in files.iter().filter(|file| file.path != LIST) {
        for word in words(&file.path).into_iter() {
            found.extend(
                refused(word, "the file's name").map(|why| Finding::new(&file.path, 1, why)),
            );
        }
        for (line, text) in (1..).zip(file.text.lines()) {
            let refused = words(text)
                .into_iter()
                .filter_map(|word| refused(word, "the line"));
            found.extend(refused.map(|why| Finding::new(&file.path, line, why)));
        }
        if let Some(inside) = file.path.strip_suffix(".rs") {
            let parts = inside.split('/').map(|name| (1, name));
            let declared = (1..).zip(file.text.lines()).filter_map(|(line, text)| {
                let text = text.trim_start();
                let text = text
                    .strip_prefix("pub ")
                    .or_else(|| {
                        text.split_once(") ")
                            .filter(|(head, _)| head.starts_with("pub("))
                            .map(|(_, rest)| rest)
                    })
                    .unwrap_or(text);
                let (keyword, rest) = text.split_once(' ')?;
                matches!(keyword, "mod" | "enum" | "struct" | "trait" | "type").then(|| {
                    let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_');
                    (line, &rest[..end.unwrap_or(rest.len())])
                })
            });
            for (line, name) in parts.chain(declared) {
                let lower = name.to_lowercase();
                if let Some((_, instead)) = NAMES.iter().find(|(word, _)| *word == lower) {
                    found.push(Finding::new(&file.path, line, format!("`{name}` is no name of a module or type here: call it after what it has ({instead})")));
                }
            }
        }
    }
    found
}

fn refused(word: &str, place: &str) -> Option<String> {
    if word == FOREIGN {
        return None;
    }
    let lower = word.to_lowercase();
    let (_, instead) = WORDS.iter().find(|(words, _)| words.contains(&&*lower))?;
    Some(format!("{place} has the word \"{word}\": write {instead}"))
}

/// The words of prose and of identifiers: `is_x`, `isX` and `IS_X` have the word `x`.
fn words(text: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let mut start = None;
    let mut before = ' ';
    let mut chars = text.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        let next = chars.peek().map_or(' ', |(_, next)| *next);
        let begins = c.is_alphabetic()
            && (!before.is_alphabetic()
                || (c.is_uppercase() && (before.is_lowercase() || next.is_lowercase())));
        if begins || !c.is_alphabetic() {
            found.extend(start.take().map(|start| &text[start..at]));
        }
        if begins {
            start = Some(at);
        }
        before = c;
    }
    found.extend(start.map(|start| &text[start..]));
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_found_in_identifiers() {
        let text = "Not ours: is_ours(NOT_OURS), isOurs, OURSis, TheHTTPWord colours x2y";
        assert_eq!(
            words(text),
            [
                "Not", "ours", "is", "ours", "NOT", "OURS", "is", "Ours", "OUR", "Sis", "The",
                "HTTP", "Word", "colours", "x", "y"
            ]
        );
    }

    #[test]
    fn each_word_is_a_finding_and_the_list_is_none() {
        let found = |path: &str, text: &str| {
            let files = [File {
                path: path.to_owned(),
                text: text.to_owned(),
            }];
            check(&files)
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
        };
        let one = found("docs/x.md", "fine\nNobody's `is_ours`\n");
        assert_eq!(one.len(), 2);
        assert!(
            one[0].starts_with("docs/x.md:2: ") && one[0].contains("\"Nobody\""),
            "{one:?}"
        );
        assert!(found(LIST, "nobody").is_empty());
        assert!(found("x.rs", "fn f() -> Vec<Trial> {} // Colours, toldx").is_empty());
        assert_eq!(found("x.rs", "let trials = 1;").len(), 1);
        assert_eq!(found("docs/told.md", "").len(), 1);
        // Words of English that are no names.
        assert!(found("x.rs", "// Again, in this way.\nfn again() {}").is_empty());
        assert_eq!(found("a/way.rs", "").len(), 1);
        assert_eq!(
            found("a/b.rs", "pub enum Way {\n    pub(crate) mod again;\n").len(),
            2
        );
    }
}
