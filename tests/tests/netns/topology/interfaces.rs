//! Several WANs and LANs, one of them without native XDP, no LAN where the server is this host, and
//! the messages about invalid lists of interfaces.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ikenat_tests::kernel::kernel_is_at_least;
use ikenat_tests::lab::Lab;
use ikenat_tests::lab::capture::PacketSocket;
use ikenat_tests::lab::frames::{Mac, Packet, not_ipv4};
use ikenat_tests::lab::ikenat::{Ikenat, usual_arguments};
use ikenat_tests::lab::netns::{Namespace, execute};
use ikenat_tests::lab::sender::socket_in;
use ikenat_tests::lab::topology::{
    CLIENT, CLIENT_MAC, GATEWAY_LAN, LAN, LAN_MAC, PEER, SERVER, SERVER_MAC, VIP, WAN, WAN_MAC,
};
use ikenat_tests::lab::udp_pair::receive;
use ikenat_tests::lab::wire::{at_client, at_server, esp, from_client, from_server};
use ikenat_tests::suite::Scenario;

use crate::support::{
    arguments_with, attachments, count, everything_crosses, nothing_is_left, pins, refused,
    timed_command,
};

pub(crate) fn scenarios() -> Vec<Scenario> {
    const TOOLS: &[&str] = &["tc", "bpftool"];
    let test = |name, test| Scenario::new(name, test).with_programs(TOOLS);
    vec![
        test("two_wans_and_two_lans_translate_alike", two_of_each),
        test("fewer_interfaces_than_before_leave_no_program", fewer),
        test(
            "a_bridge_as_lan_runs_generic_beside_a_native_wan",
            bridge_as_lan,
        ),
        test("a_server_on_this_host_needs_no_lan", local_server),
        test("invalid_interface_lists_are_named", impossible),
    ]
}

const WAN_2: &str = "wan1";
const LAN_2: &str = "lan1";
/// The second interface of client and server.
const PEER_2: &str = "eth1";
/// The client, as it comes by the second WAN.
const CLIENT_BY_2: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 10);
const WAN_2_MAC: Mac = [2, 0, 0, 0, 3, 1];
const CLIENT_2_MAC: Mac = [2, 0, 0, 0, 3, 10];
const LAN_2_MAC: Mac = [2, 0, 0, 0, 4, 254];
const SERVER_2_MAC: Mac = [2, 0, 0, 0, 4, 1];

fn add_port(lab: &Lab, peer: &Namespace, port: &str, port_mac: Mac, peer_mac: Mac) -> Result<()> {
    let text = |mac: Mac| mac.map(|byte| format!("{byte:02x}")).join(":");
    peer.shell(&format!(
        "ip link add {PEER_2} address {} type veth peer name {port} address {} netns {}
         ip link set {PEER_2} up
         ethtool -K {PEER_2} tx off gro on",
        text(peer_mac),
        text(port_mac),
        lab.gateway.name()
    ))?;
    lab.gateway.run(&format!("ip link set {port} up"))?;
    Ok(())
}

fn add_second_of_each(lab: &Lab) -> Result<()> {
    add_port(lab, &lab.client, WAN_2, WAN_2_MAC, CLIENT_2_MAC)?;
    add_port(lab, &lab.server, LAN_2, LAN_2_MAC, SERVER_2_MAC)?;
    lab.client
        .run(&format!("ip address add {CLIENT_BY_2}/24 dev {PEER_2}"))?;
    lab.gateway.shell(&format!(
        "ip address add 198.51.100.1/24 dev {WAN_2}
         ip address add 192.168.1.254/24 dev {LAN_2}"
    ))?;
    lab.no_unreachables()
}

fn second_of_each() -> [&'static str; 4] {
    ["--wan", WAN_2, "--lan", LAN_2]
}

