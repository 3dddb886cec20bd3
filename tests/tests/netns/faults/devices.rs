//! Interfaces that go down, change or vanish, and programs of others that take their place. The
//! only packets lost are those sent while there was no path, and for a second or two after that.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use ikenat_tests::kernel::kernel_is_at_least;
use ikenat_tests::lab::Lab;
use ikenat_tests::lab::frames::Mac;
use ikenat_tests::lab::ikenat::{Ikenat, binary};
use ikenat_tests::lab::load::{Load, Loss};
use ikenat_tests::lab::netns::{Namespace, execute};
use ikenat_tests::lab::process::Process;
use ikenat_tests::lab::topology::{
    CLIENT, CLIENT_MAC, GATEWAY_LAN, LAN, LAN_MAC, PEER, SERVER, SERVER_MAC, VIP, WAN, WAN_MAC,
};
use ikenat_tests::suite::Scenario;

use crate::support::{
    PROGRAMS, arguments_with, attachments, everything_crosses, no_loss, patience, peer_object,
    pins, tenth_rate, wait_for_log,
};

pub(crate) fn scenarios() -> Vec<Scenario> {
    let load = |name, test| Scenario::new(name, test).alone();
    vec![
        load(
            "an_interface_that_goes_down_and_up_is_used_again",
            down_and_up,
        ),
        load("a_renamed_interface_loses_no_packet", renamed),
        load("a_recreated_interface_is_attached_again", recreated),
        load(
            "an_interface_recreated_without_the_daemon_is_attached_by_the_next_start",
            recreated_without_daemon,
        ),
        load("a_detached_program_is_attached_again", detached).with_programs(&["bpftool"]),
        load(
            "a_foreign_program_cannot_replace_an_attached_one",
            in_our_place,
        ),
    ]
}

/// How long a change may take until it is followed. The kernel does not notify of a program that is
/// detached: the daemon finds that when it looks, each second.
fn followed() -> Duration {
    patience(Duration::from_secs(3))
}

/// Only packets sent during the outage (or until the daemon has followed it) are lost. An interface
/// without an ikenat program sends the server's packets as the kernel routes them, untranslated.
pub(crate) fn only_the_outage(losses: &[Loss], outage: Duration) -> Result<()> {
    for loss in losses {
        ensure!(
            loss.outage <= outage + followed() && loss.duplicates == 0 && loss.foreign <= loss.lost,
            "an outage of {outage:?}: {loss:?}"
        );
    }
    Ok(())
}

fn down_and_up(lab: &Lab) -> Result<()> {
    let _ikenat = Ikenat::start(lab)?;
    for interface in [WAN, LAN] {
        let load = Load::start(lab, tenth_rate()?, tenth_rate()?)?;
        lab.gateway.run(&format!("ip link set {interface} down"))?;
        let began = Instant::now();
        std::thread::sleep(Duration::from_secs(1));
        lab.gateway.run(&format!("ip link set {interface} up"))?;
        let outage = began.elapsed();
        load.flows_within(outage + followed())?;
        let losses = load.losses(&format!("{interface} down for {outage:.1?}"))?;
        only_the_outage(&losses, outage)?;
        ensure!(losses.iter().any(|loss| loss.lost > 0), "it was not down");
        ensure!(
            losses.iter().all(|loss| loss.foreign == 0),
            "something came untranslated: {losses:?}"
        );
    }
    ensure!(lab.status()?.attached.iter().all(|one| one.alive));
    everything_crosses(lab)
}

