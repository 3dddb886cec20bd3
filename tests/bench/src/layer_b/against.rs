//! The object of this build against an older one: the same packets over the same flows, in turns.
//!
//! The figure is the ratio of the two in each round, since they share the round's conditions. Cache misses
//! are measured in the same rounds.

use super::cases::{Case, Fate};
use super::gateway::{Age, Filling, Gateway, Size};
use super::misses::{self, Chain};
use super::older::Older;
use super::packets::{check, frame, plan_of};
use super::programs::{PASS, RESTORE, check_counters, prepared};
use super::rounds::{Samples, go_first, spread};
use super::wrapper::{Instrument, Packet, load, program};
use super::{FLOWS, Options};
use crate::results::{BAgainst, BMiss, Direction, Traffic, Walk};
use anyhow::{Context, Result, ensure};
use aya::EbpfLoader;
use aya::programs::Xdp;
use ikenat_bench_abi::measure::Plan;
use ikenat_tests::bpf::Dataplane;
use ikenat_tests::lab;
use ikenat_tests::lab::topology::{WAN, with_lab};
use std::path::Path;
use xdp_common::counters::Counters;
use xdp_common::{Config, Hook};

/// Rounds: more than of other rows, since a ratio close to one matters.
const ROUNDS: usize = 31;

/// Both have as many slots: two a flow, and for 65,536 flows also as many as by default, which is four.
fn cases() -> impl Iterator<Item = Case> {
    let half = FLOWS.into_iter().map(|flows| (flows, Size::HalfLoad));
    half.chain([(1 << 16, Size::Default)])
        .map(|(flows, size)| Case {
            traffic: Traffic::EspInUdp,
            way: Direction::Inbound,
            flows,
            fate: Fate::Flow(Age::Fresh),
            walk: Walk::Random,
            size,
        })
}

/// One of the two.
enum Side {
    /// Of this ABI.
    Present(Box<Gateway>),
    /// Of ABI 6.
    Older(Box<Older>),
}

impl Side {
    fn new(path: Option<&Path>, config: &Config, filling: Filling) -> Result<Self> {
        if let Some(path) = path
            && Older::is(path)?
        {
            return Ok(Self::Older(Box::new(Older::new(path, config, filling)?)));
        }
        Ok(Self::Present(Box::new(Gateway::of(path, config, filling)?)))
    }

    fn program(&self, ingress: u32) -> Result<&Xdp> {
        match self {
            Self::Present(gateway) => gateway.dataplane.program(ingress),
            Self::Older(older) => older.program(),
        }
    }

    fn counters(&self) -> Result<Counters> {
        match self {
            Self::Present(gateway) => gateway.dataplane.counters(Hook::Xdp),
            Self::Older(older) => older.counters(),
        }
    }

    const fn without_slot(&self) -> u64 {
        match self {
            Self::Present(gateway) => gateway.without_slot,
            Self::Older(older) => older.without_slot(),
        }
    }

    fn slots(&self) -> u64 {
        match self {
            Self::Present(gateway) => gateway.slots(),
            Self::Older(older) => older.slots(),
        }
    }

    fn freshen(&mut self, ingress: u32, first: &[u8]) -> Result<()> {
        match self {
            Self::Present(gateway) => gateway.set_age(Age::Fresh, ingress, first),
            Self::Older(older) => older.freshen(ingress, first),
        }
    }

    fn tick_has_ended(&self, ingress: u32, first: &[u8]) -> Result<bool> {
        match self {
            Self::Present(gateway) => gateway.tick_has_ended(ingress, first),
            Self::Older(older) => older.tick_has_ended(ingress, first),
        }
    }
}

/// A number of flows, with both objects.
struct Row {
    case: Case,
    plan: Plan,
    packet: Packet,
    first: Vec<u8>,
    /// The older one first.
    sides: [Side; 2],
    samples: [Vec<f64>; 2],
}

/// Their rows, and those of cache misses.
type Rows = (Vec<BAgainst>, Vec<BMiss>);

/// Measures both.
///
/// # Errors
/// See [`super::run`].
pub(super) fn measure(options: &Options<'_>, path: &Path) -> Result<Rows> {
    let wanted: Vec<Case> = cases()
        .filter(|case| options.wants(&case.label()))
        .collect();
    let mut results = Rows::default();
    with_lab(lab::Options::default(), |lab| {
        let config = prepared(lab)?;
        lab.gateway.enter(|| {
            results = rows(options, path, &config, &wanted)?;
            Ok(())
        })
    })?;
    Ok(results)
}

