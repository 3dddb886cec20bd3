//! Checks the imports of a crate against its table of arrows, and looks for circles.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::{
    File, Finding,
    rooms::{Crate, TABLE},
    source,
};

/// One file that imports another.
#[derive(Clone, Copy, Debug)]
struct Edge {
    from: usize,
    to: usize,
    line: usize,
}

/// Reads the files of a crate and reports every import against its arrows.
pub(crate) fn check(of: &Crate, files: &[File]) -> Vec<Finding> {
    let tree = Tree::new(of, files);
    let mut found = tree.foreign(of);
    let edges = tree.edges();
    for (at, file) in tree.files.iter().enumerate() {
        let room = tree.room(at);
        if !room.is_empty() && !of.rooms.iter().any(|(name, _)| *name == room) {
            found.push(Finding::new(
                file.path,
                1,
                format!("the room `{room}` has no row in the table of arrows: add it to {TABLE} with the rooms that it may import"),
            ));
        }
    }
    for edge in &edges {
        let (from, to) = (tree.room(edge.from), tree.room(edge.to));
        let may = of.rooms.iter().find(|(name, _)| *name == from);
        if from != to && may.is_some_and(|(_, may)| !may.contains(&to)) {
            found.push(Finding::new(
                tree.files[edge.from].path,
                edge.line,
                format!("`{from}` may not import `{to}`: move what both need to a room that both may import, or pass it as an argument ({TABLE} has the arrows)"),
            ));
        }
    }
    found.extend(tree.circles(of, &edges));
    found
}

/// A file with its place among the modules.
struct Module<'f> {
    path: &'f str,
    module: Vec<String>,
    source: source::Source,
    /// The root of the library or of a binary.
    is_root: bool,
}

/// The files of a crate that are compiled outside of tests.
struct Tree<'f> {
    files: Vec<Module<'f>>,
    by_module: BTreeMap<Vec<String>, usize>,
    name: &'static str,
}

impl<'f> Tree<'f> {
    fn new(of: &Crate, files: &'f [File]) -> Self {
        let placed: Vec<(&File, Vec<String>, bool)> = files
            .iter()
            .filter_map(|file| {
                let inside = file.path.strip_prefix(of.directory)?.strip_prefix('/')?;
                let (module, is_root) = module(inside.strip_suffix(".rs")?);
                Some((file, module, is_root))
            })
            .collect();
        let mut files = Vec::new();
        for (file, module, is_root) in &placed {
            let children: Vec<&str> = placed
                .iter()
                .filter_map(|(_, other, _)| other.strip_prefix(module.as_slice()))
                .filter_map(|rest| rest.first().map(String::as_str))
                .collect();
            let mut roots = children;
            roots.push(of.name);
            roots.extend(of.other.map(|(name, _)| name));
            files.push(Module {
                path: &file.path,
                module: module.clone(),
                source: source::read(&file.text, &roots),
                is_root: *is_root,
            });
        }
        let for_tests: BTreeSet<Vec<String>> = files
            .iter()
            .flat_map(|file| {
                let below =
                    |name: &String| [file.module.as_slice(), std::slice::from_ref(name)].concat();
                file.source.tests.iter().map(below)
            })
            .collect();
        files.retain(|file| {
            let name = file.module.last().map_or("", String::as_str);
            !for_tests.contains(&file.module) && !name.ends_with("_tests")
        });
        let by_module = files
            .iter()
            .enumerate()
            .filter(|(_, file)| file.path.rsplit('/').next() != Some("main.rs"))
            .map(|(at, file)| (file.module.clone(), at))
            .collect();
        Self {
            files,
            by_module,
            name: of.name,
        }
    }

    /// The room of a file; nothing for the roots, which may import everything.
    fn room(&self, at: usize) -> &str {
        let file = &self.files[at];
        if file.is_root {
            return "";
        }
        file.module.first().map_or("", String::as_str)
    }

    /// Imports of files of this crate, in order.
    fn edges(&self) -> Vec<Edge> {
        let mut edges = Vec::new();
        for (from, file) in self.files.iter().enumerate() {
            for import in &file.source.imports {
                let to = self.resolve(from, &import.path, &import.inside, DEPTH);
                if let Some(to) = to.filter(|to| *to != from && !file.is_root) {
                    let line = import.line;
                    edges.push(Edge { from, to, line });
                }
            }
        }
        edges.retain(|edge| !self.files[edge.to].is_root);
        edges
    }