/// Sends `sent` and demands that exactly `wanted` comes out at the other end.
fn crosses(from: &PacketSocket, to: &PacketSocket, sent: &Packet, wanted: &Packet) -> Result<()> {
    to.drain()?;
    from.send(&sent.build())?;
    to.expect(&wanted.build(), Duration::from_secs(3), not_ipv4)
}

fn two_of_each(lab: &Lab) -> Result<()> {
    add_second_of_each(lab)?;
    let before = attachments(lab)?;
    let ikenat = Ikenat::start_with(lab, &second_of_each())?;
    everything_crosses(lab).context("by the first of each")?;
    by_second_wan(lab).context("by the second WAN")?;
    by_second_lan(lab).context("by the second LAN")?;
    let status = lab.status()?;
    let has = |interface: &str, mode: &str| {
        let mut found = status.attached.iter();
        found.any(|one| one.interface == interface && one.mode == mode)
    };
    for interface in [WAN, WAN_2, LAN, LAN_2] {
        ensure!(
            has(interface, "native") && has(interface, "ingress"),
            "{interface} lacks a program: {:?}",
            status.attached
        );
        let is_wan = interface == WAN || interface == WAN_2;
        ensure!(
            has(interface, "egress") == is_wan,
            "egress of {interface}: {:?}",
            status.attached
        );
    }
    lab.stats()?.check_conservation()?;
    ikenat.kill()?;
    // The next start finds each where it was.
    let again = Ikenat::start_with(lab, &second_of_each())?;
    let log = std::fs::read_to_string(lab.log("ikenat")).context("failed to read the log")?;
    ensure!(
        log.matches("replaced the program on").count() == 10,
        "{log}"
    );
    everything_crosses(lab)?;
    by_second_wan(lab)?;
    again.kill()?;
    lab.unload()?;
    nothing_is_left(lab, &before)?;
    Ok(())
}

/// In by the second WAN, and back out of it, because that is where the route to the client goes.
fn by_second_wan(lab: &Lab) -> Result<()> {
    let client = PacketSocket::open(&lab.client, PEER_2)?;
    let server = PacketSocket::open(&lab.server, PEER)?;
    for sequence in 1..=3 {
        let mut sent = from_client(4500, 4500, esp(0xC000_0011, sequence, 60))
            .with_macs(WAN_2_MAC, CLIENT_2_MAC);
        sent.source = CLIENT_BY_2;
        crosses(&client, &server, &sent, &at_server(&sent))?;
        let mut sent = from_server(4500, 4500, esp(0xC000_0012, sequence, 60));
        sent.destination = CLIENT_BY_2;
        let wanted = at_client(&sent).with_macs(CLIENT_2_MAC, WAN_2_MAC);
        crosses(&server, &client, &sent, &wanted)?;
    }
    Ok(())
}

/// The server's packets may come by another LAN than the one that leads to it.
fn by_second_lan(lab: &Lab) -> Result<()> {
    let client = PacketSocket::open(&lab.client, PEER)?;
    let server = PacketSocket::open(&lab.server, PEER_2)?;
    for sequence in 10..=12 {
        let sent = from_server(4500, 4500, esp(0xC000_0013, sequence, 60))
            .with_macs(LAN_2_MAC, SERVER_2_MAC);
        crosses(&server, &client, &sent, &at_client(&sent))?;
    }
    Ok(())
}

fn fewer(lab: &Lab) -> Result<()> {
    add_second_of_each(lab)?;
    for backend in ["tcx", "clsact"] {
        if backend == "tcx" && !kernel_is_at_least((6, 6))? {
            continue;
        }
        let all = [&second_of_each()[..], &["--tc", backend]].concat();
        Ikenat::start_with(lab, &all)?.kill()?;
        let ikenat = Ikenat::start_with(lab, &["--tc", backend])?;
        for interface in [WAN_2, LAN_2] {
            let link = lab
                .gateway
                .run(&format!("ip -details link show {interface}"))?;
            ensure!(!link.contains("prog/xdp"), "{link}");
            for block in ["ingress", "egress"] {
                let line = format!("tc filter show dev {interface} {block}");
                let left = lab.gateway.run(&line)?;
                ensure!(left.is_empty(), "{block} of {interface}: {left}");
            }
            let net = lab.gateway.run("bpftool net show")?;
            ensure!(!net.contains(interface), "{net}");
        }
        let left = pins(&lab.bpffs())?;
        let second = |pin: &&String| pin.ends_with('2') && pin.contains("-wan");
        ensure!(left.iter().find(second).is_none(), "{left:?}");
        everything_crosses(lab)?;
        ikenat.kill()?;
        lab.unload()?;
    }
    Ok(())
}

