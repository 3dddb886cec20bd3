//! Conditions of the firewall: rules that change or drop packets of ours. Fast and slow path go past all of them; but what
//! the kernel itself has to fragment goes through them, and so does everything when the server is this host.
//!
//! Packets as ours would be are sent through a model of the rules. A rule that is not understood is named, not ignored.

mod fix;
mod iptables;
mod nft;
mod nft_display;
mod ruleset;
mod sample;
mod source;

use super::Finding;
use super::context::Scene;
use ruleset::{Kind, Rule, Table, Target};
use sample::{ESP, End, Hook, Packet, Truth, UDP};
use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use xdp_common::Direction;

/// Where our packets come from and go to.
struct Traffic {
    wans: Vec<String>,
    lans: Vec<String>,
    vip: Ipv4Addr,
    vip_is_local: bool,
    server: Ipv4Addr,
    server_is_local: bool,
}

pub(super) fn all(scene: &Scene<'_>) -> Vec<Finding> {
    let subject = scene.subject;
    let traffic = Traffic {
        wans: subject.wans.clone(),
        lans: subject.lans.clone(),
        vip: subject.vip,
        vip_is_local: scene.is_local(subject.vip),
        server: subject.server,
        server_is_local: scene.is_local(subject.server),
    };
    let rules = source::all();
    let mut findings = rules.findings;
    findings.extend(judge(&traffic, &rules.tables, rules.complete));
    findings
}

fn judge(traffic: &Traffic, tables: &[Table], complete: bool) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut judged = Judged::default();
    for table in tables {
        judged.source_nat(traffic, table);
        judged.destination_nat(traffic, table);
        judged.filter(traffic, table);
    }
    let codes: BTreeSet<&str> = judged.findings.iter().map(|finding| finding.code).collect();
    let all_clear = [
        (
            "snat",
            "no rule changes the source of our packets",
            CHANGED_SOURCE,
        ),
        (
            "dnat",
            "no rule changes the destination of our packets",
            CHANGED_DESTINATION,
        ),
        ("forward", "no chain drops our packets", DROPPED),
    ];
    for (code, found, why) in all_clear {
        // What could not be read, or not be understood, may hold anything.
        if complete && !codes.contains(code) && !codes.contains("rule") {
            findings.push(Finding::ok(code, found, why));
        }
    }
    findings.extend(judged.findings);
    findings
}

const CHANGED_SOURCE: &str = "packets that the kernel itself forwards (it fragments those that are too big without DF) would leave with another address or port, and ESP of two peers would collide; all others go past the rules";
const CHANGED_DESTINATION: &str = "once ikenat is attached it takes these packets before any rule sees them; a rule that is left over does its work again when ikenat is not there, and may catch what the kernel has to fragment";
const DROPPED: &str = "packets that the kernel itself forwards (it fragments those that are too big without DF) pass this chain; all others go past it";
const DROPPED_LOCAL: &str = "the server is this host, so every packet for it passes this chain";

/// UDP 500, UDP 4500 and ESP.
const SERVICES: [(u8, Option<u16>, &str); 3] = [
    (UDP, Some(500), "UDP 500"),
    (UDP, Some(4500), "UDP 4500"),
    (ESP, None, "ESP"),
];

/// A packet of ours at a hook, and what to call it.
struct Sample {
    packet: Packet,
    service: &'static str,
}

