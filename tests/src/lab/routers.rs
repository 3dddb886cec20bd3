//! Routers between the gateway and one of its ends, with a small link between them:
//!
//! ```text
//! end eth0 ──1500── inner0 FAR small0 ──1280── small0 NEAR eth0 ──1500── gateway
//! ```
//!
//! Both ends keep their addresses, so everything that works without routers works with them.

use std::net::Ipv4Addr;

use anyhow::Result;

use super::frames::Mac;
use super::links::{self, Interface};
use super::netns::Namespace;
use super::topology::{
    CLIENT, CLIENT_2, CLIENT_MAC, GATEWAY_LAN, LAN, LAN_MAC, PEER, SERVER, SERVER_MAC, VIP, WAN,
    WAN_MAC,
};

/// MTU of the link between the routers: IPv6's smallest, and what PPPoE in a tunnel leaves.
pub const SMALL_MTU: u16 = 1280;
/// The router beside the gateway, on the WAN.
pub const CLIENT_ROUTER: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 2);
/// The router beside the gateway, on the LAN.
pub const SERVER_ROUTER: Ipv4Addr = Ipv4Addr::new(192, 168, 0, 2);

/// The routers' interface towards each other.
const LINK: &str = "small0";
/// The far router's interface towards the end.
const INNER: &str = "inner0";

/// Two routers on the path to one end.
#[derive(Debug)]
pub struct Routers {
    /// The one beside the gateway.
    pub near: Namespace,
    /// The one beside the end.
    pub far: Namespace,
}

/// Where the routers are: numbers and names.
struct Placement<'a> {
    role: &'a str,
    /// The number that distinguishes the addresses of its links.
    number: u8,
    end: Interface<'a>,
    end_addresses: &'a [Ipv4Addr],
    gateway: Interface<'a>,
    gateway_address: Ipv4Addr,
    near_address: Ipv4Addr,
}

impl Routers {
    /// On the path to the client.
    pub(crate) fn to_client(unique: &str, client: &Namespace, gateway: &Namespace) -> Result<Self> {
        Self::create(
            unique,
            &Placement {
                role: "client",
                number: 1,
                end: interface(client, PEER, CLIENT_MAC),
                end_addresses: &[CLIENT, CLIENT_2],
                gateway: interface(gateway, WAN, WAN_MAC),
                gateway_address: VIP,
                near_address: CLIENT_ROUTER,
            },
        )
    }

    /// On the path to the server.
    pub(crate) fn to_server(unique: &str, server: &Namespace, gateway: &Namespace) -> Result<Self> {
        Self::create(
            unique,
            &Placement {
                role: "server",
                number: 2,
                end: interface(server, PEER, SERVER_MAC),
                end_addresses: &[SERVER],
                gateway: interface(gateway, LAN, LAN_MAC),
                gateway_address: GATEWAY_LAN,
                near_address: SERVER_ROUTER,
            },
        )
    }

    fn create(unique: &str, placement: &Placement<'_>) -> Result<Self> {
        let routers = Self {
            near: Namespace::create(unique, &format!("{}-near", placement.role))?,
            far: Namespace::create(unique, &format!("{}-far", placement.role))?,
        };
        let mac = |last| [2, 0, 0, 0, 0x10 + placement.number, last];
        links::join(interface(&routers.near, PEER, mac(1)), placement.gateway)?;
        links::join(
            interface(&routers.near, LINK, mac(2)),
            interface(&routers.far, LINK, mac(3)),
        )?;
        links::join(placement.end, interface(&routers.far, INNER, mac(4)))?;
        routers.address(placement)?;
        Ok(routers)
    }

    /// Each end's addresses are routed one by one: their network is the one on the gateway's side.
    fn address(&self, placement: &Placement<'_>) -> Result<()> {
        let (small, inner) = (
            format!("10.99.{}", placement.number),
            format!("10.98.{}.1", placement.number),
        );
        let near = placement.near_address;
        let to_end = |next: &str| -> String {
            placement
                .end_addresses
                .iter()
                .map(|address| format!("ip route add {address} {next}; "))
                .collect()
        };
        self.near.shell(&format!(
            "ip address add {near}/24 dev {PEER}; ip address add {small}.1/30 dev {LINK}
             ip link set {LINK} mtu {SMALL_MTU}; ip link set {PEER} up; ip link set {LINK} up
             {}
             ip route add default via {}
             sysctl -qw net.ipv4.ip_forward=1",
            to_end(&format!("via {small}.2")),
            placement.gateway_address
        ))?;
        self.far.shell(&format!(
            "ip address add {small}.2/30 dev {LINK}; ip address add {inner}/32 dev {INNER}
             ip link set {LINK} mtu {SMALL_MTU}; ip link set {LINK} up; ip link set {INNER} up
             {}
             ip route add default via {small}.1
             sysctl -qw net.ipv4.ip_forward=1",
            to_end(&format!("dev {INNER}"))
        ))?;
        let own: String = placement
            .end_addresses
            .iter()
            .map(|address| format!("ip address add {address}/32 dev {PEER}; "))
            .collect();
        placement.end.namespace.shell(&format!(
            "{own} ip link set {PEER} up; ip route add {inner} dev {PEER}
             ip route add default via {inner}"
        ))?;
        placement.gateway.namespace.shell(&format!(
            "ip address add {}/24 dev {name}; ip link set {name} up; {}",
            placement.gateway_address,
            to_end(&format!("via {near}")),
            name = placement.gateway.name
        ))?;
        Ok(())
    }
}

fn interface<'a>(namespace: &'a Namespace, name: &'a str, mac: Mac) -> Interface<'a> {
    Interface {
        namespace,
        name,
        mac,
    }
}
