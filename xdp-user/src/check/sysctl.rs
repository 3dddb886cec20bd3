//! Conditions of the kernel's IPv4 settings and of the sizes of packets: forwarding, reverse path filter, redirects, MTUs.

use super::Finding;
use super::context::{A_CLIENT, Scene, sysctl};
use crate::config::validate::{sysctl_key as key, sysctl_path as path};
use crate::netlink::{Link, Route};

pub(super) fn all(scene: &Scene<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    for link in scene.interfaces() {
        findings.push(forwarding(scene, link).on(&link.name));
    }
    for wan in &scene.wans {
        findings.push(reverse_path(scene, wan).on(&wan.name));
    }
    for both in scene.one_armed() {
        findings.push(redirects(both).on(&both.name));
    }
    for (wan, lan) in pairs(scene) {
        findings.push(mtu(wan, lan).on(&lan.name));
    }
    findings
}

/// Each way from a WAN to a LAN that is another interface.
fn pairs<'s>(scene: &'s Scene<'_>) -> impl Iterator<Item = (&'s Link, &'s Link)> {
    scene.wans.iter().flat_map(|wan| {
        let others = scene.lans.iter().filter(|lan| lan.index != wan.index);
        others.map(move |lan| (wan, lan))
    })
}

fn forwarding(scene: &Scene<'_>, link: &Link) -> Finding {
    const CODE: &str = "forwarding";
    const WHY: &str =
        "the kernel gives programs no route for packets of an interface that does not forward";
    let key = key(&link.name, "forwarding");
    match sysctl(&path(&link.name, "forwarding")) {
        Some(0) if scene.is_local(scene.subject.server) => Finding::ok(
            CODE,
            "off, and the server is this host: nothing is forwarded",
            WHY,
        ),
        Some(0) => {
            Finding::error(CODE, format!("{key} is 0"), WHY).mend(format!("sysctl -w {key}=1"))
        }
        Some(_) => Finding::ok(CODE, "on", WHY),
        None => Finding::unseen(CODE, format!("{key} cannot be read"), WHY),
    }
}

/// Neither the fast path nor the slow path of the tc program asks the filter: it is applied to what the kernel itself
/// takes up, which is packets that are too big without DF, and all of them when the server is this host.
fn reverse_path(scene: &Scene<'_>, wan: &Link) -> Finding {
    const CODE: &str = "rp-filter";
    const WHY: &str = "packets that the kernel itself takes up (those that it has to fragment, or all, when the server is this host) are dropped when strict filtering expects their source elsewhere; the others never meet the filter";
    let values = ["all", &wan.name].map(|name| sysctl(&path(name, "rp_filter")));
    let [Some(all), Some(own)] = values else {
        return Finding::unseen(CODE, "rp_filter cannot be read", WHY);
    };
    let back = scene.netlink.route(A_CLIENT);
    match (all.max(own), back) {
        (1, Ok(route)) if route.interface() == Some(wan.index) => Finding::ok(
            CODE,
            "strict, and the default route leaves by this interface",
            WHY,
        ),
        (1, back) => {
            let leaves = match back {
                Ok(Route::Via { index, .. }) => {
                    format!("the default route leaves by {}", scene.name(index))
                }
                Ok(Route::Local) | Err(_) => "there is no default route".to_owned(),
            };
            Finding::warning(CODE, format!("strict, and {leaves}"), WHY)
                .mend(format!("sysctl -w {}=2", key(&wan.name, "rp_filter")))
        }
        (0, _) => Finding::ok(CODE, "off", WHY),
        (_, _) => Finding::ok(CODE, "loose", WHY),
    }
}

fn redirects(link: &Link) -> Finding {
    const CODE: &str = "send-redirects";
    const WHY: &str = "on a one-armed gateway the kernel tells the server by ICMP redirects to send answers to the router beyond: past the gateway, with the server's own address as source";
    let values = ["all", &link.name].map(|name| sysctl(&path(name, "send_redirects")));
    let [Some(all), Some(own)] = values else {
        return Finding::unseen(CODE, "send_redirects cannot be read", WHY);
    };
    if (all, own) == (0, 0) {
        return Finding::ok(CODE, "off", WHY);
    }
    // One of the two is enough to have them sent.
    Finding::warning(CODE, "on, and WAN and LAN are one interface", WHY)
        .mend(format!("sysctl -w {}=0", key("all", "send_redirects")))
        .mend(format!("sysctl -w {}=0", key(&link.name, "send_redirects")))
}

/// What is left of an IPv4 packet for that inside a tunnel, in the usual worst case: ESP in UDP with AES-CBC and
/// HMAC-SHA-256. Addresses and UDP header 28, SPI and sequence number 8, IV 16, check value 16; the rest is whole blocks of
/// 16 with two bytes of trailer.
fn inside(mtu: u32) -> u32 {
    (mtu.saturating_sub(28 + 8 + 16 + 16) / 16 * 16).saturating_sub(2)
}

fn mtu(wan: &Link, lan: &Link) -> Finding {
    const CODE: &str = "mtu";
    const WHY: &str = "IPsec packets come with DF, so one that does not fit is answered with `fragmentation needed`, which a firewall on the way may swallow; without DF it is left to the kernel to fragment, on the slow path";
    let least = wan.mtu.min(lan.mtu);
    let fits = format!(
        "a tunnel carries packets of {} bytes without fragments (ESP in UDP, AES-CBC with SHA-256)",
        inside(least)
    );
    if lan.mtu < wan.mtu {
        let found = format!(
            "{} has {} and {} has {}: larger packets of clients than {} bytes get `fragmentation needed`; {fits}",
            lan.name, lan.mtu, wan.name, wan.mtu, lan.mtu
        );
        let mend = format!("ip link set dev {} mtu {}", lan.name, wan.mtu);
        return Finding::warning(CODE, found, WHY).mend(mend);
    }
    if wan.mtu < lan.mtu {
        let found = format!(
            "{} has {} and {} has {}: larger packets of the server than {} bytes get `fragmentation needed`, which it follows; {fits}",
            wan.name, wan.mtu, lan.name, lan.mtu, wan.mtu
        );
        let mend = format!("ip link set dev {} mtu {}", wan.name, lan.mtu);
        return Finding::warning(CODE, found, WHY).mend(mend);
    }
    Finding::ok(CODE, format!("{} on both sides; {fits}", wan.mtu), WHY)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::Level;

    #[test]
    fn the_overhead_of_a_tunnel_is_taken_off() {
        // 1,500 = 28 + 8 + 16 + 1,424 + 16 and 8 to spare; two bytes of the blocks are the trailer.
        assert_eq!(inside(1500), 1422);
        assert_eq!(inside(1280), 1198);
        assert_eq!(inside(60), 0);
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
        assert_eq!(small_lan.mend, ["ip link set dev l mtu 1500"]);
        assert!(
            small_lan.found.contains("of clients than 1400"),
            "{}",
            small_lan.found
        );
        let small_wan = mtu(&link("w", 1492), &link("l", 1500));
        assert_eq!(small_wan.level, Level::Warning);
        assert!(
            small_wan.found.contains("of the server than 1492"),
            "{}",
            small_wan.found
        );
    }

    #[test]
    fn settings_of_interfaces_with_dots_can_be_pasted() {
        assert_eq!(key("eth0", "forwarding"), "net.ipv4.conf.eth0.forwarding");
        assert_eq!(key("eth0.5", "rp_filter"), "net/ipv4/conf/eth0.5/rp_filter");
    }
}
