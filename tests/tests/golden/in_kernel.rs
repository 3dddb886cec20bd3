//! The golden table through the eBPF object in the kernel.

use crate::on_host::{expected, same_bytes};
use crate::second::{self, Gateway};
use crate::table::{Arms, Row, rows_for};
use crate::{Named, done};
use anyhow::{Result, ensure};
use ikenat_tests::bpf::fixture::{self, Services, ingress};
use ikenat_tests::bpf::tables::Hop;
use ikenat_tests::bpf::{Dataplane, Object, Slot, with_sizes};
use ikenat_tests::lab::topology::{LAN, WAN, with_lab};
use ikenat_tests::lab::{Lab, Options};
use ikenat_tests::suite::test;
use libtest_mimic::Trial;
use std::sync::mpsc::Sender;
use xdp_common::counters::{self, Quantity};
use xdp_common::{Class, Config, Direction, Hook, Reason};
use xdp_core::Side;

const XDP_REDIRECT: u32 = 4;
const TC_ACT_REDIRECT: u32 = 7;
const TC_ACT_SHOT: u32 = 2;
const TC_ACT_UNSPEC: u32 = u32::MAX;

type Results = Sender<Named>;

/// Runs the table with an object, where the kernel takes it.
pub(crate) fn whole(object: Object, results: &Results) -> Trial {
    let name = format!("kernel: the whole table ran{}", object.suffix());
    if let Some(why) = object.obstacle() {
        return test(&name, Some(why), || Ok(()));
    }
    let outcome = with_lab(Options::default(), |lab| {
        Services::ALL
            .into_iter()
            .try_for_each(|services| in_kernel(lab, (object, services), results))
    });
    done((name, outcome))
}

