//! Differential test, host against kernel: for mutated packets the packet logic on the host and the
//! object in the kernel must give the same verdict and the same bytes, and at the end the same
//! tables and counters.
//!
//! The packets are those of the golden table, mutated by a generator with a fixed seed: a failure
//! names the packet's number, and the next run reproduces it.

mod table;

use anyhow::{Context, Result, ensure};
use ikenat_tests::bpf::fixture::{self, ingress};
use ikenat_tests::bpf::host::{self, Tables};
use ikenat_tests::bpf::{Dataplane, Object, Run, Slot};
use ikenat_tests::lab::topology::{LAN, WAN, with_lab};
use ikenat_tests::lab::{Lab, Options, cleanup, frames};
use ikenat_tests::suite::{not_root, test};
use libtest_mimic::Arguments;
use std::process::ExitCode;
use xdp_common::counters::{self, Counters, Quantity};
use xdp_common::slot::{STATE, flow, session};
use xdp_common::{Config, Hook, Refusal};
use xdp_core::{Side, Verdict};

/// How many packets each hook gets.
const PACKETS: [(Hook, u32); 3] = [
    (Hook::Xdp, 120_000),
    (Hook::Tc, 60_000),
    (Hook::Egress, 20_000),
];
/// At least one packet of this many must be forwarded, or the test proves little.
const FORWARDED_OF: u64 = 6;

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    if let Err(error) = cleanup::on_interruption() {
        eprintln!("{error:#}");
        return ExitCode::FAILURE;
    }
    let tests = Object::ALL.map(|object| {
        let suffix = object.suffix();
        let name = format!("host and kernel agree on 200,000 mutated packets{suffix}");
        test(&name, not_root().or_else(|| object.obstacle()), move || {
            with_lab(Options::default(), |lab| compare(lab, object))
        })
    });
    libtest_mimic::run(&arguments, tests.into()).exit_code()
}

/// Xorshift (Marsaglia 2003): the only requirement is that it is reproducible.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound as u64).expect("below a usize")
    }
}

/// Bytes that a parser is likely to stumble over.
const ODD: [u8; 12] = [0, 1, 4, 5, 0x0f, 0x11, 0x20, 0x32, 0x45, 0x4f, 0x7f, 0xff];

fn mutate(random: &mut Random, frame: &mut Vec<u8>) {
    for _ in 0..random.below(4) {
        let headers = frame.len().min(80);
        match random.below(8) {
            0 => frame.truncate(14 + random.below(frame.len() - 13)),
            1 => frame.extend(vec![ODD[random.below(ODD.len())]; random.below(40)]),
            2 => frame.resize(1400 + random.below(200), 0xa5),
            3 => frame[12 + random.below(headers - 12)] = ODD[random.below(ODD.len())],
            4 => frame[12 + random.below(headers - 12)] ^= 1 << random.below(8),
            // The last byte of either address: other peers, other destinations.
            5 if frame.len() > 34 => {
                frame[29 + 4 * random.below(2)] = random.next().to_le_bytes()[0];
            }
            // Corrects the total length to fit the frame, so that more packets pass the first
            // checks.
            6 | 7 if frame.len() > 34 => {
                let length = u16::try_from(frame.len() - 14).expect("a frame below 64 KiB");
                frame[16..18].copy_from_slice(&length.to_be_bytes());
                if frame.len() > 42 {
                    frame[38..40].copy_from_slice(&(length - 20).to_be_bytes());
                }
            }
            _ => {}
        }
    }
}

/// The golden table's packets, and what came before them.
fn seeds(hook: Hook) -> Vec<(String, Side, Vec<u8>)> {
    let mut seeds = Vec::new();
    for row in table::rows() {
        // Only the egress program sees outgoing packets.
        if (row.side == Side::Out) != (hook == Hook::Egress) {
            continue;
        }
        let name = format!("{} ({})", row.name, row.verdict);
        for (side, frame) in row.before {
            seeds.push((format!("what comes before {name}"), side, frame));
        }
        seeds.push((name, row.side, row.input));
    }
    seeds
}

/// One hook of one gateway, in the kernel and on the host.
struct Twins<'t> {
    hook: Hook,
    config: &'t Config,
    dataplane: &'t Dataplane,
    tables: &'t Tables,
    host: &'t dyn Fn(Side, &mut Vec<u8>) -> Verdict,
}

impl Twins<'_> {
    fn in_kernel(&self, side: Side, frame: &[u8]) -> Result<Run> {
        let ingress = ingress(self.config, side);
        match self.hook {
            Hook::Xdp => self.dataplane.xdp(ingress, frame),
            Hook::Tc => self.dataplane.tc(ingress, frame),
            Hook::Egress => self.dataplane.egress(ingress, frame),
        }
    }

    fn action(&self, verdict: Verdict) -> u32 {
        match self.hook {
            Hook::Xdp => host::xdp_action(verdict),
            Hook::Tc => host::tc_action(verdict),
            Hook::Egress => host::egress_action(verdict),
        }
    }

    /// Runs mutated packets through both, and compares verdict and bytes of each packet, and all
    /// counters at the end.
    fn compare(&self, packets: u32) -> Result<()> {
        let seeds = seeds(self.hook);
        let mut random = Random(0x1CE4_7A11);
        let mut tally = Tally::default();
        for number in 0..packets {
            let (name, side, seed) = &seeds[random.below(seeds.len())];
            let mut frame = seed.clone();
            mutate(&mut random, &mut frame);
            // The kernel makes no skb of less than its header.
            let is_ipv6 = frame.get(12..14) == Some(&[0x86, 0xdd]);
            if self.hook != Hook::Xdp && frame.len() < 14 + if is_ipv6 { 40 } else { 20 } {
                continue;
            }
            let kernel = self.in_kernel(*side, &frame).with_context(|| {
                format!("failed to run packet {number} of {} bytes", frame.len())
            })?;
            let mut bytes = frame.clone();
            let verdict = (self.host)(*side, &mut bytes);
            tally.add(verdict);
            ensure!(
                kernel.action == self.action(verdict) && kernel.frame == bytes,
                "packet {number}, from {name}: the kernel says {}, the host {} ({verdict:?})\n   input {}\n  kernel {}\n    host {}",
                kernel.action,
                self.action(verdict),
                frames::describe(&frame),
                frames::describe(&kernel.frame),
                frames::describe(&bytes),
            );
        }
        tally.add_refusals(self.tables, self.hook);
        tally.check(self.dataplane, self.hook, u64::from(packets) / FORWARDED_OF)
    }
}

