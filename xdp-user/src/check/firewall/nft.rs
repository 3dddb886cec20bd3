//! Parses the output of `nft -j list ruleset` into the model.

use super::iptables::{protocol_number, state};
use super::nft_display::statements;
use super::ruleset::{BaseChain, Chain, ChainType, Rule, Syntax, Table, Target};
use super::sample::{AddressRange, Condition, ESP, Match, NetfilterHook, UDP};
use serde_json::Value;
use std::collections::BTreeMap;
use std::net::Ipv4Addr;

/// The named sets, by family, table and name.
type Sets<'j> = BTreeMap<[&'j str; 3], &'j Value>;

fn text<'j>(value: &'j Value, key: &str) -> &'j str {
    value[key].as_str().unwrap_or_default()
}

/// The tables that apply to IPv4 packets. It fails if the text is not output of nft.
pub(super) fn parse(json: &str) -> Result<Vec<Table>, String> {
    let ruleset: Value = serde_json::from_str(json).map_err(|error| error.to_string())?;
    let Some(objects) = ruleset["nftables"].as_array() else {
        return Err("there is no `nftables` in it".to_owned());
    };
    let mut sets = Sets::new();
    for set in objects.iter().filter_map(|object| object.get("set")) {
        sets.insert(
            [text(set, "family"), text(set, "table"), text(set, "name")],
            &set["elem"],
        );
    }
    let mut tables: Vec<Table> = Vec::new();
    for object in objects {
        if let Some(table) = object.get("table") {
            let family = text(table, "family");
            if family == "ip" || family == "inet" {
                tables.push(Table {
                    syntax: Syntax::Nft(family.to_owned()),
                    name: text(table, "name").to_owned(),
                    chains: BTreeMap::new(),
                });
            }
        } else if let Some(chain) = object.get("chain") {
            if let Some(table) = of(&mut tables, chain) {
                let new = Chain {
                    base: base(chain),
                    rules: Vec::new(),
                };
                table.chains.insert(text(chain, "name").to_owned(), new);
            }
        } else if let Some(rule) = object.get("rule")
            && let Some(table) = of(&mut tables, rule)
        {
            let chain = table
                .chains
                .entry(text(rule, "chain").to_owned())
                .or_default();
            chain.rules.extend(rules(rule, &sets));
        }
    }
    Ok(tables)
}

fn of<'t>(tables: &'t mut [Table], object: &Value) -> Option<&'t mut Table> {
    let syntax = Syntax::Nft(text(object, "family").to_owned());
    let name = text(object, "table");
    tables
        .iter_mut()
        .find(|table| table.syntax == syntax && table.name == name)
}

fn base(chain: &Value) -> Option<BaseChain> {
    Some(BaseChain {
        kind: if text(chain, "type") == "nat" {
            ChainType::Nat
        } else {
            ChainType::Filter
        },
        hook: NetfilterHook::of(text(chain, "hook"))?,
        priority: chain["prio"].as_i64().unwrap_or_default(),
        drops: text(chain, "policy") == "drop",
    })
}

/// Whether nft takes a name for an identifier (`string` in its scanner.l). It joins its arguments before it reads
/// them, and identifiers cannot be quoted: another name, which netlink allows, may be a command there.
pub(super) fn is_identifier(name: &str) -> bool {
    let is_letter = |c: char| c.is_ascii_alphabetic() || "_.".contains(c);
    let is_later = |c: char| is_letter(c) || c.is_ascii_digit() || "/-".contains(c);
    name.starts_with(is_letter) && name.chars().all(is_later)
}

/// One rule; with a verdict map, one for each of its elements.
fn rules(rule: &Value, sets: &Sets<'_>) -> Vec<Rule> {
    let scope = Scope {
        family: text(rule, "family"),
        table: text(rule, "table"),
        sets,
    };
    let handle = rule["handle"].as_u64().unwrap_or_default();
    let (family, table, chain) = (scope.family, scope.table, text(rule, "chain"));
    let mut conditions = Vec::new();
    let mut target = Target::Nothing;
    let mut map = None;
    for statement in rule["expr"].as_array().into_iter().flatten() {
        if let Some(condition) = statement.get("match") {
            conditions.push(scope.condition(condition));
        } else if let Some(found) = statement.get("vmap") {
            map = Some(found);
        } else {
            match effect(statement) {
                Effect::Nothing => {}
                Effect::Target(found) => target = found,
                Effect::Condition(test) => conditions.push(test),
            }
        }
    }
    let comment = text(rule, "comment");
    let named = if comment.is_empty() {
        String::new()
    } else {
        format!(" comment \"{comment}\"")
    };
    let make = |conditions, target| Rule {
        conditions,
        target,
        text: format!(
            "nft {family} {table} {chain} handle {handle}: {}{named}",
            statements(rule)
        ),
        remove: (is_identifier(table) && is_identifier(chain))
            .then(|| format!("nft delete rule {family} {table} {chain} handle {handle}")),
    };
    match map {
        None => vec![make(conditions, target)],
        Some(map) => match scope.elements_of_map(map) {
            None => vec![make(conditions, Target::Unknown)],
            Some(elements) => elements
                .into_iter()
                .map(|(test, target)| {
                    let mut conditions = conditions.clone();
                    conditions.push(test);
                    make(conditions, target)
                })
                .collect(),
        },
    }
}

