//! Checks of the interfaces: whether they exist, run XDP programs, have no foreign XDP program, and
//! transmit frames that XDP redirects to them.

use super::context::Context;
use super::veth_peer::VethPeer;
use super::{Finding, run_command};
use crate::config::commands::quoted;
use crate::config::interfaces::Side;
use crate::config::settings::{Mode, Modes};
use crate::dataplane::{bpf_query, egress, foreign_xdp};
use crate::error::word;
use crate::netlink::{Link, driver_of, is_known_to_transmit};

/// The largest MTU at which drivers that keep a frame in one page run XDP: 4,096 bytes minus the
/// headroom of XDP (256), `struct skb_shared_info` (320) and an Ethernet header with one tag.
const ONE_PAGE_MTU: u32 = 3498;

pub(super) fn all(context: &Context<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    // A server on this host needs no LAN.
    let starts_with_these_lans = !context.lans.is_empty() || context.has_local_server();
    for (names, still_starts) in [
        (&context.settings.wans, !context.wans.is_empty()),
        (&context.settings.lans, starts_with_these_lans),
    ] {
        for name in names {
            if !context.links.iter().any(|link| link.name == *name) {
                findings.push(missing(context, name, still_starts));
            }
        }
    }
    for link in context.interfaces() {
        findings.push(interface(link).on(&link.name));
        findings.extend(untested(link).map(|finding| finding.on(&link.name)));
        findings.push(mode(context, link).on(&link.name));
        findings.push(program(context, link).on(&link.name));
        findings.push(redirect(context, link).on(&link.name));
        findings.push(shaper(context, link).on(&link.name));
        if let Ok(queues) = context.netlink.transmit_queues(&link.name) {
            let cpus = aya::util::online_cpus().map_or(0, |cpus| cpus.len() as u64);
            findings.extend(transmit_queues(link, queues, cpus).map(|found| found.on(&link.name)));
        }
    }
    findings
}

const EXISTS: &str = "WAN and LAN must exist, be up, and be Ethernet interfaces";

/// An interface that does not exist, and whether `run` starts nevertheless.
fn missing(context: &Context<'_>, name: &str, still_starts: bool) -> Finding {
    let names: Vec<&str> = context
        .links
        .iter()
        .map(|link| link.name.as_str())
        .collect();
    let names = names.join(", ");
    if !still_starts {
        let message = format!("no interface {name}; existing are {names}");
        return Finding::error("interface", message, EXISTS).on(name);
    }
    let message =
        format!("no interface {name}; it is attached when it appears; existing are {names}");
    Finding::warning("interface", message, EXISTS).on(name)
}

fn interface(link: &Link) -> Finding {
    const CODE: &str = "interface";
    let kind = match (&link.kind, driver_of(link)) {
        (Some(kind), _) => kind.clone(),
        (None, Some(driver)) => format!("driver {driver}"),
        (None, None) => "hardware".to_owned(),
    };
    if link.mac.is_none() {
        let message = format!(
            "not Ethernet ({kind}): its frames have no MAC addresses to rewrite; for a PPP connection or a tunnel, let a device in front of this host end it, or forward with the kernel's own rules (`iptables -t nat`) instead of ikenat"
        );
        return Finding::error(CODE, message, EXISTS);
    }
    if !link.up {
        let message = format!("{kind}, down");
        return Finding::error(CODE, message, EXISTS)
            .fix(format!("ip link set dev {} up", quoted(&link.name)));
    }
    Finding::ok(CODE, format!("{kind}, up, MTU {}", link.mtu), EXISTS)
}

/// Devices that are neither tested nor known to work.
fn untested(link: &Link) -> Option<Finding> {
    const REASON: &str = "xen-netfront runs XDP only if the host offers headroom for it (`feature-xdp-headroom`), and no test of ikenat has such a device";
    let (bus, _) = link.hardware.as_ref()?;
    let message = "xen-netfront is not tested";
    (bus == "xen").then(|| Finding::warning("driver", message, REASON))
}

fn side_of(context: &Context<'_>, link: &Link) -> Side {
    if context.wans.iter().any(|wan| wan.index == link.index) {
        Side::Wan
    } else {
        Side::Lan
    }
}

/// The command that runs ikenat with another mode on an interface. An interface that is both WAN and
/// LAN has one program, and so one mode.
fn run_in_mode(context: &Context<'_>, link: &Link, mode: Mode) -> String {
    let is_one_of = |links: &[Link]| links.iter().any(|one| one.index == link.index);
    let mut settings = context.settings.clone();
    if is_one_of(&context.wans) {
        settings.modes.wan = mode;
    }
    if is_one_of(&context.lans) {
        settings.modes.lan = mode;
    }
    run_command(&settings)
}