fn renamed(lab: &Lab) -> Result<()> {
    const NEW: &str = "inside";
    let ikenat = Ikenat::start(lab)?;
    let load = Load::start(lab, tenth_rate()?, tenth_rate()?)?;
    // While it is up, which Linux 6.1 does not allow yet: there it takes an outage.
    let live = lab
        .gateway
        .run(&format!("ip link set {LAN} name {NEW}"))
        .is_ok();
    let began = Instant::now();
    if !live {
        lab.gateway.shell(&format!(
            "ip link set {LAN} down; ip link set {LAN} name {NEW}; ip link set {NEW} up"
        ))?;
    }
    wait_for_log(lab, &format!("{LAN}: renamed to {NEW}"))?;
    load.flows_within(followed())?;
    let attached = lab.status()?.attached;
    ensure!(
        attached
            .iter()
            .filter(|one| one.ifindex != 0 && one.alive)
            .count()
            == PROGRAMS,
        "{attached:?}"
    );
    ikenat.kill()?;
    let mut command = lab.gateway.command(binary()?);
    command
        .args(arguments_with("--lan", NEW))
        .arg("--bpffs")
        .arg(lab.bpffs());
    let mut again = Process::spawn(&mut command, lab.log("ikenat"))?;
    again.wait_for_log("ready: translating", Duration::from_secs(30))?;
    ensure!(
        again
            .log()
            .contains(&format!("replaced the program on {NEW}")),
        "{}",
        again.log()
    );
    load.flows()?;
    let losses = load.losses("an interface is renamed, the daemon restarted with the new name")?;
    if live {
        no_loss(&losses)?;
    }
    only_the_outage(&losses, began.elapsed())
}

/// One side of the lab: the peer, and the link between it and the gateway.
pub(crate) struct Side<'l> {
    pub(crate) peer: &'l Namespace,
    pub(crate) port: &'static str,
    macs: [Mac; 2],
    addresses: [String; 2],
    routes: String,
}

pub(crate) fn sides(lab: &Lab) -> [Side<'_>; 2] {
    [
        Side {
            peer: &lab.client,
            port: WAN,
            macs: [CLIENT_MAC, WAN_MAC],
            addresses: [format!("{CLIENT}/24"), format!("{VIP}/24")],
            routes: "true".to_owned(),
        },
        Side {
            peer: &lab.server,
            port: LAN,
            macs: [SERVER_MAC, LAN_MAC],
            addresses: [format!("{SERVER}/24"), format!("{GATEWAY_LAN}/24")],
            routes: format!("ip route add default via {GATEWAY_LAN}"),
        },
    ]
}

/// Creates a new link in place of the old one. The far end accepts frames from XDP by GRO.
pub(crate) fn plug_in(lab: &Lab, side: &Side<'_>) -> Result<()> {
    let [mac, port_mac] = side
        .macs
        .map(|mac| mac.map(|byte| format!("{byte:02x}")).join(":"));
    let [address, port_address] = &side.addresses;
    let (port, routes) = (side.port, &side.routes);
    side.peer.run(&format!(
        "ip link add {PEER} address {mac} type veth peer name {port} address {port_mac} netns {}",
        lab.gateway.name()
    ))?;
    lab.gateway.shell(&format!(
        "ip address add {port_address} dev {port}; ip link set {port} up"
    ))?;
    side.peer.shell(&format!(
        "ethtool -K {PEER} tx off gro on
         ip address add {address} dev {PEER}; ip link set {PEER} up; {routes}"
    ))?;
    Ok(())
}

fn indexes(lab: &Lab) -> Result<Vec<(String, u32)>> {
    let attached = lab.status()?.attached;
    ensure!(
        attached.len() == PROGRAMS && attached.iter().all(|one| one.alive),
        "{attached:?}"
    );
    Ok(attached
        .into_iter()
        .map(|one| (one.interface, one.ifindex))
        .collect())
}

/// Waits until every program is attached.
fn all_alive(lab: &Lab, began: Instant) -> Result<()> {
    loop {
        match indexes(lab) {
            Ok(_) => return Ok(()),
            Err(error) if began.elapsed() > patience(Duration::from_secs(30)) => return Err(error),
            Err(_) => std::thread::sleep(Duration::from_millis(20)),
        }
    }
}

