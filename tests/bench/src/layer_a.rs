//! Layer A, inside the emulated machine: instructions per packet.
//!
//! One nanosecond of that machine is one instruction (QEMU's `-icount shift=0`), so the time per
//! packet is its exact cost.

use anyhow::Result;
use xdp_common::{Reason, counters};

use crate::contest::{Standing, Start};
use crate::kinds::{BASE, Case};
use crate::results::{ARow, Contestant, Direction, LayerA, Traffic};
use crate::wire::Outcome;

/// Packets in a measured run.
const PACKETS: u32 = 20_000;
/// The most runs of a row.
const MOST: usize = 8;
/// The largest difference between the runs that are averaged for a row.
const APART: f64 = 0.002;

/// The measurements of one boot.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Only these contestants; empty: all.
    pub contestants: Vec<Contestant>,
    /// Only rows whose label contains this; the cable and the no-op redirect are measured in any
    /// case.
    pub only: Option<String>,
    /// The kernel's own methods run with ESP only: for them IKE and keepalives are UDP like any
    /// other.
    pub quick: bool,
}

impl Options {
    fn wants(&self, contestant: Contestant, traffic: Traffic, way: Direction) -> bool {
        let esp = traffic.establishing() == traffic;
        let own = is_needed(contestant) || contestant == Contestant::IkenatGeneric;
        if self.quick && !esp && !own {
            return false;
        }
        let always = matches!(contestant, Contestant::Cable | Contestant::Noop);
        let contains = |word: &String| label(contestant, traffic, way).contains(word);
        always || self.only.as_ref().is_none_or(contains)
    }

    /// The contestants that take part: those with at least one wanted row.
    fn taking_part(&self) -> Vec<Contestant> {
        let asked =
            |one: &Contestant| self.contestants.is_empty() || self.contestants.contains(one);
        let wanted =
            |one: &Contestant| cases(*one).any(|(traffic, way)| self.wants(*one, traffic, way));
        CONTESTANTS
            .into_iter()
            .filter(asked)
            .filter(wanted)
            .collect()
    }
}

/// The label by which `--only` finds a row: `nft esp-in-udp inbound`.
#[must_use]
pub fn label(contestant: Contestant, traffic: Traffic, way: Direction) -> String {
    format!("{} {} {}", name(contestant), name(traffic), name(way))
}

/// A name as in the raw JSON.
#[must_use]
pub fn name(value: impl serde::Serialize) -> String {
    let value = serde_json::to_value(value).unwrap_or_default();
    value.as_str().unwrap_or_default().to_owned()
}

/// Whether the label of any row contains this.
#[must_use]
pub fn has(word: &str) -> bool {
    CONTESTANTS
        .into_iter()
        .any(|one| cases(one).any(|(traffic, way)| label(one, traffic, way).contains(word)))
}

/// All contestants, the cable first: the others are compared with it.
pub const CONTESTANTS: [Contestant; 12] = [
    Contestant::Cable,
    Contestant::Noop,
    Contestant::Pass,
    Contestant::Ikenat,
    Contestant::IkenatOneArmed,
    Contestant::IkenatServices,
    Contestant::IkenatGeneric,
    Contestant::Forwarding,
    Contestant::Iptables,
    Contestant::Nft,
    Contestant::NftFlowtable,
    Contestant::Ipvs,
];

/// Traffic that is forwarded.
const HANDLED: [Traffic; 5] = [
    Traffic::EspInUdp,
    Traffic::EspInUdpChecksum,
    Traffic::Esp,
    Traffic::Ike,
    Traffic::Keepalive,
];

/// Traffic that is not.
const NOT_HANDLED: [(Traffic, Reason); 2] = [
    (Traffic::OtherPort, Reason::OtherPort),
    (Traffic::NotIpv4, Reason::NotIpv4),
];

/// The most characters of the reason why a contestant is missing.
const REASON: usize = 200;

/// The rows of a contestant.
fn cases(contestant: Contestant) -> impl Iterator<Item = (Traffic, Direction)> {
    let forwards = contestant != Contestant::Pass;
    let passes = matches!(contestant, Contestant::Pass | Contestant::Ikenat);
    // Inbound first, for the kernel's conntrack; `warm_up` sends in both directions in any case.
    let handled = HANDLED
        .into_iter()
        .flat_map(|traffic| [Direction::Inbound, Direction::Outbound].map(|way| (traffic, way)));
    // Where both sides are one interface, the fast path is another one.
    let esp_only = contestant == Contestant::IkenatOneArmed;
    // Among several VIPs, ESP looks one up in one way, and the rest in another.
    let one_of_each = contestant == Contestant::IkenatServices;
    let differs = move |traffic: Traffic| {
        (!esp_only || traffic.establishing() == traffic)
            && (!one_of_each || matches!(traffic, Traffic::EspInUdp | Traffic::Ike))
    };
    let others = NOT_HANDLED.map(|(traffic, _)| (traffic, Direction::Inbound));
    handled
        .filter(move |_| forwards)
        .filter(move |(traffic, _)| differs(*traffic))
        .chain(others.into_iter().filter(move |_| passes))
}

