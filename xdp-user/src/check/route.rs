//! Checks of routing: to the server, to the clients, and from the server back to this gateway.

use super::context::Context;
use super::veth_peer::VethPeer;
use super::{Finding, run_command};
use crate::config::client_routes::{EXAMPLE_CLIENT, RULES_DECIDE, Unrouted};
use crate::config::commands::quoted;
use crate::error::word;
use crate::netlink::Route;
use crate::netlink::neighbour::Neighbour;
use std::net::Ipv4Addr;
use xdp_common::Direction;
use xdp_common::counters::{Quantity, class};
use xdp_common::{Class, Hook};

pub(super) fn all(context: &Context<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    let route = context.netlink.route(context.server);
    findings.push(to_server(context, &route));
    let is_left_to_host =
        |index| context.any_server_found() && !context.is_by(&context.lans, index);
    if let Ok(Route::Via { index, gateway, .. }) = route
        && !is_left_to_host(index)
    {
        findings.push(neighbour(context, index, gateway));
        findings.push(return_route(context));
    }
    findings.push(to_clients(context));
    findings
}

fn to_server(context: &Context<'_>, route: &std::io::Result<Route>) -> Finding {
    const CODE: &str = "server-route";
    const REASON: &str = "packets for the server must leave by a LAN";
    let server = context.server;
    // What leads to no LAN is an error only if `run` refuses it.
    let unreachable = |message: String| {
        let finding = if context.any_server_found() {
            let message =
                format!("{message}; its packets are left to this host until a LAN has a route");
            Finding::warning(CODE, message, REASON)
        } else {
            Finding::error(CODE, message, REASON)
        };
        match context.lan_of_server() {
            Some(lan) => finding.fix(format!("ip route replace {server} dev {}", quoted(lan))),
            None => finding,
        }
    };
    match route {
        Ok(Route::Local)
            if context.settings.lans.is_empty() || !context.has_only_local_servers() =>
        {
            Finding::ok(CODE, format!("{server} is an address of this host"), REASON)
        }
        Ok(Route::Local) => {
            let message = format!("{server} is an address of this host, so --lan must be left out");
            let mut alone = context.settings.clone();
            alone.lans.clear();
            Finding::error(CODE, message, REASON).fix(run_command(&alone))
        }
        Ok(Route::Via { index, .. }) if context.settings.lans.is_empty() => {
            let message = format!(
                "{server} is behind {}, but no --lan is given",
                context.name(*index)
            );
            let mut named = context.settings.clone();
            named.lans.push(context.name(*index));
            Finding::error(CODE, message, REASON).fix(run_command(&named))
        }
        Ok(Route::Via { index, gateway, .. }) if context.is_by(&context.lans, *index) => {
            let via = match gateway {
                Some(gateway) => format!(" via {gateway}"),
                None => String::new(),
            };
            Finding::ok(
                CODE,
                format!("leaves by {}{via}", context.name(*index)),
                REASON,
            )
        }
        Ok(Route::Via { index, .. }) => {
            let message = format!(
                "the route to {server} leaves by {}, which is not a LAN",
                context.name(*index)
            );
            unreachable(message)
        }
        Err(error) => unreachable(format!("no route to {server} ({})", word(error))),
    }
}

fn neighbour(context: &Context<'_>, index: u32, gateway: Option<Ipv4Addr>) -> Finding {
    const CODE: &str = "server-neighbour";
    const REASON: &str = "packets go to the MAC address of the server, or of the router before it; until it is resolved, they use the slow path, which resolves it";
    let next = gateway.unwrap_or(context.server);
    let interface = context.name(index);
    let ping = format!("ping -c 1 -I {} {next}", quoted(&interface));
    match context.netlink.neighbour((index, next.into())) {
        Ok(Some(Neighbour::Resolved | Neighbour::Probing | Neighbour::External)) => {
            Finding::ok(CODE, format!("{next} is resolved"), REASON)
        }
        Ok(Some(Neighbour::Incomplete)) => {
            Finding::warning(CODE, format!("{next} is being resolved"), REASON).fix(ping)
        }
        Ok(Some(Neighbour::Failed)) => {
            let message = format!("{next} does not answer ARP on {interface}");
            Finding::error(CODE, message, REASON).fix(ping)
        }
        Ok(None) => {
            let message = format!("{next} is not resolved yet");
            Finding::warning(CODE, message, REASON).fix(ping)
        }
        Err(error) => Finding::not_checked(CODE, word(&error), REASON),
    }
    .on(&interface)
}

