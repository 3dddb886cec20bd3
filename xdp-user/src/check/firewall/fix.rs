//! The commands that insert rules which accept handled packets, and no others, at the start of a chain.

use super::nft::is_identifier;
use super::ruleset::{Syntax, Table};
use super::sample::NetfilterHook;
use super::traffic::HandledTraffic;
use crate::config::commands::quoted;
use xdp_common::Direction;

/// One command for UDP, one for TCP if the server is this host, and one for ESP, for each interface.
pub(super) fn commands(
    traffic: &HandledTraffic,
    table: &Table,
    chain: &str,
    hook: NetfilterHook,
    direction: Direction,
) -> Vec<String> {
    let server = traffic.server;
    let inbound = direction == Direction::Inbound;
    // If both interfaces are known, the WAN is used, because packets between LANs do not pass it.
    let (incoming, links) = match (hook, inbound) {
        (NetfilterHook::Prerouting | NetfilterHook::Input | NetfilterHook::Forward, true) => {
            (true, &traffic.wans)
        }
        (NetfilterHook::Output | NetfilterHook::Postrouting, true) => (false, &traffic.lans),
        (NetfilterHook::Prerouting | NetfilterHook::Input, false) => (true, &traffic.lans),
        (NetfilterHook::Forward | NetfilterHook::Output | NetfilterHook::Postrouting, false) => {
            (false, &traffic.wans)
        }
    };
    let mut commands = Vec::new();
    for name in links {
        match &table.syntax {
            // iptables takes a last plus sign for the rest of any name, and nothing stands for the sign itself.
            Syntax::Iptables(_) if name.ends_with('+') => {}
            Syntax::Iptables(program) => {
                let [table, chain, name] = [table.name.as_str(), chain, name].map(quoted);
                let (end, ports) = if inbound {
                    ("-d", "--dports")
                } else {
                    ("-s", "--sports")
                };
                let interface = if incoming { "-i" } else { "-o" };
                let begin =
                    format!("{program} -t {table} -I {chain} 1 {end} {server} {interface} {name}");
                commands.push(format!(
                    "{begin} -p udp -m multiport {ports} 500,4500 -j ACCEPT"
                ));
                if traffic.server_is_local {
                    let port = ports.trim_end_matches('s');
                    commands.push(format!("{begin} -p tcp -m tcp {port} 4500 -j ACCEPT"));
                }
                commands.push(format!("{begin} -p esp -j ACCEPT"));
            }
            // Nothing in a string of nft stands for a quotation mark, and identifiers cannot be quoted at all.
            Syntax::Nft(_)
                if name.contains('"') || !is_identifier(&table.name) || !is_identifier(chain) => {}
            Syntax::Nft(family) => {
                // A last asterisk would stand for the rest of any name.
                let name = match name.strip_suffix('*') {
                    Some(begin) => format!(r"{begin}\*"),
                    None => name.clone(),
                };
                let table = &table.name;
                let (end, port) = if inbound {
                    ("daddr", "dport")
                } else {
                    ("saddr", "sport")
                };
                let interface = if incoming { "iifname" } else { "oifname" };
                let begin = format!(
                    "insert rule {family} {table} {chain} {interface} \"{name}\" ip {end} {server}"
                );
                let mut push = |rule: String| commands.push(format!("nft {}", quoted(&rule)));
                push(format!("{begin} udp {port} {{ 500, 4500 }} accept"));
                if traffic.server_is_local {
                    push(format!("{begin} tcp {port} 4500 accept"));
                }
                push(format!("{begin} meta l4proto esp accept"));
            }
        }
    }
    commands
}
