//! Which SPIs `ikenat stats` lists, in which order, and their rates.

use crate::report::wanted_services::WantedServices;
use crate::tables::clock::Clock;
use crate::tables::overview::Overview;
use crate::tables::snapshot::{FlowId, FlowRecord, Snapshot};
use clap::ValueEnum;
use ipnet::Ipv4Net;
use std::cmp::Reverse;
use std::net::Ipv4Addr;
use std::time::Duration;

/// What SPIs are sorted by. With numbers the largest one is the first, with times the latest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Sort {
    /// Peer, direction and first packet.
    #[default]
    Peer,
    /// Packets.
    Packets,
    /// Bytes.
    Bytes,
    /// Packets per second.
    Rate,
    /// Estimated loss.
    Loss,
    /// Reordered packets.
    Reordered,
    /// First packet.
    FirstSeen,
    /// Last packet.
    LastSeen,
}

/// What the administrator wants to see.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// Only peers in one of these prefixes; all without one.
    pub peers: Vec<Ipv4Net>,
    /// Only these SPIs; all without one.
    pub spis: Vec<u32>,
    /// Only the SPIs and peers of these services.
    pub services: WantedServices,
    /// The order.
    pub sort: Sort,
    /// Only the first so many.
    pub top: Option<usize>,
}

impl Selection {
    /// Whether a peer is wanted.
    pub fn wants(&self, peer: Ipv4Addr) -> bool {
        self.peers.is_empty() || self.peers.iter().any(|prefix| prefix.contains(&peer))
    }

    /// Whether entries of the service with this number are wanted.
    pub(super) fn wants_service(&self, overview: &Overview, number: u16) -> bool {
        self.services.wants(overview.service_name(number))
    }

    /// Whether SPIs are chosen, and not only peers. Then the only peers of interest are theirs.
    pub const fn is_of_spis(&self) -> bool {
        !self.spis.is_empty() || self.top.is_some()
    }

    /// Whether anything may be left out.
    pub const fn is_partial(&self) -> bool {
        self.is_of_spis() || !self.peers.is_empty() || self.services.is_partial()
    }

    /// The flows to list, of those of wanted peers.
    pub(super) fn list<'s>(
        &self,
        snapshot: &'s Snapshot,
        rates: &Rates<'_>,
    ) -> Vec<&'s FlowRecord> {
        let wanted = |flow: &&FlowRecord| {
            (self.spis.is_empty() || self.spis.contains(&flow.spi))
                && self.wants_service(&snapshot.overview, flow.service)
        };
        let flows = snapshot.flows.iter().filter(wanted);
        let top = self.top.unwrap_or(usize::MAX);
        if self.sort == Sort::Peer {
            return flows.take(top).collect();
        }
        // Equal ones stay in the order that they had.
        let place = |(at, flow)| (Reverse(self.weight(flow, rates)), at, flow);
        let mut ranked: Vec<(Reverse<u64>, usize, &FlowRecord)> =
            flows.enumerate().map(place).collect();
        if top < ranked.len() {
            ranked.select_nth_unstable_by_key(top, |(weight, at, _)| (*weight, *at));
            ranked.truncate(top);
        }
        ranked.sort_unstable_by_key(|(weight, at, _)| (*weight, *at));
        ranked.into_iter().map(|(.., flow)| flow).collect()
    }

    fn weight(&self, flow: &FlowRecord, rates: &Rates<'_>) -> u64 {
        match self.sort {
            Sort::Peer => 0,
            Sort::Packets => flow.packets,
            Sort::Bytes => flow.bytes,
            // The bits of floating-point numbers that are not negative are in their order.
            Sort::Rate => rates.of(flow).to_bits(),
            Sort::Loss => flow.estimated_loss(),
            Sort::Reordered => flow.reordered,
            Sort::FirstSeen => flow.first_seen,
            Sort::LastSeen => u64::from(u32::MAX - flow.age),
        }
    }
}

/// The packets of each SPI in an earlier snapshot.
#[derive(Clone, Debug, Default)]
pub struct PreviousCounts(Vec<(FlowId, u64)>);

impl PreviousCounts {
    /// Takes them from a snapshot.
    pub fn of(snapshot: &Snapshot) -> Self {
        let packets = snapshot.flows.iter().map(|flow| (flow.id(), flow.packets));
        let mut packets: Vec<(FlowId, u64)> = packets.collect();
        packets.sort_unstable();
        Self(packets)
    }

    fn packets(&self, id: FlowId) -> u64 {
        let Self(packets) = self;
        let found = packets.binary_search_by_key(&id, |(id, _)| *id);
        found.map_or(0, |at| packets[at].1)
    }
}

/// An earlier snapshot, and how long ago it was taken.
pub type Earlier<'s> = (&'s PreviousCounts, Duration);

/// Computes the rates of SPIs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rates<'s> {
    clock: Clock,
    now: u64,
    earlier: Option<Earlier<'s>>,
}

impl<'s> Rates<'s> {
    pub(super) const fn new(clock: Clock, now: u64, earlier: Option<Earlier<'s>>) -> Self {
        Self {
            clock,
            now,
            earlier,
        }
    }

    /// Packets per second: since the earlier snapshot, else over the life of the SPI.
    pub(super) fn of(&self, flow: &FlowRecord) -> f64 {
        if let Some((before, passed)) = self.earlier {
            let packets = flow.packets.saturating_sub(before.packets(flow.id()));
            return per_second(packets, passed.as_secs_f64());
        }
        let first_seen = self.now.saturating_sub(flow.first_seen);
        let life = first_seen.saturating_sub(u64::from(flow.age));
        per_second(flow.packets, self.clock.seconds(life))
    }
}

#[expect(clippy::cast_precision_loss, reason = "a rate for people")]
fn per_second(packets: u64, seconds: f64) -> f64 {
    // Less than a second is too short to measure a rate.
    packets as f64 / seconds.max(1.0)
}
