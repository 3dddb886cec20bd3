//! A gateway whose addresses are on macvlans with MAC addresses of their own, as VRRP uses
//! them: `ip link add vrrp.51 link WAN address 00:00:5e:00:01:33 type macvlan mode private`.

use anyhow::{Context, Result, ensure};
use ikenat_tests::lab::direction::Direction;
use ikenat_tests::lab::frames::icmp::kind;
use ikenat_tests::lab::frames::{Captured, Mac, Packet, not_ipv4};
use ikenat_tests::lab::ikenat::{Ikenat, usual_arguments};
use ikenat_tests::lab::second_wan::{FAR_CLIENT, WAN_2, WAN_2_ADDRESS, second_wan, start_office};
use ikenat_tests::lab::topology::{
    CLIENT, CLIENT_MAC, GATEWAY_LAN, LAN, LAN_MAC, SERVER, SERVER_MAC, VIP, WAN, WAN_MAC,
};
use ikenat_tests::lab::wire::{Wire, at_client, at_server, esp, from_client};
use ikenat_tests::lab::{Host, Lab};
use ikenat_tests::suite::Scenario;

use super::addresses::packets;
use super::office::both_talk;
use crate::support::{count, force_slow_path, patience, timed_command, wait_for_log};
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

pub(crate) fn scenarios() -> Vec<Scenario> {
    let named = |name, test: fn(&Lab) -> Result<()>| {
        Scenario::on_host(name, Host::ForwardDropConntrack, test)
    };
    vec![
        named("virtual_mac_addresses_of_vrrp_are_handled", before_start),
        named("virtual_interfaces_that_come_and_go_are_followed", followed),
        named("routes_by_virtual_interfaces_are_used", routed),
        Scenario::new("fragments_of_the_kernel_for_a_virtual_mac", fragmented),
        named("two_uplinks_have_virtual_addresses", two_uplinks),
    ]
}

/// That of VRRP for virtual router 51, and for 52 (RFC 5798 section 7.3).
const WAN_VIRTUAL: Mac = [0, 0, 0x5e, 0, 1, 51];
const LAN_VIRTUAL: Mac = [0, 0, 0x5e, 0, 1, 52];
/// That of another virtual router, which is not this host.
const FOREIGN: Mac = [0, 0, 0x5e, 0, 1, 53];
const SPI: u32 = 0xC321_0004;

/// An interface that has only the virtual addresses has routes by them alone.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Own {
    Addresses,
    None,
}

/// Moves the addresses of the gateway to macvlans. The interfaces beneath keep addresses
/// of their own, or not.
fn make_virtual(lab: &Lab, own: Own) -> Result<()> {
    let prefix = if own == Own::Addresses { 32 } else { 24 };
    for (interface, name, last, address, spare) in [
        (WAN, "vrrp.51", 51, VIP, "203.0.113.2"),
        (LAN, "vrrp.52", 52, GATEWAY_LAN, "192.168.0.253"),
    ] {
        lab.gateway.shell(&format!(
            "ip address del {address}/24 dev {interface}
             ip link add {name} link {interface} address 00:00:5e:00:01:{last:02x} \
                type macvlan mode private
             ip link set {name} up
             ip address add {address}/{prefix} dev {name}"
        ))?;
        if own == Own::Addresses {
            lab.gateway
                .run(&format!("ip address add {spare}/24 dev {interface}"))?;
        }
    }
    Ok(())
}

/// Each kind of packet in both directions, to the virtual addresses. `sources`: of what leaves.
fn crosses(wire: &Wire, sequence: u32, sources: [Mac; 2]) -> Result<()> {
    let [wan, lan] = sources;
    for (inbound, outbound) in packets(sequence) {
        let inbound = inbound.with_macs(WAN_VIRTUAL, CLIENT_MAC);
        let wanted = at_server(&inbound).with_macs(SERVER_MAC, lan);
        wire.inbound_frames(&[inbound.build()], &[wanted.build()])?;
        let outbound = outbound.with_macs(LAN_VIRTUAL, SERVER_MAC);
        let wanted = at_client(&outbound).with_macs(CLIENT_MAC, wan);
        wire.outbound_frames(&[outbound.build()], &[wanted.build()])?;
    }
    Ok(())
}

/// Packets of a test: enough that the few that take the slow path do not count.
const ROUNDS: u32 = 20;

