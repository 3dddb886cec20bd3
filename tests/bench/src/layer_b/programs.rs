//! The rows of the dataplane in layer B: every kind of packet, over every number of flows.
//!
//! A wrapper writes the whole of each packet. Its own cost, with a program behind it that only
//! passes, is measured right before and subtracted. The counters must show that every packet had
//! the outcome that its row measures.

use super::Options;
use super::cases::{Case, Fate, cases};
use super::gateway::{Age, Gateway};
use super::misses::{self, Chain};
use super::packets::{check, class, direction, frame, plan_of};
use super::rounds::{Random, Samples, go_first};
use super::walk;
use super::wrapper::{Instrument, Packet, load, program};
use crate::results::{BMiss, BRow, Direction, Traffic, Walk};
use anyhow::{Context, Result, ensure};
use aya::programs::Xdp;
use aya::{Ebpf, EbpfLoader};
use ikenat_bench_abi::measure::Plan;
use ikenat_tests::bpf::{Dataplane, fixture};
use ikenat_tests::lab::topology::{CLIENT, LAN, WAN, with_lab};
use ikenat_tests::lab::{self, Lab};
use xdp_common::counters::{self, Quantity};
use xdp_common::{Config, Hook, Reason};

/// The wrapper.
pub(super) const RESTORE: &str = "ikenat_restore";
/// The program that only passes.
pub(super) const PASS: &str = "ikenat_peer";
/// Packets that show in which order flows are visited.
const WALKED: u32 = 50_000;

/// The labels of all rows.
pub(super) fn labels() -> impl Iterator<Item = String> {
    let misses = misses::cases().into_iter().map(misses::Case::label);
    cases().into_iter().map(|case| case.label()).chain(misses)
}

/// The rows of the dataplane, and those of cache misses.
type Rows = (Vec<BRow>, Vec<BMiss>);

/// Measures the selected rows.
///
/// # Errors
/// See [`super::run`].
pub(super) fn measure(options: &Options<'_>) -> Result<Rows> {
    let mut cases = cases();
    cases.retain(|case| options.wants(&case.label()));
    let mut misses = misses::cases();
    misses.retain(|case| options.wants(&case.label()));
    let mut results = Rows::default();
    if cases.is_empty() && misses.is_empty() {
        return Ok(results);
    }
    with_lab(lab::Options::default(), |lab| {
        results = rows(lab, options, &cases, &misses)?;
        Ok(())
    })?;
    Ok(results)
}

/// Prepares the gateway of a lab for peers in 10.0.0.0/8.
///
/// # Errors
/// `ip` fails.
pub(super) fn prepared(lab: &Lab) -> Result<Config> {
    let config = fixture::prepare(lab)?;
    lab.gateway
        .run(&format!("ip route add 10.0.0.0/8 via {CLIENT}"))?;
    Ok(config)
}

fn rows(lab: &Lab, options: &Options<'_>, cases: &[Case], misses: &[misses::Case]) -> Result<Rows> {
    let config = prepared(lab)?;
    lab.gateway.enter(|| {
        let mut bench = Bench::new(&config, options, cases)?;
        go_first()?;
        let chains = misses.iter().map(|case| Chain::new(*case));
        let chains: Result<Vec<_>> = chains.collect();
        let mut chains: Vec<Chain> = chains?.into_iter().flatten().collect();
        let steps = cases.len() + chains.len();
        let all = options.rounds() * steps;
        let mut random = Random::new(7);
        for round in 0..options.rounds() {
            for (step, row) in random.order(steps).into_iter().enumerate() {
                let chain = row
                    .checked_sub(cases.len())
                    .and_then(|at| chains.get_mut(at));
                let label = chain
                    .as_ref()
                    .map_or_else(|| cases[row].label(), |chain| chain.case.label());
                (options.progress)(round * steps + step, all, &label);
                match chain {
                    Some(chain) => chain.round(),
                    None => bench.round(row, options.packets()),
                }
                .with_context(|| format!("failed to measure {label}"))?;
            }
        }
        (options.progress)(all, all, "programs");
        let packets = options.packets();
        let programs = bench.rows.iter().map(|row| row.result(packets)).collect();
        Ok((programs, chains.iter().map(Chain::result).collect()))
    })
}

