//! `cargo xtask bench`: builds what the benchmark needs and starts it. Also runs layer A's gate as a part of
//! the tests.

use std::{
    fs,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::Command,
    str::FromStr,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};

use crate::{
    build::FAILPOINTS,
    report::{self, Outcome, Summary},
    setup::Toolchain,
    shell,
    vm::{self, Series, suite},
    workspace::{Workspace, is_root},
};

/// The kernel of layer A.
const KERNEL: Series = Series::V6_12;

/// The gate's part of a test run, and its filter.
pub(crate) const GATE: &str = "gate";

/// What is measured, and what becomes of it.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Only this layer (repeatable): a, instructions in an emulated machine; b, the program alone; c, end to end
    #[arg(long, value_name = "LAYER")]
    layer: Vec<Layer>,
    /// Fewer cases and shorter rounds: some minutes in all
    #[arg(long)]
    quick: bool,
    /// Only rows whose label contains this word (`esp-in-udp inbound`, `nft`, `table ikenat`)
    #[arg(long, value_name = "WORD")]
    only: Option<String>,
    /// Keep the raw figures under this name, for `--compare`
    #[arg(long, value_name = "NAME")]
    save: Option<Name>,
    /// Show what changed since the figures of this name
    #[arg(long, value_name = "NAME")]
    compare: Option<Name>,
    /// Only layer B: measure this older object of ikenat in turns with that of this tree, and show the ratio
    #[arg(long, value_name = "FILE", conflicts_with_all = ["compare", "gate", "record"])]
    against: Option<PathBuf>,
    /// Check layer A against the committed record: fails when a figure has risen by more than 1 %
    #[arg(long, conflicts_with_all = ["quick", "only", "save", "compare", "record"])]
    gate: bool,
    /// Write layer A's figures into the committed record
    #[arg(long, conflicts_with_all = ["quick", "only", "save", "compare"])]
    record: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Layer {
    A,
    B,
    C,
}

impl Layer {
    const fn name(self) -> &'static str {
        match self {
            Self::A => "a",
            Self::B => "b",
            Self::C => "c",
        }
    }
}

/// The name of a kept run: part of a file's name.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Name(String);

impl FromStr for Name {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        if text.is_empty() || text.starts_with(['.', '-']) || !text.chars().all(plain) {
            return Err(
                "a name has letters, digits, `-`, `_` and `.`, and begins with a letter, a digit or `_`"
                    .to_owned(),
            );
        }
        Ok(Self(text.to_owned()))
    }
}

impl Arguments {
    fn has(&self, layer: Layer) -> bool {
        if self.against.is_some() {
            return layer == Layer::B;
        }
        self.layer.is_empty() || self.layer.contains(&layer)
    }

    /// Refuses what cannot be done, before anything is built.
    fn check(&self, saved: &Path) -> Result<()> {
        if (self.gate || self.record) && self.layer.iter().any(|layer| *layer != Layer::A) {
            bail!("--gate and --record are about layer A: leave out the other --layer");
        }
        if self.against.is_some() && self.layer.iter().any(|layer| *layer != Layer::B) {
            bail!("--against is about layer B: leave out the other --layer");
        }
        if let Some(path) = &self.against
            && !path.is_file()
        {
            bail!(
                "{} is no file: --against names an object that `cargo xtask build` has made from an older \
                 commit (target/bpf/ikenat.o of its tree)",
                path.display()
            );
        }
        if !is_root() {
            bail!(
                "the benchmark makes network namespaces and loads BPF programs, which only root may do: \
                 run it as root"
            );
        }
        if let Some(name) = &self.compare
            && !file(saved, name).is_file()
        {
            bail!("{}", unknown(name, saved));
        }
        Ok(())
    }
}

fn file(saved: &Path, name: &Name) -> PathBuf {
    saved.join(format!("{}.json", name.0))
}

fn unknown(name: &Name, saved: &Path) -> String {
    let mut names: Vec<String> = fs::read_dir(saved)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            Some(name.strip_suffix(".json")?.to_owned())
        })
        .collect();
    names.sort_unstable();
    let there = if names.is_empty() {
        "none is saved yet: run `cargo xtask bench --save NAME` first".to_owned()
    } else {
        format!("saved are: {}", names.join(", "))
    };
    format!("no run is saved as `{}`; {there}", name.0)
}

