//! Conditions of the interfaces: that they are there, that their drivers run XDP, that nobody else's program is on them,
//! and that they take frames that XDP redirects to them.

use super::Finding;
use super::context::Scene;
use crate::config::interfaces::Side;
use crate::config::settings::Mode;
use crate::dataplane::egress;
use crate::dataplane::link;
use crate::netlink::{Link, driver_of, is_known_to_transmit};

/// The largest MTU with which drivers that keep a frame in one page run XDP: 4,096 bytes less the headroom of XDP (256),
/// `struct skb_shared_info` (320) and the Ethernet header with a tag.
const ONE_PAGE_MTU: u32 = 3498;

pub(super) fn all(scene: &Scene<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    let names = scene.subject.wans.iter().chain(&scene.subject.lans);
    for name in names {
        if !scene.links.iter().any(|link| link.name == *name) {
            findings.push(missing(scene, name));
        }
    }
    for link in scene.interfaces() {
        findings.push(interface(link).on(&link.name));
        findings.push(mode(scene, link).on(&link.name));
        findings.push(program(scene, link).on(&link.name));
        findings.push(redirect(scene, link).on(&link.name));
    }
    findings
}

const THERE: &str =
    "packets come in and go out by the WAN and the LAN, which have to be up and Ethernet";

fn missing(scene: &Scene<'_>, name: &str) -> Finding {
    let names: Vec<&str> = scene.links.iter().map(|link| link.name.as_str()).collect();
    let found = format!(
        "there is no interface {name}; there are {}",
        names.join(", ")
    );
    Finding::error("interface", found, THERE).on(name)
}

fn interface(link: &Link) -> Finding {
    const CODE: &str = "interface";
    let kind = match (&link.kind, driver_of(link)) {
        (Some(kind), _) => kind.clone(),
        (None, Some(driver)) => format!("driver {driver}"),
        (None, None) => "hardware".to_owned(),
    };
    if link.mac.is_none() {
        let found = format!("not Ethernet ({kind}): there are no MAC addresses to rewrite");
        return Finding::error(CODE, found, THERE);
    }
    if !link.up {
        let found = format!("{kind}, down");
        return Finding::error(CODE, found, THERE)
            .mend(format!("ip link set dev {} up", link.name));
    }
    Finding::ok(CODE, format!("{kind}, up, MTU {}", link.mtu), THERE)
}

fn side_of(scene: &Scene<'_>, link: &Link) -> Side {
    if scene.wans.iter().any(|wan| wan.index == link.index) {
        Side::Wan
    } else {
        Side::Lan
    }
}

fn mode(scene: &Scene<'_>, link: &Link) -> Finding {
    const CODE: &str = "xdp-mode";
    const WHY: &str = "native XDP runs in the driver, before the kernel makes anything of a frame; generic XDP works on any device and is several times slower";
    if scene.subject.dry_run {
        return Finding::ok(CODE, "a dry run attaches no XDP program", WHY);
    }
    let native = match scene.netlink.has_native_xdp(link) {
        Ok(native) => native,
        Err(error) => return Finding::unseen(CODE, error, WHY),
    };
    let side = side_of(scene, link);
    let is_wan = side == Side::Wan;
    // One that is both has one program, and so one mode.
    let is_lan = scene.lans.iter().any(|lan| lan.index == link.index);
    let in_mode = |mode| {
        let mut subject = scene.subject.clone();
        if is_wan {
            subject.modes.wan = mode;
        }
        if is_lan {
            subject.modes.lan = mode;
        }
        subject.run()
    };
    match (scene.subject.modes.of(side), native) {
        (Mode::Generic, Some(true)) => {
            let found = "generic mode was asked for, and the driver has native XDP";
            Finding::warning(CODE, found, WHY).mend(in_mode(Mode::Native))
        }
        (Mode::Generic, _) => Finding::ok(CODE, "generic", WHY),
        (Mode::Native, Some(false)) => {
            Finding::error(CODE, "the driver has no native XDP", WHY).mend(in_mode(Mode::Generic))
        }
        (Mode::Native, None) => Finding::unseen(
            CODE,
            "this kernel does not tell which drivers have native XDP (Linux 6.3); if it is refused, use --mode generic (or --wan-mode, --lan-mode)",
            WHY,
        ),
        (Mode::Native, Some(true)) if link.mtu > ONE_PAGE_MTU => Finding::warning(
            CODE,
            format!("native, but with an MTU of {} a frame does not fit into one page, and many drivers then refuse XDP", link.mtu),
            WHY,
        )
        .mend(format!("ip link set dev {} mtu 1500", link.name)),
        (Mode::Native, Some(true)) => Finding::ok(CODE, "native", WHY),
    }
}

