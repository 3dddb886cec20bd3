//! The gateway for the tests of the eBPF object: its configuration, the lab's gateway prepared to
//! match it, and a FIB for the host that gives the same answers as the FIB of the kernel.

use super::with_sizes;
use crate::lab::Lab;
use crate::lab::frames::Packet;
use crate::lab::topology::{
    CLIENT, CLIENT_MAC, GATEWAY_LAN, LAN, LAN_MAC, SERVER, SERVER_MAC, VIP, WAN, WAN_MAC,
};
use anyhow::{Context, Result};
use std::net::Ipv4Addr;
use xdp_common::config::mac_word;
use xdp_common::{Config, Vip};
use xdp_core::neighbour::{Gateway, Neighbour};
use xdp_core::{FibResult, Side};

/// The MTU of every interface.
pub const MTU: u16 = 1500;

/// The configuration, with interface indices that only the host's FIB knows.
pub fn config() -> Config {
    let config = Config {
        vip: Vip {
            address: VIP.octets(),
            server: SERVER.octets(),
            lan_address: GATEWAY_LAN.octets(),
            ..Vip::default()
        },
        wans: [2, 0, 0, 0],
        lans: [3, 0, 0, 0],
        wan_ifindex: 2,
        lan_ifindex: 3,
        wan_mac: WAN_MAC,
        lan_mac: LAN_MAC,
        secret: std::array::from_fn(|i| 0x9E37_79B9_7F4A_7C15_u64.wrapping_mul(2 * i as u64 + 1)),
        wan_partial: 1,
        lan_partial: 1,
        ..Config::ZERO
    };
    with_sizes(config, 1024, 256)
}

/// Prepares the lab's gateway as [`fib`] assumes it, and returns the configuration with its
/// interface indices.
///
/// # Errors
/// `ip` fails.
pub fn prepare(lab: &Lab) -> Result<Config> {
    lab.gateway.shell(&format!(
        "ip neigh replace {SERVER} lladdr {} dev {LAN} nud permanent
         ip neigh replace {CLIENT} lladdr {} dev {WAN} nud permanent
         ip route add 198.51.100.0/24 via {CLIENT}",
        mac(SERVER_MAC),
        mac(CLIENT_MAC)
    ))?;
    let mut config = config();
    config.wan_ifindex = ifindex(lab, WAN)?;
    config.lan_ifindex = ifindex(lab, LAN)?;
    config.wans[0] = config.wan_ifindex;
    config.lans[0] = config.lan_ifindex;
    Ok(config.seal())
}

/// The services of a gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Services {
    /// The usual one, with one VIP.
    One,
    /// 256, of which the usual one has a second VIP, [`VIP_2`].
    Many,
    /// 256 with a VIP each.
    Unpinned,
}

impl Services {
    /// Those that packets go through in the tests: without several VIPs of a service nothing else
    /// happens than with them.
    pub const ALL: [Self; 2] = [Self::One, Self::Many];

    /// The suffix of the names of tests with them.
    #[must_use]
    pub const fn suffix(self) -> &'static str {
        match self {
            Self::One => "",
            Self::Many => " (256 services)",
            Self::Unpinned => " (256 services with a VIP each)",
        }
    }

    /// The same configuration with these services.
    ///
    /// # Panics
    /// The tables of VIPs cannot be laid out.
    #[must_use]
    pub fn of(self, config: Config) -> Config {
        if self == Self::One {
            return config.seal();
        }
        let egresses = [config.first_lan(), config.first_wan()];
        let usual = Vip {
            several: u8::from(self == Self::Many),
            ..config.vip
        };
        let second = Vip {
            address: VIP_2.octets(),
            number: 1,
            ..usual
        };
        let others = (2..=256_u16).map(|number| {
            let [high, low] = number.to_be_bytes();
            Vip {
                address: [100, 64, high, low],
                server: [10, 200, high, low],
                service: number,
                number,
                first: number,
                several: 0,
                ..usual
            }
        });
        let usual_vips = [usual, second];
        let vips: Vec<_> = usual_vips
            .into_iter()
            .take(1 + usize::from(usual.several))
            .chain(others)
            .map(|vip| (vip, egresses))
            .collect();
        config.with_vips(&vips).expect("256 services")
    }
}

/// The second VIP of the usual service, where it has one.
pub const VIP_2: Ipv4Addr = Ipv4Addr::new(100, 65, 0, 1);

