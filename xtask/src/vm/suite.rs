//! The tests of behaviour under stock kernels: which binaries there are, and the command
//! by which a guest runs them.

use std::{env, path::PathBuf, process::Command};

use anyhow::{Context as _, Result, bail};

use super::kernel::Series;
use crate::{build::FAILPOINTS, packages, shell, workspace::Workspace};

/// What a guest runs of one test binary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Part {
    name: &'static str,
    /// Only the tests with this in their names.
    filter: Option<&'static str>,
    /// One test at a time: tests that wait for packets would compete for the emulated CPUs.
    turns: bool,
}

impl Part {
    const fn whole(name: &'static str) -> Self {
        Self {
            name,
            filter: None,
            turns: false,
        }
    }

    const fn in_turns(self) -> Self {
        Self {
            turns: true,
            ..self
        }
    }

    const fn only(self, filter: &'static str) -> Self {
        Self {
            filter: Some(filter),
            ..self
        }
    }
}

/// Load, verifier and packets, and the tests that only a guest can run: a minute, so
/// that every run of the tests includes them.
pub(crate) const QUICK: [Part; 3] = [
    Part::whole("budget"),
    Part::whole("golden"),
    Part::whole("netns").in_turns().only(GUEST),
];

/// And the gateway as a whole, in its namespaces: minutes, because each instruction is emulated.
pub(crate) const ALL: [Part; 4] = [
    Part::whole("budget"),
    Part::whole("golden"),
    Part::whole("netns").in_turns(),
    Part::whole("ike").in_turns(),
];

/// The end of the names of tests that use a guest's network cards or kernel (`Scenario::in_a_guest` of the tests).
const GUEST: &str = "@guest";

/// The options of a kernel that behaves differently, and the tests for it.
pub(crate) struct Special {
    /// For the kernel's command line.
    pub(crate) append: &'static str,
    /// Set in the guest.
    variable: &'static str,
    /// What runs.
    pub(crate) parts: [Part; 1],
}

/// A CPU without a regular tick: such kernels refuse `membarrier`.
pub(crate) const NOHZ_FULL: Special = Special {
    append: "nohz_full=1",
    variable: "IKENAT_TEST_NOHZ_FULL=1",
    parts: [Part::whole("netns").in_turns().only("@nohz_full")],
};

/// What a run of them is called: `budget, golden, netns @guest`.
pub(crate) fn title(parts: &[Part]) -> String {
    let name = |part: &Part| match part.filter {
        Some(filter) => format!("{} {filter}", part.name),
        None => part.name.to_owned(),
    };
    parts.iter().map(name).collect::<Vec<_>>().join(", ")
}

/// Why no guest can be started here, if so.
pub(crate) fn obstacle() -> Option<String> {
    if !packages::is_debian() {
        return Some(
            "stock kernels come from Debian's packages, and this is not Debian".to_owned(),
        );
    }
    (env::consts::ARCH != "x86_64").then(|| "the guests are x86-64".to_owned())
}

/// A test binary, and what of it runs.
pub(crate) struct Binary {
    path: PathBuf,
    part: Part,
}

/// The test binaries of these parts, built if they are not.
pub(crate) fn binaries(workspace: &Workspace, parts: &[Part]) -> Result<Vec<Binary>> {
    let mut cargo = workspace.cargo();
    cargo.args(["test", "-p", "ikenat-tests", "--no-run"]);
    cargo.args(FAILPOINTS);
    cargo.arg("--message-format=json-render-diagnostics");
    for part in parts {
        cargo.args(["--test", part.name]);
    }
    let text = shell::line(&cargo);
    let built = cargo
        .stderr(std::process::Stdio::inherit())
        .output()
        .with_context(|| format!("failed to start `{text}`"))?;
    if !built.status.success() {
        bail!("`{text}` failed ({})", built.status);
    }
    let said = String::from_utf8_lossy(&built.stdout);
    let find = |part: &Part| {
        let path = executable(&said, part.name)
            .with_context(|| format!("`{text}` names no executable for {}", part.name))?;
        Ok(Binary { path, part: *part })
    };
    parts.iter().map(find).collect()
}

/// The executable of a test in cargo's messages: `"executable":"/.../deps/<name>-<hash>"`.
fn executable(said: &str, name: &str) -> Option<PathBuf> {
    said.lines()
        .filter_map(|line| {
            let (_, rest) = line.split_once("\"executable\":\"")?;
            Some(PathBuf::from(rest.split_once('"')?.0))
        })
        .find(|path| {
            let file = path.file_name().unwrap_or_default().to_string_lossy();
            file.rsplit_once('-').is_some_and(|(stem, _)| stem == name)
        })
}