fn program(scene: &Scene<'_>, link: &Link) -> Finding {
    const CODE: &str = "xdp-program";
    const WHY: &str = "an interface has room for one XDP program";
    let Some(id) = link.xdp else {
        return Finding::ok(CODE, "none of anybody else's", WHY);
    };
    let owner = scene
        .bpffs
        .as_ref()
        .and_then(|bpffs| link::instance_of(bpffs, id));
    let program = match link::program_name(id) {
        Some(name) => format!("`{name}` (id {id})"),
        None => format!("id {id}"),
    };
    match owner {
        Some(owner) if owner.vip == scene.subject.vip => {
            Finding::ok(CODE, format!("{program}, which is ours"), WHY)
        }
        _ if scene.subject.dry_run => {
            let found = format!("{program} of somebody else, beside which a dry run can be");
            Finding::ok(CODE, found, WHY)
        }
        Some(owner) => {
            let found = format!("{program}: that is ikenat for {}", owner.vip);
            Finding::error(CODE, found, WHY).mend(format!("ikenat unload --vip {}", owner.vip))
        }
        None => {
            let found = format!("{program} of somebody else");
            Finding::error(CODE, found, WHY).mend(link::removal(&link.name, id))
        }
    }
}

fn redirect(scene: &Scene<'_>, link: &Link) -> Finding {
    const CODE: &str = "redirect";
    const WHY: &str = "what XDP cannot send out by a device takes the slow path, which is right for every device and costs several times as much";
    let (modes, side) = (scene.subject.modes, side_of(scene, link));
    if egress::takes_any_frame(modes, side, link) {
        return Finding::ok(
            CODE,
            "takes frames from generic XDP, like any hardware",
            WHY,
        );
    }
    match egress::is_ready(scene.netlink, modes, side, link) {
        Ok(true) => return Finding::ok(CODE, "takes frames from XDP", WHY),
        Ok(false) => {}
        Err(error) => return Finding::unseen(CODE, error, WHY),
    }
    if modes.of(side) == Mode::Native && is_known_to_transmit(link) && link.xdp.is_none() {
        return Finding::ok(
            CODE,
            "the driver takes frames from XDP once our program is on it",
            WHY,
        );
    }
    let far = scene.far.iter().find(|far| far.near == link.index);
    match (link.kind.as_deref(), far) {
        (Some("veth"), _) if !scene.netlink.reports_xdp_features() => Finding::warning(
            CODE,
            "takes no frames from XDP, as far as one can see: before Linux 6.3 that takes a native XDP program at the far end of a veth",
            WHY,
        ),
        (Some("veth"), Some(far)) => Finding::warning(
            CODE,
            "takes no frames from XDP: a veth needs an XDP program or GRO at its far end",
            WHY,
        )
        .mend(format!("{}ethtool -K {} gro on", far.entry, far.name)),
        (Some("veth"), None) => Finding::warning(
            CODE,
            "takes no frames from XDP: a veth needs an XDP program or GRO at its far end, which cannot be seen from here: in its namespace, `ethtool -K eth0 gro on`",
            WHY,
        ),
        (Some(kind), _) => Finding::warning(
            CODE,
            format!(
                "takes no frames from XDP: a {kind} never does; name the device beneath it where that is possible"
            ),
            WHY,
        ),
        (None, _) => Finding::warning(CODE, "the driver takes no frames from XDP", WHY),
    }
}