    /// The file that has what a path names. Names that a module passes on by `pub use` are followed.
    fn resolve(
        &self,
        from: usize,
        path: &[String],
        inside: &[String],
        depth: usize,
    ) -> Option<usize> {
        let file = &self.files[from];
        let mut here = [file.module.as_slice(), inside].concat();
        let (first, mut rest) = path.split_first()?;
        match first.as_str() {
            "crate" => here.clear(),
            name if name == self.name => here.clear(),
            "self" => {}
            "super" => {
                here.pop();
            }
            _ => {
                here.push(first.clone());
                if !self.by_module.contains_key(&here) {
                    return None;
                }
            }
        }
        while let Some((next, after)) = rest.split_first().filter(|(next, _)| *next == "super") {
            debug_assert_eq!(next, "super");
            here.pop();
            rest = after;
        }
        while let Some((next, after)) = rest.split_first() {
            here.push(next.clone());
            if self.by_module.contains_key(&here) {
                rest = after;
                continue;
            }
            here.pop();
            break;
        }
        // What is left of a module inside a file is that file.
        while !self.by_module.contains_key(&here) {
            here.pop()?;
        }
        let at = *self.by_module.get(&here)?;
        let passed_on = rest.first().and_then(|name| {
            let imports = &self.files[at].source.imports;
            imports
                .iter()
                .find(|import| import.exported.as_ref() == Some(name))
        });
        match passed_on.filter(|_| depth > 0) {
            Some(import) => self
                .resolve(at, &import.path, &import.inside, depth - 1)
                .or(Some(at)),
            None => Some(at),
        }
    }

    /// Rooms of the other crate that may not be used.
    fn foreign(&self, of: &Crate) -> Vec<Finding> {
        let Some((name, may)) = of.other else {
            return Vec::new();
        };
        let mut found = Vec::new();
        for file in &self.files {
            for import in &file.source.imports {
                if let [first, room, ..] = import.path.as_slice()
                    && first == name
                    && !may.contains(&room.as_str())
                {
                    let may = may.join("` and `");
                    found.push(Finding::new(
                        file.path,
                        import.line,
                        format!("only `{may}` of {name} may be used here, not `{room}`: what both sides need belongs to xdp-common"),
                    ));
                }
            }
        }
        found
    }

    /// A circle is reported once, at its first import.
    fn circles(&self, of: &Crate, edges: &[Edge]) -> Vec<Finding> {
        let node = |at: usize| {
            if of.by_file {
                self.files[at].path
            } else {
                self.room(at)
            }
        };
        let mut graph: BTreeMap<&str, BTreeMap<&str, Edge>> = BTreeMap::new();
        for edge in edges.iter().filter(|edge| node(edge.from) != node(edge.to)) {
            let next = graph.entry(node(edge.from)).or_default();
            next.entry(node(edge.to)).or_insert(*edge);
        }
        let mut reported = BTreeSet::new();
        let mut found = Vec::new();
        for &start in graph.keys() {
            if reported.contains(start) {
                continue;
            }
            let Some(circle) = shortest_circle(&graph, start) else {
                continue;
            };
            reported.extend(circle.iter().copied());
            let places: Vec<String> = (0..circle.len())
                .filter_map(|at| {
                    let to = circle[(at + 1) % circle.len()];
                    let edge = graph.get(circle[at])?.get(to)?;
                    let path = self.files[edge.from].path;
                    Some(format!("{path}:{} imports {to}", edge.line))
                })
                .collect();
            let first = graph
                .get(start)
                .and_then(|next| next.get(circle[1 % circle.len()]));
            let Some(first) = first else { continue };
            found.push(Finding::new(
                self.files[first.from].path,
                first.line,
                format!("this closes a circle ({}): move what they share to a file that imports none of them", places.join(", ")),
            ));
        }
        found
    }
}

/// How many modules may pass a name on.
const DEPTH: usize = 8;

/// The nodes of the shortest way from a node back to itself.
fn shortest_circle<'g>(
    graph: &BTreeMap<&'g str, BTreeMap<&'g str, Edge>>,
    start: &'g str,
) -> Option<Vec<&'g str>> {
    let mut before: BTreeMap<&str, &str> = BTreeMap::new();
    let mut waiting = VecDeque::from([start]);
    while let Some(node) = waiting.pop_front() {
        for &next in graph.get(node).into_iter().flat_map(BTreeMap::keys) {
            if next == start {
                let mut circle = vec![node];
                let mut at = node;
                while at != start {
                    at = before.get(at)?;
                    circle.push(at);
                }
                circle.reverse();
                return Some(circle);
            }
            if next != start && !before.contains_key(next) {
                before.insert(next, node);
                waiting.push_back(next);
            }
        }
    }
    None
}

/// The module of a file, and whether it is a root: `table/slots` is `table::slots`.
fn module(inside: &str) -> (Vec<String>, bool) {
    let mut parts: Vec<String> = inside.split('/').map(str::to_owned).collect();
    if parts.len() == 1 && matches!(inside, "lib" | "main") {
        return (Vec::new(), true);
    }
    if parts.last().is_some_and(|last| last == "mod") {
        parts.pop();
    }
    (parts, false)
}
