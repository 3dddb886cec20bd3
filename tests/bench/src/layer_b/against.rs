//! The object of this build against an older one: the same packets over the same flows, in turns.
//!
//! The figure is the ratio of the two in each round, since they share the round's conditions.

use super::cases::{Case, Fate};
use super::gateway::{Age, Filling, Gateway};
use super::older::Older;
use super::packets::{check, frame, plan_of};
use super::programs::{PASS, RESTORE, check_counters, prepared};
use super::rounds::{Samples, go_first, spread};
use super::wrapper::{Instrument, Packet, load, program};
use super::{FLOWS, Options};
use crate::results::{BAgainst, Direction, Traffic, Walk};
use anyhow::{Context, Result};
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

fn cases() -> impl Iterator<Item = Case> {
    FLOWS.into_iter().map(|flows| Case {
        traffic: Traffic::EspInUdp,
        way: Direction::Inbound,
        flows,
        fate: Fate::Flow(Age::Fresh),
        walk: Walk::Random,
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

/// Measures both.
///
/// # Errors
/// See [`super::run`].
pub(super) fn measure(options: &Options<'_>, path: &Path) -> Result<Vec<BAgainst>> {
    let wanted: Vec<Case> = cases()
        .filter(|case| options.wants(&case.label()))
        .collect();
    let mut results = Vec::new();
    with_lab(lab::Options::default(), |lab| {
        let config = prepared(lab)?;
        lab.gateway.enter(|| {
            results = rows(options, path, &config, &wanted)?;
            Ok(())
        })
    })?;
    Ok(results)
}

fn rows(
    options: &Options<'_>,
    path: &Path,
    config: &Config,
    cases: &[Case],
) -> Result<Vec<BAgainst>> {
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
    let rounds = if options.quick { ROUNDS / 2 } else { ROUNDS };
    for round in 0..rounds {
        for row in &mut rows {
            let label = format!("{} against the older one", row.case.label());
            (options.progress)(round, rounds, &label);
            row.round(round, (&mut wrapper, pass), options.packets())
                .with_context(|| format!("failed to measure {label}"))?;
        }
    }
    Ok(rows.iter().map(|row| row.result(path)).collect())
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

    fn result(&self, path: &Path) -> BAgainst {
        let [older, present] = &self.samples;
        let pairs = present.iter().zip(older);
        let ratios: Vec<f64> = pairs.map(|(present, older)| present / older).collect();
        BAgainst {
            object: path.display().to_string(),
            traffic: self.case.traffic,
            way: self.case.way,
            flows: self.case.flows,
            older: spread(older),
            present: spread(present),
            ratio: spread(&ratios),
        }
    }
}