/// A row that is being measured.
struct Row {
    case: Case,
    gateway: usize,
    plan: Plan,
    packet: Packet,
    /// The wrapper, if it is not the usual one.
    wrapper: Option<Instrument>,
    /// A packet of the first flow.
    first: Vec<u8>,
    samples: Samples,
}

/// All loaded programs.
struct Bench {
    wrapper: Instrument,
    pass: Ebpf,
    gateways: Vec<Gateway>,
    rows: Vec<Row>,
    /// `BPF_PROG_TEST_RUN` accepts an interface as the ingress of a packet only if it runs XDP. The
    /// tables of this instance stay empty.
    _attached: Dataplane,
}

impl Bench {
    fn new(config: &Config, options: &Options<'_>, cases: &[Case]) -> Result<Self> {
        let mut attached = Dataplane::load(config)?;
        attached.attach(WAN)?;
        attached.attach(LAN)?;
        let mut this = Self {
            wrapper: Instrument::restore(1)?,
            pass: load(&mut EbpfLoader::new(), "peer.o", &[PASS])?,
            gateways: Vec::new(),
            rows: Vec::new(),
            _attached: attached,
        };
        for (done, case) in cases.iter().enumerate() {
            (options.progress)(done, cases.len(), "filling the tables");
            this.add(config, *case)
                .with_context(|| format!("failed to begin with {}", case.label()))?;
        }
        Ok(this)
    }

    /// Prepares a row: a single packet shows that the wrapper writes it correctly and that the
    /// program translates it.
    fn add(&mut self, config: &Config, case: Case) -> Result<()> {
        let filling = case.filling();
        let known = self.gateways.iter().position(|g| g.filling == filling);
        let index = match known {
            Some(index) => index,
            None => {
                self.gateways.push(Gateway::new(config, filling)?);
                self.gateways.len() - 1
            }
        };
        let Case { traffic, way, .. } = case;
        let (train, draws) = walk::of_plan(case.walk);
        let plan = Plan {
            train,
            train_bits: train.count_ones(),
            draws,
            ..plan_of(traffic, way, case.flows, case.fate != Fate::Miss)?
        };
        let packet = Packet {
            frame: frame(traffic, way),
            ingress: match way {
                Direction::Inbound => config.wan_ifindex,
                Direction::Outbound => config.lan_ifindex,
            },
        };
        self.wrapper.before(program(&self.pass, PASS)?)?;
        let only = Plan {
            flow_mask: 0,
            flow_bits: 0,
            draws: 0,
            ..plan
        };
        let (_, first) = self.wrapper.once(RESTORE, &only, &packet)?;
        check(traffic, way, false, &first)?;
        let gateway = &self.gateways[index];
        let mut own = walk::wrapper(case.walk, case.flows)?;
        let wrapper = own.as_mut().unwrap_or(&mut self.wrapper);
        wrapper.before(gateway.dataplane.program(packet.ingress)?)?;
        let (_, seen) = wrapper.once(RESTORE, &plan, &packet)?;
        let translated = !matches!(case.fate, Fate::Punt(_));
        check(traffic, way, translated, &seen)?;
        if matches!(case.fate, Fate::Flow(_)) {
            let before = gateway.packets();
            wrapper.time(RESTORE, &plan, &packet, WALKED)?;
            let after = gateway.packets().into_iter().zip(before);
            let counted: Vec<u64> = after.map(|(after, before)| after - before).collect();
            walk::check(case.walk, case.flows, &counted)
                .context("the flows were not visited in the order of the row")?;
        }
        self.rows.push(Row {
            case,
            gateway: index,
            plan,
            packet,
            wrapper: own,
            first,
            samples: Samples::new(),
        });
        Ok(())
    }

