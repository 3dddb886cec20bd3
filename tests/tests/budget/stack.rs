//! The stack of the programs: of each function, and of every chain of calls.

use super::{PROGRAMS, check};
use anyhow::{Context, Result, bail, ensure};
use ikenat_tests::bpf::Object;
use object::{
    Object as _, ObjectSection as _, ObjectSymbol as _, RelocationTarget, SectionIndex, Symbol,
    SymbolKind,
};
use std::collections::{BTreeMap, HashMap};

/// Where a function is: its section and its address there.
type Place = (SectionIndex, u64);

/// A function of an object.
struct Function {
    name: String,
    /// The bytes of its own stack.
    frame: u32,
    /// The functions that it calls.
    callees: Vec<Place>,
}

/// What the verifier allows a program and all that it calls (MAX_BPF_STACK in `linux/filter.h`).
const LIMIT: u32 = 512;
/// To a multiple of this it rounds each frame up, and an empty one counts as one byte
/// (`check_max_stack_depth` in kernel/bpf/verifier.c of Linux 6.1; newer ones round to 16 where a JIT may).
const ROUNDED_TO: u32 = 32;

/// The frame of each program, and the largest one of the functions that they call.
///
/// # Errors
/// One is larger than its record allows.
pub(super) fn frames(recorded: &BTreeMap<String, u32>) -> Result<()> {
    let functions = functions(Object::Usual)?;
    let mut measured: BTreeMap<&str, u32> = BTreeMap::new();
    for function in functions.values() {
        let name = PROGRAMS
            .into_iter()
            .find(|program| function.name == *program);
        let frame = measured.entry(name.unwrap_or("calls")).or_default();
        *frame = (*frame).max(function.frame);
    }
    for (name, frame) in measured {
        let what = format!("{name}: bytes of stack");
        check(&what, frame, recorded.get(name).copied())?;
    }
    Ok(())
}

/// No chain of calls needs more than the verifier allows, whatever the configuration.
///
/// # Errors
/// One does.
pub(super) fn chains() -> Result<()> {
    for object in Object::ALL {
        let functions = functions(object)?;
        for program in PROGRAMS {
            let place = functions
                .iter()
                .find(|(_, function)| function.name == program);
            let Some((place, _)) = place else {
                bail!("{} holds no function {program}", object.path()?.display());
            };
            let (depth, chain) = deepest(&functions, *place)?;
            println!(
                "{program}{}: {depth} bytes of stack with all calls",
                object.suffix()
            );
            ensure!(
                depth <= LIMIT,
                "{depth} bytes of stack, more than {LIMIT}: {}",
                chain.join(", ")
            );
        }
    }
    Ok(())
}

/// The deepest chain of calls from a function on: its bytes, and the functions with theirs. There is no recursion,
/// which the verifier refuses.
fn deepest(functions: &HashMap<Place, Function>, place: Place) -> Result<(u32, Vec<String>)> {
    let function = functions
        .get(&place)
        .context("a call leads into no function")?;
    let frame = function.frame.max(1).next_multiple_of(ROUNDED_TO);
    let mut found = (0, Vec::new());
    for callee in &function.callees {
        let chain = deepest(functions, *callee)?;
        if chain.0 > found.0 {
            found = chain;
        }
    }
    found.0 += frame;
    found.1.insert(0, format!("{} {frame}", function.name));
    Ok(found)
}

fn functions(object: Object) -> Result<HashMap<Place, Function>> {
    let path = object.path()?;
    let bytes =
        std::fs::read(&path).with_context(|| format!("failed to read {}", path.display()))?;
    let file = object::File::parse(&*bytes)?;
    let is_function = |symbol: &Symbol| symbol.kind() == SymbolKind::Text;
    let of = |symbol: Symbol| function_of(&file, &symbol);
    file.symbols().filter(is_function).map(of).collect()
}

fn function_of(file: &object::File, symbol: &Symbol) -> Result<(Place, Function)> {
    let index = symbol
        .section_index()
        .context("failed to find a function's section")?;
    let section = file.section_by_index(index)?;
    let (address, end) = (symbol.address(), symbol.address() + symbol.size());
    let code = section
        .data_range(address, symbol.size())?
        .context("failed to read a function's code")?;
    // Calls within a section have no relocation.
    let mut calls: BTreeMap<u64, Place> = instructions(code)
        .filter(|(_, instruction)| is_call(instruction))
        .map(|(at, instruction)| {
            let target = i64::from(immediate(instruction)) * 8 + 8;
            (
                address + at,
                (index, (address + at).wrapping_add_signed(target)),
            )
        })
        .collect();
    for (at, relocation) in section.relocations() {
        let RelocationTarget::Symbol(target) = relocation.target() else {
            continue;
        };
        let Some(call) = calls.get_mut(&at).filter(|_| (address..end).contains(&at)) else {
            continue;
        };
        let target = file.symbol_by_index(target)?;
        let section = target
            .section_index()
            .context("a call leads out of the object")?;
        let instruction = &code[usize::try_from(at - address)?..];
        // Against a section, the immediate has the place in it.
        let within = if target.kind() == SymbolKind::Section {
            u64::try_from(i64::from(immediate(instruction)) * 8 + 8)?
        } else {
            target.address()
        };
        *call = (section, within);
    }
    let function = Function {
        name: symbol.name()?.to_owned(),
        frame: frame_of(code),
        callees: calls.into_values().collect(),
    };
    Ok(((index, address), function))
}

/// The instructions of eight bytes, with their places.
fn instructions(code: &[u8]) -> impl Iterator<Item = (u64, &[u8])> {
    (0..).step_by(8).zip(code.chunks_exact(8))
}

/// Whether an instruction calls a function of the program (RFC 9669 section 4.3: opcode, and the source register that
/// says so).
fn is_call(instruction: &[u8]) -> bool {
    instruction[0] == 0x85 && instruction[1] >> 4 == 1
}

fn immediate(instruction: &[u8]) -> i32 {
    i32::from_le_bytes([
        instruction[4],
        instruction[5],
        instruction[6],
        instruction[7],
    ])
}

/// The lowest address below the frame pointer (register 10) that a function uses: in loads and
/// stores, and in addresses that it computes (RFC 9669 section 3: opcode, registers, offset,
/// immediate).
fn frame_of(code: &[u8]) -> u32 {
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
        let immediate = immediate(instruction);
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
