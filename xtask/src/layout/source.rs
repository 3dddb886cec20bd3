//! Reads Rust source just far enough to see its imports: `use` trees, and paths in code that begin
//! at the crate, at a parent module or at a child module. Comments, strings and what is compiled
//! only for tests are left out.

use super::tokens::{Token, is_word, tokens};

/// A path, and the line that it stands in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Import {
    /// `crate`, `table`, `Slot`; a `use` of everything ends with `*`.
    pub(crate) path: Vec<String>,
    /// From 1.
    pub(crate) line: usize,
    /// Modules inside the file around it.
    pub(crate) inside: Vec<String>,
    /// The name under which a `pub use` passes it on.
    pub(crate) exported: Option<String>,
}

/// What a file says of other files.
#[derive(Debug, Default)]
pub(crate) struct Source {
    /// In order.
    pub(crate) imports: Vec<Import>,
    /// Modules in files of their own that are compiled for tests only.
    pub(crate) tests: Vec<String>,
}

/// Reads one file. Words other than `crate`, `self` and `super` begin a path when they are in `roots`
/// (other crates, and the child modules of this file).
pub(crate) fn read(text: &str, roots: &[&str]) -> Source {
    let tokens = tokens(text);
    let mut reader = Reader {
        tokens: &tokens,
        at: 0,
        roots,
        blocks: Vec::new(),
        found: Source::default(),
    };
    while reader.at < tokens.len() {
        reader.step();
    }
    reader.found
}

struct Reader<'r, 't> {
    tokens: &'r [Token<'t>],
    at: usize,
    roots: &'r [&'r str],
    /// The open braces: a module's name, or nothing.
    blocks: Vec<Option<String>>,
    found: Source,
}

impl Reader<'_, '_> {
    fn text(&self, at: usize) -> &str {
        self.tokens.get(at).map_or("", |token| token.text)
    }

    fn before(&self) -> &str {
        self.at.checked_sub(1).map_or("", |at| self.text(at))
    }

    fn step(&mut self) {
        match self.text(self.at) {
            "#" if self.text(self.at + 1) == "[" => self.attribute(),
            "mod" if self.text(self.at + 2) == "{" => {
                let name = self.text(self.at + 1).to_owned();
                self.blocks.push(Some(name));
                self.at += 3;
            }
            "{" => {
                self.blocks.push(None);
                self.at += 1;
            }
            "}" => {
                self.blocks.pop();
                self.at += 1;
            }
            "use" if matches!(self.before(), "" | ";" | "}" | "{" | "]" | "pub" | ")") => {
                self.declaration();
            }
            word if self.begins_path(word) => {
                let path = self.path();
                self.add(path, None);
            }
            _ => self.at += 1,
        }
    }

    fn begins_path(&self, word: &str) -> bool {
        let known = matches!(word, "crate" | "self" | "super") || self.roots.contains(&word);
        known && self.text(self.at + 1) == "::" && !matches!(self.before(), "::" | ".")
    }

    /// Words with `::` between them.
    fn path(&mut self) -> Vec<String> {
        let mut path = vec![self.text(self.at).to_owned()];
        self.at += 1;
        while self.text(self.at) == "::" && is_word(self.text(self.at + 1)) {
            path.push(self.text(self.at + 1).to_owned());
            self.at += 2;
        }
        path
    }

    fn add(&mut self, path: Vec<String>, exported: Option<String>) {
        let line = self.tokens.get(self.at.saturating_sub(1));
        self.found.imports.push(Import {
            path,
            line: line.map_or(0, |token| token.line),
            inside: self.blocks.iter().flatten().cloned().collect(),
            exported,
        });
    }

    /// `use` and its tree.
    fn declaration(&mut self) {
        let exports = matches!(self.before(), "pub" | ")");
        self.at += 1;
        if self.text(self.at) == "::" {
            self.at += 1;
        }
        self.tree(&[], exports);
        self.at += 1;
    }

    /// One tree, up to the `;`, `,` or `}` behind it.
    fn tree(&mut self, above: &[String], exports: bool) {
        let mut path = above.to_vec();
        let mut name = None;
        while self.at < self.tokens.len() {
            match self.text(self.at) {
                ";" | "," | "}" => break,
                "::" => self.at += 1,
                "{" => {
                    self.at += 1;
                    while !matches!(self.text(self.at), "}" | "") {
                        self.tree(&path, exports);
                        if self.text(self.at) == "," {
                            self.at += 1;
                        }
                    }
                    self.at += 1;
                    return;
                }
                "as" => {
                    name = Some(self.text(self.at + 1).to_owned());
                    self.at += 2;
                }
                // `a::{self, b}`: the module itself.
                "self" if !path.is_empty() => self.at += 1,
                word => {
                    path.push(word.to_owned());
                    self.at += 1;
                }
            }
        }
        let exported = exports.then(|| name.or_else(|| path.last().cloned()));
        self.add(path, exported.flatten());
    }

