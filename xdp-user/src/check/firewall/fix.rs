//! The commands that let our packets pass a chain: before the rules that would change or drop them, and nobody else's.

use super::Traffic;
use super::ruleset::{Language, Table};
use super::sample::Hook;
use xdp_common::Direction;

/// One command for UDP and one for ESP, for each interface on the way.
pub(super) fn commands(
    traffic: &Traffic,
    table: &Table,
    chain: &str,
    hook: Hook,
    direction: Direction,
) -> Vec<String> {
    let server = traffic.server;
    let inbound = direction == Direction::Inbound;
    // Where both are known, the WAN says more: it tells our packets from those of the LAN.
    let (incoming, links) = match (hook, inbound) {
        (Hook::Prerouting | Hook::Input | Hook::Forward, true) => (true, &traffic.wans),
        (Hook::Output | Hook::Postrouting, true) => (false, &traffic.lans),
        (Hook::Prerouting | Hook::Input, false) => (true, &traffic.lans),
        (Hook::Forward | Hook::Output | Hook::Postrouting, false) => (false, &traffic.wans),
    };
    let mut commands = Vec::new();
    for name in links {
        match &table.language {
            Language::Iptables(program) => {
                let table = &table.name;
                let (end, ports) = if inbound {
                    ("-d", "--dports")
                } else {
                    ("-s", "--sports")
                };
                let way = if incoming { "-i" } else { "-o" };
                let begin =
                    format!("{program} -t {table} -I {chain} 1 {end} {server} {way} {name}");
                commands.push(format!(
                    "{begin} -p udp -m multiport {ports} 500,4500 -j ACCEPT"
                ));
                commands.push(format!("{begin} -p esp -j ACCEPT"));
            }
            Language::Nft(family) => {
                let table = &table.name;
                let (end, port) = if inbound {
                    ("daddr", "dport")
                } else {
                    ("saddr", "sport")
                };
                let way = if incoming { "iifname" } else { "oifname" };
                let begin = format!(
                    "insert rule {family} {table} {chain} {way} \"{name}\" ip {end} {server}"
                );
                commands.push(format!("nft '{begin} udp {port} {{ 500, 4500 }} accept'"));
                commands.push(format!("nft '{begin} meta l4proto esp accept'"));
            }
        }
    }
    commands
}
