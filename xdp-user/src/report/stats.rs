//! What `ikenat stats` reports: a snapshot in the units of its tables and of `--json`.
//!
//! The names of the fields are part of the interface, because scripts read them (`docs/json.md`).
//! Rows are made while they are written: a snapshot may have millions of them.

use crate::report::selection::{Earlier, Rates, Selection};
use crate::tables::retired::Amount;
use crate::tables::services::ServiceRecord;
use crate::tables::snapshot::{FlowRecord, HalfOpen, SessionRecord, Snapshot};
use serde::{Serialize, Serializer};
use std::net::Ipv4Addr;
use xdp_common::counters::{Quantity, class};
use xdp_common::{Class, Direction, Hook};

/// The answer of `stats`.
#[derive(Clone, Debug, Serialize)]
pub struct Stats<'s> {
    /// One for each that is attached.
    pub instances: Vec<InstanceStats<'s>>,
}

/// One instance.
#[derive(Clone, Debug, Serialize)]
pub struct InstanceStats<'s> {
    /// Its name.
    pub name: &'s str,
    /// What it translates, of what is selected.
    pub services: Vec<ServiceRecord>,
    /// Identifies the set of tables ([`crate::tables::overview::Overview::generation`]).
    pub generation: u64,
    /// One for each SPI of a peer in one direction.
    pub spis: Spis<'s>,
    /// One for each peer.
    pub sessions: Sessions<'s>,
    /// Sums over all SPIs and peers, listed or not.
    pub totals: Totals,
}

/// The SPIs that are listed, in this order.
#[derive(Clone, Debug)]
pub struct Spis<'s> {
    snapshot: &'s Snapshot,
    rates: Rates<'s>,
    listed: Vec<&'s FlowRecord>,
}

impl<'s> Spis<'s> {
    /// Makes the rows one after the other.
    pub fn iter(&self) -> impl Iterator<Item = Spi<'s>> {
        let all = self.listed.iter();
        all.map(|flow| spi(self.snapshot, flow, self.rates.of(flow)))
    }

    /// How many there are.
    pub const fn len(&self) -> usize {
        self.listed.len()
    }

    /// Whether there are none.
    pub const fn is_empty(&self) -> bool {
        self.listed.is_empty()
    }
}

impl Serialize for Spis<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter())
    }
}

/// A peer that is listed.
#[derive(Clone, Copy, Debug)]
enum Listed<'s> {
    Established(&'s SessionRecord),
    HalfOpen(&'s HalfOpen),
}

impl Listed<'_> {
    const fn peer(&self) -> Ipv4Addr {
        match self {
            Self::Established(session) => session.peer,
            Self::HalfOpen(half) => half.peer,
        }
    }
}

/// The peers that are listed, sorted by address.
#[derive(Clone, Debug)]
pub struct Sessions<'s> {
    snapshot: &'s Snapshot,
    listed: Vec<Listed<'s>>,
}

impl<'s> Sessions<'s> {
    /// All of a selection, or those of some peers, which are sorted.
    fn of(snapshot: &'s Snapshot, selection: &Selection, peers: Option<&[Ipv4Addr]>) -> Self {
        let wanted =
            |session: &&SessionRecord| selection.wants_service(&snapshot.overview, session.service);
        let established = snapshot.sessions.iter().filter(wanted);
        let established = established.map(Listed::Established);
        let half_open = snapshot.half_open.iter().map(Listed::HalfOpen);
        let half_open = half_open.filter(|_| !selection.services.is_partial());
        let is_listed =
            |one: &Listed<'_>| peers.is_none_or(|peers| peers.binary_search(&one.peer()).is_ok());
        let mut listed: Vec<Listed<'_>> = established.chain(half_open).filter(is_listed).collect();
        listed.sort_by_key(Listed::peer);
        Self { snapshot, listed }
    }

    /// Makes the rows one after the other.
    pub fn iter(&self) -> impl Iterator<Item = SessionStats<'s>> {
        let all = self.listed.iter();
        all.map(|one| session(self.snapshot, *one))
    }

    /// How many there are.
    pub const fn len(&self) -> usize {
        self.listed.len()
    }

    /// Whether there are none.
    pub const fn is_empty(&self) -> bool {
        self.listed.is_empty()
    }
}

impl Serialize for Sessions<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter())
    }
}

fn hexadecimal<S: Serializer>(spi: &u32, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&format_args!("{spi:#010x}"))
}