    /// An attribute; with `cfg(test)` also the item behind it.
    fn attribute(&mut self) {
        let from = self.at;
        self.at += 1;
        self.skip_group();
        let words: Vec<&str> = (from..self.at).map(|at| self.text(at)).collect();
        let has = |word| words.contains(&word);
        if !(has("cfg") && has("test")) || has("not") {
            return;
        }
        while self.text(self.at) == "#" {
            self.at += 1;
            self.skip_group();
        }
        if self.text(self.at) == "pub" {
            self.at += 1;
            if self.text(self.at) == "(" {
                self.skip_group();
            }
        }
        if self.text(self.at) == "mod" && self.text(self.at + 2) == ";" {
            let name = self.text(self.at + 1).to_owned();
            self.found.tests.push(name);
        }
        self.skip_item();
    }

    /// Up to the end of an item: its `;` or its block. A field or an arm ends with a comma.
    fn skip_item(&mut self) {
        let first = self.text(self.at).to_owned();
        let is_item = [
            "fn", "mod", "use", "impl", "struct", "enum", "const", "static", "type", "trait",
            "unsafe", "async", "extern",
        ];
        let is_item = is_item.contains(&&*first);
        while self.at < self.tokens.len() {
            match self.text(self.at) {
                ";" => {
                    self.at += 1;
                    return;
                }
                "," if !is_item => return,
                "}" | ")" | "]" => return,
                "{" => {
                    self.skip_group();
                    if first != "use" {
                        return;
                    }
                }
                "(" | "[" => self.skip_group(),
                _ => self.at += 1,
            }
        }
    }

    /// A bracket and all that is in it.
    fn skip_group(&mut self) {
        let mut open = 0_usize;
        while self.at < self.tokens.len() {
            match self.text(self.at) {
                "(" | "[" | "{" => open += 1,
                ")" | "]" | "}" => open = open.saturating_sub(1),
                _ => {}
            }
            self.at += 1;
            if open == 0 {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(text: &str, roots: &[&str]) -> Vec<String> {
        let imports = read(text, roots).imports;
        imports
            .iter()
            .map(|import| format!("{} {}", import.line, import.path.join("::")))
            .collect()
    }

    #[test]
    fn use_trees_are_read() {
        let text =
            "use crate::a;\nuse crate::{b::{self, C as D}, e::*,\n    f::g::H};\npub use i::J;\n";
        assert_eq!(
            paths(text, &[]),
            [
                "1 crate::a",
                "2 crate::b",
                "2 crate::b::C",
                "2 crate::e::*",
                "3 crate::f::g::H",
                "4 i::J",
            ]
        );
        let source = read("pub(crate) use a::B as C;\nuse d::E;", &[]);
        let exported: Vec<_> = source.imports.iter().map(|one| &one.exported).collect();
        assert_eq!(exported, [&Some("C".to_owned()), &None]);
    }

    #[test]
    fn paths_in_code_are_read() {
        let text = "fn f(x: &crate::a::B) -> super::C {\n    write!(\"{}\", crate::d::e());\n    slots::find(self::g::h, x.crate_name, z::slots::i)\n}";
        assert_eq!(
            paths(text, &["slots"]),
            [
                "1 crate::a::B",
                "1 super::C",
                "2 crate::d::e",
                "3 slots::find",
                "3 self::g::h",
            ]
        );
    }

    #[test]
    fn comments_strings_and_characters_are_no_code() {
        let text = "/// [`crate::a`]\n/* crate::b /* x */ crate::c */ \"crate::d \\\" crate::e\"\n\
                    r#\"crate::f \" crate::g\"# b'\\'' '\"' 'x: &'a crate::h '\\u{1f}'";
        assert_eq!(paths(text, &[]), ["3 crate::h"]);
    }

    #[test]
    fn tests_are_left_out() {
        let text = "#[cfg(test)]\nmod tests { use crate::a; }\n#[cfg(test)]\nuse crate::{b};\n\
                    #[cfg(test)]\n#[path = \"x.rs\"]\nmod c;\n#[cfg(test)]\nfn f<T, U>() { crate::d() }\n\
                    #[cfg(not(test))]\nuse crate::e;\nstruct S { #[cfg(test)] f: crate::g, h: crate::i }";
        assert_eq!(paths(text, &[]), ["11 crate::e", "12 crate::i"]);
        assert_eq!(read(text, &[]).tests, ["c"]);
    }

    #[test]
    fn a_module_in_a_file_is_known() {
        let source = read("mod a { mod b { use super::C; } }\nuse super::D;", &[]);
        assert_eq!(source.imports[0].inside, ["a", "b"]);
        assert!(source.imports[1].inside.is_empty());
    }
}