/// The figures of one boot. Every row has one total and no margin yet.
///
/// # Errors
/// A run fails, or the counters do not show what was sent.
pub fn measure(options: &Options, progress: &dyn Fn(usize, usize, &str)) -> Result<LayerA> {
    let wanted = options.taking_part();
    let mut layer = LayerA {
        kernel: ikenat_tests::kernel::release()?,
        ..LayerA::default()
    };
    let all = wanted.iter().map(|one| cases(*one).count()).sum();
    let mut done = 0;
    for contestant in wanted {
        progress(done, all, &name(contestant));
        let mut standing = match Standing::new(contestant, 1, Start::Object) {
            Ok(standing) => standing,
            Err(error) if is_needed(contestant) => {
                return Err(error.context(format!("failed to set up {}", name(contestant))));
            }
            Err(error) => {
                layer.missing.push((contestant, brief(&error)));
                done += cases(contestant).count();
                continue;
            }
        };
        for (traffic, way) in cases(contestant) {
            if options.wants(contestant, traffic, way) {
                progress(done, all, &label(contestant, traffic, way));
                layer.rows.push(measured(&mut standing, traffic, way)?);
            }
            done += 1;
        }
    }
    progress(all, all, "done");
    Ok(layer)
}

const fn case(traffic: Traffic, way: Direction) -> Case {
    Case {
        traffic,
        way,
        ..BASE
    }
}

/// The contestants with which the others are compared, and ikenat.
pub(crate) const fn is_needed(contestant: Contestant) -> bool {
    matches!(
        contestant,
        Contestant::Cable
            | Contestant::Noop
            | Contestant::Pass
            | Contestant::Ikenat
            | Contestant::IkenatOneArmed
            | Contestant::IkenatServices
    )
}

/// The number of runs that are averaged for a row: more where figures are compared to the
/// instruction.
const fn counted(contestant: Contestant) -> usize {
    if is_needed(contestant) { 3 } else { 2 }
}

/// The last line of an error, where a tool says what it lacks, cut to a maximum length.
fn brief(error: &anyhow::Error) -> String {
    let text = format!("{error:#}");
    let line = text.lines().rfind(|line| !line.trim().is_empty());
    line.unwrap_or_default()
        .trim()
        .chars()
        .take(REASON)
        .collect()
}

fn measured(standing: &mut Standing, traffic: Traffic, way: Direction) -> Result<ARow> {
    if let Some((_, reason)) = NOT_HANDLED.into_iter().find(|(kind, _)| *kind == traffic) {
        return left_alone(standing, traffic, reason);
    }
    let case = case(traffic, way);
    standing.warm_up(&case)?;
    let mut runs = Runs::default();
    while runs.want_more(standing.contestant) {
        let outcome = standing.run(&case, PACKETS)?;
        runs.add(&outcome, outcome.arrived);
    }
    Ok(runs.row(standing.contestant, &case))
}

/// Several runs of a case. In each run, ticks of the timer send the kernel to its softirq thread at
/// other packets, and now and then a kernel worker or the daemon scans a table during the run. The
/// ticks change the cost of a run by some instructions per packet; a scan raises it a lot. So the
/// figure is the mean of the cheapest runs, which have to agree, and the dearer ones do not count.
#[derive(Default)]
struct Runs {
    /// Instructions per packet, cheapest first.
    costs: Vec<f64>,
    sent: u64,
    arrived: u64,
}

impl Runs {
    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
    fn add(&mut self, outcome: &Outcome, arrived: u64) {
        let nanoseconds = outcome.elapsed.as_nanos() as f64;
        self.costs.push(nanoseconds / outcome.sent as f64);
        self.costs.sort_by(f64::total_cmp);
        self.sent += outcome.sent;
        self.arrived += arrived;
    }

    /// The runs that count.
    fn counting(&self, contestant: Contestant) -> &[f64] {
        let cheapest = self.costs.get(..counted(contestant));
        cheapest.unwrap_or(&self.costs)
    }

