//! A model of firewall tables, chains and rules, independent of the syntax that they are written in, and
//! the traversal of a sample packet through them.

use super::sample::{Condition, Match, NetfilterHook, SamplePacket};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;

/// What a rule does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// Counts, logs or marks the packet without deciding about it.
    Nothing,
    Accept,
    /// Also `reject`.
    Drop,
    Return,
    Jump(String),
    Goto(String),
    /// Also `masquerade`.
    SourceNat,
    /// Also `redirect`; with the new address if it is known.
    DestinationNat(Option<Ipv4Addr>),
    /// A target that this model does not understand.
    Unknown,
}

/// A rule.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Rule {
    pub(super) conditions: Vec<Condition>,
    pub(super) target: Target,
    /// The rule as the administrator knows it.
    pub(super) text: String,
    /// The command that removes it; none if its table or chain has a name that cannot be written there.
    pub(super) remove: Option<String>,
}

impl Rule {
    pub(super) fn evaluate(&self, packet: &SamplePacket) -> Match {
        let all = self
            .conditions
            .iter()
            .map(|condition| condition.evaluate(packet));
        all.fold(Match::Yes, Match::and)
    }

    /// Whether it applies only to the ports of a service or to ESP, so that it can be removed without
    /// harm to other traffic.
    pub(super) fn is_about_a_service(&self) -> bool {
        self.conditions.iter().any(Condition::is_about_a_service)
    }
}

/// The type of a base chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ChainType {
    Nat,
    Filter,
}

/// The properties of a base chain, which the kernel calls from a hook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct BaseChain {
    pub(super) kind: ChainType,
    pub(super) hook: NetfilterHook,
    pub(super) priority: i64,
    pub(super) drops: bool,
}

/// A chain.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Chain {
    pub(super) base: Option<BaseChain>,
    pub(super) rules: Vec<Rule>,
}

/// The syntax of commands for a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Syntax {
    /// The program: `iptables-legacy` or `iptables-nft`.
    Iptables(String),
    /// nft, with the family of the table.
    Nft(String),
}

/// A table, with its chains by name.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Table {
    pub(super) syntax: Syntax,
    pub(super) name: String,
    pub(super) chains: BTreeMap<String, Chain>,
}

/// A rule that a packet may match.
#[derive(Clone, Copy, Debug)]
pub(super) struct RuleMatch<'r> {
    pub(super) rule: &'r Rule,
    pub(super) matches: Match,
}

/// The result of a traversal of one base chain.
#[derive(Clone, Debug, Default)]
pub(super) struct Traversal<'r> {
    /// The rules that decide about the packet, or may decide.
    pub(super) matches: Vec<RuleMatch<'r>>,
    /// Whether it may reach the end of the base chain.
    pub(super) falls_through: bool,
}

/// Whether to continue with the next rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    GoOn,
    Stop,
}

/// The deepest nesting of chains. It is the kernel's limit, too (`NFT_JUMP_STACK_SIZE`).
const DEPTH: usize = 16;

impl Table {
    /// The base chains of a kind at a hook.
    pub(super) fn bases(
        &self,
        kind: ChainType,
        hook: NetfilterHook,
    ) -> impl Iterator<Item = (&str, &Chain, &BaseChain)> {
        self.chains.iter().filter_map(move |(name, chain)| {
            let base = chain.base.as_ref()?;
            let fits = base.kind == kind && base.hook == hook;
            fits.then_some((name.as_str(), chain, base))
        })
    }

    /// Sends a packet through a base chain of this table.
    pub(super) fn walk<'r>(&'r self, chain: &'r Chain, packet: &SamplePacket) -> Traversal<'r> {
        let mut traversal = Traversal::default();
        let step = self.step_through(chain, packet, Match::Yes, DEPTH, &mut traversal);
        traversal.falls_through = step == Step::GoOn;
        traversal
    }

    fn step_through<'r>(
        &'r self,
        chain: &'r Chain,
        packet: &SamplePacket,
        so_far: Match,
        depth: usize,
        traversal: &mut Traversal<'r>,
    ) -> Step {
        for rule in &chain.rules {
            let matches = so_far.and(rule.evaluate(packet));
            if matches == Match::No {
                continue;
            }
            let certain = matches == Match::Yes;
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
                    traversal.matches.push(RuleMatch { rule, matches });
                    if certain && rule.target != Target::Unknown {
                        return Step::Stop;
                    }
                    continue;
                }
            };
            let Some(next) = self.chains.get(next).filter(|_| depth > 0) else {
                continue;
            };
            let step = self.step_through(next, packet, matches, depth - 1, traversal);
            if certain && (step == Step::Stop || leaves) {
                return step;
            }
        }
        Step::GoOn
    }
}