fn mode(context: &Context<'_>, link: &Link) -> Finding {
    const CODE: &str = "xdp-mode";
    const REASON: &str = "native XDP runs in the driver, before the kernel allocates a socket buffer; generic XDP runs on any device and is several times slower";
    if context.settings.dry_run {
        return Finding::ok(CODE, "a dry run attaches no XDP program", REASON);
    }
    let native = match context.netlink.has_native_xdp(link) {
        Ok(native) => native,
        Err(error) => return Finding::not_checked(CODE, error, REASON),
    };
    let mode = context.settings.modes.of(side_of(context, link));
    match (mode, native) {
        (Mode::Generic, Some(true)) => {
            let message = "generic mode is requested, but the driver has native XDP";
            Finding::warning(CODE, message, REASON).fix(run_in_mode(context, link, Mode::Native))
        }
        (Mode::Generic, _) => Finding::ok(CODE, "generic", REASON),
        (Mode::Native, Some(false)) => Finding::error(CODE, "the driver has no native XDP", REASON)
            .fix(run_in_mode(context, link, Mode::Generic)),
        (Mode::Native, None) => Finding::not_checked(
            CODE,
            "this kernel does not report which drivers have native XDP (Linux 6.3 does); if `ikenat run` is refused, use --mode generic, or --wan-mode or --lan-mode for one side",
            REASON,
        ),
        (Mode::Native, Some(true)) if link.mtu > ONE_PAGE_MTU => {
            let message = format!(
                "native; with an MTU of {} (more than {ONE_PAGE_MTU}) a frame does not fit into one page, and many drivers then refuse XDP: lower the MTU, or use {} generic",
                link.mtu,
                Modes::option(side_of(context, link))
            );
            Finding::warning(CODE, message, REASON)
                .fix(format!("ip link set dev {} mtu 1500", quoted(&link.name)))
        }
        (Mode::Native, Some(true)) => Finding::ok(CODE, "native", REASON),
    }
}

fn program(context: &Context<'_>, link: &Link) -> Finding {
    const CODE: &str = "xdp-program";
    const REASON: &str = "an interface can have only one XDP program";
    let Some(id) = link.xdp else {
        return Finding::ok(CODE, "no XDP program of another owner", REASON);
    };
    let owner = context
        .bpffs
        .as_ref()
        .and_then(|bpffs| foreign_xdp::instance_of(bpffs, id));
    let program = match bpf_query::program_name(id) {
        Some(name) => format!("`{name}` (id {id})"),
        None => format!("id {id}"),
    };
    match owner {
        Some(owner) if owner.name == context.settings.instance => {
            Finding::ok(CODE, format!("{program} of this instance"), REASON)
        }
        _ if context.settings.dry_run => {
            let message = format!("{program} of another owner; a dry run can run beside it");
            Finding::ok(CODE, message, REASON)
        }
        Some(owner)
            if context
                .older
                .as_ref()
                .is_some_and(|older| older.instance == owner) =>
        {
            let message = format!(
                "{program} of an older ikenat, with pins in {}; the next start takes it over once the older daemon is stopped",
                owner.directory.display()
            );
            Finding::ok(CODE, message, REASON)
        }
        Some(owner) => {
            let message = format!("{program} of the ikenat instance {}", owner.name_and_vips());
            Finding::error(CODE, message, REASON).fix(format!(
                "ikenat unload {}{}",
                owner.selector(),
                owner.bpffs_option()
            ))
        }
        None => {
            let message = format!("{program} of another owner");
            Finding::error(CODE, message, REASON).fix(foreign_xdp::removal_command(&link.name, id))
        }
    }
}

fn redirect(context: &Context<'_>, link: &Link) -> Finding {
    const CODE: &str = "redirect";
    const REASON: &str =
        "the slow path works on every device, but costs several times as much per packet";
    let (modes, side) = (context.settings.modes, side_of(context, link));
    if egress::is_sent_by_stack(modes, side, link) {
        let message = "frames of generic XDP leave through the network stack, on any hardware";
        return Finding::ok(CODE, message, REASON);
    }
    match egress::supports_xmit(context.netlink, modes, side, link) {
        Ok(true) => return Finding::ok(CODE, "device has XDP transmit", REASON),
        Ok(false) => {}
        Err(error) => return Finding::not_checked(CODE, error, REASON),
    }
    if modes.of(side) == Mode::Native && is_known_to_transmit(link) && link.xdp.is_none() {
        let message = "driver has XDP transmit once the program of ikenat is attached";
        return Finding::ok(CODE, message, REASON);
    }
    let peer = context.veth_peer(link);
    let cause = no_transmit(link, peer, context.netlink.reports_xdp_features());
    let message = format!("{cause}; egress uses the tc slow path");
    let finding = Finding::warning(CODE, message, REASON);
    match peer {
        Some(peer) if context.netlink.reports_xdp_features() => finding.fix(peer.command("gro on")),
        Some(_) | None => finding,
    }
}

