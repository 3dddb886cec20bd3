//! Differential test, host against kernel: for mutated packets the packet logic on the host and the
//! object in the kernel must give the same verdict and the same bytes, and at the end the same
//! tables and counters.
//!
//! The packets are those of the golden table, mutated by a generator with a fixed seed: a failure
//! names the packet's number, and the next run reproduces it. In XDP half of them are ESP of known
//! flows, whose next hops are remembered with a MAC address that the FIB does not know: when one
//! side takes the fast path and the other one the general path, the bytes differ. Where a service has two
//! VIPs, every fourth packet is a segment of TCP by one of them.

#[path = "differential/connections.rs"]
mod connections;
mod table;
#[path = "differential/tally.rs"]
mod tally;

use anyhow::{Context, Result, ensure};
use connections::Connections;
use ikenat_tests::bpf::fixture::{self, Services, ingress};
use ikenat_tests::bpf::host::{self, Ran, Tables};
use ikenat_tests::bpf::tables::Hop;
use ikenat_tests::bpf::{Dataplane, Object, Run, Slot};
use ikenat_tests::lab::topology::{LAN, WAN, with_lab};
use ikenat_tests::lab::{Lab, Options, cleanup, frames};
use ikenat_tests::suite::{not_root, test};
use libtest_mimic::Arguments;
use std::process::ExitCode;
use table::second::seconds;
use table::{Arms, Row, rows_for};
use tally::{Tally, check_pins, check_tables};
use xdp_common::Config;
use xdp_common::Hook;
use xdp_common::slot::flow;
use xdp_core::{Side, Verdict};

/// How many packets each hook gets.
const PACKETS: [(Hook, u32); 3] = [
    (Hook::Xdp, 120_000),
    (Hook::Tc, 60_000),
    (Hook::Egress, 20_000),
];
/// On a one-armed gateway only XDP differs.
const ONE_ARMED_PACKETS: [(Hook, u32); 1] = [(Hook::Xdp, 60_000)];
/// One packet of this many is a segment of the connections of a service with two VIPs.
const CONNECTIONS_OF: u32 = 4;
/// How many packets run between two changes of the remembered next hops.
const CHANGE_HOPS: u32 = 500;

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    if let Err(error) = cleanup::on_interruption() {
        eprintln!("{error:#}");
        return ExitCode::FAILURE;
    }
    let mut tests = Vec::new();
    let of = |services| Object::ALL.map(|object| (services, object));
    for (services, object) in Services::ALL.into_iter().flat_map(of) {
        for arms in Arms::ALL {
            let packets = match arms {
                Arms::Two => "200,000",
                Arms::One => "60,000",
            };
            let (suffix, arms_suffix) = (object.suffix(), arms.suffix());
            let services_suffix = services.suffix();
            let name = format!(
                "host and kernel agree on {packets} mutated packets{arms_suffix}{services_suffix}{suffix}"
            );
            let obstacle = not_root().or_else(|| object.obstacle());
            tests.push(test(&name, obstacle, move || {
                with_lab(Options::default(), |lab| {
                    compare(lab, object, (arms, services))
                })
            }));
        }
    }
    libtest_mimic::run(&arguments, tests).exit_code()
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

/// Whether the test of a hook can run a frame: the kernel makes no skb of less than its header.
fn is_taken(hook: Hook, frame: &[u8]) -> bool {
    let is_ipv6 = frame.get(12..14) == Some(&[0x86, 0xdd]);
    hook == Hook::Xdp || frame.len() >= 14 + if is_ipv6 { 40 } else { 20 }
}

/// A packet to be mutated: its name, its side and its bytes.
type Seed = (String, Side, Vec<u8>);

/// The second packets of the flows of the golden table, and what makes the flows known.
fn warm_seeds(arms: Arms) -> (Vec<Seed>, Vec<Seed>) {
    let (mut before, mut seeds) = (Vec::new(), Vec::new());
    for row in seconds(arms) {
        for (side, frame) in row.before {
            before.push((format!("what comes before {}", row.name), side, frame));
        }
        let before_mutation = (row.hop, row.path, row.bytes, row.flow);
        let name = format!("{} {before_mutation:?}", row.name);
        seeds.push((name, row.side, row.input));
    }
    (before, seeds)
}