/// All packets of ours that a hook sees, of one direction. `to_vip`: as they come from outside, before ikenat.
fn samples(traffic: &Traffic, hook: Hook, direction: Direction, to_vip: bool) -> Vec<Sample> {
    let local = traffic.server_is_local;
    let server = End::Is(traffic.server, local);
    let vip = End::Is(traffic.vip, traffic.vip_is_local);
    let client = End::Client([traffic.vip, traffic.server]);
    let inbound = direction == Direction::Inbound;
    let (from, to) = if inbound {
        (&traffic.wans, &traffic.lans)
    } else {
        (&traffic.lans, &traffic.wans)
    };
    let names = |names: &[String]| -> Vec<Option<String>> {
        if names.is_empty() {
            vec![None]
        } else {
            names.iter().cloned().map(Some).collect()
        }
    };
    let has_input = hook != Hook::Output && (inbound || !local);
    let has_output = !matches!(hook, Hook::Prerouting | Hook::Input);
    let inputs = if has_input { names(from) } else { vec![None] };
    let outputs = if has_output { names(to) } else { vec![None] };
    let mut samples = Vec::new();
    for (protocol, port, service) in SERVICES {
        for input in &inputs {
            for output in &outputs {
                let packet = Packet {
                    input: input.clone(),
                    output: output.clone(),
                    source: if inbound { client } else { server },
                    destination: match (inbound, to_vip) {
                        (true, true) => vip,
                        (true, false) => server,
                        (false, _) => client,
                    },
                    protocol,
                    source_port: port.filter(|_| !inbound),
                    destination_port: port.filter(|_| inbound),
                };
                samples.push(Sample { packet, service });
            }
        }
    }
    samples
}

/// A rule that samples have met.
struct Met<'r> {
    rule: &'r Rule,
    services: Vec<&'static str>,
    understood: bool,
}

impl<'r> Met<'r> {
    /// Notes a meeting; each rule stands in the list once.
    fn note(list: &mut Vec<Self>, rule: &'r Rule, sample: &Sample, understood: bool) {
        let at = match list.iter().position(|met| std::ptr::eq(met.rule, rule)) {
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
        let met = &mut list[at];
        met.understood |= understood;
        if !met.services.contains(&sample.service) {
            met.services.push(sample.service);
        }
    }
}

#[derive(Default)]
struct Judged {
    findings: Vec<Finding>,
}

impl Judged {
    /// A rule that may be about our packets or not. Said once, however many chains lead to it.
    fn not_understood(&mut self, met: &Met<'_>, what: &str) {
        const WHY: &str = "a rule that is not understood may be harmless or not: look whether it is about these packets";
        let found = format!(
            "not understood, it may {what} ({}): {}",
            met.services.join(", "),
            met.rule.text
        );
        if !self
            .findings
            .iter()
            .any(|finding| finding.found.contains(&met.rule.text))
        {
            self.findings.push(Finding::warning("rule", found, WHY));
        }
    }

    fn source_nat(&mut self, traffic: &Traffic, table: &Table) {
        for direction in Direction::ALL {
            let what = match direction {
                Direction::Inbound => "change the source of what clients send",
                Direction::Outbound => "change the source of what the server sends",
            };
            for (name, chain, base) in table.bases(Kind::Nat, Hook::Postrouting) {
                let mut list = Vec::new();
                for sample in samples(traffic, base.hook, direction, false) {
                    for hit in table.walk(chain, &sample.packet).hits {
                        let about = matches!(hit.rule.target, Target::SourceNat | Target::Unknown);
                        if about {
                            let understood =
                                hit.truth != Truth::Unknown && hit.rule.target != Target::Unknown;
                            Met::note(&mut list, hit.rule, &sample, understood);
                        }
                    }
                }
                for met in &list {
                    if !met.understood {
                        self.not_understood(met, what);
                        continue;
                    }
                    let found = format!(
                        "a rule would {what} ({}): {}",
                        met.services.join(", "),
                        met.rule.text
                    );
                    let mut finding = Finding::warning("snat", found, CHANGED_SOURCE);
                    finding.mend = if met.rule.is_about_a_service() {
                        vec![met.rule.remove.clone()]
                    } else {
                        fix::commands(traffic, table, name, base.hook, direction)
                    };
                    self.findings.push(finding);
                }
            }
        }
    }

