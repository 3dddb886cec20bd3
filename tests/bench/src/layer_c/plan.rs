//! The plan of layer C: which cases are measured, and which contestants take part in each.
//!
//! The plan is not the whole product of all parameters: there is a base case, and the others differ
//! from it in one parameter each.

use crate::kinds::{BASE, Case};
use crate::results::{Contestant, Direction, Traffic};

/// The contestants without which there is no comparison.
pub(super) const NEEDED: [Contestant; 3] =
    [Contestant::Noop, Contestant::Ikenat, Contestant::IkenatTwin];

/// The other contestants: generic mode and the kernel's own methods.
const OTHERS: [Contestant; 6] = [
    Contestant::IkenatGeneric,
    Contestant::Forwarding,
    Contestant::Iptables,
    Contestant::Nft,
    Contestant::NftFlowtable,
    Contestant::Ipvs,
];

/// The contestants with a measurement of loss-free rate and latency.
pub(super) const PACED: [Contestant; 4] = [
    Contestant::Noop,
    Contestant::Ikenat,
    Contestant::Forwarding,
    Contestant::Nft,
];

/// Cases with the same contestants, which are alive at the same time.
pub(super) struct Group {
    /// The number of flows for which the tables are sized.
    pub(super) flows: u32,
    /// The contestants.
    pub(super) contestants: Vec<Contestant>,
    /// The cases.
    pub(super) cases: Vec<Case>,
    /// How often the contestants are set up: where memory decides, the result depends on the memory
    /// that they were given.
    pub(super) setups: usize,
    /// How often each set-up runs all cases.
    pub(super) blocks: usize,
    /// Whether loss-free rate and latency of the base case are measured as well.
    pub(super) paced: bool,
}

/// The label by which `--only` finds a case: `esp-in-udp inbound 110 bytes 1 K flows 2 cores`.
#[must_use]
pub fn label(case: &Case) -> String {
    format!(
        "{} {} {} bytes {} flows {} cores",
        name(case.traffic),
        name(case.way),
        case.frame,
        flows_text(case.flows),
        case.cores
    )
}

/// The label by which `--only` finds loss-free rates and latencies.
pub(super) const PACED_LABEL: &str = "loss-free rate and latency";

/// A name as in the raw JSON.
pub(super) fn name(value: impl serde::Serialize) -> String {
    let value = serde_json::to_value(value).unwrap_or_default();
    value.as_str().unwrap_or_default().to_owned()
}

fn flows_text(flows: u32) -> String {
    match flows {
        1_048_576 => "1 M".to_owned(),
        flows if flows >= 1024 => format!("{} K", flows / 1024),
        flows => flows.to_string(),
    }
}

/// The cases of a run on a machine with this many CPUs, or those with a label that contains a word.
pub(super) fn groups(quick: bool, only: Option<&str>, cpus: usize) -> Vec<Group> {
    let everybody: Vec<Contestant> = NEEDED.into_iter().chain(OTHERS).collect();
    let with = |more: &[Contestant]| NEEDED.iter().chain(more).copied().collect();
    let wants = |label: &str| only.is_none_or(|word| label.contains(word));
    let all = [
        Group {
            flows: 1024,
            contestants: everybody,
            cases: small(quick),
            setups: 1,
            blocks: if quick { 12 } else { 40 },
            paced: wants(PACED_LABEL),
        },
        Group {
            flows: 1 << 16,
            // The kernel's conntrack holds a quarter of a million entries, unless a setting of the
            // whole machine is changed.
            contestants: with(&[Contestant::Nft]),
            cases: if quick { Vec::new() } else { flows(1 << 16) },
            setups: 2,
            blocks: 20,
            paced: false,
        },
        Group {
            flows: 1 << 20,
            contestants: with(&[]),
            cases: if quick {
                flows(1 << 20)[..1].to_vec()
            } else {
                flows(1 << 20)
            },
            setups: if quick { 1 } else { 3 },
            blocks: if quick { 12 } else { 8 },
            paced: false,
        },
    ];
    let mut groups = Vec::from(all);
    for group in &mut groups {
        group
            .cases
            .retain(|case| wants(&label(case)) && case.cores as usize <= cpus);
    }
    groups.retain(|group| group.paced || !group.cases.is_empty());
    groups
}

/// All cases with few flows.
fn small(quick: bool) -> Vec<Case> {
    let traffic = |traffic, way| Case {
        traffic,
        way,
        ..BASE
    };
    let frame = |frame| Case { frame, ..BASE };
    let thousand = Case {
        flows: 1024,
        ..BASE
    };
    let mut cases = vec![
        BASE,
        traffic(Traffic::EspInUdp, Direction::Outbound),
        traffic(Traffic::EspInUdpChecksum, Direction::Inbound),
        traffic(Traffic::Esp, Direction::Inbound),
        traffic(Traffic::Ike, Direction::Inbound),
        traffic(Traffic::Mix, Direction::Inbound),
        frame(1442),
        thousand,
        // Each CPU has flows of its own, as with receive side scaling.
        Case {
            cores: 2,
            ..thousand
        },
    ];
    if !quick {
        let way = Direction::Outbound;
        cases.extend([
            traffic(Traffic::EspInUdpChecksum, way),
            traffic(Traffic::Esp, way),
            traffic(Traffic::Ike, way),
            traffic(Traffic::Mix, way),
            frame(60),
            frame(590),
        ]);
    }
    cases
}

/// Many flows: inbound, outbound, and on two CPUs.
fn flows(flows: u32) -> Vec<Case> {
    let base = Case { flows, ..BASE };
    let outbound = Case {
        way: Direction::Outbound,
        ..base
    };
    vec![base, outbound, Case { cores: 2, ..base }]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_departure_from_the_base_is_in_one_thing() {
        for case in groups(false, None, 2).iter().flat_map(|group| &group.cases) {
            let differs = [
                case.traffic != BASE.traffic || case.way != BASE.way,
                case.frame != BASE.frame,
                case.flows != BASE.flows,
            ];
            let things = differs.into_iter().filter(|&differs| differs).count();
            // Cases of two CPUs have separate flows, and those of table misses exist in both
            // directions.
            assert!(things <= 1 || case.flows > 1024, "{}", label(case));
        }
    }

    #[test]
    fn only_takes_what_contains_the_word() {
        let groups = groups(false, Some("1 M flows 2 cores"), 2);
        assert_eq!(groups.len(), 1);
        assert_eq!((groups[0].cases.len(), groups[0].paced), (1, false));
        assert!(super::groups(false, Some("1 M flows 2 cores"), 1).is_empty());
        assert!(super::groups(false, Some("nothing of the kind"), 2).is_empty());
    }
}
