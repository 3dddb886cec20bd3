//! Checks of the firewall: rules that change or drop handled packets. The fast path and the slow path
//! bypass the rules; packets that the kernel has to fragment do not, nor does any packet when the
//! server is this host.
//!
//! Sample packets are sent through a model of the rules. A rule that is not understood is reported.

mod fix;
mod iptables;
mod nft;
mod nft_display;
mod ruleset;
mod sample;
mod source;
mod traffic;

use super::Finding;
use super::context::Context;
use ruleset::{ChainType, Rule, Table, Target};
use sample::{Match, NetfilterHook};
use source::Ruleset;
use std::collections::BTreeSet;
use traffic::{HandledTraffic, Sample, samples};
use xdp_common::Direction;

/// The rules of this host.
pub(super) struct Rules(Ruleset);

impl Rules {
    /// Reads them.
    pub(super) fn read() -> Self {
        Self(source::all())
    }
}

pub(super) fn all(context: &Context<'_>, Rules(rules): &Rules) -> Vec<Finding> {
    let settings = context.settings;
    let traffic = HandledTraffic {
        wans: settings.wans.clone(),
        lans: settings.lans.clone(),
        vip: context.vip,
        vip_is_local: context.is_local(context.vip),
        server: context.server,
        server_is_local: context.is_local(context.server),
    };
    let mut findings = rules.findings.clone();
    findings.extend(assess(&traffic, &rules.tables, rules.complete));
    findings
}

fn assess(traffic: &HandledTraffic, tables: &[Table], complete: bool) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut assessment = Assessment::default();
    for table in tables {
        assessment.source_nat(traffic, table);
        assessment.destination_nat(traffic, table);
        assessment.filter(traffic, table);
    }
    let codes: BTreeSet<&str> = assessment
        .findings
        .iter()
        .map(|finding| finding.code)
        .collect();
    let all_clear = [
        (
            "snat",
            "no rule changes the source of handled packets",
            CHANGED_SOURCE,
        ),
        (
            "dnat",
            "no rule changes the destination of handled packets",
            CHANGED_DESTINATION,
        ),
        ("forward", "no chain drops handled packets", DROPPED),
    ];
    for (code, message, reason) in all_clear {
        // Rules that were not read or not understood may do anything.
        if complete && !codes.contains(code) && !codes.contains("rule") {
            findings.push(Finding::ok(code, message, reason));
        }
    }
    findings.extend(assessment.findings);
    findings
}

const CHANGED_SOURCE: &str = "packets that the kernel itself forwards (it fragments those that are too large and have no DF) would leave with another address or port, and ESP of two peers would collide; all others bypass the rules";
const CHANGED_DESTINATION: &str = "while ikenat is attached it handles these packets before any rule; a remaining rule acts again when ikenat is not attached, and may match packets that the kernel has to fragment";
const DROPPED: &str = "packets that the kernel itself forwards (it fragments those that are too large and have no DF) pass this chain; all others bypass it";
const DROPPED_LOCAL: &str = "the server is this host, so every packet for it passes this chain";

/// A rule that sample packets match.
struct MatchedRule<'r> {
    rule: &'r Rule,
    services: Vec<&'static str>,
    understood: bool,
}

impl<'r> MatchedRule<'r> {
    /// Adds a match to the list, which has each rule once.
    fn note(list: &mut Vec<Self>, rule: &'r Rule, sample: &Sample, understood: bool) {
        let at = match list
            .iter()
            .position(|matched| std::ptr::eq(matched.rule, rule))
        {
            Some(at) => at,
            None => {
                list.push(Self {
                    rule,
                    services: Vec::new(),
                    understood: false,
                });
                list.len() - 1
            }
        };
        let matched = &mut list[at];
        matched.understood |= understood;
        if !matched.services.contains(&sample.service) {
            matched.services.push(sample.service);
        }
    }
}

#[derive(Default)]
struct Assessment {
    findings: Vec<Finding>,
}

impl Assessment {
    /// A rule that may or may not apply to handled packets. It is reported once, even if several
    /// chains lead to it.
    fn not_understood(&mut self, matched: &MatchedRule<'_>, what: &str) {
        const REASON: &str =
            "the rule may be harmless; find out whether it applies to these packets";
        let message = format!(
            "rule not understood; it may {what} ({}): {}",
            matched.services.join(", "),
            matched.rule.text
        );
        if !self
            .findings
            .iter()
            .any(|finding| finding.message.contains(&matched.rule.text))
        {
            self.findings
                .push(Finding::warning("rule", message, REASON));
        }
    }

    fn source_nat(&mut self, traffic: &HandledTraffic, table: &Table) {
        for direction in Direction::ALL {
            let packets = match direction {
                Direction::Inbound => "packets from clients",
                Direction::Outbound => "packets from the server",
            };
            for (name, chain, base) in table.bases(ChainType::Nat, NetfilterHook::Postrouting) {
                let mut list = Vec::new();
                for sample in samples(traffic, base.hook, direction, false) {
                    for matched in table.walk(chain, &sample.packet).matches {
                        let about =
                            matches!(matched.rule.target, Target::SourceNat | Target::Unknown);
                        if about {
                            let understood = matched.matches != Match::Unknown
                                && matched.rule.target != Target::Unknown;
                            MatchedRule::note(&mut list, matched.rule, &sample, understood);
                        }
                    }
                }
                for matched in &list {
                    if !matched.understood {
                        self.not_understood(matched, &format!("change the source of {packets}"));
                        continue;
                    }
                    let message = format!(
                        "a rule changes the source of {packets} ({}): {}",
                        matched.services.join(", "),
                        matched.rule.text
                    );
                    let mut finding = Finding::warning("snat", message, CHANGED_SOURCE);
                    finding.fix = if matched.rule.is_about_a_service() {
                        matched.rule.remove.clone().into_iter().collect()
                    } else {
                        fix::commands(traffic, table, name, base.hook, direction)
                    };
                    self.findings.push(finding);
                }
            }
        }
    }