/// One SPI of one peer in one direction.
#[derive(Clone, Debug, Serialize)]
pub struct Spi<'s> {
    /// The name of the service.
    pub service: &'s str,
    /// The client.
    pub peer: Ipv4Addr,
    /// Its port, with ESP in UDP.
    pub port: Option<u16>,
    /// `esp-in-udp` or `esp`.
    pub kind: &'static str,
    /// As `0xc1234567`.
    #[serde(serialize_with = "hexadecimal")]
    pub spi: u32,
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
pub struct SessionStats<'s> {
    /// The name of the service; none of a half-open peer, whose entry does not have it.
    pub service: Option<&'s str>,
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
    /// Segments on TCP 4500.
    pub tcp: ByDirection<u64>,
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

impl<'s> InstanceStats<'s> {
    /// Chooses what is listed of a snapshot. The rates are those since an earlier one, if there was
    /// one.
    pub fn of(
        name: &'s str,
        snapshot: &'s Snapshot,
        selection: &Selection,
        earlier: Option<Earlier<'s>>,
    ) -> Self {
        let overview = &snapshot.overview;
        let rates = Rates::new(snapshot.clock, snapshot.now, earlier);
        let listed = selection.list(snapshot, &rates);
        let peers = selection.is_of_spis().then(|| {
            let mut peers: Vec<Ipv4Addr> = listed.iter().map(|flow| flow.peer).collect();
            peers.sort_unstable();
            peers.dedup();
            peers
        });
        Self {
            name,
            services: selection.services.of(&overview.services),
            generation: overview.generation,
            sessions: Sessions::of(snapshot, selection, peers.as_deref()),
            spis: Spis {
                snapshot,
                rates,
                listed,
            },
            totals: totals(snapshot),
        }
    }
}

fn spi<'s>(snapshot: &'s Snapshot, flow: &FlowRecord, packets_per_second: f64) -> Spi<'s> {
    let clock = &snapshot.clock;
    Spi {
        service: snapshot.overview.service_name(flow.service),
        peer: flow.peer,
        port: (flow.class == Class::EspInUdp).then_some(flow.port),
        kind: flow.class.name(),
        spi: flow.spi,
        direction: flow.direction.name(),
        packets: flow.packets,
        bytes: flow.bytes,
        packets_per_second,
        first_seen_secs: clock.seconds(snapshot.now.saturating_sub(flow.first_seen)),
        last_seen_secs: clock.seconds(u64::from(flow.age)),
        first_sequence: flow.first_sequence,
        last_sequence: flow.last_sequence,
        highest_sequence: u32::try_from(flow.highest & 0xffff_ffff).unwrap_or_default(),
        reordered: flow.reordered,
        estimated_loss: flow.estimated_loss(),
    }
}

fn session<'s>(snapshot: &'s Snapshot, one: Listed<'_>) -> SessionStats<'s> {
    let seconds = |age: u32| snapshot.clock.seconds(u64::from(age));
    match one {
        Listed::Established(session) => {
            let of =
                |i: usize| ByDirection::of(|direction| session.counters[i][direction as usize]);
            SessionStats {
                service: Some(snapshot.overview.service_name(session.service)),
                peer: session.peer,
                state: "established",
                ike: of(0),
                natt_ike: of(1),
                keepalive: of(2),
                tcp: of(4),
                spis: session.spis,
                last_seen_secs: seconds(session.age),
            }
        }
        Listed::HalfOpen(half) => SessionStats {
            service: None,
            peer: half.peer,
            state: "half-open",
            ike: ByDirection::default(),
            natt_ike: ByDirection::default(),
            keepalive: ByDirection::default(),
            tcp: ByDirection::default(),
            spis: 0,
            last_seen_secs: seconds(half.age),
        },
    }
}

fn totals(snapshot: &Snapshot) -> Totals {
    let counted = |direction: Direction, packets: Quantity, bytes: Quantity| {
        let mut sum = Traffic::default();
        for hook in Hook::ALL {
            for kind in Class::ALL.into_iter().filter(|kind| kind.is_esp()) {
                let counters = &snapshot.overview.counters[hook as usize];
                let at = class(direction, kind);
                sum.packets += counters[at + packets as usize];
                sum.bytes += counters[at + bytes as usize];
            }
        }
        sum
    };
    let traffic = |amounts: &[Amount; 2], direction: Direction| {
        let Amount { packets, bytes } = amounts[direction as usize];
        Traffic { packets, bytes }
    };
    Totals {
        esp: ByDirection::of(|way| counted(way, Quantity::Packets, Quantity::Bytes)),
        tracked: ByDirection::of(|way| traffic(&snapshot.tracked, way)),
        retired: ByDirection::of(|way| traffic(&snapshot.retired.esp, way)),
        untracked: ByDirection::of(|way| {
            counted(way, Quantity::UntrackedPackets, Quantity::UntrackedBytes)
        }),
    }
}

#[cfg(test)]
#[path = "stats_tests.rs"]
mod tests;