/// The golden table's packets, and what came before them.
fn seeds(hook: Hook, arms: Arms) -> Vec<Seed> {
    let mut seeds = Vec::new();
    let rows: Vec<Row> = match arms {
        Arms::Two => rows_for(Services::Many).collect(),
        Arms::One => rows_for(Services::Many)
            .filter_map(Row::one_armed)
            .collect(),
    };
    for row in rows {
        // Only the egress program sees outgoing packets.
        if (row.side == Side::Out) != (hook == Hook::Egress) {
            continue;
        }
        let name = format!("{} ({})", row.name, row.verdict);
        for (side, frame) in row.before {
            if side == Side::Out && hook != Hook::Egress {
                continue;
            }
            seeds.push((format!("what comes before {name}"), side, frame));
        }
        seeds.push((name, row.side, row.input));
    }
    seeds
}

/// What the host sends to peers of its own before the packets of the golden table.
fn teachers() -> Vec<Vec<u8>> {
    let before = rows_for(Services::Many).flat_map(|row| row.before);
    before
        .filter_map(|(side, frame)| (side == Side::Out).then_some(frame))
        .collect()
}

/// The hook that sees a packet in the test of a hook: the egress program sees what leaves alone.
const fn seen_by(hook: Hook, side: Side) -> Hook {
    match (hook, side) {
        (_, Side::Out) => Hook::Egress,
        (Hook::Egress, _) => Hook::Tc,
        (hook, _) => hook,
    }
}

/// One hook of one gateway, in the kernel and on the host.
struct Twins<'t> {
    hook: Hook,
    arms: Arms,
    config: &'t Config,
    dataplane: &'t mut Dataplane,
    tables: &'t Tables,
    host: &'t dyn Fn(Side, &mut Vec<u8>) -> Ran,
    tally: Tally,
}

