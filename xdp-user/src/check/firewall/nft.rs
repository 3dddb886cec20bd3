//! What `nft -j list ruleset` prints, read into the model.

use super::iptables::{protocol_number, state};
use super::nft_display::statements;
use super::ruleset::{Base, Chain, Kind, Language, Rule, Table, Target};
use super::sample::{ESP, Hook, Range, Test, Truth, UDP};
use serde_json::Value;
use std::collections::BTreeMap;
use std::net::Ipv4Addr;

/// The named sets, by family, table and name.
type Sets<'j> = BTreeMap<[&'j str; 3], &'j Value>;

fn text<'j>(value: &'j Value, key: &str) -> &'j str {
    value[key].as_str().unwrap_or_default()
}

/// The tables that see IPv4 packets on their way through this host. An error: it is not what nft prints.
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
                    language: Language::Nft(family.to_owned()),
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
    let language = Language::Nft(text(object, "family").to_owned());
    let name = text(object, "table");
    tables
        .iter_mut()
        .find(|table| table.language == language && table.name == name)
}

fn base(chain: &Value) -> Option<Base> {
    Some(Base {
        kind: if text(chain, "type") == "nat" {
            Kind::Nat
        } else {
            Kind::Filter
        },
        hook: Hook::of(text(chain, "hook"))?,
        priority: chain["prio"].as_i64().unwrap_or_default(),
        drops: text(chain, "policy") == "drop",
    })
}

/// One rule; with a verdict map, one for each of its elements.
fn rules(rule: &Value, sets: &Sets<'_>) -> Vec<Rule> {
    let context = Context {
        family: text(rule, "family"),
        table: text(rule, "table"),
        sets,
    };
    let handle = rule["handle"].as_u64().unwrap_or_default();
    let (family, table, chain) = (context.family, context.table, text(rule, "chain"));
    let mut tests = Vec::new();
    let mut target = Target::Nothing;
    let mut map = None;
    for statement in rule["expr"].as_array().into_iter().flatten() {
        if let Some(condition) = statement.get("match") {
            tests.push(context.condition(condition));
        } else if let Some(found) = statement.get("vmap") {
            map = Some(found);
        } else {
            match effect(statement) {
                Effect::Nothing => {}
                Effect::Target(found) => target = found,
                Effect::Test(test) => tests.push(test),
            }
        }
    }
    let comment = text(rule, "comment");
    let named = if comment.is_empty() {
        String::new()
    } else {
        format!(" comment \"{comment}\"")
    };
    let make = |tests, target| Rule {
        tests,
        target,
        text: format!(
            "nft {family} {table} {chain} handle {handle}: {}{named}",
            statements(rule)
        ),
        remove: format!("nft delete rule {family} {table} {chain} handle {handle}"),
    };
    match map {
        None => vec![make(tests, target)],
        Some(map) => match context.elements_of_map(map) {
            None => vec![make(tests, Target::Unknown)],
            Some(elements) => elements
                .into_iter()
                .map(|(test, target)| {
                    let mut tests = tests.clone();
                    tests.push(test);
                    make(tests, target)
                })
                .collect(),
        },
    }
}

enum Effect {
    Nothing,
    Target(Target),
    Test(Test),
}

fn effect(statement: &Value) -> Effect {
    let Some((name, value)) = statement
        .as_object()
        .and_then(|object| object.iter().next())
    else {
        return Effect::Test(Test::Always(Truth::Unknown));
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
        "limit" | "quota" | "ct count" => return Effect::Test(Test::Always(Truth::Some)),
        "counter" | "log" | "mangle" | "notrack" | "flow" | "ct helper" | "ct timeout"
        | "ct expectation" | "set" | "map" | "meter" | "secmark" | "continue" => {
            return Effect::Nothing;
        }
        "queue" | "tproxy" | "synproxy" | "fwd" | "dup" => Target::Unknown,
        // An `xt`: a match or a target of iptables, of which nft prints the name alone.
        _ => return Effect::Test(Test::Always(Truth::Unknown)),
    })
}

struct Context<'j, 's> {
    family: &'j str,
    table: &'j str,
    sets: &'s Sets<'j>,
}

impl Context<'_, '_> {
    fn condition(&self, condition: &Value) -> Test {
        let negated = match text(condition, "op") {
            "==" | "in" => false,
            "!=" => true,
            // Larger or smaller than something: some packets.
            _ => return Test::Always(Truth::Some),
        };
        let test = self.compare(&condition["left"], &condition["right"]);
        test.unwrap_or(Test::Always(Truth::Unknown))
            .negated(negated)
    }

