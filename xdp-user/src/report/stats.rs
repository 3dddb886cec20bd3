//! What `ikenat stats` reports: a snapshot in the units of its tables and of `--json`.
//!
//! The names of the fields are part of the interface, because scripts read them (`docs/json.md`).

use crate::tables::retired::Amount;
use crate::tables::snapshot::{FlowRecord, Snapshot};
use serde::Serialize;
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Duration;
use xdp_common::counters::{Quantity, class};
use xdp_common::{Class, Direction, Hook};

/// The answer of `stats`.
#[derive(Clone, Debug, Serialize)]
pub struct Stats {
    /// One for each VIP.
    pub instances: Vec<InstanceStats>,
}

/// One VIP.
#[derive(Clone, Debug, Serialize)]
pub struct InstanceStats {
    /// The VIP.
    pub vip: Ipv4Addr,
    /// The server behind it.
    pub server: Ipv4Addr,
    /// Identifies the set of tables ([`Snapshot::generation`]).
    pub generation: u64,
    /// One for each SPI of a peer in one direction.
    pub spis: Vec<Spi>,
    /// One for each peer.
    pub sessions: Vec<SessionStats>,
    /// Sums.
    pub totals: Totals,
}

/// One SPI of one peer in one direction.
#[derive(Clone, Debug, Serialize)]
pub struct Spi {
    /// The client.
    pub peer: Ipv4Addr,
    /// Its port, with ESP in UDP.
    pub port: Option<u16>,
    /// `esp-in-udp` or `esp`.
    pub kind: &'static str,
    /// As `0xc1234567`.
    pub spi: String,
    /// `in` or `out`.
    pub direction: &'static str,
    /// Packets.
    pub packets: u64,
    /// Bytes: IPv4 total lengths.
    pub bytes: u64,
    /// Over the life of the SPI, or since the previous snapshot.
    pub packets_per_second: f64,
    /// Age of the first packet.
    pub first_seen_secs: f64,
    /// Age of the last packet.
    pub last_seen_secs: f64,
    /// Sequence number of the first packet.
    pub first_sequence: u32,
    /// Sequence number of the last packet.
    pub last_sequence: u32,
    /// The highest one.
    pub highest_sequence: u32,
    /// Packets with a number that was not above the highest.
    pub reordered: u64,
    /// Numbers between the first and the highest that did not arrive.
    pub estimated_loss: u64,
}

/// Inbound and outbound.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct ByDirection<T> {
    /// From clients.
    #[serde(rename = "in")]
    pub inbound: T,
    /// From the server.
    #[serde(rename = "out")]
    pub outbound: T,
}

impl<T> ByDirection<T> {
    fn of(of: impl Fn(Direction) -> T) -> Self {
        Self {
            inbound: of(Direction::Inbound),
            outbound: of(Direction::Outbound),
        }
    }
}

/// One peer.
#[derive(Clone, Debug, Serialize)]
pub struct SessionStats {
    /// The client.
    pub peer: Ipv4Addr,
    /// `established` or `half-open`.
    pub state: &'static str,
    /// IKE on port 500.
    pub ike: ByDirection<u64>,
    /// IKE on port 4500.
    pub natt_ike: ByDirection<u64>,
    /// NAT-keepalives.
    pub keepalive: ByDirection<u64>,
    /// SPIs of both directions.
    pub spis: u64,
    /// Age of the last packet.
    pub last_seen_secs: f64,
}

/// Packets and bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Traffic {
    /// Packets.
    pub packets: u64,
    /// Bytes.
    pub bytes: u64,
}

/// Sums of ESP. Invariant: `esp` is the sum of the others.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Totals {
    /// All forwarded ESP, in UDP or not.
    pub esp: ByDirection<Traffic>,
    /// What the listed SPIs have counted.
    pub tracked: ByDirection<Traffic>,
    /// What expired SPIs had counted.
    pub retired: ByDirection<Traffic>,
    /// What was forwarded without an SPI that could count it.
    pub untracked: ByDirection<Traffic>,
}

/// Identifies an SPI from one snapshot to the next.
type Key = (Ipv4Addr, u32, Class, Direction);

/// The packets of each SPI in an earlier snapshot.
#[derive(Clone, Debug, Default)]
pub struct PreviousCounts(BTreeMap<Key, u64>);