fn handled(lab: &Lab, wire: &Wire) -> Result<()> {
    let xdp = || count(lab, "xdp", "esp-in-udp-in");
    let before = xdp()?;
    for sequence in 1..=ROUNDS {
        crosses(wire, sequence, [WAN_MAC, LAN_MAC]).with_context(|| format!("{sequence}"))?;
    }
    let by_xdp = xdp()? - before;
    ensure!(by_xdp >= u64::from(ROUNDS) - 5, "XDP forwarded {by_xdp}");
    // The addresses of the interfaces themselves still count, and that of another router does not.
    let own = from_client(4500, 4500, esp(SPI, ROUNDS + 1, 60));
    wire.inbound(&own)?;
    let foreign = from_client(4500, 4500, esp(SPI, ROUNDS + 2, 60));
    wire.punted_on_wan(&foreign.with_macs(FOREIGN, CLIENT_MAC).build())?;
    ensure!(count(lab, "tc", "not-our-mac")? == 1);
    expired(wire)
}

/// Answers leave from the address that they were asked at.
fn expired(wire: &Wire) -> Result<()> {
    for direction in Direction::BOTH {
        let (inbound, outbound) = packets(1)[1].clone();
        let (mut sent, end, macs) = match direction {
            Direction::Inbound => (inbound, &wire.client, (WAN_VIRTUAL, CLIENT_MAC)),
            Direction::Outbound => (outbound, &wire.server, (LAN_VIRTUAL, SERVER_MAC)),
        };
        sent.ttl = 1;
        end.drain()?;
        end.send(&sent.with_macs(macs.0, macs.1).build())?;
        let answer = end.find(patience(Duration::from_secs(3)), |frame| {
            Captured::read(frame).is_ok_and(|ip| ip.icmp().is_some())
        })?;
        let frame = answer.with_context(|| format!("{direction:?}: no answer"))?;
        let is_expiry = Captured::read(&frame)?
            .icmp()
            .is_some_and(|icmp| icmp.kind == kind::TIME_EXCEEDED);
        ensure!(is_expiry && frame[6..12] == macs.0, "{frame:02x?}");
    }
    Ok(())
}

fn before_start(lab: &Lab) -> Result<()> {
    make_virtual(lab, Own::Addresses)?;
    let _ikenat = Ikenat::start(lab)?;
    let wire = Wire::open(lab)?;
    handled(lab, &wire)?;
    force_slow_path(lab)?;
    wait_for_log(lab, &format!("{LAN}: driver has no XDP transmit"))?;
    let tc = || count(lab, "tc", "esp-in-udp-in");
    let before = tc()?;
    for sequence in 1..=ROUNDS {
        crosses(&wire, 100 + sequence, [WAN_MAC, LAN_MAC]).context("slow path")?;
    }
    let by_tc = tc()? - before;
    ensure!(by_tc == u64::from(ROUNDS), "tc forwarded {by_tc}");
    Ok(())
}

fn followed(lab: &Lab) -> Result<()> {
    let ikenat = Ikenat::start(lab)?;
    let wire = Wire::open(lab)?;
    make_virtual(lab, Own::Addresses)?;
    for (interface, name) in [(WAN, "vrrp.51"), (LAN, "vrrp.52")] {
        exchanged(&ikenat, &format!("{interface}: frames to {name} (00:00:5e"))?;
    }
    handled(lab, &wire)?;
    lab.gateway.run("ip link del vrrp.51")?;
    exchanged(&ikenat, &format!("{WAN}: no macvlan on top of it"))?;
    let packet = from_client(4500, 4500, esp(SPI, 200, 60));
    wire.punted_on_wan(&packet.clone().with_macs(WAN_VIRTUAL, CLIENT_MAC).build())?;
    wire.inbound(&packet)
}