const RETURN: &str = "replies of the server must come back through this gateway; otherwise clients receive them from an address that they do not know";

fn return_route(context: &Context<'_>) -> Finding {
    const CODE: &str = "return-route";
    let mut peers = context.veth_peers.iter();
    if let Some(peer) = peers.find(|peer| peer.has_server && !peer.same_namespace) {
        return route_of_peer(context, peer);
    }
    match forwarded(context) {
        Some((_, 1..)) => Finding::ok(
            CODE,
            "replies of the server have passed this gateway",
            RETURN,
        ),
        Some((1.., 0)) => Finding::warning(
            CODE,
            "packets were forwarded to the server, but no reply has passed this gateway",
            RETURN,
        ),
        Some((0, 0)) | None => {
            let address = context.lan_address();
            let gateway =
                address.map_or_else(|| "this gateway".to_owned(), |address| address.to_string());
            let cause = format!(
                "the routes of the server are not visible from here; on the server, `ip route get {EXAMPLE_CLIENT}` (Windows: `Find-NetRoute -RemoteIPAddress {EXAMPLE_CLIENT}`) must name {gateway}"
            );
            Finding::not_checked(CODE, cause, RETURN)
        }
    }
}

/// The server is at the other end of a veth, so its routes can be read.
fn route_of_peer(context: &Context<'_>, peer: &VethPeer) -> Finding {
    const CODE: &str = "return-route";
    const SEEN: &str = "(seen in its network namespace)";
    let gateway = peer.route_to_clients.and_then(|route| route.gateway());
    let message = match gateway {
        Some(gateway) if context.addresses.iter().any(|one| one.address == gateway) => {
            let message = format!("the server's default route leads to this gateway {SEEN}");
            return Finding::ok(CODE, message, RETURN);
        }
        Some(gateway) => format!("the server's default route leads to {gateway} {SEEN}"),
        None => format!("the server has no default route {SEEN}"),
    };
    let finding = Finding::error(CODE, message, RETURN);
    match context.lan_address() {
        Some(address) => {
            let nsenter = &peer.nsenter;
            finding.fix(format!("{nsenter}ip route replace default via {address}"))
        }
        None => finding,
    }
}

/// Packets that the instance has forwarded, inbound and outbound.
fn forwarded(context: &Context<'_>) -> Option<(u64, u64)> {
    let (_, snapshot) = context.instance.as_ref()?;
    let counters = &snapshot.as_ref()?.counters;
    let of = |direction| {
        let hooks = Hook::ALL.iter().map(|hook| &counters[*hook as usize]);
        let packets = hooks.flat_map(|hook| {
            let of_class =
                move |kind: &Class| hook[class(direction, *kind) + Quantity::Packets as usize];
            Class::ALL.iter().map(of_class)
        });
        packets.sum()
    };
    Some((of(Direction::Inbound), of(Direction::Outbound)))
}

fn to_clients(context: &Context<'_>) -> Finding {
    const CODE: &str = "client-route";
    const REASON: &str =
        "replies to clients must leave by a WAN; those that leave elsewhere are not translated";
    let Some(wan) = context.wan_of_vip() else {
        return Finding::not_checked(CODE, "no WAN exists", REASON);
    };
    match context.wan_to_clients() {
        Ok(Some(wan)) => {
            let message = format!("a default route leaves by {wan}");
            return Finding::ok(CODE, message, REASON);
        }
        Err(Unrouted {
            interface,
            effect,
            fix,
        }) => {
            let message = format!("no default route leaves by {interface}; {effect}");
            return Finding::warning(CODE, message, REASON).fixes(fix);
        }
        Ok(None) => {}
    }
    let warning = |message: String| {
        if !context.would_leave_by(wan.index) {
            return Finding::warning(CODE, format!("{message}; {RULES_DECIDE}"), REASON);
        }
        let dev = quoted(&wan.name);
        let fix = format!("ip route replace default via GATEWAY dev {dev}");
        Finding::warning(CODE, message, REASON).fix(fix)
    };
    match context.route_to_clients() {
        Ok(Route::Via { index, .. }) if context.is_by(&context.wans, index) => {
            let message = format!("the default route leaves by {}", context.name(index));
            Finding::ok(CODE, message, REASON)
        }
        Ok(Route::Via { index, .. }) => {
            let message = format!(
                "the default route leaves by {}, which is not a WAN",
                context.name(index)
            );
            warning(message)
        }
        Ok(Route::Local) | Err(_) => {
            const NONE: &str =
                "no default route: only clients in networks with a route by a WAN receive replies";
            warning(NONE.to_owned())
        }
    }
}