/// Builds everything, then replaces this process by the benchmark. Returns only on failure.
pub(crate) fn run(
    workspace: &Workspace,
    arguments: &Arguments,
    objects: impl FnOnce() -> Result<Toolchain>,
) -> Result<()> {
    let saved = workspace.target("bench/saved");
    arguments.check(&saved)?;
    let tools = objects()?;
    binaries(workspace)?;
    let gate = arguments.gate || arguments.record;
    if gate || arguments.has(Layer::A) {
        if let Some(reason) = suite::obstacle() {
            bail!("layer A cannot run here: {reason}; choose with --layer b --layer c");
        }
        vm::fetch(workspace, KERNEL)?;
    }
    let mut command = program(workspace);
    if gate {
        gate_arguments(workspace, &tools, &mut command);
        command.args(arguments.record.then_some("--record"));
    } else {
        run_arguments(workspace, arguments, &saved, &mut command);
    }
    boot_arguments(workspace, &mut command)?;
    // Replaces this process: Ctrl-C then reaches one process, and the prompt returns after its clean-up.
    let error = command.exec();
    Err(error).with_context(|| format!("failed to start `{}`", shell::line(&command)))
}

/// Layer A's gate among the tests.
pub(crate) fn gate(workspace: &Workspace, tools: &Toolchain, summary: &mut Summary) -> Result<()> {
    let title = "gate of layer A";
    let obstacle = suite::obstacle().or_else(|| (!is_root()).then(|| "it needs root".to_owned()));
    if let Some(reason) = obstacle {
        summary.add(title, Outcome::Skipped { reason }, Duration::ZERO);
        return Ok(());
    }
    binaries(workspace)?;
    vm::fetch(workspace, KERNEL)?;
    let mut command = program(workspace);
    gate_arguments(workspace, tools, &mut command);
    boot_arguments(workspace, &mut command)?;
    report::run(title, command, None, summary)
}

fn binaries(workspace: &Workspace) -> Result<()> {
    let mut cargo = workspace.cargo();
    cargo.arg("build");
    for package in ["xdp-user", "ikenat-tests", "ikenat-bench"] {
        cargo.args(["-p", package]);
    }
    shell::run(cargo.arg("--bins").args(FAILPOINTS))
}

fn program(workspace: &Workspace) -> Command {
    let mut command = Command::new(workspace.target("debug/ikenat-bench"));
    command.current_dir(workspace.root());
    command
        .envs(workspace.lab_variables())
        .env("IKENAT_BPF_OBJECT", object(workspace));
    command
}

/// The object to measure: this tree's, or another one named by the user for comparison.
fn object(workspace: &Workspace) -> PathBuf {
    let named = std::env::var_os("IKENAT_BPF_OBJECT").map(PathBuf::from);
    named.unwrap_or_else(|| workspace.target("bpf/ikenat.o"))
}

fn run_arguments(
    workspace: &Workspace,
    arguments: &Arguments,
    saved: &Path,
    command: &mut Command,
) {
    command.arg("run");
    for layer in [Layer::A, Layer::B, Layer::C] {
        if arguments.has(layer) {
            command.args(["--layer", layer.name()]);
        }
    }
    command.args(arguments.quick.then_some("--quick"));
    if let Some(word) = &arguments.only {
        command.arg(format!("--only={word}"));
    }
    command.arg("--results").arg(workspace.target("bench"));
    for (option, name) in [
        ("--save", &arguments.save),
        ("--compare", &arguments.compare),
    ] {
        if let Some(name) = name {
            command.arg(option).arg(file(saved, name));
        }
    }
    if let Some(path) = &arguments.against {
        // The benchmark runs in the root of this tree.
        command.arg("--against");
        command.arg(std::path::absolute(path).unwrap_or_else(|_| path.clone()));
    }
    let typed: Vec<String> = std::env::args().skip(1).collect();
    let mut line = Command::new("cargo");
    line.arg("xtask").args(typed);
    command.arg("--command").arg(shell::line(&line));
}