/// The same configuration with all that adds to the programs: as many interfaces as there may be, each VIP with a
/// WAN of its own, lists, a log.
pub fn with_everything(config: Config) -> Config {
    let mut config = config;
    let (wans, lans) = ([2, 4, 5, 6], [3, 7, 8, 9]);
    config.lans = if config.lans == config.wans {
        wans
    } else {
        lans
    };
    (config.wans, config.uplinks) = (wans, wans);
    config.wan_macvlans = numbers(2000);
    config.uplink_macvlans = numbers(2000);
    config.lan_macvlans = numbers(3000);
    config.accepted_macs = numbers(4000).map(u64::from);
    (config.log, config.lists) = (1, 1);
    config.vip.wan = 4;
    for vip in &mut config.vips.vips {
        vip.wan = 5;
    }
    config.seal()
}

/// Different numbers, from one on.
fn numbers<const N: usize>(first: u32) -> [u32; N] {
    let mut next = first..;
    std::array::from_fn(|_| next.next().unwrap_or_default())
}

/// The same configuration for a one-armed gateway: its WAN is its LAN.
pub fn one_armed(config: Config) -> Config {
    let wan_only = Config {
        lan_ifindex: config.wan_ifindex,
        lans: config.wans,
        lan_mac: config.wan_mac,
        ..config
    };
    wan_only.seal()
}

/// Moves the server of a prepared gateway to the side of the clients.
///
/// # Errors
/// `ip` fails.
pub fn move_server_to_wan(lab: &Lab) -> Result<()> {
    lab.gateway.shell(&format!(
        "ip neigh replace {SERVER} lladdr {} dev {WAN} nud permanent
         ip route add {SERVER}/32 dev {WAN}",
        mac(SERVER_MAC)
    ))?;
    Ok(())
}

/// Undoes [`move_server_to_wan`] and [`prepare`].
///
/// # Errors
/// `ip` fails.
pub fn move_server_back(lab: &Lab) -> Result<()> {
    lab.gateway.shell(&format!(
        "ip neigh del {SERVER} dev {WAN}
         ip route del {SERVER}/32 dev {WAN}
         ip route del 198.51.100.0/24 via {CLIENT}"
    ))?;
    Ok(())
}

fn mac(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

fn ifindex(lab: &Lab, interface: &str) -> Result<u32> {
    let line = lab.gateway.run(&format!("ip -o link show {interface}"))?;
    let (index, _) = line
        .split_once(':')
        .context("failed to read an interface index")?;
    Ok(index.trim().parse()?)
}

/// The index of the interface on a side.
pub fn ingress(config: &Config, side: Side) -> u32 {
    match side {
        Side::Lan => config.lan_ifindex,
        Side::Wan | Side::Both | Side::Out => config.wan_ifindex,
    }
}

/// The FIB of the prepared gateway: `bpf_fib_lookup` checks the route, then the MTU, then the
/// neighbour.
pub fn fib(config: &Config, destination: [u8; 4], total_length: u16) -> FibResult {
    let (ifindex, gateway, macs) = match destination {
        d if d == VIP.octets() || d == GATEWAY_LAN.octets() => return FibResult::NotForwarded,
        [203, 0, 113, 255] | [192, 168, 0, 255] => return FibResult::NotForwarded,
        d if d == SERVER.octets() => (config.lan_ifindex, d, Some((SERVER_MAC, config.lan_mac))),
        [198, 51, 100, _] => (
            config.wan_ifindex,
            CLIENT.octets(),
            Some((CLIENT_MAC, WAN_MAC)),
        ),
        d if d == CLIENT.octets() => (config.wan_ifindex, d, Some((CLIENT_MAC, WAN_MAC))),
        [203, 0, 113, _] => (config.wan_ifindex, destination, None),
        [192, 168, 0, _] => (config.lan_ifindex, destination, None),
        _ => return FibResult::NotForwarded,
    };
    if total_length > MTU {
        return FibResult::TooBig(MTU);
    }
    let gateway = Gateway::v4(gateway);
    match macs {
        None => FibResult::Unresolved { ifindex, gateway },
        Some((destination, source)) => FibResult::Neighbour(Neighbour {
            ifindex,
            gateway,
            destination: mac_word(destination),
            source: mac_word(source),
            mtu: MTU,
        }),
    }
}

/// A peer of the server.
pub const PEER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 7);

/// What [`PEER`] sends from a port to the same one of the VIP, and the side on which it arrives.
#[must_use]
pub fn peer_sends(port: u16, payload: Vec<u8>) -> (Side, Packet) {
    let packet = Packet::udp((PEER, port), (VIP, port), payload).with_macs(WAN_MAC, CLIENT_MAC);
    (Side::Wan, packet)
}

/// What the server sends from a port to the same one of [`PEER`], likewise.
#[must_use]
pub fn server_sends(port: u16, payload: Vec<u8>) -> (Side, Packet) {
    let packet = Packet::udp((SERVER, port), (PEER, port), payload).with_macs(LAN_MAC, SERVER_MAC);
    (Side::Lan, packet)
}
