//! Checks of the VIP: whether ARP is answered for it, and the source of packets that the kernel
//! originates.

use super::Finding;
use super::context::{Context, sysctl};
use crate::config::commands::quoted;
use crate::config::validate::{not_unicast, sysctl_command};
use crate::netlink::Link;
use crate::netlink::address::Address;

const CODE: &str = "vip";
const REASON: &str = "packets for the VIP arrive only if this host answers ARP for it, or if a router sends them here";

pub(super) fn all(context: &Context<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    let (vip, server) = (context.vip, context.server);
    for (role, address) in [("the VIP", vip), ("the server", server)] {
        if let Some(reason) = not_unicast(address, &context.addresses)
            .filter(|_| !(address == server && context.is_local(server)))
        {
            let message = format!("{role} {address} is not a unicast address ({reason})");
            findings.push(Finding::error(
                "address",
                message,
                "clients and servers have unicast addresses",
            ));
        }
    }
    if vip == server {
        findings.push(Finding::error(
            "address",
            format!("the VIP and the server are both {vip}"),
            "there would be nothing to translate",
        ));
    }
    let own = context.addresses.iter().find(|one| one.address == vip);
    findings.push(match own {
        Some(own) => local(context, own),
        None => foreign(context),
    });
    findings
}

/// The kernel uses the larger of the two settings, too.
fn of_all_and(interface: &str, setting: &str) -> i64 {
    let value = |name: &str| sysctl(&format!("net/ipv4/conf/{name}/{setting}")).unwrap_or_default();
    value("all").max(value(interface))
}

fn local(context: &Context<'_>, own: &Address) -> Finding {
    let vip = context.vip;
    let holder = context.name(own.index);
    let Some(wan) = context.wan_of_vip() else {
        return Finding::ok(CODE, format!("{vip} is an address of {holder}"), REASON);
    };
    let on_wan = context.is_by(&context.wans, own.index);
    if !on_wan && of_all_and(&wan.name, "arp_ignore") > 0 {
        let message = format!(
            "{vip} is an address of {holder}, but {} answers ARP only for its own addresses (arp_ignore)",
            wan.name
        );
        return Finding::warning(CODE, message, REASON)
            .fix(sysctl_command("all", "arp_ignore", 0))
            .fix(sysctl_command(&wan.name, "arp_ignore", 0));
    }
    let mut message = format!("{vip} is an address of {holder}; this host answers ARP for it");
    if own.secondary {
        let first = context
            .addresses
            .iter()
            .find(|one| one.index == own.index && !one.secondary && one.is_on_link(vip));
        if let Some(first) = first {
            message.push_str(&format!(
                "; it is a secondary address, so packets that the kernel originates come from {} (ICMP errors of ikenat come from {vip})",
                first.address
            ));
        }
    }
    Finding::ok(CODE, message, REASON)
}

fn foreign(context: &Context<'_>) -> Finding {
    let vip = context.vip;
    let Some(wan) = context.wan_of_vip() else {
        return Finding::warning(
            CODE,
            format!("{vip} is not an address of this host"),
            REASON,
        );
    };
    let proxied = context.wans.iter().find(|wan| is_proxied(context, wan));
    if let Some(wan) = proxied {
        let message = format!(
            "{vip} is not an address of this host; {} answers ARP for it (proxy)",
            wan.name
        );
        return Finding::ok(CODE, message, REASON);
    }
    let near = |one: &&Address| {
        context.wans.iter().any(|wan| wan.index == one.index) && one.is_on_link(vip)
    };
    if context.addresses.iter().find(near).is_some() {
        let message =
            format!("{vip} is not an address of this host, and no interface answers ARP for it");
        return Finding::warning(CODE, message, REASON)
            .fix(format!("ip address add {vip}/32 dev {}", quoted(&wan.name)));
    }
    Finding::warning(
        CODE,
        format!("{vip} is not an address of this host and not in the network of a WAN; whether a router sends its packets here is not visible from this host"),
        REASON,
    )
    .fix(format!("ip address add {vip}/32 dev {}", quoted(&wan.name)))
}

/// Whether the kernel answers ARP for the VIP as a proxy, by an entry or by `proxy_arp`. It does so only
/// if its route to the VIP leaves by another interface than that of the request (`arp_process` in
/// net/ipv4/arp.c).
fn is_proxied(context: &Context<'_>, wan: &Link) -> bool {
    let vip = context.vip;
    let route = context.netlink.route(vip);
    let entry = context.netlink.is_proxied((wan.index, vip.into()));
    route.is_ok_and(|route| route.interface() != Some(wan.index))
        && (entry.unwrap_or_default() || of_all_and(&wan.name, "proxy_arp") > 0)
}