fn gate_arguments(workspace: &Workspace, tools: &Toolchain, command: &mut Command) {
    command.arg("gate");
    command
        .arg("--file")
        .arg(workspace.root().join("tests/bench/instructions.json"));
    // What decides the code besides the sources: the compiler, and the LLVM that the linker optimizes with.
    command.arg("--compiler").arg(format!(
        "rustc 1.{}, LLVM {}",
        tools.compiler.minor, tools.linker.llvm
    ));
}

/// The command that boots a machine, word by word; the benchmark adds the file for its output, and what runs there.
fn boot_arguments(workspace: &Workspace, command: &mut Command) -> Result<()> {
    let program = std::env::current_exe().context("failed to find this program")?;
    let mut boot = shell::dying_with_us(&program);
    boot.args(["vm", "--deterministic", "--kernel", KERNEL.name()]);
    let mut objects = vec![workspace.target("bpf")];
    let object = object(workspace);
    if object.parent() != Some(&*objects[0]) {
        objects.extend(object.parent().map(Path::to_path_buf));
    }
    for path in objects {
        boot.arg("--with").arg(path);
    }
    let variables = workspace.lab_variables();
    for (name, value) in variables.into_iter().chain([("IKENAT_BPF_OBJECT", object)]) {
        boot.arg("--env").arg(format!("{name}={}", value.display()));
    }
    let words = [boot.get_program()].into_iter().chain(boot.get_args());
    for word in words {
        command.arg("--boot").arg(word);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        arguments: Arguments,
    }

    fn parse(words: &str) -> Result<Arguments, String> {
        Cli::try_parse_from(["bench"].into_iter().chain(words.split_whitespace()))
            .map(|cli| cli.arguments)
            .map_err(|error| error.to_string())
    }

    #[test]
    fn layers_are_all_or_those_named() {
        let all = parse("--quick").expect("no layer is needed");
        assert!(all.has(Layer::A) && all.has(Layer::B) && all.has(Layer::C));
        let two = parse("--layer a --layer c").expect("layers are repeatable");
        assert!(two.has(Layer::A) && !two.has(Layer::B) && two.has(Layer::C));
    }

    #[test]
    fn bad_options_are_refused() {
        for (words, expected) in [
            ("--layer d", "invalid value 'd'"),
            ("--compare", "a value is required"),
            ("--save ../x", "a name has letters"),
            ("--save .x", "a name has letters"),
            ("--gate --quick", "cannot be used with"),
            ("--gate --record", "cannot be used with"),
            ("--gate --against x.o", "cannot be used with"),
        ] {
            let error = parse(words).expect_err(words);
            assert!(error.contains(expected), "{words}: {error}");
        }
        let other = parse("--against x.o --layer a").expect("clap knows nothing of layers");
        let error = other.check(Path::new("x")).expect_err("it is layer B's");
        assert!(error.to_string().contains("about layer B"), "{error}");
        let missing = parse("--against /nowhere/ikenat.o").expect("clap does not look");
        assert!(missing.has(Layer::B) && !missing.has(Layer::A));
        let error = missing.check(Path::new("x")).expect_err("no file");
        assert!(
            error.to_string().contains("/nowhere/ikenat.o is no file"),
            "{error}"
        );
        let other = parse("--layer b --gate").expect("clap knows nothing of layers");
        let error = other
            .check(Path::new("x"))
            .expect_err("the gate is layer A's");
        assert!(error.to_string().contains("about layer A"), "{error}");
    }

    #[test]
    fn an_unknown_name_lists_the_saved_ones() {
        let saved = std::env::temp_dir().join(format!("xtask-saved-{}", std::process::id()));
        let name = Name("nightly".to_owned());
        let none = unknown(&name, &saved);
        let made = fs::create_dir(&saved).and_then(|()| {
            fs::write(saved.join("b.json"), "")?;
            fs::write(saved.join("a.json"), "")?;
            fs::write(saved.join("notes"), "")
        });
        let some = unknown(&name, &saved);
        let there = file(&saved, &Name("a".to_owned())).is_file();
        fs::remove_dir_all(&saved).expect("the directory was made");
        made.expect("files can be written");
        assert!(there);
        assert!(none.contains("`nightly`; none is saved yet"), "{none}");
        assert!(some.ends_with("saved are: a, b"), "{some}");
    }
}
