//! A bond as the WAN: the devices beneath it run the XDP program, and take over from each other.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use ikenat_tests::kernel::kernel_is_at_least;
use ikenat_tests::lab::Lab;
use ikenat_tests::lab::frames::Mac;
use ikenat_tests::lab::ikenat::Ikenat;
use ikenat_tests::lab::links::{self, Interface};
use ikenat_tests::lab::topology::{CLIENT, CLIENT_2, CLIENT_MAC, PEER, VIP, WAN};
use ikenat_tests::lab::wire::{Wire, at_client, esp, from_client, from_server};
use ikenat_tests::suite::Scenario;

use crate::support::{count, patience};

pub(crate) fn scenarios() -> Vec<Scenario> {
    // The development kernel has no bonding.
    vec![
        Scenario::in_a_guest("a_bond_with_a_backup_fails_over", backup),
        Scenario::in_a_guest("a_bond_with_the_mac_of_its_active_device", own_macs),
        Scenario::in_a_guest("a_bond_of_two_links_loses_one", aggregated),
    ]
}

const SPI_IN: u32 = 0xC321_0051;
const SPI_OUT: u32 = 0xC321_0052;
/// Packets each way in each state, and the fewest of them that XDP forwards.
const PACKETS: u32 = 20;
const BY_XDP: u64 = 15;

fn backup(lab: &Lab) -> Result<()> {
    works(lab, "active-backup miimon 50", "bridge mcast_snooping 0")
}

fn own_macs(lab: &Lab) -> Result<()> {
    let mode = "active-backup miimon 50 fail_over_mac active";
    works(lab, mode, "bridge mcast_snooping 0")
}

fn aggregated(lab: &Lab) -> Result<()> {
    let mode = "802.3ad miimon 50 lacp_rate fast";
    works(lab, mode, &format!("bond mode {mode}"))
}

/// Replaces the wire to the client by two, with a bond at the gateway and `far` at the client.
fn join(lab: &Lab, mode: &str, far: &str) -> Result<()> {
    lab.client.run(&format!("ip link del {PEER}"))?;
    let client = links::mac_text(CLIENT_MAC);
    lab.client
        .run(&format!("ip link add {PEER} address {client} type {far}"))?;
    lab.gateway
        .run(&format!("ip link add {WAN} type bond mode {mode}"))?;
    for number in 0..2 {
        let (port, device) = (format!("port{number}"), format!("device{number}"));
        let interface = |namespace, name, last| Interface {
            namespace,
            name,
            mac: [2, 0, 0, 0, last, number],
        };
        links::join(
            interface(&lab.client, &port, 0x51),
            interface(&lab.gateway, &device, 0x52),
        )?;
        lab.client.shell(&format!(
            "ethtool -K {port} tx off gro on
             ip link set {port} master {PEER}; ip link set {port} up"
        ))?;
        lab.gateway.shell(&format!(
            "ip link set {device} master {WAN}; ip link set {device} up"
        ))?;
    }
    lab.client.shell(&format!(
        "ethtool -K {PEER} tx off
         ip address add {CLIENT}/24 dev {PEER}; ip address add {CLIENT_2}/24 dev {PEER}
         ip link set {PEER} up"
    ))?;
    lab.gateway.shell(&format!(
        "ip address add {VIP}/24 dev {WAN}; ip link set {WAN} up"
    ))?;
    Ok(())
}

/// The MAC address that the bond has now.
fn mac(lab: &Lab) -> Result<Mac> {
    let text = lab.gateway.run(&format!("ip -br link show {WAN}"))?;
    let mac = text.split_whitespace().find(|word| word.contains(':'));
    let bytes = mac.with_context(|| text.clone())?.split(':');
    let bytes: Vec<u8> = bytes
        .map(|byte| u8::from_str_radix(byte, 16))
        .collect::<Result<_, _>>()?;
    bytes.try_into().ok().context("no MAC address")
}

/// A packet each way, compared byte by byte.
fn both(lab: &Lab, wire: &Wire, sequence: u32) -> Result<()> {
    let mac = mac(lab)?;
    let sent = from_client(4500, 4500, esp(SPI_IN, sequence, 60)).with_macs(mac, CLIENT_MAC);
    wire.inbound(&sent)?;
    let sent = from_server(4500, 4500, esp(SPI_OUT, sequence, 60));
    let wanted = at_client(&sent).with_macs(CLIENT_MAC, mac);
    wire.outbound_frames(&[sent.build()], &[wanted.build()])
}

/// So many packets in a row, and whether XDP forwards them.
fn in_a_row(lab: &Lab, wire: &Wire, sequence: &mut u32) -> Result<()> {
    let counts = || -> Result<[u64; 2]> {
        Ok([
            count(lab, "xdp", "esp-in-udp-in")?,
            count(lab, "xdp", "esp-in-udp-out")?,
        ])
    };
    let before = counts()?;
    for _ in 0..PACKETS {
        *sequence += 1;
        both(lab, wire, *sequence).with_context(|| format!("packet {sequence}"))?;
    }
    let after = counts()?;
    let by_xdp = after[0] - before[0];
    ensure!(by_xdp >= BY_XDP, "XDP forwarded {by_xdp} inbound");
    // Linux below 6.3 does not say that a bond transmits.
    let by_xdp = after[1] - before[1];
    let reports = kernel_is_at_least((6, 3))?;
    ensure!(!reports || by_xdp >= BY_XDP, "XDP sent {by_xdp} outbound");
    Ok(())
}

/// Waits until none is lost: until the bond has noticed a change and, where its MAC address is another
/// one, the programs have been exchanged.
fn settled(lab: &Lab, wire: &Wire, sequence: &mut u32) -> Result<()> {
    let began = Instant::now();
    loop {
        match in_a_row(lab, wire, sequence) {
            Ok(()) => return Ok(()),
            Err(error) if began.elapsed() > patience(Duration::from_secs(10)) => return Err(error),
            Err(_) => std::thread::sleep(Duration::from_millis(100)),
        }
    }
}

/// The device that sends, of the two.
fn active(lab: &Lab) -> Result<char> {
    let text = lab.gateway.run(&format!("ip -details link show {WAN}"))?;
    let after = text.split_once("active_slave device");
    Ok(after
        .and_then(|(_, rest)| rest.chars().next())
        .unwrap_or('0'))
}

/// Traffic by the bond, after the loss of one link, after its return, and after that of the other.
fn works(lab: &Lab, mode: &str, far: &str) -> Result<()> {
    join(lab, mode, far)?;
    let ikenat = Ikenat::start(lab)?;
    let wire = Wire::open(lab)?;
    let mut sequence = 0;
    let mut states = |what: &str| {
        let done = settled(lab, &wire, &mut sequence);
        done.with_context(|| format!("{what}\n{}", ikenat.log()))
    };
    states("both links")?;
    for _ in 0..2 {
        let port = format!("port{}", active(lab)?);
        lab.client.run(&format!("ip link set {port} down"))?;
        states(&format!("{port} is down"))?;
        lab.client.run(&format!("ip link set {port} up"))?;
        states(&format!("{port} is up again"))?;
    }
    Ok(())
}