/// As with Docker: the server's network is a bridge, which has no native XDP and accepts no frames
/// from it.
fn bridge_as_lan(lab: &Lab) -> Result<()> {
    let mac = LAN_MAC.map(|byte| format!("{byte:02x}")).join(":");
    lab.gateway.shell(&format!(
        "ip link add br0 address {mac} type bridge
         ip link set {LAN} master br0
         ip address del {GATEWAY_LAN}/24 dev {LAN}
         ip address add {GATEWAY_LAN}/24 dev br0
         ip link set br0 up"
    ))?;
    let arguments = arguments_with("--lan", "br0");
    let mut native = timed_command(lab, &arguments)?;
    native.arg("--bpffs").arg(lab.bpffs());
    refused(lab, native, &["br0", "`--lan-mode generic`"])?;
    let mut command = lab.gateway.command(ikenat_tests::lab::ikenat::binary()?);
    command
        .args(&arguments)
        .args(["--lan-mode", "generic", "--bpffs"])
        .arg(lab.bpffs());
    let mut process = ikenat_tests::lab::process::Process::spawn(&mut command, lab.log("ikenat"))?;
    process.wait_for_log("ready", Duration::from_secs(30))?;
    everything_crosses(lab)?;
    everything_crosses(lab)?;
    let status = lab.status()?;
    let modes: Vec<(&str, &str)> = status
        .attached
        .iter()
        .filter(|one| one.hook == "xdp")
        .map(|one| (one.interface.as_str(), one.mode.as_str()))
        .collect();
    ensure!(modes == [(WAN, "native"), ("br0", "generic")], "{modes:?}");
    // Nothing may be redirected to a bridge: it would be lost silently.
    ensure!(
        count(lab, "xdp", "esp-in-udp-in")? == 0 && count(lab, "tc", "esp-in-udp-in")? == 2,
        "inbound took another way"
    );
    process.kill()?;
    // The mode of a live link cannot change, and the interface is named.
    let mut other = timed_command(lab, &arguments)?;
    let output = other
        .args(["--wan-mode", "generic", "--lan-mode", "generic", "--bpffs"])
        .arg(lab.bpffs())
        .output()
        .context("failed to start ikenat")?;
    let text = String::from_utf8_lossy(&output.stderr);
    ensure!(
        !output.status.success() && text.contains(WAN) && text.contains("native mode"),
        "{text}"
    );
    everything_crosses(lab)?;
    execute(&mut lab.ikenat(&["unload"])?)?;
    Ok(())
}