fn rows(options: &Options<'_>, path: &Path, config: &Config, cases: &[Case]) -> Result<Rows> {
    // See `Bench::attached`.
    let mut attached = Dataplane::load(config)?;
    attached.attach(WAN)?;
    let mut wrapper = Instrument::restore(1)?;
    let pass = load(&mut EbpfLoader::new(), "peer.o", &[PASS])?;
    let pass = program(&pass, PASS)?;
    let rows = cases.iter().map(|case| {
        (options.progress)(0, cases.len(), "filling the tables of both");
        Row::new(*case, path, config, (&mut wrapper, pass))
    });
    let mut rows: Vec<Row> = rows.collect::<Result<_>>()?;
    go_first()?;
    let mut chains = chains(options)?;
    let rounds = if options.quick { ROUNDS / 2 } else { ROUNDS };
    for round in 0..rounds {
        for row in &mut rows {
            let label = format!("{} against the older one", row.case.label());
            (options.progress)(round, rounds, &label);
            row.round(round, (&mut wrapper, pass), options.packets())
                .with_context(|| format!("failed to measure {label}"))?;
        }
        chains.iter_mut().try_for_each(Chain::round)?;
    }
    let ratios = rows.iter().map(|row| row.result(path)).collect();
    Ok((ratios, chains.iter().map(Chain::result).collect()))
}

fn chains(options: &Options<'_>) -> Result<Vec<Chain>> {
    let cases = misses::cases_of_both().into_iter();
    let wanted = cases.filter(|case| options.wants(&case.label()));
    let chains: Result<Vec<_>> = wanted.map(Chain::new).collect();
    Ok(chains?.into_iter().flatten().collect())
}

impl Row {
    /// Loads and fills both, and checks a packet of each.
    fn new(
        case: Case,
        path: &Path,
        config: &Config,
        (wrapper, pass): (&mut Instrument, &Xdp),
    ) -> Result<Self> {
        let (traffic, way) = (case.traffic, case.way);
        let plan = plan_of(traffic, way, case.flows, true)?;
        let packet = Packet {
            frame: frame(traffic, way),
            ingress: config.wan_ifindex,
        };
        let only = Plan {
            flow_mask: 0,
            flow_bits: 0,
            ..plan
        };
        wrapper.before(pass)?;
        let (_, first) = wrapper.once(RESTORE, &only, &packet)?;
        check(traffic, way, false, &first)?;
        let filling = case.filling();
        let sides = [
            Side::new(Some(path), config, filling)?,
            Side::new(None, config, filling)?,
        ];
        let [older, present] = sides.each_ref().map(Side::slots);
        ensure!(
            older == present,
            "FLOW has {older} slots in the older object and {present} in this one"
        );
        for side in &sides {
            wrapper.before(side.program(packet.ingress)?)?;
            let (_, seen) = wrapper.once(RESTORE, &plan, &packet)?;
            check(traffic, way, true, &seen)?;
        }
        Ok(Self {
            case,
            plan,
            packet,
            first,
            sides,
            samples: [Vec::new(), Vec::new()],
        })
    }

    /// One round: both, the one first and the other first in turns.
    fn round(
        &mut self,
        round: usize,
        (wrapper, pass): (&mut Instrument, &Xdp),
        packets: u32,
    ) -> Result<()> {
        for place in [round % 2, 1 - round % 2] {
            let mut samples = Samples::new();
            samples.take(|| self.sample(place, (wrapper, pass), packets))?;
            self.samples[place].push(samples.spread().median);
        }
        Ok(())
    }

    fn sample(
        &mut self,
        place: usize,
        (wrapper, pass): (&mut Instrument, &Xdp),
        packets: u32,
    ) -> Result<[f64; 3]> {
        let ingress = self.packet.ingress;
        loop {
            self.sides[place].freshen(ingress, &self.first)?;
            let side = &self.sides[place];
            wrapper.before(pass)?;
            let floor = wrapper.time(RESTORE, &self.plan, &self.packet, packets)?;
            let before = side.counters()?;
            wrapper.before(side.program(ingress)?)?;
            let whole = wrapper.time(RESTORE, &self.plan, &self.packet, packets)?;
            let after = side.counters()?;
            let counted = |at: usize| after[at] - before[at];
            check_counters(&self.case, counted, packets, side.without_slot())?;
            wrapper.before(pass)?;
            let again = wrapper.time(RESTORE, &self.plan, &self.packet, packets)?;
            if !side.tick_has_ended(ingress, &self.first)? {
                return Ok([floor, whole, again].map(|timing| timing.nanoseconds));
            }
        }
    }

    /// Slots of FLOW, of which one object has as many as the other.
    fn slots(&self) -> u64 {
        self.sides[1].slots()
    }

    fn result(&self, path: &Path) -> BAgainst {
        let [older, present] = &self.samples;
        let pairs = present.iter().zip(older);
        let ratios: Vec<f64> = pairs.map(|(present, older)| present / older).collect();
        BAgainst {
            object: path.display().to_string(),
            traffic: self.case.traffic,
            way: self.case.way,
            flows: self.case.flows,
            slots: self.slots(),
            older: spread(older),
            present: spread(present),
            ratio: spread(&ratios),
        }
    }
}
