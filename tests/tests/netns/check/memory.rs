//! Tests of `check` for tables that need more memory than the host or the control group has left.

use std::time::Duration;

use super::host::with_file;
use super::*;
use ikenat_tests::lab::cgroup::MemoryGroup;
use ikenat_tests::lab::process::Process;

pub(super) fn scenarios() -> Vec<Scenario> {
    const UNSHARE: &[&str] = &["unshare"];
    let test = |name, test| Scenario::new(name, test).with_programs(UNSHARE);
    vec![
        test("check_names_tables_larger_than_memory", host),
        test("check_names_tables_larger_than_a_control_group", group),
    ]
}

/// 256 MiB and more.
const LARGE: [&str; 4] = ["--flow-slots", "2097152", "--session-slots", "65536"];
/// 136 MiB: more than the half of 256, and less than leaves no room to start.
const HALF: [&str; 4] = ["--flow-slots", "1048576", "--session-slots", "65536"];
const MEMORY: (&str, Option<&str>) = ("memory", None);

/// The sizes that the command of a finding asks for.
fn proposed(found: &Finding) -> Result<Vec<&str>> {
    let words: Vec<&str> = found.fix.iter().flat_map(|line| line.split(' ')).collect();
    let of = |option| words.iter().position(|word| *word == option);
    let sizes = [of("--flow-slots"), of("--session-slots")];
    let sizes = sizes.iter().flatten().flat_map(|at| &words[*at..at + 2]);
    let sizes: Vec<&str> = sizes.copied().collect();
    ensure!(!sizes.is_empty(), "no sizes are proposed: {found:#?}");
    Ok(sizes)
}

fn host(lab: &Lab) -> Result<()> {
    const PATH: &str = "/proc/meminfo";
    const LITTLE: &str = "MemTotal: 524288 kB\nMemAvailable: 262144 kB\n";
    let look = |sizes: &[&str]| with_file(lab, PATH, LITTLE, "true", sizes);
    let findings = look(&LARGE)?;
    let found = expect(&findings, MEMORY, "error", &["256 MiB are available"])?;
    expect(
        &look(&proposed(&found)?)?,
        MEMORY,
        "ok",
        &["256 MiB are available"],
    )?;
    // More than half of the memory gives a warning.
    expect(&look(&HALF)?, MEMORY, "warning", &["256 MiB are available"])?;
    Ok(())
}

/// The control group has less memory than the host: a size that `check` calls too large does not
/// start in it, the proposed size does.
fn group(lab: &Lab) -> Result<()> {
    let group = MemoryGroup::of(lab);
    let ikenat = |verb: &str, mebibytes: u64, sizes: &[&str]| -> Result<Command> {
        let mut command = group.command(&lab.gateway, mebibytes << 20);
        command.arg(binary()?).arg(verb);
        command.args(&usual_arguments()[1..]).args(sizes);
        command.arg("--bpffs").arg(lab.bpffs());
        Ok(command)
    };
    let look = |mebibytes, sizes: &[&str]| findings_of(ikenat("check", mebibytes, sizes)?);
    // No tables are small enough for that.
    let found = expect(&look(72, &LARGE)?, MEMORY, "error", &["MiB are available"])?;
    ensure!(found.fix.is_empty(), "{found:#?}");

    let found = expect(&look(112, &LARGE)?, MEMORY, "error", &["MiB are available"])?;
    let left = found.message.split(' ').rev().nth(3).context("no number")?;
    ensure!((88..112).contains(&left.parse::<u64>()?), "{found:#?}");
    let output = ikenat("run", 112, &LARGE)?.output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.code() == Some(1) && said.contains("Cannot allocate memory"),
        "it ended with {}: {said}",
        output.status
    );
    let sizes = proposed(&found)?;
    expect(&look(112, &sizes)?, MEMORY, "ok", &["MiB are available"])?;
    let mut process = Process::spawn(&mut ikenat("run", 112, &sizes)?, lab.log("ikenat"))?;
    process.wait_for_log("ready: translating", Duration::from_secs(30))?;
    process.kill()?;
    group.remove()
}
