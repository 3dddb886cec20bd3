//! The golden table: description, input, verdict and output bytes of ordinary and unusual packets,
//! through the XDP program and the tc programs in the kernel and through the packet logic on the
//! host.
//!
//! The expected bytes come from the lab's packet builder, which computes every checksum from
//! scratch and shares no code with the dataplane.

mod table;

use anyhow::{Result, ensure};
use ikenat_tests::bpf::fixture::{self, ingress};
use ikenat_tests::bpf::host::{self, Tables};
use ikenat_tests::bpf::{Dataplane, Object};
use ikenat_tests::lab::topology::{LAN, WAN, with_lab};
use ikenat_tests::lab::{Lab, Options, cleanup};
use ikenat_tests::suite::{not_root, test};
use libtest_mimic::{Arguments, Trial};
use std::process::ExitCode;
use std::sync::mpsc;
use table::{Row, rows};
use xdp_common::counters::{self, Quantity};
use xdp_common::{Class, Config, Direction, Hook, Reason};
use xdp_core::Side;

const XDP_REDIRECT: u32 = 4;
const TC_ACT_REDIRECT: u32 = 7;
const TC_ACT_SHOT: u32 = 2;
const TC_ACT_UNSPEC: u32 = u32::MAX;

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    if let Err(error) = cleanup::on_interruption() {
        eprintln!("{error:#}");
        return ExitCode::FAILURE;
    }
    let mut tests: Vec<Trial> = Vec::new();
    for row in rows() {
        if row.side == Side::Out {
            tests.push(on_host(&row, Hook::Egress));
        } else {
            tests.push(on_host(&row, Hook::Xdp));
            tests.push(on_host(&row, Hook::Tc));
        }
    }
    if let Some(why) = not_root() {
        tests.push(test("kernel", Some(why), || Ok(())));
    } else {
        let (sender, results) = mpsc::channel();
        let ran = Object::ALL.map(|object| whole(object, &sender));
        drop(sender);
        tests.extend(results.iter().map(|(name, result)| done(&name, result)));
        tests.extend(ran);
    }
    libtest_mimic::run(&arguments, tests).exit_code()
}

fn done(name: &str, result: Result<()>) -> Trial {
    test(name, None, move || result)
}

/// A row through the packet logic of a hook on the host.
fn on_host(row: &Row, hook: Hook) -> Trial {
    let word = if hook == Hook::Tc { "host tc" } else { "host" };
    done(&format!("{word}: {}", row.name), run_on_host(row, hook))
}

fn run_on_host(row: &Row, hook: Hook) -> Result<()> {
    let config = fixture::config();
    let fib = |_: [u8; 4], destination, length| fixture::fib(&config, destination, length);
    let tables = Tables::new(&config);
    let run = |side, frame: &mut Vec<u8>| host::run_in(hook, (&tables, &fib, &config), side, frame);
    for (side, frame) in &row.before {
        run(*side, &mut frame.clone());
    }
    let mut frame = row.input.clone();
    let verdict = run(row.side, &mut frame);
    let (expected, output) = expected(row, hook);
    ensure!(
        host::word(verdict) == *expected,
        "{verdict:?}, not {expected}"
    );
    same_bytes(&frame, &output)
}

/// The expected result of a row at a hook: verdict and bytes. In tc the kernel writes the MAC
/// addresses of a forwarded packet after the program; the program writes those of an answer.
fn expected(row: &Row, hook: Hook) -> (&str, Vec<u8>) {
    let output = row.output.as_ref().unwrap_or(&row.input);
    if hook == Hook::Xdp {
        return (&row.verdict, output.clone());
    }
    let verdict = row.slow_verdict.as_ref().unwrap_or(&row.verdict);
    let mut output = row.slow_output.as_ref().unwrap_or(output).clone();
    if !verdict.starts_with("answered") {
        output[..12].copy_from_slice(&row.input[..12]);
    }
    (verdict, output)
}

fn same_bytes(got: &[u8], expected: &[u8]) -> Result<()> {
    let first = got.iter().zip(expected).position(|(a, b)| a != b);
    ensure!(
        first.is_none() && got.len() == expected.len(),
        "byte {first:?} differs\n     got {}\nexpected {}",
        ikenat_tests::lab::frames::describe(got),
        ikenat_tests::lab::frames::describe(expected)
    );
    Ok(())
}

type Results = mpsc::Sender<(String, Result<()>)>;

/// Runs the table with an object, where the kernel takes it.
fn whole(object: Object, results: &Results) -> Trial {
    let name = format!("kernel: the whole table ran{}", object.suffix());
    if let Some(why) = object.obstacle() {
        return test(&name, Some(why), || Ok(()));
    }
    let outcome = with_lab(Options::default(), |lab| in_kernel(lab, object, results));
    done(&name, outcome)
}

