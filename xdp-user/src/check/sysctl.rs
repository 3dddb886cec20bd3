//! Checks of IPv4 settings and MTUs: forwarding, reverse path filter, ICMP redirects.

use super::Finding;
use super::context::{Context, sysctl};
use crate::config::client_routes::EXAMPLE_CLIENT;
use crate::config::commands::quoted;
use crate::config::validate::{sysctl_command as command, sysctl_key as key, sysctl_path as path};
use crate::netlink::{Link, Route};

pub(super) fn all(context: &Context<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    for link in context.interfaces() {
        findings.push(forwarding(context, link).on(&link.name));
    }
    for wan in &context.wans {
        findings.push(reverse_path(context, wan).on(&wan.name));
    }
    for both in context.one_armed() {
        findings.push(redirects(both).on(&both.name));
    }
    for (wan, lan) in pairs(context) {
        findings.push(mtu(wan, lan).on(&lan.name));
    }
    findings
}

/// Each WAN with each LAN that is another interface.
fn pairs<'s>(context: &'s Context<'_>) -> impl Iterator<Item = (&'s Link, &'s Link)> {
    context.wans.iter().flat_map(|wan| {
        let others = context.lans.iter().filter(|lan| lan.index != wan.index);
        others.map(move |lan| (wan, lan))
    })
}

fn forwarding(context: &Context<'_>, link: &Link) -> Finding {
    const CODE: &str = "forwarding";
    const REASON: &str = "the kernel's route look-up for programs (bpf_fib_lookup) fails for packets of an interface that does not forward";
    let key = key(&link.name, "forwarding");
    match sysctl(&path(&link.name, "forwarding")) {
        Some(0) if context.is_local(context.server) => Finding::ok(
            CODE,
            "off; the server is on this host, so nothing is forwarded",
            REASON,
        ),
        Some(0) => Finding::error(CODE, format!("{key} is 0"), REASON).fix(command(
            &link.name,
            "forwarding",
            1,
        )),
        Some(_) => Finding::ok(CODE, "on", REASON),
        None => Finding::not_checked(CODE, format!("{key} is not readable"), REASON),
    }
}

/// Packets of the fast path and of the tc slow path bypass the filter. It applies to packets that the
/// kernel itself processes: those that are too large and have no DF, and all packets when the server is
/// this host.
fn reverse_path(context: &Context<'_>, wan: &Link) -> Finding {
    const CODE: &str = "rp-filter";
    const REASON: &str = "strict filtering drops packets that arrive by another interface than the route to their source; it applies to packets that the kernel has to fragment, and to all packets when the server is this host; all others bypass the filter";
    let values = ["all", &wan.name].map(|name| sysctl(&path(name, "rp_filter")));
    let [Some(all), Some(own)] = values else {
        return Finding::not_checked(CODE, "rp_filter is not readable", REASON);
    };
    let back = context.netlink.route(EXAMPLE_CLIENT);
    match (all.max(own), back) {
        (1, Ok(route)) if route.interface() == Some(wan.index) => Finding::ok(
            CODE,
            "strict, and the default route leaves by this interface",
            REASON,
        ),
        (1, back) => {
            let leaves = match back {
                Ok(Route::Via { index, .. }) => {
                    format!("the default route leaves by {}", context.name(index))
                }
                Ok(Route::Local) | Err(_) => "there is no default route".to_owned(),
            };
            Finding::warning(CODE, format!("strict, and {leaves}"), REASON).fix(command(
                &wan.name,
                "rp_filter",
                2,
            ))
        }
        (0, _) => Finding::ok(CODE, "off", REASON),
        (_, _) => Finding::ok(CODE, "loose", REASON),
    }
}