/// A qdisc that delays or limits packets: those of the fast path leave beside it.
fn shaper(context: &Context<'_>, link: &Link) -> Finding {
    const CODE: &str = "shaper";
    const REASON: &str = "packets that XDP redirects bypass the qdiscs of the interface by which they leave, so they are neither limited nor counted there; shape them on another host";
    const SHAPERS: [&str; 7] = ["cake", "cbs", "hfsc", "htb", "netem", "taprio", "tbf"];
    let kinds = match context.netlink.qdiscs(link.index) {
        Ok(kinds) => kinds,
        Err(error) => return Finding::not_checked(CODE, word(&error), REASON),
    };
    let shapers: Vec<&str> = SHAPERS
        .into_iter()
        .filter(|name| kinds.iter().any(|kind| kind == name))
        .collect();
    if shapers.is_empty() {
        return Finding::ok(CODE, "no qdisc that shapes traffic", REASON);
    }
    let message = format!("{}: forwarded packets bypass it", shapers.join(" and "));
    Finding::warning(CODE, message, REASON)
}

/// Drivers that want a transmit queue for each CPU refuse what XDP redirects on the others (ENXIO).
/// A veth has one as well, and takes any CPU.
fn transmit_queues(link: &Link, queues: u64, cpus: u64) -> Option<Finding> {
    const CODE: &str = "transmit-queues";
    const REASON: &str = "many drivers send what XDP redirects by a transmit queue of the CPU's own; where a CPU has none, they lose the packets, or share a queue behind a lock";
    let name = quoted(&link.name);
    if link.kind.is_some() || queues == 0 {
        return None;
    }
    if queues >= cpus {
        let message = format!("{queues} transmit queues for {cpus} CPUs");
        return Some(Finding::ok(CODE, message, REASON));
    }
    let message = format!(
        "{queues} transmit queues for {cpus} CPUs: give it as many (`ethtool -l {name}` shows the most), or keep the interrupts of the receive queues on the first {queues} CPUs"
    );
    let fix = format!("ethtool -L {name} combined {cpus}");
    Some(Finding::warning(CODE, message, REASON).fix(fix))
}

/// Why a device does not transmit frames that XDP redirects to it.
fn no_transmit(link: &Link, peer: Option<&VethPeer>, kernel_reports: bool) -> String {
    match (link.kind.as_deref(), peer) {
        (Some("veth"), _) if !kernel_reports => "no XDP transmit is known; before Linux 6.3 a veth needs a native XDP program on its peer".to_owned(),
        (Some("veth"), Some(_)) => {
            "no XDP transmit, because a veth needs GRO or an XDP program on its peer".to_owned()
        }
        (Some("veth"), None) => "no XDP transmit, because a veth needs GRO or an XDP program on its peer, which is not visible from here (in its network namespace: `ethtool -K eth0 gro on`)".to_owned(),
        (Some(kind), _) => {
            format!("a {kind} has no XDP transmit (use the device beneath it if possible)")
        }
        (None, _) => "driver has no XDP transmit (ndo_xdp_xmit)".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::Level;

    #[test]
    fn hardware_needs_a_transmit_queue_for_each_cpu() {
        let nic = Link {
            name: "eth1".to_owned(),
            ..Link::default()
        };
        let found = transmit_queues(&nic, 2, 8).expect("a finding");
        assert_eq!(found.level, Level::Warning);
        assert!(found.message.contains("2 transmit queues for 8 CPUs"));
        assert_eq!(found.fix, ["ethtool -L eth1 combined 8"]);
        let ugly = Link {
            name: "eth$1".to_owned(),
            ..nic.clone()
        };
        let found = transmit_queues(&ugly, 2, 8).expect("a finding");
        assert_eq!(found.fix, ["ethtool -L 'eth$1' combined 8"]);
        assert!(found.message.contains("`ethtool -l 'eth$1'`"));
        let found = transmit_queues(&nic, 8, 8).expect("a finding");
        assert_eq!(found.level, Level::Ok);
        assert_eq!(transmit_queues(&nic, 0, 8), None, "it is not known");
        let veth = Link {
            kind: Some("veth".to_owned()),
            ..nic
        };
        assert_eq!(transmit_queues(&veth, 1, 8), None);
    }

    #[test]
    fn a_device_of_xen_is_not_tested() {
        let on = |bus: &str| Link {
            hardware: Some((bus.to_owned(), "vif-0".to_owned())),
            ..Link::default()
        };
        let found = untested(&on("xen")).expect("a finding");
        assert_eq!((found.code, found.level), ("driver", Level::Warning));
        assert!(found.message.contains("not tested"), "{}", found.message);
        assert_eq!(untested(&on("pci")), None);
        assert_eq!(untested(&Link::default()), None);
    }
}
