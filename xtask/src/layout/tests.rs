//! Small made-up trees, one for each rule, and the repository itself.

use super::{File, Finding, findings, rooms::Crate};

const CRATE: Crate = Crate {
    directory: "c/src",
    name: "c",
    rooms: &[
        ("low", &[]),
        ("high", &["low"]),
        ("beside", &["low", "high"]),
    ],
    other: Some(("d", &["table"])),
    by_file: true,
};

const ROOMS: Crate = Crate {
    by_file: false,
    ..CRATE
};

fn file(path: &str, text: &str) -> File {
    File {
        path: path.to_owned(),
        text: text.to_owned(),
    }
}

fn check(of: Crate, files: &[(&str, &str)]) -> Vec<String> {
    let files: Vec<File> = files.iter().map(|(path, text)| file(path, text)).collect();
    let exists = |path: &str| files.iter().any(|file| file.path == path);
    let found = findings(&files, &[of], &exists);
    found.iter().map(Finding::to_string).collect()
}

/// Exactly one finding, with these parts.
fn one(of: Crate, files: &[(&str, &str)], parts: &[&str]) {
    let found = check(of, files);
    assert_eq!(found.len(), 1, "{found:?}");
    for part in parts {
        assert!(found[0].contains(part), "{part} in {found:?}");
    }
}

#[test]
fn imports_along_the_arrows_are_fine() {
    let files = [
        (
            "c/src/lib.rs",
            "pub mod low;\npub mod high;\npub use high::H;",
        ),
        ("c/src/low/mod.rs", "mod a;\npub mod b;\npub use a::A;"),
        ("c/src/low/a.rs", "pub struct A;"),
        (
            "c/src/low/b.rs",
            "use super::A;\nuse crate::low::a::A as B;",
        ),
        (
            "c/src/high.rs",
            "use crate::low::{self, A, b};\nuse d::table::Slot;\npub struct H;",
        ),
        ("c/src/main.rs", "mod beside;\nuse c::high;"),
        ("c/src/beside/mod.rs", "use c::{H, low::b};"),
    ];
    assert_eq!(check(CRATE, &files), Vec::<String>::new());
    assert_eq!(check(ROOMS, &files), Vec::<String>::new());
}

#[test]
fn an_import_against_an_arrow_is_a_finding() {
    for text in [
        "// 1\nuse crate::high::H;",
        "// 1\nfn f() { crate::high::g() }",
        "// 1\nuse crate::H;",
        "// 1\nuse c::{H};",
        "mod inside {\n    use super::super::super::high; }",
    ] {
        let files = [
            ("c/src/lib.rs", "pub use high::H;"),
            ("c/src/low/mod.rs", ""),
            ("c/src/low/a.rs", text),
            ("c/src/high.rs", "pub struct H;"),
        ];
        one(
            CRATE,
            &files,
            &["c/src/low/a.rs:2: `low` may not import `high`: move"],
        );
    }
    let tests = "#[cfg(test)]\nmod tests { use crate::high::H; }";
    let files = [("c/src/high.rs", ""), ("c/src/low.rs", tests)];
    assert_eq!(check(CRATE, &files), Vec::<String>::new());
}

#[test]
fn a_room_without_a_row_is_a_finding() {
    one(
        CRATE,
        &[("c/src/new.rs", "")],
        &["c/src/new.rs:1: the room `new` has no row"],
    );
}

#[test]
fn only_named_rooms_of_the_other_crate_may_be_used() {
    let files = [("c/src/low.rs", "use d::table::Slot;\nuse d::{table, way};")];
    one(
        CRATE,
        &files,
        &["c/src/low.rs:2: only `table` of d", "not `way`"],
    );
}

#[test]
fn a_circle_between_files_is_a_finding() {
    let files = [
        ("c/src/low/mod.rs", "pub mod a;\npub mod b;\npub mod e;"),
        ("c/src/low/a.rs", "use super::b::B;"),
        ("c/src/low/b.rs", "use crate::low::e;"),
        ("c/src/low/e.rs", "\nuse super::a;"),
    ];
    one(
        CRATE,
        &files,
        &[
            "c/src/low/a.rs:1: this closes a circle",
            "c/src/low/b.rs:1 imports c/src/low/e.rs, c/src/low/e.rs:2 imports c/src/low/a.rs",
        ],
    );
    // Inside a room it may be, where rooms are looked at.
    assert_eq!(check(ROOMS, &files), Vec::<String>::new());
    let files = [
        ("c/src/low/mod.rs", "pub mod a;\npub const X: u8 = 1;"),
        ("c/src/low/a.rs", "use super::X;"),
    ];
    // To declare a module is no import.
    assert_eq!(check(CRATE, &files), Vec::<String>::new());
}

#[test]
fn a_circle_between_rooms_is_a_finding() {
    let files = [
        ("c/src/high/mod.rs", "pub mod a;\npub mod b;"),
        ("c/src/high/a.rs", "use crate::beside;"),
        ("c/src/high/b.rs", ""),
        ("c/src/beside.rs", "use crate::high::b;"),
    ];
    let found = check(ROOMS, &files);
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(
        found
            .iter()
            .any(|one| one.contains("c/src/high/a.rs:1 imports beside")),
        "{found:?}"
    );
}

#[test]
fn a_long_file_is_a_finding_unless_it_argues() {
    let long = "//\n".repeat(401);
    one(
        CRATE,
        &[("x/a.rs", &long)],
        &["x/a.rs:401: the file has 401 lines"],
    );
    let argued = format!("//! Head.\n//!\n//! Length: one table.\n{long}");
    assert!(
        check(
            CRATE,
            &[("x/a.rs", &argued), ("x/b.rs", &"//\n".repeat(400))]
        )
        .is_empty()
    );
}

#[test]
fn a_long_document_is_a_finding() {
    one(
        CRATE,
        &[("README.md", &"a\n".repeat(91))],
        &["README.md:91: the document has 91 lines"],
    );
    one(
        CRATE,
        &[("ARCHITECTURE.md", &"a ".repeat(1501))],
        &["1501 words, more than 1500"],
    );
    assert!(check(CRATE, &[("docs/README.md", &"a\n".repeat(91))]).is_empty());
}

#[test]
fn a_word_and_a_dead_link_are_findings() {
    let word = ["no", "body"].concat();
    one(
        CRATE,
        &[("docs/a.md", &word)],
        &["docs/a.md:1: the line has the word"],
    );
    one(
        CRATE,
        &[("docs/a.md", "[a](b.md)")],
        &["docs/a.md:1: the link `b.md` leads to docs/b.md"],
    );
}

#[test]
fn the_arrows_of_the_tables_have_no_circle() {
    for of in super::rooms::CRATES {
        let mut done: Vec<&str> = Vec::new();
        for (room, may) in of.rooms {
            for other in *may {
                assert!(
                    done.contains(other),
                    "{}: {room} imports {other}, which stands below it",
                    of.name
                );
            }
            done.push(room);
        }
    }
}

#[test]
fn this_repository_keeps_to_its_layout() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let found = super::check(&root).expect("the repository can be read");
    let text: String = found.iter().map(|one| format!("{one}\n")).collect();
    assert!(found.is_empty(), "{} findings:\n{text}", found.len());
}