enum Effect {
    Nothing,
    Target(Target),
    Condition(Condition),
}

fn effect(statement: &Value) -> Effect {
    let Some((name, value)) = statement
        .as_object()
        .and_then(|object| object.iter().next())
    else {
        return Effect::Condition(Condition::Constant(Match::Unknown));
    };
    let address = || value["addr"].as_str().and_then(|text| text.parse().ok());
    Effect::Target(match name.as_str() {
        "accept" => Target::Accept,
        "drop" | "reject" => Target::Drop,
        "return" => Target::Return,
        "jump" => Target::Jump(text(value, "target").to_owned()),
        "goto" => Target::Goto(text(value, "target").to_owned()),
        "snat" | "masquerade" => Target::SourceNat,
        "dnat" => Target::DestinationNat(address()),
        "redirect" => Target::DestinationNat(None),
        "limit" | "quota" | "ct count" => {
            return Effect::Condition(Condition::Constant(Match::Some));
        }
        "counter" | "log" | "mangle" | "notrack" | "flow" | "ct helper" | "ct timeout"
        | "ct expectation" | "set" | "map" | "meter" | "secmark" | "continue" => {
            return Effect::Nothing;
        }
        "queue" | "tproxy" | "synproxy" | "fwd" | "dup" => Target::Unknown,
        // An `xt` is a match or a target of iptables, of which nft prints only the name.
        _ => return Effect::Condition(Condition::Constant(Match::Unknown)),
    })
}

struct Scope<'j, 's> {
    family: &'j str,
    table: &'j str,
    sets: &'s Sets<'j>,
}

impl Scope<'_, '_> {
    fn condition(&self, condition: &Value) -> Condition {
        let negated = match text(condition, "op") {
            "==" | "in" => false,
            "!=" => true,
            // An inequality matches some packets.
            _ => return Condition::Constant(Match::Some),
        };
        let test = self.compare(&condition["left"], &condition["right"]);
        test.unwrap_or(Condition::Constant(Match::Unknown))
            .negated(negated)
    }

    /// The elements on the right side: one, several, or those of a named set.
    fn elements<'v>(&'v self, right: &'v Value) -> Vec<&'v Value> {
        if let Some(name) = right.as_str().and_then(|text| text.strip_prefix('@')) {
            let elements = self.sets.get(&[self.family, self.table, name]);
            return elements
                .and_then(|elements| elements.as_array())
                .into_iter()
                .flatten()
                .map(element)
                .collect();
        }
        match right.get("set").unwrap_or(right).as_array() {
            Some(elements) => elements.iter().map(element).collect(),
            None => vec![right],
        }
    }

    fn compare(&self, left: &Value, right: &Value) -> Option<Condition> {
        let elements = self.elements(right);
        if let Some(meta) = left.get("meta") {
            return meta_test(text(meta, "key"), &elements);
        }
        if let Some(payload) = left.get("payload") {
            return payload_test(text(payload, "protocol"), text(payload, "field"), &elements);
        }
        if let Some(tracked) = left.get("ct") {
            return connection(text(tracked, "key"), &elements);
        }
        if let Some(fib) = left.get("fib") {
            let local = elements.iter().any(|value| value.as_str() == Some("local"));
            let flags = fib["flags"].as_array()?;
            let about = |name: &str| flags.iter().any(|flag| flag.as_str() == Some(name));
            return match (text(fib, "result"), local) {
                ("type", true) if about("daddr") => Some(Condition::DestinationIsLocal),
                ("type", true) if about("saddr") => Some(Condition::SourceIsLocal),
                _ => None,
            };
        }
        None
    }