fn local_server(lab: &Lab) -> Result<()> {
    let server = Ipv4Addr::new(10, 9, 9, 9);
    lab.gateway
        .run(&format!("ip address add {server}/32 dev lo"))?;
    let before = attachments(lab)?;
    let mut arguments = arguments_with("--server", &server.to_string());
    let mut with_lan = timed_command(lab, &arguments)?;
    with_lan.arg("--bpffs").arg(lab.bpffs());
    refused(lab, with_lan, &[&server.to_string(), "leave --lan out"])?;
    let lan = arguments.iter().position(|word| word == "--lan");
    arguments.drain(lan.context("no --lan")?..=lan.context("no --lan")? + 1);
    let mut command = lab.gateway.command(ikenat_tests::lab::ikenat::binary()?);
    command.args(&arguments).arg("--bpffs").arg(lab.bpffs());
    let mut process = ikenat_tests::lab::process::Process::spawn(&mut command, lab.log("ikenat"))?;
    process.wait_for_log("ready", Duration::from_secs(30))?;
    for port in [500, 4500] {
        let at_server = socket_in(&lab.gateway, SocketAddrV4::new(server, port))?;
        let at_client = socket_in(&lab.client, SocketAddrV4::new(CLIENT, port))?;
        for socket in [&at_server, &at_client] {
            socket.set_read_timeout(Some(Duration::from_secs(3)))?;
        }
        let (message, mut buffer) = (esp(0xC000_0021, 1, 60), [0; 2048]);
        at_client.send_to(&message, (VIP, port))?;
        let (size, from) = receive(&at_server, &mut buffer).context("to the server")?;
        ensure!(buffer[..size] == message && from == SocketAddrV4::new(CLIENT, port).into());
        at_server.send_to(&message, from)?;
        let (size, from) = receive(&at_client, &mut buffer).context("to the client")?;
        ensure!(
            buffer[..size] == message && from == SocketAddrV4::new(VIP, port).into(),
            "the client got it from {from}"
        );
    }
    let attached: Vec<(String, String)> = lab
        .status()?
        .attached
        .into_iter()
        .map(|one| (one.interface, one.mode))
        .collect();
    let wanted = ["native", "ingress", "egress"].map(|mode| (WAN.to_owned(), mode.to_owned()));
    ensure!(attached == wanted, "{attached:?}");
    let status = execute(&mut lab.ikenat(&["status"])?)?;
    ensure!(status.contains("The server is this host"), "{status}");
    process.kill()?;
    lab.unload()?;
    let after = attachments(lab)?;
    ensure!(after == before, "before:\n{before}\nafter:\n{after}");
    Ok(())
}

fn impossible(lab: &Lab) -> Result<()> {
    add_second_of_each(lab)?;
    let usual = usual_arguments();
    let more = |words: &[&str]| {
        let mut arguments = usual.clone();
        arguments.extend(words.iter().map(|word| (*word).to_owned()));
        arguments
    };
    let without_lan: Vec<String> = {
        let at = usual.iter().position(|word| word == "--lan");
        let at = at.context("no --lan")?;
        let kept = usual.iter().enumerate();
        let kept = kept.filter(|(place, _)| *place != at && *place != at + 1);
        kept.map(|(_, word)| word.clone()).collect()
    };
    let five: Vec<&str> = ["a", "b", "c", "d"]
        .into_iter()
        .flat_map(|name| ["--wan", name])
        .collect();
    let cases: [(Vec<String>, &[&str]); 6] = [
        (more(&["--wan", WAN]), &["--wan", WAN, "twice"]),
        (more(&five), &["--wan", "4 times"]),
        // Both, but not the first of both.
        (more(&["--wan", LAN]), &[LAN, "`--wan lan0 --lan lan0`"]),
        (more(&["--lan", WAN]), &[WAN, "first"]),
        (without_lan, &[&SERVER.to_string(), "`--lan lan0`"]),
        (more(&["--wan-mode", "fast"]), &["--wan-mode", "generic"]),
    ];
    for (arguments, names) in cases {
        let mut command = timed_command(lab, &arguments)?;
        command.arg("--bpffs").arg(lab.bpffs());
        refused(lab, command, names).with_context(|| arguments.join(" "))?;
    }
    // Two LANs, and the server behind neither.
    let mut command = timed_command(lab, &arguments_with("--lan", LAN_2))?;
    command.arg("--bpffs").arg(lab.bpffs());
    refused(lab, command, &[&SERVER.to_string(), LAN_2, "`--lan lan0`"])?;
    // No MAC address here is made up: the lab's own addresses must be distinct.
    ensure!(WAN_MAC != LAN_MAC && CLIENT_MAC != SERVER_MAC);
    Ok(())
}