impl Twins<'_> {
    fn in_kernel(&self, side: Side, frame: &[u8]) -> Result<Run> {
        let ingress = ingress(self.config, side);
        match seen_by(self.hook, side) {
            Hook::Xdp => self.dataplane.xdp(ingress, frame),
            Hook::Tc => self.dataplane.tc(ingress, frame),
            Hook::Egress => self.dataplane.egress(ingress, frame),
        }
    }

    /// Both learn the peers of the host itself.
    fn teach(&self) -> Result<()> {
        for mut frame in teachers() {
            self.dataplane.egress(self.config.wan_ifindex, &frame)?;
            (self.host)(Side::Out, &mut frame);
        }
        Ok(())
    }

    fn action(&self, side: Side, verdict: Verdict) -> u32 {
        match seen_by(self.hook, side) {
            Hook::Xdp => host::xdp_action(verdict),
            Hook::Tc => host::tc_action(verdict),
            Hook::Egress => host::egress_action(verdict),
        }
    }

    /// Runs mutated packets through both, and compares verdict and bytes of each packet, and all
    /// counters at the end.
    fn compare(&mut self, packets: u32) -> Result<()> {
        let seeds = seeds(self.hook, self.arms);
        if self.hook != Hook::Egress {
            self.teach()?;
        }
        let mut warm = Vec::new();
        let mut stamps = None;
        if self.hook == Hook::Xdp {
            let (before, seeds) = warm_seeds(self.arms);
            for seed in &before {
                self.run(seed)?;
            }
            warm = seeds;
            stamps = Some(self.stamps()?);
        }
        let mut random = Random(0x1CE4_7A11);
        let mut connections = (self.config.several_vips != 0)
            .then(|| Connections::new(self.hook, self.arms, self.config));
        for number in 0..packets {
            if let Some(stamps) = stamps
                && number % CHANGE_HOPS == 0
            {
                self.change_hops(number / CHANGE_HOPS, stamps)?;
            }
            let turn = connections.as_mut();
            let seed = if let Some(turn) = turn.filter(|_| number % CONNECTIONS_OF == 0) {
                turn.next(&mut random)
            } else {
                let of = match number % 2 {
                    1 if !warm.is_empty() => &warm,
                    _ => &seeds,
                };
                let mut seed = of[random.below(of.len())].clone();
                mutate(&mut random, &mut seed.2);
                seed
            };
            if !is_taken(self.hook, &seed.2) {
                continue;
            }
            let verdict = self
                .run(&seed)
                .with_context(|| format!("packet {number}"))?;
            if let Some(connections) = &mut connections {
                connections.look(self.tables, verdict);
            }
        }
        if let Some(connections) = connections {
            connections.check(packets / CONNECTIONS_OF)?;
        }
        self.tally.add_untracked(self.tables, self.hook);
        self.tally
            .check(self.dataplane, self.hook, u64::from(packets))
    }

    /// Runs a packet through both, and compares verdict and bytes.
    fn run(&mut self, (name, side, frame): &Seed) -> Result<Verdict> {
        let kernel = self
            .in_kernel(*side, frame)
            .with_context(|| format!("failed to run {} bytes", frame.len()))?;
        let mut bytes = frame.clone();
        let ran = (self.host)(*side, &mut bytes);
        if seen_by(self.hook, *side) == self.hook {
            self.tally.add(ran);
        }
        let action = self.action(*side, ran.verdict);
        ensure!(
            kernel.action == action && kernel.frame == bytes,
            "from {name}: the kernel says {}, the host {action} ({ran:?})\n   input {}\n  kernel {}\n    host {}",
            kernel.action,
            frames::describe(frame),
            frames::describe(&kernel.frame),
            frames::describe(&bytes),
        );
        Ok(ran.verdict)
    }

    /// Valid hop words of both: their clocks differ, and so do the stamps.
    fn stamps(&mut self) -> Result<[u64; 2]> {
        let valid = |slots: Vec<Slot>| {
            let mut words = slots.into_iter().map(|slot| slot.hot[flow::HOP]);
            words
                .find(|word| *word != 0)
                .context("no flow has a next hop")
        };
        Ok([
            valid(self.dataplane.slots("FLOW")?)?,
            valid(self.tables.flows())?,
        ])
    }

    /// Gives all flows a next hop of their own; every fourth time one that has expired.
    fn change_hops(&mut self, round: u32, [kernel, host]: [u64; 2]) -> Result<()> {
        let [.., number] = round.to_be_bytes();
        let mac = [2, 0, 0, 0x77, 0x88, number];
        let hop = if round % 4 == 3 {
            Hop::Expired(mac)
        } else {
            Hop::Remembered(mac)
        };
        self.dataplane.change_hops(|_| hop.word(kernel))?;
        self.tables.change_hops(|_| hop.word(host));
        Ok(())
    }
}

fn compare(lab: &Lab, object: Object, (arms, services): (Arms, Services)) -> Result<()> {
    // One tick for the whole run: the kernel's time goes on, the host's stands still.
    let mut config = Config {
        tick_shift: 24,
        ..fixture::prepare(lab)?
    }
    .seal();
    let mut packets = PACKETS.as_slice();
    if arms == Arms::One {
        fixture::move_server_to_wan(lab)?;
        config = fixture::one_armed(config);
        packets = &ONE_ARMED_PACKETS;
    }
    let config = services.of(config);
    lab.gateway.enter(|| {
        packets.iter().try_for_each(|(hook, packets)| {
            compare_at(*hook, *packets, object, (&config, arms)).with_context(|| hook.name())
        })
    })
}

fn compare_at(
    hook: Hook,
    packets: u32,
    object: Object,
    (config, arms): (&Config, Arms),
) -> Result<()> {
    let fib = |_: [u8; 4], destination, length| fixture::fib(config, destination, length);
    let mut dataplane = Dataplane::load_object(object, config)?;
    if hook == Hook::Xdp {
        dataplane.attach(WAN)?;
        if arms == Arms::Two {
            dataplane.attach(LAN)?;
        }
    }
    let tables = Tables::new(config);
    let host = |side, frame: &mut Vec<u8>| {
        host::run_in(seen_by(hook, side), (&tables, &fib, config), side, frame)
    };
    let mut twins = Twins {
        hook,
        arms,
        config,
        dataplane: &mut dataplane,
        tables: &tables,
        host: &host,
        tally: Tally::default(),
    };
    twins.compare(packets)?;
    if hook != Hook::Egress {
        check_tables(&dataplane, &tables)?;
    }
    check_pins(&dataplane, &tables)
}
