//! Tests of the page and the plots without a browser: well-formed, self-contained, inside their
//! frames, legible.

use super::chart::width;
use super::svg::{NAMESPACE, WIDTH};
use super::{example, html, style, svgs};
use crate::results::{CRow, Contestant, Traffic};
use roxmltree::{Document, Node};
use std::collections::BTreeSet;

/// Parses strictly. The document type is that of HTML and means nothing to an XML parser.
fn parse(text: &str) -> Document<'_> {
    let text = text.strip_prefix("<!DOCTYPE html>\n").unwrap_or(text);
    Document::parse(text).unwrap_or_else(|error| panic!("not well-formed: {error}"))
}

/// All text of an element and of its children.
fn text(node: Node<'_, '_>) -> String {
    node.descendants()
        .filter(Node::is_text)
        .filter_map(|node| node.text())
        .collect()
}

#[test]
fn page_and_plots_are_well_formed_and_need_nothing_from_outside() {
    let before = example::full();
    for (name, run) in example::extremes() {
        let page = html(&run, Some(&before));
        let document = parse(&page);
        let ids: Vec<&str> = document
            .descendants()
            .filter_map(|node| node.attribute("id"))
            .collect();
        let unique: BTreeSet<&str> = ids.iter().copied().collect();
        assert_eq!(ids.len(), unique.len(), "{name}: ids are unique");
        for node in document.descendants() {
            assert!(
                !matches!(
                    node.tag_name().name(),
                    "script" | "img" | "iframe" | "object"
                ),
                "{name}"
            );
            assert!(
                node.attribute("style").is_none() && node.attribute("src").is_none(),
                "{name}"
            );
            if let Some(target) = node.attribute("href") {
                let known = target
                    .strip_prefix('#')
                    .is_some_and(|id| unique.contains(id));
                assert!(known || target == "data:,", "{name}: {target}");
            }
            for id in node
                .attribute("aria-labelledby")
                .into_iter()
                .flat_map(str::split_whitespace)
            {
                assert!(unique.contains(id), "{name}: {id}");
            }
        }
        for text in svgs(&run).into_iter().map(|(_, svg)| svg).chain([page]) {
            parse(&text);
            let rest = text.replace(NAMESPACE, "");
            assert!(
                !rest.contains("http") && !rest.contains("url(") && !rest.contains("@import"),
                "{name}"
            );
        }
    }
}

#[test]
fn the_figures_of_the_run_stand_on_the_page() {
    let run = example::full();
    let page = html(&run, None);
    let document = parse(&page);
    let all = text(document.root_element());
    let a = run.a.as_ref().expect("has layer A");
    for row in &a.rows {
        let marginal = row.marginal.map_or_else(String::new, super::words::figure);
        assert!(all.contains(&marginal), "{marginal}");
    }
    for said in [
        "1.233 M",
        "0.941 [0.927, 0.951]",
        "220.0 (211.2–235.4)",
        "BPF_MAP_TYPE_LRU_HASH",
        "veth is not a NIC",
    ] {
        assert!(all.contains(said), "{said}");
    }
    for said in [
        &run.conditions.command,
        &run.conditions.date,
        &run.conditions.commit,
        &run.conditions.cpu,
    ] {
        assert!(all.contains(said.as_str()), "{said}");
    }
    assert!(!all.contains("VOID") && !page.contains("class=\"loud\""));
    let drawings: Vec<_> = document
        .descendants()
        .filter(|node| node.has_tag_name((NAMESPACE, "svg")))
        .collect();
    assert_eq!(drawings.len(), 8);
    for drawing in drawings {
        let mut names = drawing
            .children()
            .filter(Node::is_element)
            .map(|node| node.tag_name().name());
        assert_eq!((names.next(), names.next()), (Some("title"), Some("desc")));
    }
    assert!(
        all.contains("ikenat: 3,174 (521)"),
        "a description says in words what a plot shows"
    );
}

#[test]
fn a_void_run_has_a_banner_on_top() {
    let mut run = example::full();
    run.c.as_mut().expect("has layer C").void = Some("noise".to_owned());
    let page = html(&run, None);
    let document = parse(&page);
    let loud = document
        .descendants()
        .find(|node| node.attribute("class") == Some("loud"))
        .expect("a banner");
    assert!(text(loud).starts_with("VOID: layer C of this run does not count: noise."));
    let first = document
        .descendants()
        .find(|node| node.has_tag_name("p"))
        .expect("a paragraph");
    assert_eq!(first, loud, "before everything else");
}

