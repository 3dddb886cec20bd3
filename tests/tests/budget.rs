//! The verifier budget: `budget.json` records the number of instructions that the verifier
//! processes for each program, per kernel release, and the stack use of each function. A rise of 10
//! % fails the test; a change that needs more must update the file in the same commit.
//!
//! The stack use is computed from the object (`budget/stack.rs`), because the kernel reports it only in a log
//! that a successful load does not return, and only of what it reaches with one configuration.

#[path = "budget/stack.rs"]
mod stack;

use anyhow::{Context, Result, ensure};
use ikenat_tests::bpf::fixture::Services;
use ikenat_tests::bpf::{Dataplane, Object, fixture};
use ikenat_tests::kernel;
use ikenat_tests::suite::{not_root, test};
use libtest_mimic::{Arguments, Trial};
use std::collections::BTreeMap;
use std::process::{Command, ExitCode};

/// What is recorded.
#[derive(serde::Deserialize)]
struct Budget {
    /// Kernel release (major.minor; with the object's suffix for the second object) -> program ->
    /// instructions that the verifier processed.
    instructions: BTreeMap<String, BTreeMap<String, u32>>,
    /// Program -> bytes of stack in its own frame, or "calls" -> the maximum of the functions that
    /// it calls.
    stack: BTreeMap<String, u32>,
}

const RECORD: &str = include_str!("budget.json");
const PROGRAMS: [&str; 8] = [
    "ikenat_xdp_wan",
    "ikenat_xdp_lan",
    "ikenat_xdp_both",
    "ikenat_tc",
    "ikenat_egress",
    "ikenat_xdp_wan_several",
    "ikenat_xdp_lan_several",
    "ikenat_xdp_both_several",
];

/// The programs that serve these services, with their names in the record.
fn programs(services: Services) -> Vec<(&'static str, String)> {
    let is_used = |program: &&str| match services {
        Services::One => !program.ends_with("_several"),
        Services::Many | Services::Unpinned => {
            !program.contains("_xdp_") || program.ends_with("_several")
        }
    };
    let named = |program: &'static str| (program, format!("{program}{}", services.suffix()));
    PROGRAMS.into_iter().filter(is_used).map(named).collect()
}

/// The suffix of programs with [`fixture::with_everything`]: what the verifier does not reach costs nothing, and
/// has no stack either.
const EVERYTHING: &str = " (everything)";

/// Set for a child without CAP_PERFMON: it loads the second object and prints the result of
/// [`measured`] as JSON.
const CHILD: &str = "IKENAT_WITHOUT_PERFMON";

fn main() -> ExitCode {
    if std::env::var_os(CHILD).is_some() {
        return child();
    }
    let arguments = Arguments::from_args();
    let tests = match serde_json::from_str::<Budget>(RECORD) {
        Ok(budget) => tests(budget),
        Err(error) => {
            let name = "tests/tests/budget.json can be read";
            vec![test(name, None, || Err(error.into()))]
        }
    };
    libtest_mimic::run(&arguments, tests).exit_code()
}

fn tests(budget: Budget) -> Vec<Trial> {
    let frames = test("bytes of stack", None, move || stack::frames(&budget.stack));
    let chains = test("bytes of stack of callers and callees", None, stack::chains);
    let instructions = Object::ALL.map(|object| {
        let (major, minor) = kernel::version().unwrap_or_default();
        let record = format!("{major}.{minor}{}", object.suffix());
        let recorded = budget.instructions.get(&record).cloned();
        instructions(object, &record, recorded)
    });
    instructions.into_iter().chain([frames, chains]).collect()
}

fn instructions(object: Object, record: &str, recorded: Option<BTreeMap<String, u32>>) -> Trial {
    let unknown = recorded.is_none();
    let unknown = unknown.then(|| format!("no record for kernel {record}"));
    let obstacle = not_root().or_else(|| object.obstacle()).or(unknown);
    let suffix = object.suffix();
    let name = format!("instructions that the verifier processes{suffix}");
    test(&name, obstacle, move || {
        check_instructions(object, &recorded.unwrap_or_default())
    })
}

fn check(what: &str, measured: u32, recorded: Option<u32>) -> Result<()> {
    println!(
        "{what}: {measured} (recorded {})",
        recorded.unwrap_or_default()
    );
    let recorded = recorded.with_context(|| format!("{what}: {measured}, and no record of it"))?;
    ensure!(
        u64::from(measured) * 10 <= u64::from(recorded) * 11,
        "{what}: {measured}, more than 10 % above the record of {recorded}; if that is meant, change \
         tests/tests/budget.json in the same commit"
    );
    Ok(())
}

/// What the verifier processed for each program of an object, in this process.
fn measured(object: Object) -> Result<BTreeMap<String, u32>> {
    let mut found = BTreeMap::new();
    for (services, everything) in [
        (Services::One, false),
        (Services::One, true),
        (Services::Many, false),
        (Services::Many, true),
    ] {
        let of = |config| {
            let config = services.of(config);
            if everything {
                fixture::with_everything(config)
            } else {
                config
            }
        };
        let two_armed = Dataplane::load_object(object, &of(fixture::config()))?;
        let one_armed = fixture::one_armed(fixture::config());
        let one_armed = Dataplane::load_object(object, &of(one_armed))?;
        for (program, name) in programs(services) {
            let dataplane = if program.starts_with("ikenat_xdp_both") {
                &one_armed
            } else {
                &two_armed
            };
            let suffix = if everything { EVERYTHING } else { "" };
            let name = format!("{name}{suffix}");
            found.insert(name, dataplane.verified_instructions(program)?);
        }
    }
    Ok(found)
}

fn child() -> ExitCode {
    let json =
        measured(Object::WithoutPerfmon).and_then(|found| Ok(serde_json::to_string(&found)?));
    match json {
        Ok(text) => {
            println!("{text}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The same in a process that has CAP_BPF and CAP_NET_ADMIN and nothing else.
fn measured_without_perfmon() -> Result<BTreeMap<String, u32>> {
    let program = std::env::current_exe().context("failed to find this program")?;
    let output = Command::new("setpriv")
        .args(["--inh-caps=-all", "--bounding-set=-all,+bpf,+net_admin"])
        .arg(program)
        .env(CHILD, "1")
        .output()
        .context("failed to start setpriv")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "refused without CAP_PERFMON: {said}"
    );
    serde_json::from_slice(&output.stdout).context("failed to read what the child measured")
}

fn check_instructions(object: Object, recorded: &BTreeMap<String, u32>) -> Result<()> {
    let measured = match object {
        Object::Usual => measured(object)?,
        Object::WithoutPerfmon => measured_without_perfmon()?,
    };
    let mut outcome = Ok(());
    for (program, measured) in measured {
        let of_one = check(
            &format!("{program}{}: instructions", object.suffix()),
            measured,
            recorded.get(&program).copied(),
        );
        outcome = outcome.and(of_one);
    }
    outcome
}
