//! The golden table through the packet logic on the host.

use crate::second::{self, OnHost};
use crate::table::{Arms, Row, rows_for};
use crate::{Named, generated};
use anyhow::{Result, ensure};
use ikenat_tests::bpf::fixture::{self, Services};
use ikenat_tests::bpf::host::{self, Tables};
use ikenat_tests::lab::frames::describe;
use xdp_common::{Config, Hook};
use xdp_core::Side;

/// The whole table, and the second packets of known flows.
pub(crate) fn whole() -> Vec<Named> {
    let mut tests = Vec::new();
    let one_armed = fixture::one_armed(fixture::config());
    for services in Services::ALL {
        for row in rows_for(services) {
            let hooks: &[Hook] = match row.side {
                Side::Out => &[Hook::Egress],
                Side::Wan | Side::Lan | Side::Both => &[Hook::Xdp, Hook::Tc],
            };
            for hook in hooks {
                tests.push(named(&row, *hook, services, fixture::config()));
            }
        }
        for row in rows_for(services).filter_map(Row::one_armed) {
            for hook in [Hook::Xdp, Hook::Tc] {
                tests.push(named(&row, hook, services, one_armed));
            }
        }
    }
    for arms in Arms::ALL {
        let gateway = &mut OnHost::new(arms);
        tests.extend(second::whole(gateway, arms, "host"));
    }
    tests.push(generated::whole());
    tests
}

fn named(row: &Row, hook: Hook, services: Services, config: Config) -> Named {
    let word = if hook == Hook::Tc { "host tc" } else { "host" };
    let name = format!("{word}: {}{}", row.name, services.suffix());
    (name, run(row, hook, &services.of(config)))
}

fn run(row: &Row, hook: Hook, config: &Config) -> Result<()> {
    let fib = |_: [u8; 4], destination, length| fixture::fib(config, destination, length);
    let tables = Tables::new(config);
    let run =
        |hook, side, frame: &mut Vec<u8>| host::run_in(hook, (&tables, &fib, config), side, frame);
    for (side, frame) in &row.before {
        run(hook_of(hook, *side), *side, &mut frame.clone());
    }
    let mut frame = row.input.clone();
    let verdict = run(hook, row.side, &mut frame).verdict;
    let (expected, output) = expected(row, hook);
    ensure!(
        host::word(verdict) == *expected,
        "{verdict:?}, not {expected}"
    );
    same_bytes(&frame, &output)
}

/// The hook that sees a packet before that of a row: the egress program sees what leaves alone.
fn hook_of(hook: Hook, side: Side) -> Hook {
    match (hook, side) {
        (_, Side::Out) => Hook::Egress,
        (Hook::Egress, _) => Hook::Tc,
        (hook, _) => hook,
    }
}

/// The expected result of a row at a hook: verdict and bytes. In tc the kernel writes the MAC
/// addresses of a forwarded packet after the program; the program writes those of an answer.
pub(crate) fn expected(row: &Row, hook: Hook) -> (&str, Vec<u8>) {
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

pub(crate) fn same_bytes(got: &[u8], expected: &[u8]) -> Result<()> {
    let first = got.iter().zip(expected).position(|(a, b)| a != b);
    ensure!(
        first.is_none() && got.len() == expected.len(),
        "byte {first:?} differs\n     got {}\nexpected {}",
        describe(got),
        describe(expected)
    );
    Ok(())
}