#[test]
fn text_from_outside_stays_text() {
    let evil = "<script>alert('1')</script> & \"q\" \u{1b}[31m\u{0}\u{ffff}]]>";
    let mut run = example::full();
    run.conditions.command = evil.to_owned();
    run.conditions.date = evil.to_owned();
    run.a.as_mut().expect("has layer A").missing = vec![(Contestant::Ipvs, evil.to_owned())];
    run.b.as_mut().expect("has layer B").tables[1].table = evil.to_owned();
    run.c.as_mut().expect("has layer C").void = Some(evil.to_owned());
    let page = html(&run, Some(&run));
    let document = parse(&page);
    assert!(
        !document
            .descendants()
            .any(|node| node.has_tag_name("script"))
    );
    let shown = text(document.root_element());
    assert!(
        shown
            .matches("<script>alert('1')</script> & \"q\"  [31m")
            .count()
            >= 5,
        "shown as it is"
    );
    assert!(
        !super::terminal(&run).contains('\u{1b}'),
        "nothing that a terminal would obey"
    );
    for (_, svg) in svgs(&run) {
        parse(&svg);
    }
}

/// The number in an attribute, which must be one.
fn number(node: Node<'_, '_>, name: &str) -> f64 {
    let text = node
        .attribute(name)
        .unwrap_or_else(|| panic!("{:?} lacks {name}", node.tag_name()));
    let value: f64 = text
        .parse()
        .unwrap_or_else(|_| panic!("{name}={text} is no number"));
    assert!(value.is_finite(), "{name}={text}");
    value
}

/// Approximate left and right end of a text.
fn ends(node: Node<'_, '_>) -> (f64, f64) {
    let size = match node.attribute("class") {
        Some("name") => 14.0,
        Some("about") => 11.5,
        _ => 12.0,
    };
    let (x, wide) = (number(node, "x"), width(&text(node), size));
    match node.attribute("text-anchor") {
        Some("start") => (x, x + wide),
        Some("middle") => (x - wide / 2.0, x + wide / 2.0),
        _ => (x - wide, x),
    }
}

/// All points of an element that must lie inside its drawing.
fn places(node: Node<'_, '_>) -> Vec<(f64, f64)> {
    match node.tag_name().name() {
        "text" => {
            let ((left, right), y) = (ends(node), number(node, "y"));
            vec![(left, y), (right, y)]
        }
        "line" => {
            let place = |x, y| (number(node, x), number(node, y));
            vec![place("x1", "y1"), place("x2", "y2")]
        }
        "circle" => vec![(number(node, "cx"), number(node, "cy"))],
        "rect" if node.attribute("class") != Some("ground") => {
            let (x, y) = (number(node, "x"), number(node, "y"));
            vec![
                (x, y),
                (x + number(node, "width"), y + number(node, "height")),
            ]
        }
        "polyline" | "polygon" => {
            let points = node
                .attribute("points")
                .expect("has points")
                .split_whitespace();
            let pairs = points.map(|point| point.split_once(',').expect("two numbers"));
            pairs
                .map(|(x, y)| (x.parse().expect("a number"), y.parse().expect("a number")))
                .collect()
        }
        _ => Vec::new(),
    }
}

#[test]
fn nothing_leaves_its_drawing_and_no_text_covers_another() {
    for (name, run) in example::extremes() {
        for (plot, svg) in svgs(&run) {
            let document = parse(&svg);
            let frame = document
                .root_element()
                .attribute("viewBox")
                .expect("has a frame");
            let frame: Vec<f64> = frame
                .split(' ')
                .map(|number| number.parse().expect("a number"))
                .collect();
            // The margin on both sides must stay empty.
            let height = frame[3] + 2.0 * frame[1];
            for node in document.descendants() {
                for (x, y) in places(node) {
                    let fits = (-1.0..=WIDTH + 1.0).contains(&x) && (0.0..=height).contains(&y);
                    assert!(
                        fits,
                        "{name}, {plot}: {node:?} at {x},{y} of {WIDTH},{height}"
                    );
                }
            }
            let texts = document
                .descendants()
                .filter(|node| node.has_tag_name((NAMESPACE, "text")));
            let mut texts: Vec<_> = texts
                .map(|node| (number(node, "y"), ends(node), text(node)))
                .collect();
            texts.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.0.total_cmp(&b.1.0)));
            for pair in texts.windows(2) {
                let apart = pair[1].0 - pair[0].0 > 9.0 || pair[1].1.0 >= pair[0].1.1;
                assert!(
                    apart,
                    "{name}, {plot}: '{}' covers '{}'",
                    pair[1].2, pair[0].2
                );
            }
        }
    }
}