    /// One round of a row.
    fn round(&mut self, row: usize, packets: u32) -> Result<()> {
        let row = &mut self.rows[row];
        let mut samples = row.samples.clone();
        let gateway = &mut self.gateways[row.gateway];
        let pass = program(&self.pass, PASS)?;
        let mut own = row.wrapper.take();
        let wrapper = own.as_mut().unwrap_or(&mut self.wrapper);
        samples.take(|| row.sample(gateway, wrapper, pass, packets))?;
        row.wrapper = own;
        row.samples = samples;
        Ok(())
    }
}

impl Row {
    /// Measures the floor, the whole and the floor again.
    fn sample(
        &self,
        gateway: &mut Gateway,
        wrapper: &mut Instrument,
        pass: &Xdp,
        packets: u32,
    ) -> Result<[f64; 3]> {
        let time = |wrapper: &mut Instrument, behind: &Xdp| {
            wrapper.before(behind)?;
            wrapper.time(RESTORE, &self.plan, &self.packet, packets)
        };
        loop {
            if let Fate::Flow(age) = self.case.fate {
                gateway.set_age(age, self.packet.ingress, &self.first)?;
            }
            let floor = time(wrapper, pass)?.nanoseconds;
            let before = gateway.dataplane.counters(Hook::Xdp)?;
            let whole = time(wrapper, gateway.dataplane.program(self.packet.ingress)?)?.nanoseconds;
            let after = gateway.dataplane.counters(Hook::Xdp)?;
            let counted = |at: usize| after[at] - before[at];
            check_counters(&self.case, counted, packets, gateway.without_slot)?;
            let again = time(wrapper, pass)?.nanoseconds;
            // A tick that ends during the round makes fresh next hops stale.
            let ended = self.case.fate == Fate::Flow(Age::Fresh)
                && gateway.tick_has_ended(self.packet.ingress, &self.first)?;
            if !ended {
                return Ok([floor, whole, again]);
            }
        }
    }

    fn result(&self, packets: u32) -> BRow {
        BRow {
            traffic: self.case.traffic,
            way: self.case.way,
            flows: self.case.flows,
            walk: self.case.walk,
            hit: matches!(self.case.fate, Fate::Flow(_) | Fate::Session),
            fresh: self.case.fate == Fate::Flow(Age::Fresh),
            nanoseconds: self.samples.spread(),
            packets: u64::from(packets),
        }
    }
}

/// Checks that every packet had the expected outcome.
///
/// # Errors
/// One had another.
pub(super) fn check_counters(
    case: &Case,
    counted: impl Fn(usize) -> u64,
    packets: u32,
    without_slot: u64,
) -> Result<()> {
    let packets = u64::from(packets);
    let class = class(case.traffic);
    let at = match (case.fate, class) {
        (Fate::Punt(reason), _) => counters::reason(reason),
        (_, Some(class)) => counters::class(direction(case.way), class),
        (_, None) => return Ok(()),
    };
    let seen = counted(at + Quantity::Packets as usize);
    // One correct checksum in 65,535 looks like a partial one, and takes the slow path. SPIs
    // and sequence numbers that rise together cause some more.
    let slow = counted(counters::reason(Reason::ChecksumPartial));
    let expected = case.traffic == Traffic::EspInUdpChecksum && slow * 1000 < packets;
    ensure!(
        seen == packets || (expected && seen + slow == packets),
        "{seen} of {packets} packets were counted"
    );
    let untracked = match case.fate {
        Fate::Punt(_) => return Ok(()),
        Fate::Flow(_) | Fate::Session | Fate::Miss => {
            counted(at + Quantity::UntrackedPackets as usize)
        }
    };
    // Each of the few flows without a slot is visited this often: with Zipf's law, one of the first
    // hundred would take more than the figures can bear.
    let excused = match case.walk {
        Walk::Zipf => without_slot * packets / 1000,
        Walk::Random => without_slot * (packets / case.flows + 1),
        Walk::Trains => without_slot * (packets / case.flows + 8),
    };
    let right = match case.fate {
        Fate::Miss => untracked == packets,
        Fate::Flow(_) | Fate::Session | Fate::Punt(_) => untracked <= excused,
    };
    ensure!(right, "{untracked} of {packets} packets were untracked");
    Ok(())
}
