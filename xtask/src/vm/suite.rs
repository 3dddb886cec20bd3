//! The tests of behaviour under stock kernels: which binaries there are, and how a guest is told to run them.
//! Knows names of binaries; knows no test.

use std::{env, path::PathBuf, process::Command};

use anyhow::{Context as _, Result, bail};

use super::Series;
use crate::{packages, shell, test, workspace::Workspace};

/// Load, verifier and packets: seconds. Fits every run of the tests.
pub(crate) const QUICK: [&str; 2] = ["budget", "golden"];

/// And the gateway as a whole, in its namespaces: minutes, because each instruction is emulated.
pub(crate) const ALL: [&str; 4] = ["budget", "golden", "netns", "ike"];

/// Why no guest can be started here, if so.
pub(crate) fn obstacle() -> Option<String> {
    if !packages::is_debian() {
        return Some(
            "stock kernels come from Debian's packages, and this is not Debian".to_owned(),
        );
    }
    (env::consts::ARCH != "x86_64").then(|| "the guests are x86-64".to_owned())
}

/// A test binary.
pub(crate) struct Binary {
    path: PathBuf,
    /// Its trials take turns: those that wait for packets would take the emulated CPUs from each other.
    turns: bool,
}

/// The test binaries of these names, built if they are not.
pub(crate) fn binaries(workspace: &Workspace, names: &[&str]) -> Result<Vec<Binary>> {
    let mut cargo = workspace.cargo();
    cargo.args(["test", "-p", "ikenat-tests", "--no-run"]);
    cargo.arg("--message-format=json-render-diagnostics");
    for name in names {
        cargo.args(["--test", name]);
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
    let find = |name: &&str| {
        let path = executable(&said, name)
            .with_context(|| format!("`{text}` names no executable for {name}"))?;
        let turns = !QUICK.contains(name);
        Ok(Binary { path, turns })
    };
    names.iter().map(find).collect()
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
) -> Result<Command> {
    let program = env::current_exe().context("failed to find this program")?;
    let mut command = shell::dying_with_us(&program);
    command.args(["vm", "--kernel", series.name(), "--timeout", TIMEOUT]);
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
    for (name, value) in test::lab_variables(workspace).into_iter().chain([object]) {
        command
            .arg("--env")
            .arg(format!("{name}={}", value.display()));
    }
    command.arg("--env").arg(format!("IKENAT_TEST_RATE={RATE}"));
    // Nobody else goes by the guest's clock.
    command.arg("--env").arg("IKENAT_TEST_WALL_CLOCK=1");
    command.args(["--", "sh", "-c"]).arg(script(binaries));
    Ok(command)
}

/// Packets a second of the trials with load: what a machine that emulates each instruction can send.
const RATE: u32 = 500;

/// In seconds. All of the suite takes a quarter of an hour when other things run beside it.
const TIMEOUT: &str = "3600";

fn script(binaries: &[Binary]) -> String {
    let run = |Binary { path, turns }: &Binary| {
        let path = shell::quoted(&path.to_string_lossy());
        let turns = if *turns { " --test-threads=1" } else { "" };
        format!("{path}{turns} || status=1\n")
    };
    let runs: String = binaries.iter().map(run).collect();
    format!("status=0\n{runs}exit $status")
}

#[cfg(test)]
mod tests {
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
        let binary = |path: &str| Binary {
            path: path.into(),
            turns: false,
        };
        let ran = |paths: &[&str]| {
            let binaries: Vec<Binary> = paths.iter().map(|path| binary(path)).collect();
            let script = script(&binaries);
            let status = Command::new("sh").args(["-c", &script]).status();
            status.expect("sh starts").code()
        };
        assert_eq!(ran(&["true", "false", "true"]), Some(1));
        assert_eq!(ran(&["true", "true"]), Some(0));
        let turns = Binary {
            turns: true,
            ..binary("a b")
        };
        assert!(script(&[turns]).contains("\n'a b' --test-threads=1 ||"));
    }
}