impl PreviousCounts {
    /// Takes them from a snapshot.
    pub fn of(snapshot: &Snapshot) -> Self {
        let packets = snapshot.flows.iter().map(|flow| (key(flow), flow.packets));
        Self(packets.collect())
    }
}

const fn key(flow: &FlowRecord) -> Key {
    (flow.peer, flow.spi, flow.class, flow.direction)
}

#[expect(clippy::cast_precision_loss, reason = "a rate for people")]
fn per_second(packets: u64, seconds: f64) -> f64 {
    // Less than a second is too short to measure a rate.
    packets as f64 / seconds.max(1.0)
}

impl InstanceStats {
    /// Converts a snapshot. The rates are those since an earlier one, if there was one.
    pub fn of(snapshot: &Snapshot, earlier: Option<(&PreviousCounts, Duration)>) -> Self {
        let spis = snapshot
            .flows
            .iter()
            .map(|flow| spi(snapshot, flow, earlier));
        Self {
            vip: snapshot.vip,
            server: snapshot.server,
            generation: snapshot.generation,
            spis: spis.collect(),
            sessions: sessions(snapshot),
            totals: totals(snapshot),
        }
    }
}

fn spi(
    snapshot: &Snapshot,
    flow: &FlowRecord,
    earlier: Option<(&PreviousCounts, Duration)>,
) -> Spi {
    let clock = &snapshot.clock;
    let first_seen = snapshot.now.saturating_sub(flow.first_seen);
    let age = u64::from(flow.age);
    let packets_per_second = match earlier {
        Some((PreviousCounts(packets), passed)) => {
            let before = packets.get(&key(flow)).copied().unwrap_or_default();
            per_second(flow.packets.saturating_sub(before), passed.as_secs_f64())
        }
        None => per_second(flow.packets, clock.seconds(first_seen.saturating_sub(age))),
    };
    Spi {
        peer: flow.peer,
        port: (flow.class == Class::EspInUdp).then_some(flow.port),
        kind: flow.class.name(),
        spi: format!("{:#010x}", flow.spi),
        direction: flow.direction.name(),
        packets: flow.packets,
        bytes: flow.bytes,
        packets_per_second,
        first_seen_secs: clock.seconds(first_seen),
        last_seen_secs: clock.seconds(age),
        first_sequence: flow.first_sequence,
        last_sequence: flow.last_sequence,
        highest_sequence: u32::try_from(flow.highest & 0xffff_ffff).unwrap_or_default(),
        reordered: flow.reordered,
        estimated_loss: flow.estimated_loss(),
    }
}

fn sessions(snapshot: &Snapshot) -> Vec<SessionStats> {
    let seconds = |age: u32| snapshot.clock.seconds(u64::from(age));
    let established = snapshot.sessions.iter().map(|session| {
        let of = |i: usize| ByDirection::of(|direction| session.counters[i][direction as usize]);
        let flows = snapshot.flows.iter();
        let flows = flows.filter(|flow| flow.peer == session.peer);
        // The word of the session has the server's messages alone, which keep it from expiring.
        let (spis, age) = flows.fold((0, session.age), |(spis, age), flow| {
            (spis + 1, age.min(flow.age))
        });
        SessionStats {
            peer: session.peer,
            state: "established",
            ike: of(0),
            natt_ike: of(1),
            keepalive: of(2),
            spis,
            last_seen_secs: seconds(age),
        }
    });
    let half_open = snapshot.half_open.iter().map(|half| SessionStats {
        peer: half.peer,
        state: "half-open",
        ike: ByDirection::default(),
        natt_ike: ByDirection::default(),
        keepalive: ByDirection::default(),
        spis: 0,
        last_seen_secs: seconds(half.age),
    });
    let mut all: Vec<SessionStats> = established.chain(half_open).collect();
    all.sort_by_key(|session| session.peer);
    all
}

