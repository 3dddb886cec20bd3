//! Conditions of the ways: to the server, to the clients, and from the server back to us.

use super::Finding;
use super::context::{A_CLIENT, Scene};
use crate::error::word;
use crate::netlink::Route;
use crate::netlink::neighbour::Neighbour;
use std::net::Ipv4Addr;
use xdp_common::Direction;
use xdp_common::counters::{Quantity, class};
use xdp_common::{Class, Hook};

pub(super) fn all(scene: &Scene<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    let route = scene.netlink.route(scene.subject.server);
    findings.push(to_server(scene, &route));
    if let Ok(Route::Via { index, gateway, .. }) = route {
        findings.push(neighbour(scene, index, gateway));
        findings.push(back(scene));
    }
    findings.push(to_clients(scene));
    findings
}

fn to_server(scene: &Scene<'_>, route: &std::io::Result<Route>) -> Finding {
    const CODE: &str = "server-route";
    const WHY: &str = "packets for the server have to leave by a LAN";
    let server = scene.subject.server;
    let lan = scene.subject.lans.first();
    let mend = |finding: Finding| match lan {
        Some(lan) => finding.mend(format!("ip route replace {server} dev {lan}")),
        None => finding,
    };
    match route {
        Ok(Route::Local) if scene.subject.lans.is_empty() => {
            Finding::ok(CODE, format!("{server} is an address of this host"), WHY)
        }
        Ok(Route::Local) => {
            let found = format!("{server} is an address of this host, so there is no LAN");
            let mut alone = scene.subject.clone();
            alone.lans.clear();
            Finding::error(CODE, found, WHY).mend(alone.run())
        }
        Ok(Route::Via { index, .. }) if scene.subject.lans.is_empty() => {
            let found = format!(
                "{server} is behind {}, and no LAN is named",
                scene.name(*index)
            );
            let mut named = scene.subject.clone();
            named.lans.push(scene.name(*index));
            Finding::error(CODE, found, WHY).mend(named.run())
        }
        Ok(Route::Via { index, gateway, .. })
            if scene.lans.iter().any(|lan| lan.index == *index) =>
        {
            let via = match gateway {
                Some(gateway) => format!(" via {gateway}"),
                None => String::new(),
            };
            Finding::ok(CODE, format!("by {}{via}", scene.name(*index)), WHY)
        }
        Ok(Route::Via { index, .. }) => {
            let found = format!("the route to {server} leaves by {}", scene.name(*index));
            mend(Finding::error(CODE, found, WHY))
        }
        Err(error) => {
            let found = format!("there is no route to {server} ({})", word(error));
            mend(Finding::error(CODE, found, WHY))
        }
    }
}

fn neighbour(scene: &Scene<'_>, index: u32, gateway: Option<Ipv4Addr>) -> Finding {
    const CODE: &str = "server-neighbour";
    const WHY: &str = "packets go to the MAC address of the server, or of the router before it; until that is known, they take the slow path, which asks";
    let next = gateway.unwrap_or(scene.subject.server);
    let interface = scene.name(index);
    let ping = format!("ping -c 1 -I {interface} {next}");
    match scene.netlink.neighbour((index, next)) {
        Ok(Some(Neighbour::Resolved | Neighbour::Probing | Neighbour::External)) => {
            Finding::ok(CODE, format!("{next} is known"), WHY)
        }
        Ok(Some(Neighbour::Incomplete)) => {
            Finding::warning(CODE, format!("{next} is being asked for"), WHY).mend(ping)
        }
        Ok(Some(Neighbour::Failed)) => {
            let found = format!("{next} does not answer ARP on {interface}");
            Finding::error(CODE, found, WHY).mend(ping)
        }
        Ok(None) => {
            let found = format!("nobody has asked for {next} yet");
            Finding::warning(CODE, found, WHY).mend(ping)
        }
        Err(error) => Finding::unseen(CODE, word(&error), WHY),
    }
    .on(&interface)
}

const BACK: &str = "the server's answers have to come back through this gateway, or clients get them from an address that they do not know";

fn back(scene: &Scene<'_>) -> Finding {
    const CODE: &str = "return-route";
    if let Some(far) = scene.far.iter().find(|far| far.has_server && !far.here) {
        let ours = |route: &Route| {
            let gateway = route.gateway();
            scene
                .addresses
                .iter()
                .any(|one| Some(one.address) == gateway)
        };
        if far.route_to_clients.as_ref().is_some_and(ours) {
            return Finding::ok(
                CODE,
                "the server's default route leads here (seen in its namespace)",
                BACK,
            );
        }
        let found = match far.route_to_clients.and_then(|route| route.gateway()) {
            Some(gateway) => {
                format!("the server's default route leads to {gateway} (seen in its namespace)")
            }
            None => "the server has no default route (seen in its namespace)".to_owned(),
        };
        let mut finding = Finding::error(CODE, found, BACK);
        if let Some(address) = scene.lan_address() {
            let entry = &far.entry;
            finding = finding.mend(format!("{entry}ip route replace default via {address}"));
        }
        return finding;
    }
    match counted(scene) {
        Some((_, 1..)) => Finding::ok(CODE, "answers of the server have come through here", BACK),
        Some((1.., 0)) => Finding::warning(
            CODE,
            "packets have gone to the server, and none of its own has come back",
            BACK,
        ),
        Some((0, 0)) | None => {
            let address = scene.lan_address();
            let here =
                address.map_or_else(|| "this gateway".to_owned(), |address| address.to_string());
            let what = format!(
                "the server's routes are its own; on it, `ip route get {A_CLIENT}` (Windows: `Find-NetRoute -RemoteIPAddress {A_CLIENT}`) has to name {here}"
            );
            Finding::unseen(CODE, what, BACK)
        }
    }
}

/// Packets that the instance has forwarded, in and out.
fn counted(scene: &Scene<'_>) -> Option<(u64, u64)> {
    let (_, snapshot) = scene.instance.as_ref()?;
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

fn to_clients(scene: &Scene<'_>) -> Finding {
    const CODE: &str = "client-route";
    const WHY: &str =
        "answers to clients have to leave by a WAN: what leaves elsewhere is not translated";
    let Some(wan) = scene.wans.first() else {
        return Finding::unseen(CODE, "there is no WAN", WHY);
    };
    let mend = format!("ip route replace default via GATEWAY dev {}", wan.name);
    match scene.route_to_clients() {
        Ok(Route::Via { index, .. }) if scene.wans.iter().any(|wan| wan.index == index) => {
            let found = format!("the default route leaves by {}", scene.name(index));
            Finding::ok(CODE, found, WHY)
        }
        Ok(Route::Via { index, .. }) => {
            let found = format!(
                "the default route leaves by {}, which is no WAN",
                scene.name(index)
            );
            Finding::warning(CODE, found, WHY).mend(mend)
        }
        Ok(Route::Local) | Err(_) => {
            let found = "there is no default route: only clients in networks that have a route by a WAN get answers";
            Finding::warning(CODE, found, WHY).mend(mend)
        }
    }
}