    fn destination_nat(&mut self, traffic: &HandledTraffic, table: &Table) {
        // From clients, before and after the translation by tc, and from the server.
        let cases = [
            (Direction::Inbound, true),
            (Direction::Inbound, false),
            (Direction::Outbound, false),
        ];
        let mut list = Vec::new();
        for (_, chain, base) in table.bases(ChainType::Nat, NetfilterHook::Prerouting) {
            for (direction, to_vip) in cases {
                for sample in samples(traffic, base.hook, direction, to_vip) {
                    for matched in table.walk(chain, &sample.packet).matches {
                        if matches!(
                            matched.rule.target,
                            Target::DestinationNat(_) | Target::Unknown
                        ) {
                            let understood = matched.matches != Match::Unknown
                                && matched.rule.target != Target::Unknown;
                            MatchedRule::note(&mut list, matched.rule, &sample, understood);
                        }
                    }
                }
            }
        }
        for matched in &list {
            if !matched.understood {
                self.not_understood(matched, "change the destination of handled packets");
                continue;
            }
            let services = matched.services.join(", ");
            let to = if let Target::DestinationNat(to) = matched.rule.target {
                to
            } else {
                None
            };
            let what = match to {
                Some(to) if to == traffic.server => {
                    "an existing DNAT rule already forwards to the server".to_owned()
                }
                Some(to) => format!("a DNAT rule sends handled packets to {to}"),
                None => "a rule changes the destination of handled packets".to_owned(),
            };
            let message = format!("{what} ({services}): {}", matched.rule.text);
            let finding = Finding::warning("dnat", message, CHANGED_DESTINATION);
            self.findings
                .push(finding.fixes(matched.rule.remove.clone()));
        }
    }

    fn filter(&mut self, traffic: &HandledTraffic, table: &Table) {
        let local = traffic.server_is_local;
        for direction in Direction::ALL {
            let hooks: &[NetfilterHook] = match (local, direction) {
                (false, _) => &[
                    NetfilterHook::Prerouting,
                    NetfilterHook::Forward,
                    NetfilterHook::Postrouting,
                ],
                (true, Direction::Inbound) => &[NetfilterHook::Prerouting, NetfilterHook::Input],
                (true, Direction::Outbound) => &[NetfilterHook::Output, NetfilterHook::Postrouting],
            };
            for hook in hooks {
                for (name, chain, base) in table.bases(ChainType::Filter, *hook) {
                    let samples = samples(traffic, *hook, direction, false);
                    let verdict = dropped(table, chain, base.drops, &samples);
                    for matched in &verdict.doubtful {
                        self.not_understood(matched, "drop handled packets");
                    }
                    if verdict.services.is_empty() {
                        continue;
                    }
                    let towards = match direction {
                        Direction::Inbound => "to the server",
                        Direction::Outbound => "from the server",
                    };
                    let message = format!(
                        "chain {name} of table {} drops {} {towards}: {}",
                        table.name,
                        verdict.services.join(", "),
                        verdict.by.join("; ")
                    );
                    let mut finding = if local {
                        Finding::error("forward", message, DROPPED_LOCAL)
                    } else {
                        Finding::warning("forward", message, DROPPED)
                    };
                    finding.fix = fix::commands(traffic, table, name, *hook, direction);
                    self.findings.push(finding);
                }
            }
        }
    }
}

/// What a filter chain does to handled packets.
#[derive(Default)]
struct ChainVerdict<'r> {
    services: Vec<&'static str>,
    by: Vec<String>,
    doubtful: Vec<MatchedRule<'r>>,
}

fn dropped<'r>(
    table: &'r Table,
    chain: &'r ruleset::Chain,
    policy: bool,
    samples: &[Sample],
) -> ChainVerdict<'r> {
    let mut verdict = ChainVerdict::default();
    for sample in samples {
        let traversal = table.walk(chain, &sample.packet);
        let mut by = None;
        for matched in &traversal.matches {
            match matched.rule.target {
                Target::Unknown => {
                    MatchedRule::note(&mut verdict.doubtful, matched.rule, sample, false);
                }
                Target::Drop if matched.matches == Match::Unknown => {
                    MatchedRule::note(&mut verdict.doubtful, matched.rule, sample, false);
                }
                // A rule that drops only some clients, or only above some rate, is intended.
                Target::Drop if matched.matches == Match::Yes => {
                    by = Some(matched.rule.text.clone());
                }
                Target::Drop
                | Target::Nothing
                | Target::Accept
                | Target::Return
                | Target::Jump(_)
                | Target::Goto(_)
                | Target::SourceNat
                | Target::DestinationNat(_) => {}
            }
        }
        if by.is_none() && traversal.falls_through && policy {
            by = Some("its policy".to_owned());
        }
        if let Some(by) = by {
            if !verdict.by.contains(&by) {
                verdict.by.push(by);
            }
            if !verdict.services.contains(&sample.service) {
                verdict.services.push(sample.service);
            }
        }
    }
    verdict
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