fn totals(snapshot: &Snapshot) -> Totals {
    let counted = |direction: Direction, packets: Quantity, bytes: Quantity| {
        let mut sum = Traffic::default();
        for hook in Hook::ALL {
            for kind in Class::ALL.into_iter().filter(|kind| kind.is_esp()) {
                let counters = &snapshot.counters[hook as usize];
                let at = class(direction, kind);
                sum.packets += counters[at + packets as usize];
                sum.bytes += counters[at + bytes as usize];
            }
        }
        sum
    };
    let tracked = |direction: Direction| {
        let flows = snapshot.flows.iter();
        flows
            .filter(|flow| flow.direction == direction)
            .fold(Traffic::default(), |sum, flow| Traffic {
                packets: sum.packets + flow.packets,
                bytes: sum.bytes + flow.bytes,
            })
    };
    let retired = |direction: Direction| {
        let Amount { packets, bytes } = snapshot.retired.esp[direction as usize];
        Traffic { packets, bytes }
    };
    Totals {
        esp: ByDirection::of(|way| counted(way, Quantity::Packets, Quantity::Bytes)),
        tracked: ByDirection::of(tracked),
        retired: ByDirection::of(retired),
        untracked: ByDirection::of(|way| {
            counted(way, Quantity::UntrackedPackets, Quantity::UntrackedBytes)
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tables::clock::{Clock, Moment};
    use crate::tables::retired::RetiredTotals;
    use xdp_common::counters::WORDS;

    fn snapshot() -> Snapshot {
        let moment = Moment {
            jiffies: 10_000,
            monotonic: 0,
        };
        let mut counters = [[0; WORDS]; Hook::ALL.len()];
        let esp = class(Direction::Inbound, Class::Esp);
        let udp = class(Direction::Inbound, Class::EspInUdp);
        counters[Hook::Xdp as usize][udp + Quantity::Packets as usize] = 90;
        counters[Hook::Tc as usize][udp + Quantity::Packets as usize] = 3;
        counters[Hook::Xdp as usize][esp + Quantity::Packets as usize] = 7;
        counters[Hook::Xdp as usize][esp + Quantity::UntrackedPackets as usize] = 5;
        Snapshot {
            vip: Ipv4Addr::new(203, 0, 113, 1),
            server: Ipv4Addr::new(192, 168, 0, 1),
            flags: 0,
            listed: [0, 0],
            namespace: 1,
            generation: 55,
            interfaces: Vec::new(),
            absent: Vec::new(),
            clock: Clock::new(250, moment),
            now: 10_000,
            flows: vec![FlowRecord {
                peer: Ipv4Addr::new(203, 0, 113, 10),
                port: 4500,
                class: Class::EspInUdp,
                spi: 0xc1,
                direction: Direction::Inbound,
                packets: 95,
                bytes: 9500,
                first_seen: 7_000,
                age: 500,
                first_sequence: 1,
                last_sequence: 100,
                highest: 0x1_0000_0064,
                reordered: 0,
            }],
            sessions: Vec::new(),
            half_open: Vec::new(),
            retired: RetiredTotals::default(),
            counters,
            tables: Vec::new(),
        }
    }

    #[test]
    fn totals_add_both_hooks_and_both_kinds() {
        let totals = InstanceStats::of(&snapshot(), None).totals;
        assert_eq!(totals.esp.inbound.packets, 100);
        assert_eq!(totals.untracked.inbound.packets, 5);
        assert_eq!(
            totals.tracked.inbound,
            Traffic {
                packets: 95,
                bytes: 9500
            }
        );
        assert_eq!(totals.esp.outbound, Traffic::default());
    }

    #[test]
    fn the_rate_is_the_mean_of_the_life_or_that_since_the_last_look() {
        let snapshot = snapshot();
        // Ten seconds from the first packet to the last.
        let spi = &InstanceStats::of(&snapshot, None).spis[0];
        assert!((spi.packets_per_second - 9.5).abs() < 1e-9);
        let mut earlier = PreviousCounts::of(&snapshot);
        earlier.0.values_mut().for_each(|packets| *packets -= 20);
        let since = Some((&earlier, Duration::from_secs(2)));
        let spi = &InstanceStats::of(&snapshot, since).spis[0];
        assert!((spi.packets_per_second - 10.0).abs() < 1e-9);
    }

    #[test]
    fn numbers_look_as_scripts_expect_them() {
        let instance = InstanceStats::of(&snapshot(), None);
        assert_eq!(instance.generation, 55);
        let spi = &instance.spis[0];
        let json = serde_json::to_value(spi).expect("serializes");
        assert_eq!(json["spi"], "0x000000c1");
        assert_eq!(json["kind"], "esp-in-udp");
        assert_eq!(json["direction"], "in");
        assert_eq!(json["port"], 4500);
        assert_eq!(json["highest_sequence"], 0x64);
        assert!((spi.last_seen_secs - 2.0).abs() < 1e-9);
        assert!((spi.first_seen_secs - 12.0).abs() < 1e-9);
    }
}