    fn want_more(&self, contestant: Contestant) -> bool {
        let counting = self.counting(contestant);
        let agree = match (counting.first(), counting.last()) {
            (Some(low), Some(high)) => *high <= low * (1.0 + APART),
            (None, _) | (_, None) => false,
        };
        // One run more than those that count, so that a dear one can be left out.
        self.costs.len() <= counted(contestant) || (!agree && self.costs.len() < MOST)
    }

    #[expect(clippy::cast_precision_loss, reason = "a handful of runs")]
    fn row(&self, contestant: Contestant, case: &Case) -> ARow {
        let counting = self.counting(contestant);
        ARow {
            contestant,
            traffic: case.traffic,
            way: case.way,
            totals: vec![counting.iter().sum::<f64>() / counting.len() as f64],
            marginal: None,
            sent: self.sent,
            arrived: self.arrived,
        }
    }
}

/// A row of traffic that is not forwarded: it must have arrived at the gateway, and the dataplane
/// must have counted it as not handled.
fn left_alone(standing: &mut Standing, traffic: Traffic, reason: Reason) -> Result<ARow> {
    let case = case(traffic, Direction::Inbound);
    standing.run(&case, 640)?;
    let at = counters::reason(reason);
    let received = standing.received()?;
    let counted = standing.counters()?.map(|words| words[at]);
    let mut runs = Runs::default();
    while runs.want_more(standing.contestant) {
        runs.add(&standing.run(&case, PACKETS)?, 0);
    }
    runs.arrived = standing.received()? - received;
    if let (Some(before), Some(after)) = (counted, standing.counters()?) {
        runs.arrived = runs.arrived.min(after[at] - before);
    }
    Ok(runs.row(standing.contestant, &case))
}

/// Every packet of the row arrived intact.
#[must_use]
pub const fn complete(row: &ARow) -> bool {
    row.sent > 0 && row.arrived == row.sent
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runs(costs: &[f64]) -> Runs {
        let mut costs = costs.to_vec();
        costs.sort_by(f64::total_cmp);
        Runs {
            costs,
            sent: 10,
            arrived: 10,
        }
    }

    #[test]
    fn runs_that_do_not_agree_are_repeated() {
        for (costs, more) in [
            (&[1000.0][..], true),
            (&[1000.0, 1001.0], true),
            (&[1000.0, 1001.0, 1014.0], false),
            (&[1000.0, 1014.0, 1010.0], true),
            (&[1000.0, 1014.0, 1001.0, 1010.5], false),
            (
                &[
                    1000.0, 1010.0, 1020.0, 1030.0, 1040.0, 1050.0, 1060.0, 1070.0,
                ],
                false,
            ),
        ] {
            assert_eq!(runs(costs).want_more(Contestant::Nft), more, "{costs:?}");
        }
        assert!(runs(&[1000.0, 1000.0, 1000.0]).want_more(Contestant::Ikenat));
    }

    #[test]
    fn a_row_is_the_mean_of_the_cheapest_runs() {
        let case = case(Traffic::Esp, Direction::Inbound);
        let row = runs(&[1000.0, 1100.0, 1002.0]).row(Contestant::Nft, &case);
        assert_eq!(row.totals, [1001.0]);
        let row = runs(&[1000.0, 1002.0, 1001.0, 1100.0]).row(Contestant::Ikenat, &case);
        assert_eq!(row.totals, [1001.0]);
    }

    #[test]
    fn words_and_haste_leave_out_rows() {
        let only = Some("nft esp".to_owned());
        let options = Options {
            only,
            quick: true,
            ..Options::default()
        };
        let (nft, noop) = (Contestant::Nft, Contestant::Noop);
        assert!(options.wants(nft, Traffic::Esp, Direction::Inbound));
        assert!(!options.wants(nft, Traffic::Ike, Direction::Inbound));
        assert!(!options.wants(Contestant::Ikenat, Traffic::Esp, Direction::Inbound));
        assert!(options.wants(noop, Traffic::Ike, Direction::Inbound));
        assert_eq!(options.taking_part(), [Contestant::Cable, noop, nft]);
        assert!(has("nft-flowtable esp") && !has("broken"));
    }

    #[test]
    fn a_missing_contestant_has_a_short_reason() {
        let error = anyhow::anyhow!(
            "`sysctl x` ended:\nsysctl: cannot stat {}\n",
            "x".repeat(300)
        );
        let reason = brief(&error);
        assert!(reason.starts_with("sysctl: cannot stat xx"), "{reason}");
        assert_eq!(reason.len(), REASON);
    }
}
