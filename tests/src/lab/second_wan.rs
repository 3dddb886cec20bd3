//! A second uplink of the gateway, with an address and a client of its own.

use std::net::Ipv4Addr;

use anyhow::Result;

use super::capture::PacketSocket;
use super::frames::Mac;
use super::ikenat::Ikenat;
use super::links::{self, Interface};
use super::netns::Namespace;
use super::topology::{LAN, Lab, PEER, SERVER, VIP, WAN};

/// The gateway's interface.
pub const WAN_2: &str = "wan1";
/// The gateway's address on it.
pub const WAN_2_ADDRESS: Ipv4Addr = Ipv4Addr::new(198, 51, 102, 1);
/// The client there.
pub const FAR_CLIENT: Ipv4Addr = Ipv4Addr::new(198, 51, 102, 10);
/// The gateway's hardware address on it.
pub const WAN_2_MAC: Mac = [2, 0, 0, 0, 4, 1];
/// The hardware address of the client.
pub const FAR_CLIENT_MAC: Mac = [2, 0, 0, 0, 4, 10];

/// Adds the uplink. Returns the client, and its end of the wire.
pub fn second_wan(lab: &Lab) -> Result<(Namespace, PacketSocket)> {
    let client = lab.add_namespace("client2")?;
    let port = |namespace, name, mac| Interface {
        namespace,
        name,
        mac,
    };
    links::join(
        port(&client, PEER, FAR_CLIENT_MAC),
        port(&lab.gateway, WAN_2, WAN_2_MAC),
    )?;
    links::prepare_peer(&client, PEER, false)?;
    client.shell(&format!(
        "ip address add {FAR_CLIENT}/24 dev {PEER}; ip link set {PEER} up
         ip route add default via {WAN_2_ADDRESS}"
    ))?;
    lab.gateway.shell(&format!(
        "ip address add {WAN_2_ADDRESS}/24 dev {WAN_2}; ip link set {WAN_2} up"
    ))?;
    let socket = PacketSocket::open(&client, PEER)?;
    Ok((client, socket))
}

/// The arguments of one service that has a VIP on each WAN.
#[must_use]
pub fn office() -> Vec<String> {
    let service = format!("office:{VIP},{WAN_2_ADDRESS}={SERVER}");
    let words = ["--wan", WAN, "--wan", WAN_2, "--lan", LAN, "--service"];
    let words = words.into_iter().map(str::to_owned);
    words.chain([service]).collect()
}

/// Starts ikenat with one service that has a VIP on each WAN.
///
/// # Errors
/// It does not start.
pub fn start_office(lab: &Lab) -> Result<Ikenat> {
    let office = office();
    let mut words = vec!["run"];
    words.extend(office.iter().map(String::as_str));
    Ikenat::run(lab, &lab.gateway, "ikenat", &words)
}