fn compare(lab: &Lab, object: Object) -> Result<()> {
    // One tick for the whole run: the kernel's time goes on, the host's stands still.
    let config = Config {
        tick_shift: 24,
        ..fixture::prepare(lab)?
    }
    .seal();
    let fib = |_: [u8; 4], destination, length| fixture::fib(&config, destination, length);
    lab.gateway.enter(|| {
        for (hook, packets) in PACKETS {
            let mut dataplane = Dataplane::load_object(object, &config)?;
            if hook == Hook::Xdp {
                dataplane.attach(WAN)?;
                dataplane.attach(LAN)?;
            }
            let tables = Tables::new(&config);
            let host = |side, frame: &mut Vec<u8>| {
                host::run_in(hook, (&tables, &fib, &config), side, frame)
            };
            let twins = Twins {
                hook,
                config: &config,
                dataplane: &dataplane,
                tables: &tables,
                host: &host,
            };
            twins.compare(packets).with_context(|| hook.name())?;
            if hook != Hook::Egress {
                check_tables(&dataplane, &tables).with_context(|| hook.name())?;
            }
        }
        Ok(())
    })
}

/// The host's own counters.
struct Tally(Counters);

impl Default for Tally {
    fn default() -> Self {
        Self([0; counters::WORDS])
    }
}

impl Tally {
    fn add(&mut self, verdict: Verdict) {
        match verdict {
            Verdict::NotForwarded(reason) | Verdict::Answer { reason, .. } => {
                self.0[counters::reason(reason)] += 1;
            }
            Verdict::Forward {
                direction,
                class,
                bytes,
                tracked,
                ..
            } => {
                let at = counters::class(direction, class);
                self.0[at + Quantity::Packets as usize] += 1;
                self.0[at + Quantity::Bytes as usize] += u64::from(bytes);
                if !tracked {
                    self.0[at + Quantity::UntrackedPackets as usize] += 1;
                    self.0[at + Quantity::UntrackedBytes as usize] += u64::from(bytes);
                }
            }
        }
    }

    /// Adds why packets got no entry.
    fn add_refusals(&mut self, tables: &Tables, hook: Hook) {
        for cause in Refusal::ALL {
            self.0[counters::refusal(cause)] += tables.refused(hook, cause);
        }
    }

    fn check(&self, dataplane: &Dataplane, hook: Hook, at_least: u64) -> Result<()> {
        let kernel = dataplane.counters(hook)?;
        ensure!(
            kernel == self.0,
            "the counters differ\nkernel {kernel:?}\n  host {:?}",
            self.0
        );
        let first = counters::class(xdp_common::Direction::Inbound, xdp_common::Class::Ike);
        let forwarded: u64 = kernel[first..].iter().step_by(4).sum();
        ensure!(
            forwarded >= at_least,
            "only {forwarded} packets were forwarded"
        );
        Ok(())
    }
}

/// Without the words of time, which differ.
fn timeless(mut slots: Vec<Slot>, times: &[usize]) -> Vec<Slot> {
    for slot in &mut slots {
        for &word in times {
            slot[word] = 0;
        }
        slot[STATE] &= 0x1ff;
    }
    slots.sort_unstable();
    slots
}

fn check_tables(dataplane: &Dataplane, tables: &Tables) -> Result<()> {
    let flows = |mut slots: Vec<Slot>| {
        // The highest sequence number shares its word with the time, and the time is part of the
        // stamp of a next hop.
        for slot in &mut slots {
            slot[flow::SEEN] &= 0xffff_ffff;
            slot[flow::HOP] >>= 16;
        }
        timeless(slots, &[flow::FIRST_SEEN])
    };
    let sessions = |mut slots: Vec<Slot>| {
        for slot in &mut slots {
            slot[session::HOP] >>= 16;
        }
        timeless(slots, &[session::LAST_SEEN])
    };
    let (kernel, host) = (flows(dataplane.slots("FLOW")?), flows(tables.flows()));
    ensure!(
        kernel == host,
        "FLOW differs: {} slots against {}",
        kernel.len(),
        host.len()
    );
    ensure!(
        host.len() > 20,
        "only {} flows: the packets prove little",
        host.len()
    );
    let (kernel, host) = (
        sessions(dataplane.slots("SESSION")?),
        sessions(tables.sessions()),
    );
    ensure!(
        kernel == host,
        "SESSION differs: {} slots against {}",
        kernel.len(),
        host.len()
    );
    Ok(())
}
