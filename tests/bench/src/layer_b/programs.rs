//! The rows of the dataplane in layer B: every kind of packet, over every number of flows.
//!
//! A wrapper writes the whole of each packet. Its own cost, with a program behind it that only
//! passes, is measured right before and subtracted. The counters must show that every packet had
//! the outcome that its row measures.

use super::gateway::{Age, Filling, Gateway};
use super::packets::{check, class, direction, frame, is_esp, plan_of};
use super::rounds::{Random, Samples, go_first};
use super::wrapper::{Instrument, Packet, load, program};
use super::{FLOWS, Options, flows_text, name};
use crate::results::{BRow, Direction, Traffic};
use anyhow::{Context, Result, ensure};
use aya::programs::Xdp;
use aya::{Ebpf, EbpfLoader};
use ikenat_bench_abi::measure::Plan;
use ikenat_tests::bpf::{Dataplane, fixture};
use ikenat_tests::lab::topology::{CLIENT, LAN, WAN, with_lab};
use ikenat_tests::lab::{self, Lab};
use xdp_common::counters::{self, Quantity};
use xdp_common::{Class, Config, Hook, Reason};

const RESTORE: &str = "ikenat_restore";
const PASS: &str = "ikenat_peer";

/// The table entry that the packets of a row find.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// A flow that counts them, with a next hop of this age.
    Flow(Age),
    /// A session that counts them.
    Session,
    /// None: they are forwarded untracked.
    Miss,
    /// ikenat does not handle them.
    Punt(Reason),
}

/// A row to measure.
#[derive(Clone, Copy, Debug)]
struct Case {
    traffic: Traffic,
    way: Direction,
    flows: u64,
    fate: Fate,
}

fn cases() -> Vec<Case> {
    use {Direction as W, Fate as F, Traffic as T};
    let most = FLOWS[FLOWS.len() - 1];
    let mut cases = Vec::new();
    let mut add = |traffic, way, flows, fate| {
        cases.push(Case {
            traffic,
            way,
            flows,
            fate,
        });
    };
    for flows in FLOWS {
        for way in [W::Inbound, W::Outbound] {
            for traffic in [T::EspInUdp, T::EspInUdpChecksum, T::Esp] {
                add(traffic, way, flows, F::Flow(Age::Fresh));
                // With fewer flows than packets in a round, a stale next hop would not stay stale.
                if flows == most && traffic != T::EspInUdpChecksum {
                    add(traffic, way, flows, F::Flow(Age::Stale));
                }
            }
            add(T::Ike, way, flows, F::Session);
        }
        add(T::Keepalive, W::Inbound, flows, F::Session);
        for traffic in [T::EspInUdp, T::Esp, T::Ike, T::Keepalive] {
            add(traffic, W::Inbound, flows, F::Miss);
        }
    }
    add(T::OtherPort, W::Inbound, 1, F::Punt(Reason::OtherPort));
    add(T::NotIpv4, W::Inbound, 1, F::Punt(Reason::NotIpv4));
    cases
}

impl Case {
    fn label(&self) -> String {
        let fate = match self.fate {
            Fate::Flow(Age::Fresh) | Fate::Session => "hit",
            Fate::Flow(Age::Stale) => "hit, stale",
            Fate::Miss => "miss",
            Fate::Punt(_) => "punt",
        };
        let flows = flows_text(self.flows);
        format!("{} {} {flows} {fate}", name(self.traffic), name(self.way))
    }

    /// The flows in the tables of its instance. IKE, keepalives and packets that are not handled
    /// share the instance of the sessions.
    fn filling(&self) -> Filling {
        let esp = is_esp(self.traffic);
        let direction = if esp {
            direction(self.way)
        } else {
            xdp_common::Direction::Inbound
        };
        let class = class(self.traffic).filter(|_| esp);
        Filling {
            // The smallest table also serves for one flow.
            flows: self.flows.max(FLOWS[1]),
            class: class.unwrap_or(Class::EspInUdp),
            direction,
        }
    }
}

/// The labels of all rows.
pub(super) fn labels() -> impl Iterator<Item = String> {
    cases().into_iter().map(|case| case.label())
}

/// Measures the selected rows.
///
/// # Errors
/// See [`super::run`].
pub(super) fn measure(options: &Options<'_>) -> Result<Vec<BRow>> {
    let mut cases = cases();
    cases.retain(|case| options.wants(&case.label()));
    if cases.is_empty() {
        return Ok(Vec::new());
    }
    let mut results = Vec::new();
    with_lab(lab::Options::default(), |lab| {
        results = rows(lab, options, &cases)?;
        Ok(())
    })?;
    Ok(results)
}

