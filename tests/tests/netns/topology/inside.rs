//! Packets from outside with forged sources of the LANs, whatever the LAN and the host's rules are like:
//! none is forwarded.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use ikenat_tests::lab::Lab;
use ikenat_tests::lab::capture::PacketSocket;
use ikenat_tests::lab::frames::{Packet, not_ipv4};
use ikenat_tests::lab::second_wan::{FAR_CLIENT, WAN_2, WAN_2_ADDRESS, second_wan, start_office};
use ikenat_tests::lab::topology::{CLIENT, CLIENT_MAC, LAN, VIP, WAN, WAN_MAC};
use ikenat_tests::lab::wire::{Wire, at_server, cross, esp, exchange, from_client, ike};
use ikenat_tests::suite::Scenario;

use crate::support::{count, force_slow_path, patience, wait_for_log};
use crate::topology::addresses::start_on;
use crate::topology::uplinks::{LAN_2, far, second_lan};

pub(crate) fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario::new("a_long_frame_hides_no_source_of_a_small_lan", small_lan),
        Scenario::new("a_table_for_the_vip_hides_no_source_on_the_lan", by_rule),
    ]
}

const SPI: u32 = 0xC321_0007;

/// The MTU of the second LAN. A frame of 1,500 bytes from the WAN fits into the LAN of the server.
const SMALL: u16 = 1400;
/// A host there.
const ON_SMALL: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 77);
/// A host of the LAN of the server.
const ON_LAN: Ipv4Addr = Ipv4Addr::new(192, 168, 0, 77);

/// Until so many packets have been dropped for their sources.
fn dropped(lab: &Lab, wanted: u64) -> Result<()> {
    let began = Instant::now();
    loop {
        // One that meets a neighbour which is not resolved yet is dropped by tc.
        let found = count(lab, "xdp", "inside-source")? + count(lab, "tc", "inside-source")?;
        if found == wanted {
            return Ok(());
        }
        ensure!(
            began.elapsed() < patience(Duration::from_secs(3)),
            "{found} of {wanted} packets were dropped"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// From here on tc does it.
fn slow_path(lab: &Lab) -> Result<()> {
    force_slow_path(lab)?;
    wait_for_log(lab, &format!("{LAN}: driver has no XDP transmit"))
}

/// The kernel knows the neighbour whose address is forged, so `bpf_fib_lookup` goes on to the MTU.
fn small_lan(lab: &Lab) -> Result<()> {
    let _second = second_lan(lab)?;
    lab.gateway.shell(&format!(
        "ip link set {LAN_2} mtu {SMALL}
         ip neigh replace {ON_SMALL} lladdr 02:00:00:00:05:77 dev {LAN_2} nud permanent
         sysctl -qw net.ipv4.conf.{WAN}.rp_filter=0 net.ipv4.conf.all.rp_filter=0"
    ))?;
    let _ikenat = start_on(lab, &format!("--wan {WAN} --lan {LAN} --lan {LAN_2}"), VIP)?;
    let wire = Wire::open(lab)?;
    let forged = |payload| {
        let mut packet = from_client(4500, 4500, esp(SPI, 1, payload));
        packet.source = ON_SMALL;
        packet.with_macs(WAN_MAC, CLIENT_MAC).build()
    };
    let long = forged(1464);
    ensure!(long.len() == 14 + 1500, "{} bytes", long.len());
    let forge = |wanted: u64| -> Result<()> {
        for (more, frame) in (1..).zip([forged(60), long.clone()]) {
            wire.server.drain()?;
            wire.client.send(&frame)?;
            wire.server
                .expect_silence(Duration::from_millis(100), not_ipv4)?;
            dropped(lab, wanted + more)?;
        }
        Ok(())
    };
    forge(0)?;
    slow_path(lab)?;
    forge(2).context("by tc")
}

/// The tables for the VIPs have the default route of a WAN and nothing else: of a service with a VIP on
/// each WAN, and of a single VIP.
fn by_rule(lab: &Lab) -> Result<()> {
    let (_namespace, far_client) = second_wan(lab)?;
    lab.gateway.shell(&format!(
        "ip route add default via {CLIENT} dev {WAN} table 101
         ip route add default via {FAR_CLIENT} dev {WAN_2} table 102
         ip rule add from {VIP} lookup 101
         ip rule add from {WAN_2_ADDRESS} lookup 102
         ip neigh replace {ON_LAN} lladdr 02:00:00:00:02:77 dev {LAN} nud permanent"
    ))?;
    for interface in ["all", WAN, WAN_2] {
        lab.gateway
            .run(&format!("sysctl -qw net.ipv4.conf.{interface}.rp_filter=0"))?;
    }
    let wire = Wire::open(lab)?;
    let message = || ike(0x1111, 0, exchange::IKE_SA_INIT, false, 120);
    let near = from_client(500, 500, message());
    let mut far = far(near.clone());
    let far_arrives = at_server(&far).build();
    far.destination = WAN_2_ADDRESS;
    let forge = |socket: &PacketSocket, packet: &Packet| -> Result<()> {
        let mut forged = packet.clone();
        forged.source = ON_LAN;
        wire.server.drain()?;
        socket.send(&forged.build())?;
        wire.server
            .expect_silence(Duration::from_millis(100), not_ipv4)
    };
    let office = start_office(lab)?;
    forge(&far_client, &far).context("to the second VIP")?;
    dropped(lab, 1)?;
    forge(&wire.client, &near).context("to the first VIP")?;
    dropped(lab, 2)?;
    cross(&far_client, &wire.server, &[far.build()], &[far_arrives])?;
    wire.inbound(&near)?;
    office.terminate()?;
    lab.unload()?;

    let _one = start_on(lab, &format!("--wan {WAN} --wan {WAN_2} --lan {LAN}"), VIP)?;
    forge(&wire.client, &near).context("to a single VIP")?;
    dropped(lab, 1)?;
    wire.inbound(&near)?;
    slow_path(lab)?;
    forge(&wire.client, &near).context("by tc")?;
    dropped(lab, 2)?;
    wire.inbound(&near)
}
