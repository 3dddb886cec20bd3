//! Parses the output of `iptables-save` into the model, for legacy and for nft tables.

use super::ruleset::{BaseChain, Chain, ChainType, Rule, Syntax, Table, Target};
use super::sample::{AddressRange, Condition, ESP, Match, NetfilterHook, UDP};
use crate::config::commands::quoted;
use std::collections::BTreeMap;

/// All tables of a dump. `program` is the iptables program that changes them.
pub(super) fn parse(text: &str, program: &str) -> Vec<Table> {
    let mut tables: Vec<Table> = Vec::new();
    for line in text.lines() {
        if let Some(name) = line.strip_prefix('*') {
            tables.push(Table {
                syntax: Syntax::Iptables(program.to_owned()),
                name: name.to_owned(),
                chains: BTreeMap::new(),
            });
        } else if let Some(table) = tables.last_mut() {
            if let Some(declared) = line.strip_prefix(':') {
                let mut words = declared.split(' ');
                let name = words.next().unwrap_or_default();
                let base = base(&table.name, name, words.next().unwrap_or_default());
                table.chains.entry(name.to_owned()).or_default().base = base;
            } else if let Some(appended) = line.strip_prefix("-A ") {
                let (chain, rest) = appended.split_once(' ').unwrap_or((appended, ""));
                let words = words(rest);
                let remove = [table.name.as_str(), "-D", chain]
                    .map(str::to_owned)
                    .into_iter();
                let remove: Vec<String> = remove.chain(words.clone()).map(as_argument).collect();
                let remove = format!("{program} -t {}", remove.join(" "));
                let rule = rule(line, words, remove);
                let chain: &mut Chain = table.chains.entry(chain.to_owned()).or_default();
                chain.rules.push(rule);
            }
        }
    }
    tables
}

/// A user-defined chain has no policy, which is printed as `-`.
fn base(table: &str, chain: &str, policy: &str) -> Option<BaseChain> {
    let priority = match table {
        "raw" => -300,
        "mangle" => -150,
        "security" => 50,
        _ => 0,
    };
    let base = |hook| BaseChain {
        kind: if table == "nat" {
            ChainType::Nat
        } else {
            ChainType::Filter
        },
        hook,
        priority,
        drops: policy == "DROP",
    };
    NetfilterHook::of(chain).filter(|_| policy != "-").map(base)
}

/// Splits as a shell would, as far as `iptables-save` quotes.
fn words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let (mut quoted, mut any) = (false, false);
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match character {
            '"' => {
                quoted = !quoted;
                any = true;
            }
            '\\' if quoted => word.extend(characters.next()),
            ' ' if !quoted => {
                if any || !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
                any = false;
            }
            _ => word.push(character),
        }
    }
    if any || !word.is_empty() {
        words.push(word);
    }
    words
}

/// A negation alone has no meaning to a shell behind the name of a command.
fn as_argument(word: String) -> String {
    if word == "!" { word } else { quoted(&word) }
}

/// Parses a rule option by option.
struct Reader {
    words: std::vec::IntoIter<String>,
    conditions: Vec<Condition>,
    target: Target,
}

fn rule(line: &str, words: Vec<String>, remove: String) -> Rule {
    let mut reader = Reader {
        words: words.into_iter(),
        conditions: Vec::new(),
        target: Target::Nothing,
    };
    let mut negated = false;
    while let Some(word) = reader.words.next() {
        if word == "!" {
            negated = true;
            continue;
        }
        reader.option(&word, negated);
        negated = false;
    }
    Rule {
        conditions: reader.conditions,
        target: reader.target,
        text: line.to_owned(),
        remove: Some(remove),
    }
}

impl Reader {
    fn value(&mut self) -> String {
        self.words.next().unwrap_or_default()
    }

    fn test(&mut self, test: Option<Condition>, negated: bool) {
        let test = test.unwrap_or(Condition::Constant(Match::Unknown));
        self.conditions.push(test.negated(negated));
    }

    fn option(&mut self, option: &str, negated: bool) {
        match option {
            "-s" | "-d" | "-i" | "-o" | "-p" | "--src-range" | "--dst-range" | "--sport"
            | "--dport" | "--sports" | "--dports" | "--ports" | "--src-type" | "--dst-type"
            | "--ctstate" | "--state" | "--pol" => {
                let value = self.value();
                let test = test(option, &value);
                self.test(test, negated);
            }
            // What they test comes as an option of its own; those without one, or with one that we do not know, are
            // matched below.
            "-m" => {
                let name = self.value();
                if name == "socket" || name == "rpfilter" || name == "cluster" {
                    self.test(None, false);
                }
            }
            "-j" => self.target = target(&self.value()),
            "-g" => self.target = Target::Goto(self.value()),
            "--to-destination" => {
                let value = self.value();
                let address = value.split([':', '-']).next().unwrap_or_default();
                self.target = Target::DestinationNat(address.parse().ok());
            }
            // These match some packets, whatever the number is.
            "--limit" | "--limit-burst" | "--probability" | "--every" | "--length" | "--ttl-lt"
            | "--ttl-gt" | "--ttl-eq" | "--espspi" | "--hashlimit-upto" | "--hashlimit-above" => {
                self.value();
                self.test(Some(Condition::Constant(Match::Some)), false);
            }
            // An option of `policy`. Packets that this host itself encrypts are not handled.
            "--dir" => _ = self.value(),
            "-f" => self.test(Some(Condition::Constant(Match::Some)), false),
            _ if decides_nothing(option) => {
                if !takes_no_value(option) {
                    self.value();
                }
            }
            _ => self.unknown(option),
        }
    }

