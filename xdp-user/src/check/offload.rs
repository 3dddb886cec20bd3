//! Checks of offloads and receive queues: merged packets, removed VLAN tags, partial checksums, and how
//! packets are distributed over queues.

use super::Finding;
use super::context::Context;
use super::veth_peer::VethPeer;
use crate::config::commands::quoted;
use crate::error::word;
use crate::netlink::Link;
use crate::netlink::ethtool::{HASH_FIRST_HALF, HASH_SECOND_HALF, HashFields};
use std::collections::BTreeSet;

pub(super) fn all(context: &Context<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    for link in context.interfaces() {
        let name = &link.name;
        let peer = context.veth_peer(link);
        match context.netlink.features(name) {
            Ok(features) => {
                findings.push(lro(&features, name).on(name));
                findings.push(udp_gro(&features, name).on(name));
                findings.push(vlan_tags(&features, link, peer).on(name));
            }
            Err(error) => {
                findings.push(Finding::not_checked("lro", word(&error), MERGED).on(name));
            }
        }
        if link.kind.as_deref() == Some("veth") {
            findings.push(checksum(peer).on(name));
        }
        findings.push(distribution(context, link).on(name));
    }
    findings
}

const MERGED: &str = "a device that merges packets (LRO) delivers packets that were never on the wire; with native XDP, drivers turn it off or refuse XDP";
const HIDDEN_PEER: &str = "the peer of this veth is not visible from here";

fn lro(features: &BTreeSet<String>, name: &str) -> Finding {
    if features.contains("rx-lro") {
        let fix = format!("ethtool -K {} lro off", quoted(name));
        return Finding::warning("lro", "large receive offload is on", MERGED).fix(fix);
    }
    Finding::ok("lro", "large receive offload is off", MERGED)
}

/// Datagrams that are merged on the slow path.
fn udp_gro(features: &BTreeSet<String>, name: &str) -> Finding {
    const CODE: &str = "udp-gro";
    const REASON: &str = "datagrams that the kernel merges (rx-gro-list, rx-udp-gro-forwarding) are forwarded by the slow path and cut again, but each bundle counts as one packet";
    let on = ["rx-gro-list", "rx-udp-gro-forwarding"];
    let on: Vec<&str> = on
        .into_iter()
        .filter(|feature| features.contains(*feature))
        .collect();
    if on.is_empty() {
        return Finding::ok(CODE, "datagrams are not merged", REASON);
    }
    let off: Vec<String> = on.iter().map(|feature| format!("{feature} off")).collect();
    let fix = format!("ethtool -K {} {}", quoted(name), off.join(" "));
    let message = format!("{} is on", on.join(" and "));
    Finding::warning(CODE, message, REASON).fix(fix)
}

/// On a veth its peer decides: it passes the tag beside the frame, unless it has to insert it.
fn vlan_tags(features: &BTreeSet<String>, link: &Link, peer: Option<&VethPeer>) -> Finding {
    const CODE: &str = "vlan-offload";
    const REASON: &str = "XDP does not see a VLAN tag that was removed from the frame, so packets of another VLAN look untagged";
    if link.kind.as_deref() == Some("veth") {
        let Some(peer) = peer else {
            return Finding::not_checked(CODE, HIDDEN_PEER, REASON);
        };
        if peer.features.contains("tx-vlan-hw-insert") {
            let message = format!("the peer ({}) sends VLAN tags beside the frames", peer.name);
            let fix = peer.command("txvlan off");
            return Finding::warning(CODE, message, REASON).fix(fix);
        }
        return Finding::ok(CODE, "the peer leaves VLAN tags in the frames", REASON);
    }
    if features.contains("rx-vlan-hw-parse") {
        let fix = format!("ethtool -K {} rxvlan off", quoted(&link.name));
        let message = "the device removes VLAN tags from received frames";
        return Finding::warning(CODE, message, REASON).fix(fix);
    }
    Finding::ok(CODE, "VLAN tags remain in the frames", REASON)
}

fn checksum(peer: Option<&VethPeer>) -> Finding {
    const CODE: &str = "peer-checksum";
    const REASON: &str = "XDP cannot forward a packet with a partial checksum, so it uses the slow path; ESP has no checksum";
    let Some(peer) = peer else {
        return Finding::not_checked(CODE, HIDDEN_PEER, REASON);
    };
    if peer.features.contains("tx-checksum-ip-generic") {
        let message = format!("the peer ({}) sends partial checksums", peer.name);
        let fix = peer.command("tx off");
        return Finding::warning(CODE, message, REASON).fix(fix);
    }
    Finding::ok(CODE, "the peer sends complete checksums", REASON)
}

fn distribution(context: &Context<'_>, link: &Link) -> Finding {
    let name = &link.name;
    let queues = context.netlink.receive_queues(name).unwrap_or(1);
    judge_distribution(name, queues, context.netlink.hash_fields(name).ok())
}