/// Runs the table in a prepared gateway.
fn in_kernel(lab: &Lab, object: Object, results: &Results) -> Result<()> {
    let suffix = object.suffix();
    let config = fixture::prepare(lab)?;
    lab.gateway.enter(|| {
        // Each program has tables of its own, so that a row means the same in both.
        let mut xdp = Dataplane::load_object(object, &config)?;
        xdp.attach(WAN)?;
        xdp.attach(LAN)?;
        let tc = Dataplane::load_object(object, &config)?;
        for row in rows() {
            if row.side == Side::Out {
                let result = run_egress(&tc, &config, &row);
                let _ = results.send((format!("egress: {}{suffix}", row.name), result));
                continue;
            }
            let result = run_xdp(&xdp, &config, &row);
            let _ = results.send((format!("xdp: {}{suffix}", row.name), result));
            let result = run_tc(&tc, &config, &row);
            let _ = results.send((format!("tc: {}{suffix}", row.name), result));
        }
        Ok(())
    })
}

fn run_xdp(dataplane: &Dataplane, config: &Config, row: &Row) -> Result<()> {
    for (side, frame) in &row.before {
        dataplane.xdp(ingress(config, *side), frame)?;
    }
    let before = dataplane.counters(Hook::Xdp)?;
    let run = dataplane.xdp(ingress(config, row.side), &row.input)?;
    let word = counted(&before, &dataplane.counters(Hook::Xdp)?)?;
    ensure!(word == row.verdict, "{word}, not {}", row.verdict);
    let action = match row.verdict.split(' ').next() {
        Some("forward") => XDP_REDIRECT,
        Some("dropped") => 1,
        Some(_) | None => 2,
    };
    ensure!(run.action == action, "action {}, not {action}", run.action);
    same_bytes(&run.frame, row.output.as_ref().unwrap_or(&row.input))
}

/// The tc program forwards what XDP hands over.
fn run_tc(dataplane: &Dataplane, config: &Config, row: &Row) -> Result<()> {
    for (side, frame) in &row.before {
        dataplane.tc(ingress(config, *side), frame)?;
    }
    if row.input.len() < 14 + 20 {
        // BPF_PROG_TEST_RUN takes no shorter skb, and no device delivers one.
        return Ok(());
    }
    let before = dataplane.counters(Hook::Tc)?;
    let run = dataplane.tc(ingress(config, row.side), &row.input)?;
    let word = counted(&before, &dataplane.counters(Hook::Tc)?)?;
    let (expected, output) = expected(row, Hook::Tc);
    ensure!(word == *expected, "{word}, not {expected}");
    let action = match expected.split(' ').next() {
        Some("forward") if row.to_stack => TC_ACT_UNSPEC,
        Some("forward" | "answered") => TC_ACT_REDIRECT,
        Some("dropped") => TC_ACT_SHOT,
        Some(_) | None => TC_ACT_UNSPEC,
    };
    ensure!(run.action == action, "action {}, not {action}", run.action);
    same_bytes(&run.frame, &output)
}

/// The egress program leaves everything to the device, translated or not.
fn run_egress(dataplane: &Dataplane, config: &Config, row: &Row) -> Result<()> {
    for (_, frame) in &row.before {
        dataplane.egress(config.wan_ifindex, frame)?;
    }
    let before = dataplane.counters(Hook::Egress)?;
    let run = dataplane.egress(config.wan_ifindex, &row.input)?;
    let word = counted(&before, &dataplane.counters(Hook::Egress)?)?;
    let (expected, output) = expected(row, Hook::Egress);
    ensure!(word == *expected, "{word}, not {expected}");
    ensure!(run.action == TC_ACT_UNSPEC, "action {}", run.action);
    same_bytes(&run.frame, &output)
}

/// What the counters say became of the one packet between two readings.
fn counted(before: &counters::Counters, after: &counters::Counters) -> Result<String> {
    let grown = |at: usize| after[at] - before[at];
    let mut words = Vec::new();
    for reason in Reason::ALL {
        if grown(counters::reason(*reason)) != 0 {
            words.push(format!("{} {}", reason.outcome().name(), reason.name()));
        }
    }
    for direction in Direction::ALL {
        for class in Class::ALL {
            let at = counters::class(direction, class);
            if grown(at + Quantity::Packets as usize) == 0 {
                continue;
            }
            let untracked = match grown(at + Quantity::UntrackedPackets as usize) {
                0 => "",
                _ => " untracked",
            };
            words.push(format!(
                "forward {} {}{untracked}",
                class.name(),
                direction.name()
            ));
        }
    }
    ensure!(words.len() == 1, "one packet was counted as {words:?}");
    Ok(words.remove(0))
}