    /// An unknown option of a match or of a target. Options of a target follow it, so that the target is
    /// known by then.
    fn unknown(&mut self, option: &str) {
        let of_match = self.target == Target::Nothing;
        if of_match && option.starts_with('-') {
            self.test(None, false);
        }
    }
}

/// Options that do not select packets.
fn decides_nothing(option: &str) -> bool {
    [
        "--comment",
        "--mode",
        "--packet",
        "--to-source",
        "--to-ports",
        "--random",
        "--random-fully",
        "--persistent",
        "--reject-with",
        "--log-prefix",
        "--log-level",
        "--log-uid",
        "--log-ip-options",
        "--log-tcp-options",
        "--log-tcp-sequence",
        "--nflog-group",
        "--nflog-prefix",
        "--set-xmark",
        "--set-mark",
        "--clamp-mss-to-pmtu",
        "--set-mss",
        "--save-mark",
        "--restore-mark",
        "--nfmask",
        "--ctmask",
        "--mask",
        "--notrack",
        "--zone",
        "--hashlimit-burst",
        "--hashlimit-mode",
        "--hashlimit-name",
        "--hashlimit-htable-expire",
        "--limit-iface-in",
        "--limit-iface-out",
    ]
    .contains(&option)
}

fn takes_no_value(option: &str) -> bool {
    [
        "--random",
        "--random-fully",
        "--persistent",
        "--log-uid",
        "--log-ip-options",
        "--log-tcp-options",
        "--log-tcp-sequence",
        "--clamp-mss-to-pmtu",
        "--save-mark",
        "--restore-mark",
        "--notrack",
        "--limit-iface-in",
        "--limit-iface-out",
    ]
    .contains(&option)
}

fn test(option: &str, value: &str) -> Option<Condition> {
    let ranges =
        || -> Option<Vec<AddressRange>> { value.split(',').map(AddressRange::parse).collect() };
    let names = || vec![value.to_owned()];
    Some(match option {
        "-s" | "--src-range" => Condition::Source(ranges()?),
        "-d" | "--dst-range" => Condition::Destination(ranges()?),
        "-i" => Condition::Input(names()),
        "-o" => Condition::Output(names()),
        "-p" => protocol(value)?,
        "--sport" | "--sports" => Condition::SourcePort(ports(value)?),
        "--dport" | "--dports" => Condition::DestinationPort(ports(value)?),
        "--ports" => Condition::Any(vec![
            Condition::SourcePort(ports(value)?),
            Condition::DestinationPort(ports(value)?),
        ]),
        "--src-type" if value == "LOCAL" => Condition::SourceIsLocal,
        "--dst-type" if value == "LOCAL" => Condition::DestinationIsLocal,
        "--ctstate" | "--state" => Condition::Constant(state(value)),
        "--pol" => Condition::Constant(Match::of(value == "none")),
        _ => return None,
    })
}

/// Most handled packets bypass connection tracking, so each one that it sees is new to it.
pub(super) fn state(names: &str) -> Match {
    Match::of(
        names
            .split(',')
            .any(|name| name.eq_ignore_ascii_case("new")),
    )
}

fn protocol(name: &str) -> Option<Condition> {
    if name == "all" {
        return Some(Condition::Constant(Match::Yes));
    }
    protocol_number(name).map(|number| Condition::Protocol(vec![number]))
}

/// Other protocols than UDP and ESP only have to be different from them.
pub(super) fn protocol_number(name: &str) -> Option<u8> {
    match name {
        "udp" => Some(UDP),
        "esp" | "ipsec-esp" => Some(ESP),
        "icmp" => Some(1),
        "igmp" => Some(2),
        "ipencap" | "ipip" => Some(4),
        "tcp" => Some(6),
        "gre" => Some(47),
        "ah" | "ipsec-ah" => Some(51),
        "icmpv6" | "ipv6-icmp" => Some(58),
        "ospf" => Some(89),
        "vrrp" => Some(112),
        "sctp" => Some(132),
        "udplite" => Some(136),
        "dccp" => Some(33),
        _ => name.parse().ok(),
    }
}

fn ports(text: &str) -> Option<Vec<(u16, u16)>> {
    let port = |text: &str, empty: u16| -> Option<u16> {
        if text.is_empty() {
            Some(empty)
        } else {
            text.parse().ok()
        }
    };
    let range = |part: &str| match part.split_once(':') {
        Some((first, last)) => Some((port(first, 0)?, port(last, u16::MAX)?)),
        None => part.parse().ok().map(|port| (port, port)),
    };
    text.split(',').map(range).collect()
}

fn target(name: &str) -> Target {
    match name {
        "ACCEPT" => Target::Accept,
        "DROP" | "REJECT" => Target::Drop,
        "RETURN" => Target::Return,
        "SNAT" | "MASQUERADE" | "NETMAP" => Target::SourceNat,
        "DNAT" | "REDIRECT" => Target::DestinationNat(None),
        "LOG" | "NFLOG" | "ULOG" | "MARK" | "CONNMARK" | "SECMARK" | "CONNSECMARK" | "TCPMSS"
        | "CT" | "NOTRACK" | "CLASSIFY" | "DSCP" | "TOS" | "TTL" | "CHECKSUM" | "AUDIT"
        | "TRACE" | "SET" | "TCPOPTSTRIP" | "RATEEST" | "LED" | "IDLETIMER" | "HMARK" => {
            Target::Nothing
        }
        "QUEUE" | "NFQUEUE" | "TPROXY" | "TEE" | "SYNPROXY" | "CLUSTERIP" | "ECN" => {
            Target::Unknown
        }
        chain => Target::Jump(chain.to_owned()),
    }
}

#[cfg(test)]
#[path = "iptables_tests.rs"]
mod tests;
