//! Conditions of what devices do by themselves: merging packets, taking VLAN tags out, leaving checksums to others, and
//! spreading packets over receive queues.

use super::Finding;
use super::context::Scene;
use super::veth_peer::Far;
use crate::netlink::Link;
use crate::netlink::ethtool::{HASH_FIRST_HALF, HASH_SECOND_HALF, HashFields};
use std::collections::BTreeSet;

pub(super) fn all(scene: &Scene<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    for link in scene.interfaces() {
        let name = &link.name;
        let far = scene.far.iter().find(|far| far.near == link.index);
        match scene.netlink.features(name) {
            Ok(features) => {
                findings.push(lro(&features, name).on(name));
                findings.push(tags(&features, link, far).on(name));
            }
            Err(error) => findings.push(Finding::unseen("lro", error, MERGED).on(name)),
        }
        if link.kind.as_deref() == Some("veth") {
            findings.push(checksum(far).on(name));
        }
        findings.push(spreading(scene, link).on(name));
    }
    findings
}

const MERGED: &str = "a device that merges packets (LRO) gives them to nobody as they came; with native XDP drivers turn it off, or refuse to run it";

fn lro(features: &BTreeSet<String>, name: &str) -> Finding {
    if features.contains("rx-lro") {
        let mend = format!("ethtool -K {name} lro off");
        return Finding::warning("lro", "large receive offload is on", MERGED).mend(mend);
    }
    Finding::ok("lro", "packets are not merged by the device", MERGED)
}

/// On a veth it is the far end that decides: it hands over the tag beside the frame, unless it has to write it in.
fn tags(features: &BTreeSet<String>, link: &Link, far: Option<&Far>) -> Finding {
    const CODE: &str = "vlan-offload";
    const WHY: &str = "XDP does not see a VLAN tag that was taken out of the frame: packets of another VLAN then look like untagged ones";
    if link.kind.as_deref() == Some("veth") {
        let Some(far) = far else {
            return Finding::unseen(
                CODE,
                "the far end of this veth cannot be seen from here",
                WHY,
            );
        };
        if far.features.contains("tx-vlan-hw-insert") {
            let found = format!("the far end ({}) sends tags beside the frames", far.name);
            let mend = format!("{}ethtool -K {} txvlan off", far.entry, far.name);
            return Finding::warning(CODE, found, WHY).mend(mend);
        }
        return Finding::ok(CODE, "the far end leaves tags in the frames", WHY);
    }
    if features.contains("rx-vlan-hw-parse") {
        let mend = format!("ethtool -K {} rxvlan off", link.name);
        return Finding::warning(CODE, "the device takes tags out of the frames", WHY).mend(mend);
    }
    Finding::ok(CODE, "tags stay in the frames", WHY)
}

fn checksum(far: Option<&Far>) -> Finding {
    const CODE: &str = "peer-checksum";
    const WHY: &str = "what the far end of a veth sends with an unfinished checksum cannot be sent on by XDP and takes the slow path; ESP has no checksum";
    let Some(far) = far else {
        return Finding::unseen(
            CODE,
            "the far end of this veth cannot be seen from here",
            WHY,
        );
    };
    if far.features.contains("tx-checksum-ip-generic") {
        let found = format!("the far end ({}) leaves checksums unfinished", far.name);
        let mend = format!("{}ethtool -K {} tx off", far.entry, far.name);
        return Finding::warning(CODE, found, WHY).mend(mend);
    }
    Finding::ok(CODE, "the far end finishes its checksums", WHY)
}

fn spreading(scene: &Scene<'_>, link: &Link) -> Finding {
    let name = &link.name;
    let queues = scene.netlink.receive_queues(name).unwrap_or(1);
    judge_spreading(name, queues, scene.netlink.hash_fields(name).ok())
}

/// `None`: the driver spreads nothing, or does not let one choose.
fn judge_spreading(name: &str, queues: u64, fields: Option<HashFields>) -> Finding {
    const CODE: &str = "rss";
    const WHY: &str = "packets are spread over CPUs by what the device hashes: without ports (UDP) and the SPI (ESP) all tunnels behind one NAT, or between two sites, share one CPU";
    if queues <= 1 {
        return Finding::ok(CODE, "one receive queue: there is nothing to spread", WHY);
    }
    let Some(fields) = fields else {
        let found = format!(
            "{queues} receive queues; choosing what to spread by is not offered by the driver"
        );
        return Finding::ok(CODE, found, WHY);
    };
    let whole = HASH_FIRST_HALF | HASH_SECOND_HALF;
    let (Some(udp), esp) = (fields.udp, fields.esp) else {
        let what = format!(
            "{queues} receive queues; what they are chosen by is told over netlink from Linux 6.17 on, by drivers that know it; `ethtool -n {name} rx-flow-hash udp4` and `esp4` tell"
        );
        return Finding::unseen(CODE, what, WHY);
    };
    let mut found = Vec::new();
    let mut mend = Vec::new();
    if udp & whole == whole {
        found.push("UDP is hashed by port");
    } else {
        found.push("UDP is hashed by address only");
        mend.push(format!("ethtool -N {name} rx-flow-hash udp4 sdfn"));
    }
    match esp {
        Some(esp) if esp & whole == whole => found.push("ESP is hashed by SPI"),
        Some(_) => {
            found.push("ESP is hashed by address only");
            mend.push(format!("ethtool -N {name} rx-flow-hash esp4 sdfn"));
        }
        None => found.push("for ESP the driver offers no choice"),
    }
    let found = format!("{queues} receive queues; {}", found.join(", "));
    if mend.is_empty() {
        return Finding::ok(CODE, found, WHY);
    }
    let mut finding = Finding::warning(CODE, found, WHY);
    finding.mend = mend;
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
        assert_eq!(on.mend, ["ethtool -K eth1 lro off"]);
        assert_eq!(lro(&BTreeSet::new(), "eth1").level, Level::Ok);
    }

    #[test]
    fn tags_are_judged_at_the_end_that_decides() {
        let features = BTreeSet::from(["rx-vlan-hw-parse".to_owned()]);
        let mut link = Link {
            name: "eth1".to_owned(),
            ..Link::default()
        };
        let nic = tags(&features, &link, None);
        assert_eq!(
            (nic.level, &nic.mend[..]),
            (
                Level::Warning,
                &["ethtool -K eth1 rxvlan off".to_owned()][..]
            )
        );
        assert_eq!(tags(&BTreeSet::new(), &link, None).level, Level::Ok);
        link.kind = Some("veth".to_owned());
        assert!(
            tags(&features, &link, None)
                .found
                .starts_with("cannot look")
        );
    }

    #[test]
    fn spreading_is_judged_by_what_is_hashed() {
        let level = |queues, fields| judge_spreading("eth1", queues, fields).level;
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
        let both = judge_spreading("eth1", 8, fields(Some(addresses), Some(addresses)));
        assert_eq!(both.level, Level::Warning);
        let mend = ["udp4", "esp4"].map(|kind| format!("ethtool -N eth1 rx-flow-hash {kind} sdfn"));
        assert_eq!(both.mend, mend);
        let udp = judge_spreading("eth1", 8, fields(Some(addresses), Some(ports)));
        assert_eq!(udp.mend.len(), 1);
    }
}