fn rows(lab: &Lab, options: &Options<'_>, cases: &[Case]) -> Result<Vec<BRow>> {
    let config = fixture::prepare(lab)?;
    lab.gateway
        .run(&format!("ip route add 10.0.0.0/8 via {CLIENT}"))?;
    lab.gateway.enter(|| {
        let mut bench = Bench::new(&config, options, cases)?;
        go_first()?;
        let rounds = options.rounds();
        let all = rounds * cases.len();
        let mut random = Random::new(7);
        for round in 0..rounds {
            for (step, row) in random.order(cases.len()).into_iter().enumerate() {
                let label = cases[row].label();
                (options.progress)(round * cases.len() + step, all, &label);
                bench
                    .round(row, options.packets())
                    .with_context(|| format!("failed to measure {label}"))?;
            }
        }
        (options.progress)(all, all, "programs");
        let packets = options.packets();
        Ok(bench.rows.iter().map(|row| row.result(packets)).collect())
    })
}

/// A row that is being measured.
struct Row {
    case: Case,
    gateway: usize,
    plan: Plan,
    packet: Packet,
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
            wrapper: Instrument::restore()?,
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
        let plan = plan_of(traffic, way, case.flows, case.fate != Fate::Miss)?;
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
            ..plan
        };
        let (_, first) = self.wrapper.once(RESTORE, &only, &packet)?;
        check(traffic, way, false, &first)?;
        let gateway = &self.gateways[index];
        self.wrapper
            .before(gateway.dataplane.program(packet.ingress)?)?;
        let (_, seen) = self.wrapper.once(RESTORE, &plan, &packet)?;
        let translated = !matches!(case.fate, Fate::Punt(_));
        check(traffic, way, translated, &seen)?;
        self.rows.push(Row {
            case,
            gateway: index,
            plan,
            packet,
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
        samples.take(|| row.sample(gateway, &mut self.wrapper, pass, packets))?;
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
            self.check_counters(|at| after[at] - before[at], packets, gateway)?;
            let again = time(wrapper, pass)?.nanoseconds;
            // A tick that ends during the round makes fresh next hops stale.
            let ended = self.case.fate == Fate::Flow(Age::Fresh)
                && gateway.tick_has_ended(self.packet.ingress, &self.first)?;
            if !ended {
                return Ok([floor, whole, again]);
            }
        }
    }

    /// Checks that every packet had the expected outcome.
    fn check_counters(
        &self,
        counted: impl Fn(usize) -> u64,
        packets: u32,
        gateway: &Gateway,
    ) -> Result<()> {
        let packets = u64::from(packets);
        let class = class(self.case.traffic);
        let at = match (self.case.fate, class) {
            (Fate::Punt(reason), _) => counters::reason(reason),
            (_, Some(class)) => counters::class(direction(self.case.way), class),
            (_, None) => return Ok(()),
        };
        let seen = counted(at + Quantity::Packets as usize);
        // One correct checksum in 65,535 looks like a partial one, and takes the slow path. SPIs
        // and sequence numbers that rise together cause some more.
        let slow = counted(counters::reason(Reason::ChecksumPartial));
        let expected = self.case.traffic == Traffic::EspInUdpChecksum && slow * 1000 < packets;
        ensure!(
            seen == packets || (expected && seen + slow == packets),
            "{seen} of {packets} packets were counted"
        );
        let untracked = match self.case.fate {
            Fate::Punt(_) => return Ok(()),
            Fate::Flow(_) | Fate::Session | Fate::Miss => {
                counted(at + Quantity::UntrackedPackets as usize)
            }
        };
        // Each of the few flows without a slot is visited this often.
        let excused = gateway.without_slot * (packets / self.case.flows + 1);
        let right = match self.case.fate {
            Fate::Miss => untracked == packets,
            Fate::Flow(_) | Fate::Session | Fate::Punt(_) => untracked <= excused,
        };
        ensure!(right, "{untracked} of {packets} packets were untracked");
        Ok(())
    }

    fn result(&self, packets: u32) -> BRow {
        BRow {
            traffic: self.case.traffic,
            way: self.case.way,
            flows: self.case.flows,
            hit: matches!(self.case.fate, Fate::Flow(_) | Fate::Session),
            fresh: self.case.fate == Fate::Flow(Age::Fresh),
            nanoseconds: self.samples.spread(),
            packets: u64::from(packets),
        }
    }
}