#[test]
fn every_class_and_variable_has_a_meaning_in_both_themes() {
    let sheet = format!("{}{}", style::PLOT, style::PAGE);
    for part in sheet.split("var(").skip(1) {
        let variable = part.split(')').next().expect("is closed");
        for theme in [style::LIGHT, style::DARK] {
            assert!(theme.contains(&format!("{variable}:#")), "{variable}");
        }
    }
    let run = example::full();
    let page = html(&run, Some(&run));
    for node in parse(&page).descendants() {
        for class in node
            .attribute("class")
            .into_iter()
            .flat_map(str::split_whitespace)
        {
            let known = matches!(class, "label" | "plot") || sheet.contains(&format!(".{class}"));
            assert!(known, "{class}");
        }
    }
}

/// WCAG 2's relative luminance of `#rrggbb`.
fn luminance(colour: &str) -> f64 {
    let channel = |at: usize| {
        let value =
            f64::from(u8::from_str_radix(&colour[at..at + 2], 16).expect("hexadecimal")) / 255.0;
        if value <= 0.040_45 {
            value / 12.92
        } else {
            ((value + 0.055) / 1.055).powf(2.4)
        }
    };
    0.2126 * channel(1) + 0.7152 * channel(3) + 0.0722 * channel(5)
}

#[test]
fn contrasts_suffice_in_both_themes() {
    for theme in [style::LIGHT, style::DARK] {
        let colour = |name: &str| {
            let at = theme.find(&format!("--{name}:")).expect("the theme has it") + name.len() + 3;
            luminance(&theme[at..at + 7])
        };
        let contrast = |one: f64, other: f64| (one.max(other) + 0.05) / (one.min(other) + 0.05);
        let ground = colour("ground");
        for (name, least) in [("ink", 7.0), ("quiet", 4.5), ("c0", 4.5)] {
            assert!(contrast(colour(name), ground) >= least, "{name}");
        }
        for mark in ["c1", "c2", "c3", "c4", "c5", "c6", "c7"] {
            assert!(contrast(colour(mark), ground) >= 3.0, "{mark}");
        }
        assert!(contrast(colour("on-loud"), colour("loud")) >= 4.5);
        assert!(contrast(colour("ink"), colour("faint")) >= 7.0);
    }
}

#[test]
fn a_standalone_plot_brings_its_themes_and_its_ground() {
    let plots = svgs(&example::full());
    let names: BTreeSet<&str> = plots.iter().map(|(name, _)| *name).collect();
    assert_eq!(names.len(), 8, "names are unique: {names:?}");
    for (name, svg) in &plots {
        let document = parse(svg);
        let style = document
            .descendants()
            .find(|node| node.has_tag_name((NAMESPACE, "style")))
            .expect("a style");
        assert!(text(style).contains("prefers-color-scheme:dark"), "{name}");
        assert!(
            document
                .descendants()
                .any(|node| node.attribute("class") == Some("ground")),
            "{name}"
        );
    }
}

#[test]
fn a_plot_shows_each_contestant_of_its_case_once() {
    let run = example::full();
    let rates = svgs(&run)
        .into_iter()
        .find(|(name, _)| *name == "packets-per-second")
        .expect("is drawn")
        .1;
    let document = parse(&rates);
    let labels: Vec<String> = document
        .descendants()
        .filter(|node| node.attribute("class") == Some("label"))
        .map(text)
        .collect();
    let in_case = |row: &&CRow| {
        row.traffic == Traffic::EspInUdp && (row.frame, row.flows, row.cores) == (110, 1_024, 1)
    };
    let rows = run
        .c
        .as_ref()
        .expect("has layer C")
        .rows
        .iter()
        .filter(in_case);
    let expected: Vec<&str> = rows
        .map(|row| super::words::contestant(row.contestant))
        .collect();
    assert_eq!(labels, expected);
}