/// `fields` is `None` when the driver has no hash, or does not let its fields be chosen.
fn judge_distribution(name: &str, queues: u64, fields: Option<HashFields>) -> Finding {
    const CODE: &str = "rss";
    const REASON: &str = "the device distributes packets over CPUs by a hash: without ports (UDP) and the SPI (ESP), all tunnels behind one NAT or between two sites share one CPU";
    const WHOLE: u64 = HASH_FIRST_HALF | HASH_SECOND_HALF;
    let name = quoted(name);
    if queues <= 1 {
        return Finding::ok(CODE, "one receive queue; nothing to distribute", REASON);
    }
    let Some(fields) = fields else {
        let message =
            format!("{queues} receive queues; the driver does not offer a choice of hash fields");
        return Finding::ok(CODE, message, REASON);
    };
    let (Some(udp), esp) = (fields.udp, fields.esp) else {
        let cause = format!(
            "{queues} receive queues; hash fields are reported over netlink from Linux 6.17 on, by some drivers; see `ethtool -n {name} rx-flow-hash udp4` and `esp4`"
        );
        return Finding::not_checked(CODE, cause, REASON);
    };
    let mut parts = Vec::new();
    let mut fix = Vec::new();
    if udp & WHOLE == WHOLE {
        parts.push("UDP is hashed by port");
    } else {
        parts.push("UDP is hashed by address only");
        fix.push(format!("ethtool -N {name} rx-flow-hash udp4 sdfn"));
    }
    match esp {
        Some(esp) if esp & WHOLE == WHOLE => parts.push("ESP is hashed by SPI"),
        Some(_) => {
            parts.push("ESP is hashed by address only");
            fix.push(format!("ethtool -N {name} rx-flow-hash esp4 sdfn"));
        }
        None => parts.push("the driver offers no choice for ESP"),
    }
    let message = format!("{queues} receive queues; {}", parts.join(", "));
    if fix.is_empty() {
        return Finding::ok(CODE, message, REASON);
    }
    let mut finding = Finding::warning(CODE, message, REASON);
    finding.fix = fix;
    finding
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::Level;

    fn fields(udp: Option<u64>, esp: Option<u64>) -> Option<HashFields> {
        Some(HashFields { udp, esp })
    }

    #[test]
    fn lro_is_a_warning_with_its_command() {
        let on = lro(&BTreeSet::from(["rx-lro".to_owned()]), "eth1");
        assert_eq!(on.level, Level::Warning);
        assert_eq!(on.fix, ["ethtool -K eth1 lro off"]);
        let on = lro(&BTreeSet::from(["rx-lro".to_owned()]), "eth$1");
        assert_eq!(on.fix, ["ethtool -K 'eth$1' lro off"]);
        assert_eq!(lro(&BTreeSet::new(), "eth1").level, Level::Ok);
    }

    #[test]
    fn vlan_tags_are_judged_at_the_end_that_removes_them() {
        let features = BTreeSet::from(["rx-vlan-hw-parse".to_owned()]);
        let mut link = Link {
            name: "eth1".to_owned(),
            ..Link::default()
        };
        let nic = vlan_tags(&features, &link, None);
        assert_eq!(
            (nic.level, &nic.fix[..]),
            (
                Level::Warning,
                &["ethtool -K eth1 rxvlan off".to_owned()][..]
            )
        );
        assert_eq!(vlan_tags(&BTreeSet::new(), &link, None).level, Level::Ok);
        link.kind = Some("veth".to_owned());
        assert!(
            vlan_tags(&features, &link, None)
                .message
                .starts_with("not checked")
        );
    }

    #[test]
    fn distribution_is_judged_by_the_hash_fields() {
        let level = |queues, fields| judge_distribution("eth1", queues, fields).level;
        // Addresses and both halves; addresses only.
        let (ports, addresses) = (0xf0, 0x30);
        assert_eq!(level(8, fields(Some(ports), Some(ports))), Level::Ok);
        assert_eq!(level(8, fields(Some(ports), None)), Level::Ok);
        assert_eq!(
            level(1, fields(Some(addresses), Some(addresses))),
            Level::Ok
        );
        assert_eq!(level(8, None), Level::Ok);
        assert_eq!(level(8, fields(None, None)), Level::Warning);
        let both = judge_distribution("eth1", 8, fields(Some(addresses), Some(addresses)));
        assert_eq!(both.level, Level::Warning);
        let fix = ["udp4", "esp4"].map(|kind| format!("ethtool -N eth1 rx-flow-hash {kind} sdfn"));
        assert_eq!(both.fix, fix);
        let udp = judge_distribution("eth1", 8, fields(Some(addresses), Some(ports)));
        assert_eq!(udp.fix.len(), 1);
    }
}
