//! Relative links in Markdown: the file exists, and its heading too.

use std::{collections::BTreeMap, path::Path};

use super::{File, Finding};

/// Reports every relative link that leads nowhere. `exists` says whether the repository has a path.
pub(crate) fn check(files: &[File], exists: &dyn Fn(&str) -> bool) -> Vec<Finding> {
    let documents = files.iter().filter(|file| file.path.ends_with(".md"));
    let anchors: BTreeMap<&str, Vec<String>> = documents
        .clone()
        .map(|file| (file.path.as_str(), anchors(&file.text)))
        .collect();
    let mut found = Vec::new();
    for file in documents {
        for (line, target) in links(&file.text) {
            if let Err(why) = resolve(&file.path, &target, &anchors, exists) {
                found.push(Finding::new(
                    &file.path,
                    line,
                    format!("the link `{target}` {why}: correct it"),
                ));
            }
        }
    }
    found
}

fn resolve(
    from: &str,
    target: &str,
    anchors: &BTreeMap<&str, Vec<String>>,
    exists: &dyn Fn(&str) -> bool,
) -> Result<(), String> {
    if target.contains("://") || target.starts_with("mailto:") {
        return Ok(());
    }
    let (path, anchor) = target.split_once('#').unwrap_or((target, ""));
    let path = if path.is_empty() {
        from.to_owned()
    } else {
        joined(from, path).ok_or("leads out of the repository")?
    };
    if !exists(&path) {
        return Err(format!("leads to {path}, which does not exist"));
    }
    match anchors.get(path.as_str()) {
        Some(known) if !anchor.is_empty() && !known.iter().any(|one| one == anchor) => {
            Err(format!("names a heading that {path} does not have"))
        }
        Some(_) | None => Ok(()),
    }
}

/// A path beside another one. An absolute path begins at the repository.
fn joined(from: &str, path: &str) -> Option<String> {
    let mut parts: Vec<&str> = Vec::new();
    if !path.starts_with('/') {
        let parent = Path::new(from).parent()?.to_str()?;
        parts.extend(parent.split('/').filter(|part| !part.is_empty()));
    }
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

/// The lines outside of code blocks, with their numbers and without code in backticks.
fn prose(text: &str) -> Vec<(usize, String)> {
    let mut fence = None;
    let mut found = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let trimmed = line.trim_start();
        let mark = ["```", "~~~"]
            .into_iter()
            .find(|mark| trimmed.starts_with(mark));
        match (fence, mark) {
            (None, Some(mark)) => fence = Some(mark),
            (Some(open), Some(mark)) if open == mark => fence = None,
            (Some(_), _) => {}
            (None, None) => found.push((number, without_code(line))),
        }
    }
    found
}

fn without_code(line: &str) -> String {
    let mut out = String::new();
    let mut rest = line;
    while let Some(at) = rest.find('`') {
        out.push_str(&rest[..at]);
        let ticks = rest.len() - at - rest[at..].trim_start_matches('`').len();
        let mark = "`".repeat(ticks);
        let behind = &rest[at + ticks..];
        let Some(end) = behind.find(&mark) else {
            return out + behind;
        };
        rest = &behind[end + ticks..];
    }
    out + rest
}

/// The targets of `[text](target)`, and of `[name]: target` at the start of a line.
fn links(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (number, line) in prose(text) {
        let mut rest = line.as_str();
        while let Some((_, behind)) = rest.split_once("](") {
            let target = behind.split([')', ' ']).next().unwrap_or_default();
            let target = target.trim_start_matches('<').trim_end_matches('>');
            found.push((number, target.to_owned()));
            rest = behind;
        }
        if let Some((name, target)) = line.split_once("]: ")
            && name.starts_with('[')
            && !name.starts_with("[^")
        {
            let target = target.split_whitespace().next().unwrap_or_default();
            found.push((number, target.to_owned()));
        }
    }
    found
}

/// The anchors of a document: its headings in the form in which GitHub and others make them.
fn anchors(text: &str) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    let mut fence = false;
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            fence = !fence;
        }
        let name = line
            .split_once("<a id=\"")
            .or_else(|| line.split_once("<a name=\""));
        if let Some((name, _)) = name.and_then(|(_, rest)| rest.split_once('"')) {
            found.push(name.to_owned());
        }
        let heading = line.trim_start_matches('#');
        if fence || heading.len() == line.len() || !heading.starts_with(' ') {
            continue;
        }
        let slug = slug(heading.trim());
        let mut unique = slug.clone();
        for number in 1.. {
            if !found.contains(&unique) {
                break;
            }
            unique = format!("{slug}-{number}");
        }
        found.push(unique);
    }
    found
}

fn slug(heading: &str) -> String {
    // Of a link in a heading its text alone.
    let mut text = String::new();
    let mut rest = heading;
    while let Some((head, tail)) = rest.split_once("](") {
        text.push_str(head);
        rest = tail.split_once(')').map_or("", |(_, behind)| behind);
    }
    text.push_str(rest);
    text.chars()
        .filter_map(|c| match c {
            ' ' => Some('-'),
            '-' | '_' => Some(c),
            _ if c.is_alphanumeric() => Some(c),
            _ => None,
        })
        .flat_map(char::to_lowercase)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headings_have_anchors() {
        let text = "# What `stats` says: 2 lines\n## A\n## A\n```\n# no\n```\n<a id=\"x\"></a>\n## [B](c.md) d\n#e\n";
        assert_eq!(
            anchors(text),
            ["what-stats-says-2-lines", "a", "a-1", "x", "b-d"]
        );
    }

    #[test]
    fn links_outside_of_code_are_read() {
        let text = "[a](b.md) ![c](<d.svg> \"t\") `[e](f)` [![g](h.svg)](i.md)\n```\n[j](k)\n```\n[l]: m.md\n";
        let expected = [
            (1, "b.md"),
            (1, "d.svg"),
            (1, "h.svg"),
            (1, "i.md"),
            (5, "m.md"),
        ];
        assert_eq!(
            links(text),
            expected.map(|(line, target)| (line, target.to_owned()))
        );
    }

    #[test]
    fn dead_links_are_findings() {
        let file = |path: &str, text: &str| File {
            path: path.to_owned(),
            text: text.to_owned(),
        };
        let files = [
            file(
                "README.md",
                "# Top\n[a](docs/x.md) [b](docs/x.md#one-two) [c](#top) [d](https://e/f.md)\n[g](docs/y.md)\n[h](docs/x.md#three)\n",
            ),
            file(
                "docs/x.md",
                "## One two\n[a](../README.md#top)\n[b](../../c.md)\n",
            ),
        ];
        let exists = |path: &str| files.iter().any(|file| file.path == path);
        let found: Vec<String> = check(&files, &exists)
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(found.len(), 3, "{found:?}");
        assert!(
            found[0].starts_with(
                "README.md:3: the link `docs/y.md` leads to docs/y.md, which does not exist"
            ),
            "{found:?}"
        );
        assert!(
            found[1].starts_with("README.md:4: ") && found[1].contains("heading"),
            "{found:?}"
        );
        assert!(
            found[2].starts_with("docs/x.md:3: ") && found[2].contains("out of the repository"),
            "{found:?}"
        );
    }
}