fn redirects(link: &Link) -> Finding {
    const CODE: &str = "send-redirects";
    const REASON: &str = "on a one-armed gateway the kernel's ICMP redirects tell the server to send replies directly to the next router; they then bypass the gateway and keep the server's own address as source";
    let values = ["all", &link.name].map(|name| sysctl(&path(name, "send_redirects")));
    let [Some(all), Some(own)] = values else {
        return Finding::not_checked(CODE, "send_redirects is not readable", REASON);
    };
    if (all, own) == (0, 0) {
        return Finding::ok(CODE, "off", REASON);
    }
    // The kernel sends redirects if either of the two is on.
    Finding::warning(CODE, "on, and WAN and LAN are the same interface", REASON)
        .fix(command("all", "send_redirects", 0))
        .fix(command(&link.name, "send_redirects", 0))
}

/// The largest packet that fits into a tunnel without fragmentation, in the usual worst case: ESP in UDP
/// with AES-CBC and HMAC-SHA-256. IPv4 and UDP headers take 28 bytes, SPI and sequence number 8, IV 16,
/// check value 16; the rest is whole blocks of 16 that include two bytes of trailer.
fn inner_size(mtu: u32) -> u32 {
    (mtu.saturating_sub(28 + 8 + 16 + 16) / 16 * 16).saturating_sub(2)
}

fn mtu(wan: &Link, lan: &Link) -> Finding {
    const CODE: &str = "mtu";
    const REASON: &str = "IPsec packets usually have DF set, so one that is too large is answered with `fragmentation needed`, which a firewall on the path may drop; one without DF is fragmented by the kernel, on the slow path";
    let least = wan.mtu.min(lan.mtu);
    let fits = format!(
        "a tunnel carries packets of {} bytes without fragmentation (ESP in UDP, AES-CBC with SHA-256)",
        inner_size(least)
    );
    if lan.mtu < wan.mtu {
        let message = format!(
            "{} has {}, {} has {}: packets of clients larger than {} bytes get `fragmentation needed`; {fits}",
            lan.name, lan.mtu, wan.name, wan.mtu, lan.mtu
        );
        let fix = format!("ip link set dev {} mtu {}", quoted(&lan.name), wan.mtu);
        return Finding::warning(CODE, message, REASON).fix(fix);
    }
    if wan.mtu < lan.mtu {
        let message = format!(
            "{} has {}, {} has {}: packets of the server larger than {} bytes get `fragmentation needed`, which it obeys; {fits}",
            wan.name, wan.mtu, lan.name, lan.mtu, wan.mtu
        );
        let fix = format!("ip link set dev {} mtu {}", quoted(&wan.name), lan.mtu);
        return Finding::warning(CODE, message, REASON).fix(fix);
    }
    Finding::ok(CODE, format!("{} on both sides; {fits}", wan.mtu), REASON)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::Level;

    #[test]
    fn the_overhead_of_a_tunnel_is_subtracted() {
        // 1,500 = 28 + 8 + 16 + 1,424 + 16 and 8 to spare; two bytes of the blocks are the trailer.
        assert_eq!(inner_size(1500), 1422);
        assert_eq!(inner_size(1280), 1198);
        assert_eq!(inner_size(60), 0);
    }

    #[test]
    fn the_smaller_side_is_named() {
        let link = |name: &str, mtu| Link {
            name: name.to_owned(),
            mtu,
            ..Link::default()
        };
        assert_eq!(mtu(&link("w", 1500), &link("l", 1500)).level, Level::Ok);
        let small_lan = mtu(&link("w", 1500), &link("l", 1400));
        assert_eq!(small_lan.fix, ["ip link set dev l mtu 1500"]);
        assert!(
            small_lan.message.contains("of clients larger than 1400"),
            "{}",
            small_lan.message
        );
        let small_wan = mtu(&link("w", 1492), &link("l", 1500));
        assert_eq!(small_wan.level, Level::Warning);
        assert!(
            small_wan.message.contains("of the server larger than 1492"),
            "{}",
            small_wan.message
        );
    }

    #[test]
    fn settings_of_interfaces_with_dots_can_be_pasted() {
        assert_eq!(key("eth0", "forwarding"), "net.ipv4.conf.eth0.forwarding");
        assert_eq!(key("eth0.5", "rp_filter"), "net/ipv4/conf/eth0.5/rp_filter");
    }
}
