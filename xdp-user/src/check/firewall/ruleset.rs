//! Firewall rules as far as one has to understand them to say what becomes of our packets, and the walk of a packet
//! through them.
//!
//! It may not know in whose language the rules were written.

use super::sample::{Hook, Packet, Test, Truth};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;

/// What a rule does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// Nothing that decides about the packet: counts, logs, marks.
    Nothing,
    Accept,
    /// Also `reject`.
    Drop,
    Return,
    Jump(String),
    Goto(String),
    /// Also `masquerade`.
    SourceNat,
    /// Also `redirect`; with the new address where it is known.
    DestinationNat(Option<Ipv4Addr>),
    /// We do not understand it.
    Unknown,
}

/// A rule.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Rule {
    pub(super) tests: Vec<Test>,
    pub(super) target: Target,
    /// As its owner would recognize it.
    pub(super) text: String,
    /// The command that removes it.
    pub(super) remove: String,
}

impl Rule {
    pub(super) fn truth(&self, packet: &Packet) -> Truth {
        let truths = self.tests.iter().map(|test| test.truth(packet));
        truths.fold(Truth::Yes, Truth::and)
    }

    /// Whether it can be about nothing but a service, and be removed without harm to other traffic.
    pub(super) fn is_about_a_service(&self) -> bool {
        self.tests.iter().any(Test::is_about_a_service)
    }
}

/// What a chain is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Nat,
    Filter,
}

/// A chain that the kernel calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Base {
    pub(super) kind: Kind,
    pub(super) hook: Hook,
    pub(super) priority: i64,
    pub(super) drops: bool,
}

/// A chain.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Chain {
    pub(super) base: Option<Base>,
    pub(super) rules: Vec<Rule>,
}

/// In whose language commands for a table are written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Language {
    /// Of this program: `iptables-legacy`, `iptables-nft`.
    Iptables(String),
    /// Of this family.
    Nft(String),
}

/// A table, with its chains by name.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Table {
    pub(super) language: Language,
    pub(super) name: String,
    pub(super) chains: BTreeMap<String, Chain>,
}

/// A rule that a packet meets.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hit<'r> {
    pub(super) rule: &'r Rule,
    pub(super) truth: Truth,
}

/// What a packet met in one base chain.
#[derive(Clone, Debug, Default)]
pub(super) struct Trace<'r> {
    /// The rules that decide about it, or may.
    pub(super) hits: Vec<Hit<'r>>,
    /// It may reach the end of the base chain.
    pub(super) falls_through: bool,
}

/// Whether to go on with the next rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    GoOn,
    Stop,
}

/// Chains call each other; the kernel allows no deeper nesting than this either (`NFT_JUMP_STACK_SIZE`).
const DEPTH: usize = 16;

impl Table {
    /// The base chains of a kind at a hook.
    pub(super) fn bases(
        &self,
        kind: Kind,
        hook: Hook,
    ) -> impl Iterator<Item = (&str, &Chain, &Base)> {
        self.chains.iter().filter_map(move |(name, chain)| {
            let base = chain.base.as_ref()?;
            let fits = base.kind == kind && base.hook == hook;
            fits.then_some((name.as_str(), chain, base))
        })
    }

    /// Sends a packet through a base chain of this table.
    pub(super) fn walk<'r>(&'r self, chain: &'r Chain, packet: &Packet) -> Trace<'r> {
        let mut trace = Trace::default();
        let step = self.step_through(chain, packet, Truth::Yes, DEPTH, &mut trace);
        trace.falls_through = step == Step::GoOn;
        trace
    }

    fn step_through<'r>(
        &'r self,
        chain: &'r Chain,
        packet: &Packet,
        so_far: Truth,
        depth: usize,
        trace: &mut Trace<'r>,
    ) -> Step {
        for rule in &chain.rules {
            let truth = so_far.and(rule.truth(packet));
            if truth == Truth::No {
                continue;
            }
            let certain = truth == Truth::Yes;
            let (next, leaves) = match &rule.target {
                Target::Nothing => continue,
                Target::Return if certain => return Step::GoOn,
                Target::Return => continue,
                Target::Jump(next) => (next, false),
                Target::Goto(next) => (next, true),
                Target::Accept
                | Target::Drop
                | Target::SourceNat
                | Target::DestinationNat(_)
                | Target::Unknown => {
                    trace.hits.push(Hit { rule, truth });
                    if certain && rule.target != Target::Unknown {
                        return Step::Stop;
                    }
                    continue;
                }
            };
            let Some(next) = self.chains.get(next).filter(|_| depth > 0) else {
                continue;
            };
            let step = self.step_through(next, packet, truth, depth - 1, trace);
            if certain && (step == Step::Stop || leaves) {
                return step;
            }
        }
        Step::GoOn
    }
}