    fn elements_of_map(&self, map: &Value) -> Option<Vec<(Condition, Target)>> {
        let pairs = map["data"]["set"].as_array()?;
        let pair = |pair: &Value| {
            let test = self.compare(&map["key"], &pair[0])?;
            match effect(&pair[1]) {
                Effect::Target(target) => Some((test, target)),
                Effect::Nothing => Some((test, Target::Nothing)),
                Effect::Condition(_) => None,
            }
        };
        pairs.iter().map(pair).collect()
    }
}

/// An element may have a comment or a timeout beside its value.
fn element(value: &Value) -> &Value {
    value.get("elem").map_or(value, |inner| &inner["val"])
}

fn strings(elements: &[&Value]) -> Option<Vec<String>> {
    let text = |value: &&Value| value.as_str().map(str::to_owned);
    elements.iter().map(text).collect()
}

fn protocols(elements: &[&Value]) -> Option<Condition> {
    let number = |value: &&Value| match value.as_str() {
        Some(name) => protocol_number(name),
        None => value.as_u64()?.try_into().ok(),
    };
    elements
        .iter()
        .map(number)
        .collect::<Option<_>>()
        .map(Condition::Protocol)
}

fn addresses(elements: &[&Value]) -> Option<Vec<AddressRange>> {
    let address = |value: &Value| value.as_str()?.parse::<Ipv4Addr>().ok();
    let range = |value: &&Value| {
        if let Some(prefix) = value.get("prefix") {
            let length = u8::try_from(prefix["len"].as_u64()?).ok()?;
            return Some(AddressRange::prefix(address(&prefix["addr"])?, length));
        }
        if let Some(range) = value.get("range") {
            return Some(AddressRange::between(
                address(&range[0])?,
                address(&range[1])?,
            ));
        }
        let address = address(value)?;
        Some(AddressRange::between(address, address))
    };
    elements.iter().map(range).collect()
}

fn ports(elements: &[&Value]) -> Option<Vec<(u16, u16)>> {
    let port = |value: &Value| u16::try_from(value.as_u64()?).ok();
    let range = |value: &&Value| match value.get("range") {
        Some(range) => Some((port(&range[0])?, port(&range[1])?)),
        None => port(value).map(|port| (port, port)),
    };
    elements.iter().map(range).collect()
}

fn meta_test(key: &str, elements: &[&Value]) -> Option<Condition> {
    Some(match key {
        "iifname" | "iif" => Condition::Input(strings(elements)?),
        "oifname" | "oif" => Condition::Output(strings(elements)?),
        "l4proto" => protocols(elements)?,
        "nfproto" => Condition::Constant(Match::of(
            strings(elements)?.iter().any(|name| name == "ipv4"),
        )),
        "protocol" => Condition::Constant(Match::of(
            strings(elements)?.iter().any(|name| name == "ip"),
        )),
        "pkttype" => Condition::Constant(Match::of(
            strings(elements)?
                .iter()
                .any(|name| name == "host" || name == "unicast"),
        )),
        "length" => Condition::Constant(Match::Some),
        _ => return None,
    })
}

fn payload_test(protocol: &str, field: &str, elements: &[&Value]) -> Option<Condition> {
    Some(match (protocol, field) {
        ("ip", "saddr") => Condition::Source(addresses(elements)?),
        ("ip", "daddr") => Condition::Destination(addresses(elements)?),
        ("ip", "protocol") => protocols(elements)?,
        ("ip", _) => Condition::Constant(Match::Some),
        ("udp" | "th", "sport") => Condition::SourcePort(ports(elements)?),
        ("udp" | "th", "dport") => Condition::DestinationPort(ports(elements)?),
        // A length or a checksum.
        ("udp", _) => some_of(UDP),
        ("esp", _) => some_of(ESP),
        (
            "tcp" | "icmp" | "icmpv6" | "ip6" | "igmp" | "ah" | "comp" | "sctp" | "dccp"
            | "udplite" | "vlan" | "arp",
            _,
        ) => Condition::Constant(Match::No),
        _ => return None,
    })
}

fn some_of(protocol: u8) -> Condition {
    Condition::All(vec![
        Condition::Protocol(vec![protocol]),
        Condition::Constant(Match::Some),
    ])
}

fn connection(key: &str, elements: &[&Value]) -> Option<Condition> {
    match key {
        "state" => Some(Condition::Constant(state(&strings(elements)?.join(",")))),
        // `dnat`, `snat`, `assured`: of a connection that is known.
        "status" => Some(Condition::Constant(Match::No)),
        _ => None,
    }
}

#[cfg(test)]
#[path = "nft_tests.rs"]
mod tests;