/// Runs the table in a prepared gateway.
fn in_kernel(lab: &Lab, (object, services): (Object, Services), results: &Results) -> Result<()> {
    let suffix = format!("{}{}", services.suffix(), object.suffix());
    let config = services.of(fixture::prepare(lab)?);
    lab.gateway.enter(|| {
        // Each program has tables of its own, so that a row means the same in both.
        let mut xdp = Dataplane::load_object(object, &config)?;
        xdp.attach(WAN)?;
        xdp.attach(LAN)?;
        let tc = Dataplane::load_object(object, &config)?;
        for row in rows_for(services) {
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
        // They come off the interfaces.
        drop(xdp);
        Ok(())
    })?;
    for arms in Arms::ALL {
        let mut config = config;
        if arms == Arms::One {
            fixture::move_server_to_wan(lab)?;
            config = services.of(fixture::one_armed(config));
        }
        lab.gateway
            .enter(|| seconds((object, services), &config, arms, results))?;
    }
    fixture::move_server_back(lab)
}

/// The second packets of known flows through the XDP programs.
fn seconds(
    (object, services): (Object, Services),
    config: &Config,
    arms: Arms,
    results: &Results,
) -> Result<()> {
    // One tick for the whole run, so that no next hop expires by itself; and small tables.
    let config = services.of(Config {
        tick_shift: 24,
        ..with_sizes(*config, 64, 64)
    });
    let mut dataplane = Dataplane::load_object(object, &config)?;
    dataplane.attach(WAN)?;
    if arms == Arms::Two {
        dataplane.attach(LAN)?;
    }
    let mut gateway = InKernel { config, dataplane };
    for (name, result) in second::whole(&mut gateway, arms, "xdp") {
        let _ = results.send((
            format!("{name}{}{}", services.suffix(), object.suffix()),
            result,
        ));
    }
    Ok(())
}

struct InKernel {
    config: Config,
    dataplane: Dataplane,
}

impl Gateway for InKernel {
    fn forget(&mut self) -> Result<()> {
        self.dataplane.forget()
    }

    fn run(&mut self, side: Side, frame: &mut Vec<u8>) -> Result<(String, u64)> {
        let before = self.dataplane.counters(Hook::Xdp)?;
        let run = self.dataplane.xdp(ingress(&self.config, side), frame)?;
        *frame = run.frame;
        let (word, bytes) = counted(&before, &self.dataplane.counters(Hook::Xdp)?)?;
        let action = xdp_action(&word);
        ensure!(run.action == action, "action {}, not {action}", run.action);
        Ok((word, bytes))
    }

    fn change_hops(&mut self, hop: Hop) -> Result<()> {
        self.dataplane.change_hops(|word| hop.word(word))
    }

    fn flows(&self) -> Result<Vec<Slot>> {
        self.dataplane.slots("FLOW")
    }
}

/// The action of XDP for a verdict.
fn xdp_action(verdict: &str) -> u32 {
    match verdict.split(' ').next() {
        Some("forward") => XDP_REDIRECT,
        Some("dropped") => 1,
        Some(_) | None => 2,
    }
}

fn run_xdp(dataplane: &Dataplane, config: &Config, row: &Row) -> Result<()> {
    for (side, frame) in &row.before {
        match side {
            Side::Out => dataplane.egress(config.wan_ifindex, frame)?,
            side @ (Side::Wan | Side::Lan | Side::Both) => {
                dataplane.xdp(ingress(config, *side), frame)?
            }
        };
    }
    let before = dataplane.counters(Hook::Xdp)?;
    let run = dataplane.xdp(ingress(config, row.side), &row.input)?;
    let (word, _) = counted(&before, &dataplane.counters(Hook::Xdp)?)?;
    ensure!(word == row.verdict, "{word}, not {}", row.verdict);
    let action = xdp_action(&row.verdict);
    ensure!(run.action == action, "action {}, not {action}", run.action);
    same_bytes(&run.frame, row.output.as_ref().unwrap_or(&row.input))
}

/// The tc program forwards what XDP hands over.
fn run_tc(dataplane: &Dataplane, config: &Config, row: &Row) -> Result<()> {
    for (side, frame) in &row.before {
        match side {
            Side::Out => dataplane.egress(config.wan_ifindex, frame)?,
            side @ (Side::Wan | Side::Lan | Side::Both) => {
                dataplane.tc(ingress(config, *side), frame)?
            }
        };
    }
    if row.input.len() < 14 + 20 {
        // BPF_PROG_TEST_RUN takes no shorter skb, and no device delivers one.
        return Ok(());
    }
    let before = dataplane.counters(Hook::Tc)?;
    let run = dataplane.tc(ingress(config, row.side), &row.input)?;
    let (word, _) = counted(&before, &dataplane.counters(Hook::Tc)?)?;
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

/// The egress program leaves everything to the device, translated or not. What came before from outside came
/// through tc.
fn run_egress(dataplane: &Dataplane, config: &Config, row: &Row) -> Result<()> {
    for (side, frame) in &row.before {
        match side {
            Side::Out => dataplane.egress(config.wan_ifindex, frame)?,
            side @ (Side::Wan | Side::Lan | Side::Both) => {
                dataplane.tc(ingress(config, *side), frame)?
            }
        };
    }
    let before = dataplane.counters(Hook::Egress)?;
    let run = dataplane.egress(config.wan_ifindex, &row.input)?;
    let (word, _) = counted(&before, &dataplane.counters(Hook::Egress)?)?;
    let (expected, output) = expected(row, Hook::Egress);
    ensure!(word == *expected, "{word}, not {expected}");
    ensure!(run.action == TC_ACT_UNSPEC, "action {}", run.action);
    same_bytes(&run.frame, &output)
}

/// What the counters say became of the one packet between two readings, and how many bytes they
/// counted.
fn counted(before: &counters::Counters, after: &counters::Counters) -> Result<(String, u64)> {
    let grown = |at: usize| after[at] - before[at];
    let mut words = Vec::new();
    let mut bytes = 0;
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
            bytes += grown(at + Quantity::Bytes as usize);
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
    Ok((words.remove(0), bytes))
}