    /// The elements on the right side: one, several, or those of a named set.
    fn elements<'v>(&'v self, right: &'v Value) -> Vec<&'v Value> {
        if let Some(name) = right.as_str().and_then(|text| text.strip_prefix('@')) {
            let found = self.sets.get(&[self.family, self.table, name]);
            return found
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

    fn compare(&self, left: &Value, right: &Value) -> Option<Test> {
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
                ("type", true) if about("daddr") => Some(Test::DestinationIsLocal),
                ("type", true) if about("saddr") => Some(Test::SourceIsLocal),
                _ => None,
            };
        }
        None
    }

    fn elements_of_map(&self, map: &Value) -> Option<Vec<(Test, Target)>> {
        let pairs = map["data"]["set"].as_array()?;
        let pair = |pair: &Value| {
            let test = self.compare(&map["key"], &pair[0])?;
            match effect(&pair[1]) {
                Effect::Target(target) => Some((test, target)),
                Effect::Nothing => Some((test, Target::Nothing)),
                Effect::Test(_) => None,
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

fn protocols(elements: &[&Value]) -> Option<Test> {
    let number = |value: &&Value| match value.as_str() {
        Some(name) => protocol_number(name),
        None => value.as_u64()?.try_into().ok(),
    };
    elements
        .iter()
        .map(number)
        .collect::<Option<_>>()
        .map(Test::Protocol)
}

fn addresses(elements: &[&Value]) -> Option<Vec<Range>> {
    let address = |value: &Value| value.as_str()?.parse::<Ipv4Addr>().ok();
    let range = |value: &&Value| {
        if let Some(prefix) = value.get("prefix") {
            let length = u8::try_from(prefix["len"].as_u64()?).ok()?;
            return Some(Range::prefix(address(&prefix["addr"])?, length));
        }
        if let Some(range) = value.get("range") {
            return Some(Range::between(address(&range[0])?, address(&range[1])?));
        }
        let address = address(value)?;
        Some(Range::between(address, address))
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

fn meta_test(key: &str, elements: &[&Value]) -> Option<Test> {
    Some(match key {
        "iifname" | "iif" => Test::Input(strings(elements)?),
        "oifname" | "oif" => Test::Output(strings(elements)?),
        "l4proto" => protocols(elements)?,
        "nfproto" => Test::Always(Truth::of(
            strings(elements)?.iter().any(|name| name == "ipv4"),
        )),
        "protocol" => Test::Always(Truth::of(
            strings(elements)?.iter().any(|name| name == "ip"),
        )),
        "pkttype" => Test::Always(Truth::of(
            strings(elements)?
                .iter()
                .any(|name| name == "host" || name == "unicast"),
        )),
        "length" => Test::Always(Truth::Some),
        _ => return None,
    })
}

fn payload_test(protocol: &str, field: &str, elements: &[&Value]) -> Option<Test> {
    Some(match (protocol, field) {
        ("ip", "saddr") => Test::Source(addresses(elements)?),
        ("ip", "daddr") => Test::Destination(addresses(elements)?),
        ("ip", "protocol") => protocols(elements)?,
        ("ip", _) => Test::Always(Truth::Some),
        ("udp" | "th", "sport") => Test::SourcePort(ports(elements)?),
        ("udp" | "th", "dport") => Test::DestinationPort(ports(elements)?),
        // A length or a checksum.
        ("udp", _) => some_of(UDP),
        ("esp", _) => some_of(ESP),
        (
            "tcp" | "icmp" | "icmpv6" | "ip6" | "igmp" | "ah" | "comp" | "sctp" | "dccp"
            | "udplite" | "vlan" | "arp",
            _,
        ) => Test::Always(Truth::No),
        _ => return None,
    })
}

fn some_of(protocol: u8) -> Test {
    Test::All(vec![
        Test::Protocol(vec![protocol]),
        Test::Always(Truth::Some),
    ])
}

fn connection(key: &str, elements: &[&Value]) -> Option<Test> {
    match key {
        "state" => Some(Test::Always(state(&strings(elements)?.join(",")))),
        // `dnat`, `snat`, `assured`: of a connection that is known.
        "status" => Some(Test::Always(Truth::No)),
        _ => None,
    }
}

#[cfg(test)]
#[path = "nft_tests.rs"]
mod tests;
