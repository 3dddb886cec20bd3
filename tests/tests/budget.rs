//! The verifier budget: `budget.json` records the number of instructions that the verifier
//! processes for each program, per kernel release, and the stack use of each function. A rise of 10
//! % fails the test; a change that needs more must update the file in the same commit.
//!
//! The test computes the stack use from the object, because the kernel reports it only in a log
//! that a successful load does not return.

use anyhow::{Context, Result, bail, ensure};
use ikenat_tests::bpf::fixture::Services;
use ikenat_tests::bpf::{Dataplane, Object, fixture};
use ikenat_tests::kernel;
use ikenat_tests::suite::{not_root, test};
use libtest_mimic::{Arguments, Trial};
use object::{Object as _, ObjectSection as _, ObjectSymbol as _, SymbolKind};
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
    let stack = test("bytes of stack", None, move || check_stack(&budget.stack));
    let instructions = Object::ALL.map(|object| {
        let (major, minor) = kernel::version().unwrap_or_default();
        let record = format!("{major}.{minor}{}", object.suffix());
        let recorded = budget.instructions.get(&record).cloned();
        instructions(object, &record, recorded)
    });
    instructions.into_iter().chain([stack]).collect()
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
    let recorded = recorded.with_context(|| format!("{what}: {measured}, and no record of it"))?;
    println!("{what}: {measured} (recorded {recorded})");
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
    for services in Services::ALL {
        let config = services.of(fixture::config());
        let two_armed = Dataplane::load_object(object, &config)?;
        let config = services.of(fixture::one_armed(fixture::config()));
        let one_armed = Dataplane::load_object(object, &config)?;
        for (program, name) in programs(services) {
            let dataplane = if program.starts_with("ikenat_xdp_both") {
                &one_armed
            } else {
                &two_armed
            };
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

fn check_stack(recorded: &BTreeMap<String, u32>) -> Result<()> {
    let path = Object::Usual.path()?;
    let bytes =
        std::fs::read(&path).with_context(|| format!("failed to read {}", path.display()))?;
    let file = object::File::parse(&*bytes)?;
    let mut measured: BTreeMap<String, u32> = BTreeMap::new();
    for symbol in file
        .symbols()
        .filter(|symbol| symbol.kind() == SymbolKind::Text)
    {
        let index = symbol
            .section_index()
            .context("failed to find a function's section")?;
        let section = file.section_by_index(index)?;
        let code = section
            .data_range(symbol.address(), symbol.size())?
            .context("failed to read a function's code")?;
        let name = symbol.name()?;
        let name = if PROGRAMS.contains(&name) {
            name
        } else {
            "calls"
        };
        let depth = measured.entry(name.to_owned()).or_default();
        *depth = (*depth).max(stack_of(code));
    }
    for program in PROGRAMS {
        if !measured.contains_key(program) {
            bail!("{} holds no function {program}", path.display());
        }
    }
    for (name, depth) in measured {
        check(
            &format!("{name}: bytes of stack"),
            depth,
            recorded.get(&name).copied(),
        )?;
    }
    Ok(())
}

/// The lowest address below the frame pointer (register 10) that a function uses: in loads and
/// stores, and in addresses that it computes (RFC 9669 section 3: opcode, registers, offset,
/// immediate).
fn stack_of(code: &[u8]) -> u32 {
    const FRAME_POINTER: u8 = 10;
    const LDX: u8 = 1;
    const ST: u8 = 2;
    const STX: u8 = 3;
    const MOV64_REGISTER: u8 = 0xbf;
    const ADD64_IMMEDIATE: u8 = 0x07;
    let mut deepest = 0;
    let mut copied_to = None;
    for instruction in code.chunks_exact(8) {
        let (opcode, registers) = (instruction[0], instruction[1]);
        let (to, from) = (registers & 15, registers >> 4);
        let offset = i16::from_le_bytes([instruction[2], instruction[3]]);
        let immediate = i32::from_le_bytes([
            instruction[4],
            instruction[5],
            instruction[6],
            instruction[7],
        ]);
        let base = match opcode & 7 {
            LDX => Some(from),
            ST | STX => Some(to),
            _ => None,
        };
        if base == Some(FRAME_POINTER) && offset < 0 {
            deepest = deepest.max(u32::from(offset.unsigned_abs()));
        }
        if opcode == ADD64_IMMEDIATE && copied_to == Some(to) && immediate < 0 {
            deepest = deepest.max(immediate.unsigned_abs());
        }
        copied_to = (opcode == MOV64_REGISTER && from == FRAME_POINTER).then_some(to);
    }
    deepest
}