/// The command that runs the binaries, one after the other, in a guest; it fails when one of them does.
/// It is this program again, so that what the guest prints can be read along.
pub(crate) fn recipe(
    workspace: &Workspace,
    series: Series,
    binaries: &[Binary],
    special: Option<&Special>,
) -> Result<Command> {
    let program = env::current_exe().context("failed to find this program")?;
    let mut command = shell::dying_with_us(&program);
    command.args(["vm", "--kernel", series.name(), "--timeout", TIMEOUT]);
    if let Some(special) = special {
        command.args(["--append", special.append, "--env", special.variable]);
    }
    let objects = workspace.target("bpf");
    // The manifest directory of the tests is in their binaries, in paths such as `../target`.
    let tests = workspace.root().join("tests/Cargo.toml");
    let ikenat = workspace.target("debug/ikenat");
    for path in [&*objects, &*tests, &*ikenat]
        .into_iter()
        .chain(binaries.iter().map(|binary| &*binary.path))
    {
        command.arg("--with").arg(path);
    }
    // Not one of the lab's variables on the host: there it would have xdp-user built again.
    let object = ("IKENAT_BPF_OBJECT", objects.join("ikenat.o"));
    for (name, value) in workspace.lab_variables().into_iter().chain([object]) {
        command
            .arg("--env")
            .arg(format!("{name}={}", value.display()));
    }
    command.arg("--env").arg(format!("IKENAT_TEST_RATE={RATE}"));
    // Nothing else depends on the guest's clock, network cards or kernel.
    for variable in ["IKENAT_TEST_WALL_CLOCK=1", "IKENAT_TEST_GUEST=1"] {
        command.arg("--env").arg(variable);
    }
    command.args(["--", "sh", "-c"]).arg(script(binaries));
    Ok(command)
}

/// Packets a second of the tests with load: what a machine that emulates each instruction can send.
const RATE: u32 = 500;

/// In seconds. All of the suite takes a quarter of an hour when other things run beside it.
const TIMEOUT: &str = "3600";

/// A filter that fits no test would run nothing, which would look like a pass.
fn script(binaries: &[Binary]) -> String {
    let run = |Binary { path, part }: &Binary| {
        let mut line = shell::quoted(&path.to_string_lossy());
        let mut looked = String::new();
        if let Some(filter) = part.filter {
            line.push_str(&format!(" {}", shell::quoted(filter)));
            looked = format!(
                "{line} --list | grep -q ': test$' || {{ echo no test is called {filter} >&2; status=1; }}\n"
            );
        }
        let turns = if part.turns { " --test-threads=1" } else { "" };
        format!("{looked}{line}{turns} || status=1\n")
    };
    let runs: String = binaries.iter().map(run).collect();
    format!("status=0\n{runs}exit $status")
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _};

    use super::*;

    #[test]
    fn cargos_messages_name_the_executable() {
        let said = "{\"reason\":\"compiler-artifact\",\"executable\":null,\"fresh\":true}\n\
                    {\"reason\":\"compiler-artifact\",\"executable\":\"/t/deps/golden-0a\",\"fresh\":true}\n\
                    {\"reason\":\"build-finished\",\"success\":true}\n";
        assert_eq!(executable(said, "golden"), Some("/t/deps/golden-0a".into()));
        assert_eq!(executable(said, "gold"), None);
    }

    #[test]
    fn every_binary_runs_and_one_failure_counts() {
        let binary = |path: &str, part: Part| Binary {
            path: path.into(),
            part,
        };
        let ended = |script: &str| {
            let status = Command::new("sh").args(["-c", script]).status();
            status.expect("sh starts").code()
        };
        let whole = Part::whole("x");
        let ran = |paths: &[&str]| {
            let binaries: Vec<Binary> = paths.iter().map(|path| binary(path, whole)).collect();
            ended(&script(&binaries))
        };
        assert_eq!(ran(&["true", "false", "true"]), Some(1));
        assert_eq!(ran(&["true", "true"]), Some(0));
        let turns = script(&[binary("a b", whole.in_turns())]);
        assert!(turns.contains("\n'a b' --test-threads=1 ||"));
        // `true` lists no tests.
        assert_eq!(ended(&script(&[binary("true", whole.only("y"))])), Some(1));
        let lists = env::temp_dir().join(format!("xtask-suite-{}", std::process::id()));
        let text = "#!/bin/sh\n[ \"$1 $2\" != 'y --list' ] || echo 'xyz: test'\n";
        let made = fs::write(&lists, text)
            .and_then(|()| fs::set_permissions(&lists, fs::Permissions::from_mode(0o755)));
        let listed = ended(&script(&[binary(
            &lists.to_string_lossy(),
            whole.only("y"),
        )]));
        fs::remove_file(&lists).expect("the file was made");
        made.expect("a file is made");
        assert_eq!(listed, Some(0));
    }

    #[test]
    fn a_title_says_what_of_a_binary_runs() {
        assert_eq!(title(&QUICK), "budget, golden, netns @guest");
        assert_eq!(title(&ALL), "budget, golden, netns, ike");
    }
}