fn recreated(lab: &Lab) -> Result<()> {
    // Each backend once, and each side once.
    let backends = if kernel_is_at_least((6, 6))? {
        ["tcx", "clsact"]
    } else {
        ["clsact", "clsact"]
    };
    for (backend, side) in backends.into_iter().zip(sides(lab)) {
        let ikenat = Ikenat::start_with(lab, &["--tc", backend])?;
        let before = indexes(lab)?;
        let load = Load::start(lab, tenth_rate()?, tenth_rate()?)?;
        // It is deleted at its far end, without any action of the gateway.
        side.peer.run(&format!("ip link del {PEER}"))?;
        let began = Instant::now();
        wait_for_log(lab, &format!("{}: interface is gone", side.port))?;
        plug_in(lab, &side)?;
        let outage = began.elapsed();
        wait_for_log(lab, "ready again")?;
        load.flows_within(followed())?;
        let after = indexes(lab)?;
        ensure!(before != after, "it has the same index: {after:?}");
        load.flows()?;
        let port = side.port;
        let losses = load.losses(&format!(
            "{port} deleted for {outage:.1?} and recreated ({backend})"
        ))?;
        only_the_outage(&losses, outage)?;
        everything_crosses(lab)?;
        ikenat.kill()?;
        everything_crosses(lab).context("without the daemon")?;
        lab.unload()?;
    }
    Ok(())
}

fn recreated_without_daemon(lab: &Lab) -> Result<()> {
    Ikenat::start(lab)?.kill()?;
    let load = Load::start(lab, tenth_rate()?, tenth_rate()?)?;
    let [side, _] = sides(lab);
    side.peer.run(&format!("ip link del {PEER}"))?;
    let began = Instant::now();
    let dead = execute(&mut lab.ikenat(&["status"])?)?;
    ensure!(dead.matches("DEAD").count() == 3, "{dead}");
    plug_in(lab, &side)?;
    let _ikenat = Ikenat::start(lab)?;
    let outage = began.elapsed();
    load.flows_within(followed())?;
    indexes(lab)?;
    let losses =
        load.losses("the WAN recreated while the daemon was dead, until the next start")?;
    only_the_outage(&losses, outage)?;
    everything_crosses(lab)
}

fn detached(lab: &Lab) -> Result<()> {
    let _ikenat = Ikenat::start(lab)?;
    for kind in ["link-xdp", "link-tc"] {
        let links = pins(&lab.bpffs())?;
        let links: Vec<&String> = links.iter().filter(|pin| pin.contains(kind)).collect();
        if links.is_empty() {
            // Another test covers the repair of a filter that was removed.
            ensure!(kind == "link-tc" && !kernel_is_at_least((6, 6))?);
            continue;
        }
        std::fs::write(lab.log("ikenat"), "")?;
        let load = Load::start(lab, tenth_rate()?, tenth_rate()?)?;
        for link in links {
            execute(Command::new("bpftool").args(["link", "detach", "pinned", link]))?;
        }
        let began = Instant::now();
        wait_for_log(lab, "ready again")?;
        // An interface whose link goes while another one's program is loaded is repaired after it.
        all_alive(lab, began)?;
        let outage = began.elapsed();
        load.flows()?;
        let losses = load.losses(&format!(
            "every {kind} detached by somebody for {outage:.1?}"
        ))?;
        if kind == "link-xdp" {
            // The slow path is there for all of it.
            no_loss(&losses)?;
        }
        only_the_outage(&losses, outage)?;
    }
    everything_crosses(lab)
}

fn in_our_place(lab: &Lab) -> Result<()> {
    let _ikenat = Ikenat::start(lab)?;
    let before = attachments(lab)?;
    let load = Load::start(lab, tenth_rate()?, tenth_rate()?)?;
    let object = peer_object()?;
    for interface in [WAN, LAN] {
        for mode in ["xdpdrv", "xdpgeneric", "-force link set"] {
            let attempt = match mode {
                "-force link set" => format!(
                    "unshare --mount ip -force link set dev {interface} xdpdrv obj {object} sec xdp"
                ),
                mode => format!(
                    "unshare --mount ip link set dev {interface} {mode} obj {object} sec xdp"
                ),
            };
            let outcome = lab.gateway.run(&attempt);
            ensure!(outcome.is_err(), "`{attempt}` was not refused");
        }
        let off = lab
            .gateway
            .run(&format!("ip link set dev {interface} xdp off"));
        ensure!(off.is_err(), "our program was taken off {interface}");
    }
    load.flows()?;
    no_loss(&load.losses("others try to attach XDP programs in our place")?)?;
    let after = attachments(lab)?;
    ensure!(after == before, "before:\n{before}\nafter:\n{after}");
    Ok(())
}
