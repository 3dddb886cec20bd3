//! Conditions of the VIP: that somebody answers ARP for it, and from which address the kernel speaks.

use super::Finding;
use super::context::{Scene, sysctl};
use crate::config::validate::not_unicast;
use crate::netlink::Link;
use crate::netlink::address::Address;

const CODE: &str = "vip";
const WHY: &str =
    "packets for the VIP come only if this host answers ARP for it, or if a router sends them here";

pub(super) fn all(scene: &Scene<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    let (vip, server) = (scene.subject.vip, scene.subject.server);
    for (role, address) in [("the VIP", vip), ("the server", server)] {
        if let Some(why) =
            not_unicast(address).filter(|_| !(address == server && scene.is_local(server)))
        {
            let found = format!("{role} {address} is not the address of a host ({why})");
            findings.push(Finding::error(
                "address",
                found,
                "clients and server are hosts, with unicast addresses",
            ));
        }
    }
    if vip == server {
        findings.push(Finding::error(
            "address",
            format!("the VIP and the server are both {vip}"),
            "there is nothing to translate then",
        ));
    }
    let own = scene.addresses.iter().find(|one| one.address == vip);
    findings.push(match own {
        Some(own) => local(scene, own),
        None => foreign(scene),
    });
    findings
}

/// The larger of the two settings counts, as for the kernel.
fn of_all_and(interface: &str, setting: &str) -> i64 {
    let value = |name: &str| sysctl(&format!("net/ipv4/conf/{name}/{setting}")).unwrap_or_default();
    value("all").max(value(interface))
}

fn local(scene: &Scene<'_>, own: &Address) -> Finding {
    let vip = scene.subject.vip;
    let holder = scene.name(own.index);
    let Some(wan) = scene.wans.first() else {
        return Finding::ok(CODE, format!("{vip} is an address of {holder}"), WHY);
    };
    let on_wan = scene.wans.iter().any(|wan| wan.index == own.index);
    if !on_wan && of_all_and(&wan.name, "arp_ignore") > 0 {
        let found = format!(
            "{vip} is an address of {holder}, and {} answers ARP only for its own (arp_ignore)",
            wan.name
        );
        return Finding::warning(CODE, found, WHY)
            .mend("sysctl -w net.ipv4.conf.all.arp_ignore=0")
            .mend(format!("sysctl -w net.ipv4.conf.{}.arp_ignore=0", wan.name));
    }
    let mut found = format!("{vip} is an address of {holder}, which answers ARP for it");
    if own.secondary {
        let first = scene
            .addresses
            .iter()
            .find(|one| one.index == own.index && !one.secondary && one.is_on_link(vip));
        if let Some(first) = first {
            found.push_str(&format!(
                "; it is a secondary one, so what the kernel itself says comes from {} (ikenat's own ICMP comes from {vip})",
                first.address
            ));
        }
    }
    Finding::ok(CODE, found, WHY)
}

fn foreign(scene: &Scene<'_>) -> Finding {
    let vip = scene.subject.vip;
    let Some(wan) = scene.wans.first() else {
        return Finding::warning(CODE, format!("{vip} is no address of this host"), WHY);
    };
    let proxied = scene.wans.iter().find(|wan| is_proxied(scene, wan));
    if let Some(wan) = proxied {
        let found = format!(
            "{vip} is no address of this host, and {} answers ARP for it (proxy)",
            wan.name
        );
        return Finding::ok(CODE, found, WHY);
    }
    let near =
        |one: &&Address| scene.wans.iter().any(|wan| wan.index == one.index) && one.is_on_link(vip);
    if scene.addresses.iter().find(near).is_some() {
        let found = format!("{vip} is no address of this host, and nobody here answers ARP for it");
        return Finding::warning(CODE, found, WHY)
            .mend(format!("ip address add {vip}/32 dev {}", wan.name));
    }
    Finding::warning(
        CODE,
        format!("{vip} is no address of this host and in no network of a WAN: whether a router sends its packets here cannot be seen from here"),
        WHY,
    )
    .mend(format!("ip address add {vip}/32 dev {}", wan.name))
}

/// Whether the kernel answers for somebody else, by an entry or by `proxy_arp`: for what it would send on by another
/// interface than the one that the question came in by, and by no other (`arp_process` in net/ipv4/arp.c).
fn is_proxied(scene: &Scene<'_>, wan: &Link) -> bool {
    let vip = scene.subject.vip;
    let route = scene.netlink.route(vip);
    let entry = scene.netlink.is_proxied((wan.index, vip));
    route.is_ok_and(|route| route.interface() != Some(wan.index))
        && (entry.unwrap_or_default() || of_all_and(&wan.name, "proxy_arp") > 0)
}