    fn destination_nat(&mut self, traffic: &Traffic, table: &Table) {
        // As it comes, as the tc program hands it on, and what the server sends.
        let cases = [
            (Direction::Inbound, true),
            (Direction::Inbound, false),
            (Direction::Outbound, false),
        ];
        let mut list = Vec::new();
        for (_, chain, base) in table.bases(Kind::Nat, Hook::Prerouting) {
            for (direction, to_vip) in cases {
                for sample in samples(traffic, base.hook, direction, to_vip) {
                    for hit in table.walk(chain, &sample.packet).hits {
                        if matches!(hit.rule.target, Target::DestinationNat(_) | Target::Unknown) {
                            let understood =
                                hit.truth != Truth::Unknown && hit.rule.target != Target::Unknown;
                            Met::note(&mut list, hit.rule, &sample, understood);
                        }
                    }
                }
            }
        }
        for met in &list {
            if !met.understood {
                self.not_understood(met, "change the destination of our packets");
                continue;
            }
            let services = met.services.join(", ");
            let to = if let Target::DestinationNat(to) = met.rule.target {
                to
            } else {
                None
            };
            let what = match to {
                Some(to) if to == traffic.server => "a rule does ikenat's work".to_owned(),
                Some(to) => format!("a rule sends our packets to {to}"),
                None => "a rule changes the destination of our packets".to_owned(),
            };
            let found = format!("{what} ({services}): {}", met.rule.text);
            let finding = Finding::warning("dnat", found, CHANGED_DESTINATION);
            self.findings.push(finding.mend(met.rule.remove.clone()));
        }
    }

    fn filter(&mut self, traffic: &Traffic, table: &Table) {
        let local = traffic.server_is_local;
        for direction in Direction::ALL {
            let hooks: &[Hook] = match (local, direction) {
                (false, _) => &[Hook::Prerouting, Hook::Forward, Hook::Postrouting],
                (true, Direction::Inbound) => &[Hook::Prerouting, Hook::Input],
                (true, Direction::Outbound) => &[Hook::Output, Hook::Postrouting],
            };
            for hook in hooks {
                for (name, chain, base) in table.bases(Kind::Filter, *hook) {
                    let samples = samples(traffic, *hook, direction, false);
                    let verdict = dropped(table, chain, base.drops, &samples);
                    for met in &verdict.doubtful {
                        self.not_understood(met, "drop our packets");
                    }
                    if verdict.services.is_empty() {
                        continue;
                    }
                    let way = match direction {
                        Direction::Inbound => "to the server",
                        Direction::Outbound => "from the server",
                    };
                    let found = format!(
                        "the chain {name} of table {} drops {} {way}: {}",
                        table.name,
                        verdict.services.join(", "),
                        verdict.by.join("; ")
                    );
                    let mut finding = if local {
                        Finding::error("forward", found, DROPPED_LOCAL)
                    } else {
                        Finding::warning("forward", found, DROPPED)
                    };
                    finding.mend = fix::commands(traffic, table, name, *hook, direction);
                    self.findings.push(finding);
                }
            }
        }
    }
}

/// What a filter chain does to our packets.
#[derive(Default)]
struct Verdict<'r> {
    services: Vec<&'static str>,
    by: Vec<String>,
    doubtful: Vec<Met<'r>>,
}

fn dropped<'r>(
    table: &'r Table,
    chain: &'r ruleset::Chain,
    policy: bool,
    samples: &[Sample],
) -> Verdict<'r> {
    let mut verdict = Verdict::default();
    for sample in samples {
        let trace = table.walk(chain, &sample.packet);
        let mut by = None;
        for hit in &trace.hits {
            match hit.rule.target {
                Target::Unknown => Met::note(&mut verdict.doubtful, hit.rule, sample, false),
                Target::Drop if hit.truth == Truth::Unknown => {
                    Met::note(&mut verdict.doubtful, hit.rule, sample, false);
                }
                // A rule for some clients, or above some rate, is a rule that somebody has meant so.
                Target::Drop if hit.truth == Truth::Yes => by = Some(hit.rule.text.clone()),
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
        if by.is_none() && trace.falls_through && policy {
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