/// Waits until the programs have been exchanged after this message.
fn exchanged(ikenat: &Ikenat, message: &str) -> Result<()> {
    let began = Instant::now();
    loop {
        let log = ikenat.log();
        let after = log.find(message).map_or("", |at| &log[at..]);
        if after.contains("ready again") {
            return Ok(());
        }
        ensure!(began.elapsed() < patience(Duration::from_secs(10)), "{log}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The interfaces have no addresses: the kernel's routes lead by the virtual ones.
fn routed(lab: &Lab) -> Result<()> {
    make_virtual(lab, Own::None)?;
    for (address, name) in [(CLIENT, "vrrp.51"), (SERVER, "vrrp.52")] {
        let route = lab.gateway.run(&format!("ip route get {address}"))?;
        ensure!(route.contains(name), "{route}");
    }
    lab.gateway
        .run(&format!("ip route add default via {CLIENT} dev vrrp.51"))?;
    let mut arguments = usual_arguments();
    arguments[0] = "check".to_owned();
    let checked = timed_command(lab, &arguments)?.output()?.stdout;
    let checked = String::from_utf8_lossy(&checked);
    for said in ["leaves by vrrp.52", "the default route leaves by vrrp.51"] {
        ensure!(checked.contains(said), "{said}: {checked}");
    }
    ensure!(!checked.contains("which is not a"), "{checked}");
    let _ikenat = Ikenat::start(lab)?;
    let wire = Wire::open(lab)?;
    for sequence in 1..=ROUNDS {
        crosses(&wire, sequence, [WAN_VIRTUAL, LAN_VIRTUAL])
            .with_context(|| format!("{sequence}"))?;
    }
    // A host of the LAN is no client, also where the route to it leads by a macvlan.
    let mut inside = from_client(4500, 4500, esp(SPI, 300, 60));
    inside.source = Ipv4Addr::new(192, 168, 0, 77);
    wire.client
        .send(&inside.with_macs(WAN_VIRTUAL, CLIENT_MAC).build())?;
    wire.server
        .expect_silence(Duration::from_millis(100), not_ipv4)?;
    ensure!(
        count(lab, "tc", "inside-source")? == 1,
        "{:?}",
        lab.status()?
    );
    Ok(())
}

/// What the kernel has to fragment goes up by the macvlan, translated.
fn fragmented(lab: &Lab) -> Result<()> {
    make_virtual(lab, Own::Addresses)?;
    lab.gateway.run(&format!("ip link set {LAN} mtu 1280"))?;
    let _ikenat = Ikenat::start(lab)?;
    let wire = Wire::open(lab)?;
    let packet: Packet = from_client(4500, 4500, esp(SPI, 1, 1400));
    wire.server.drain()?;
    wire.client
        .send(&packet.with_macs(WAN_VIRTUAL, CLIENT_MAC).build())?;
    let is_fragment = |frame: &[u8]| {
        const MORE: u8 = 0x20;
        !not_ipv4(frame) && frame[30..34] == SERVER.octets() && frame[20] & MORE != 0
    };
    let came = wire
        .server
        .find(patience(Duration::from_secs(3)), is_fragment)?;
    came.map(drop).context("no fragment has reached the server")
}

/// The VIP of each of two uplinks is on a macvlan, and so is the address on the LAN.
fn two_uplinks(lab: &Lab) -> Result<()> {
    let (_far, far_client) = second_wan(lab)?;
    make_virtual(lab, Own::Addresses)?;
    lab.gateway.shell(&format!(
        "ip address del {WAN_2_ADDRESS}/24 dev {WAN_2}; ip address add 198.51.102.2/24 dev {WAN_2}
         ip link add vrrp.54 link {WAN_2} address 00:00:5e:00:01:36 type macvlan mode private
         ip link set vrrp.54 up; ip address add {WAN_2_ADDRESS}/32 dev vrrp.54
         ip route add default via {CLIENT} dev {WAN}
         ip route add default via {FAR_CLIENT} dev {WAN_2} table 102
         ip rule add pref 1000 from {WAN_2_ADDRESS} lookup main suppress_prefixlength 0
         ip rule add pref 1001 from {WAN_2_ADDRESS} lookup 102"
    ))?;
    let ikenat = start_office(lab)?;
    ensure!(
        !ikenat.log().contains("no default route"),
        "{}",
        ikenat.log()
    );
    let wire = Wire::open(lab)?;
    (1..=ROUNDS).try_for_each(|at| both_talk(&wire, &far_client, at))?;
    let stats = lab.stats()?;
    let mut counts: Vec<u64> = stats.spis.iter().map(|spi| spi.packets).collect();
    counts.sort_unstable();
    // A client's first packet comes before the server has proved it.
    let (inbound, outbound) = (u64::from(ROUNDS) - 1, u64::from(ROUNDS));
    ensure!(
        counts == [inbound, inbound, outbound, outbound],
        "{stats:?}"
    );
    Ok(())
}
