//! The rows of the dataplane in layer B.

use super::gateway::{Age, Filling, Size};
use super::packets::{class, direction, is_esp};
use super::{FLOWS, flows_text, name, walk_text};
use crate::results::{Direction, Traffic, Walk};
use xdp_common::{Class, Reason};

/// The table entry that the packets of a row find.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
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
pub(super) struct Case {
    pub traffic: Traffic,
    pub way: Direction,
    pub flows: u64,
    pub fate: Fate,
    pub walk: Walk,
    pub size: Size,
}

/// All rows.
pub(super) fn cases() -> Vec<Case> {
    use {Direction as W, Fate as F, Traffic as T};
    let most = FLOWS[FLOWS.len() - 1];
    let mut cases = Vec::new();
    let mut add = |traffic, way, flows, fate| {
        cases.push(Case {
            traffic,
            way,
            flows,
            fate,
            walk: Walk::Random,
            size: Size::HalfLoad,
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
    for flows in FLOWS.into_iter().filter(|flows| *flows > 1) {
        cases.extend([Walk::Trains, Walk::Zipf].map(|walk| Case {
            traffic: T::EspInUdp,
            way: W::Inbound,
            flows,
            fate: F::Flow(Age::Fresh),
            walk,
            size: Size::HalfLoad,
        }));
    }
    cases
}

impl Case {
    pub(super) fn label(&self) -> String {
        let fate = match self.fate {
            Fate::Flow(Age::Fresh) | Fate::Session => "hit",
            Fate::Flow(Age::Stale) => "hit, stale",
            Fate::Miss => "miss",
            Fate::Punt(_) => "punt",
        };
        let flows = flows_text(self.flows);
        let walk = walk_text(self.walk);
        let size = match self.size {
            Size::HalfLoad => "",
            Size::Default => ", default tables",
        };
        format!(
            "{} {} {flows} {fate}{walk}{size}",
            name(self.traffic),
            name(self.way)
        )
    }

    /// The flows in the tables of its instance. IKE, keepalives and packets that are not handled
    /// share the instance of the sessions.
    pub(super) fn filling(&self) -> Filling {
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
            size: self.size,
            class: class.unwrap_or(Class::EspInUdp),
            direction,
        }
    }
}
