//! Checks of the settings against this host: all that need no loaded program, before anything is
//! changed.

use crate::config::commands::quoted;
use crate::config::location::Network;
use crate::config::macvlans;
use crate::config::numbers::ServiceNumbers;
use crate::config::plan::Plan;
use crate::config::services::{self, Service};
use crate::config::settings::{Modes, Settings};
use crate::error::{Error, Result};
use crate::netlink::address::Address;
use crate::netlink::{Link, Netlink};
use crate::sys::{capabilities, kernel_version, netns};
use std::fs;
use std::net::Ipv4Addr;
use xdp_common::limits;

fn check_kernel() -> Result<()> {
    let found = kernel_version::release();
    if kernel_version::is_supported(&found) == Some(true) {
        Ok(())
    } else {
        Err(Error::OldKernel { found })
    }
}

/// Why an address cannot be that of a host; `None` when it can. `own` are the addresses of this
/// host, which show the networks on its links.
pub(crate) fn not_unicast(address: Ipv4Addr, own: &[Address]) -> Option<String> {
    let first = address.octets()[0];
    let why = match first {
        0 => "it is in 0.0.0.0/8",
        127 => "it is a loopback address",
        224..=239 => "it is a multicast address",
        240..=255 => "it is reserved or broadcast",
        _ => return of_a_whole_link(address, own),
    };
    Some(why.to_owned())
}

/// The network or broadcast address of a link is that of no host (RFC 1122 section 3.2.1.3), unless
/// this host has it, or the link has two addresses only (RFC 3021).
fn of_a_whole_link(address: Ipv4Addr, own: &[Address]) -> Option<String> {
    if own.iter().any(|one| one.address == address) {
        return None;
    }
    let networks = own.iter().filter_map(|one| one.network());
    networks
        .filter(|network| network.prefix_len() <= 30)
        .find_map(|network| {
            let what = match address {
                a if a == network.broadcast() => "broadcast",
                a if a == network.network() => "network",
                _ => return None,
            };
            Some(format!("it is the {what} address of {network}"))
        })
}

fn check_addresses(services: &[Service], own: &[Address]) -> Result<()> {
    for service in services {
        let vips = service.vips_v4().map(|vip| ("the VIP", vip));
        let server = service.server_v4().map(|server| ("the server", server));
        for (role, address) in vips.chain(server) {
            if let Some(why) = not_unicast(address, own) {
                return Err(Error::NotUnicast { role, address, why });
            }
        }
    }
    Ok(())
}

/// The path below /proc/sys of a setting of an interface, or of `all`. It is that of the network
/// namespace of the process that reads it, also after nsenter.
pub(crate) fn sysctl_path(interface: &str, setting: &str) -> String {
    format!("net/ipv4/conf/{interface}/{setting}")
}

/// The same in the form for `sysctl -w`; a name with a dot needs slashes.
pub(crate) fn sysctl_key(interface: &str, setting: &str) -> String {
    if interface.contains('.') {
        sysctl_path(interface, setting)
    } else {
        format!("net.ipv4.conf.{interface}.{setting}")
    }
}

/// The command that changes a setting of an interface, or of `all`.
pub(crate) fn sysctl_command(interface: &str, setting: &str, value: u32) -> String {
    // `sysctl` takes these for the end of the name or for a pattern.
    if interface.contains(['=', '*', '?', '[', ']', '\\']) {
        let path = format!("/proc/sys/{}", sysctl_path(interface, setting));
        return format!("echo {value} > {}", quoted(&path));
    }
    let key = sysctl_key(interface, setting);
    format!("sysctl -w {}", quoted(&format!("{key}={value}")))
}

fn check_ethernet(link: &Link) -> Result<()> {
    if link.mac.is_none() {
        return Err(Error::NotEthernet {
            name: link.name.clone(),
        });
    }
    Ok(())
}

fn check_forwarding(link: &Link) -> Result<()> {
    let path = format!("/proc/sys/{}", sysctl_path(&link.name, "forwarding"));
    let value = fs::read_to_string(&path).map_err(Error::system(format!("read {path}")))?;
    if value.trim() == "0" {
        return Err(Error::ForwardingOff {
            name: link.name.clone(),
            fix: sysctl_command(&link.name, "forwarding", 1),
        });
    }
    Ok(())
}

/// Looks up the interfaces of a side: not too many, each once. Some of them may not exist.
fn look_up(netlink: &Netlink, option: &'static str, names: &[String]) -> Result<Vec<Link>> {
    if names.len() > limits::INTERFACES {
        return Err(Error::TooManyInterfaces {
            option,
            limit: limits::INTERFACES,
        });
    }
    if let Some((_, twice)) = names
        .iter()
        .enumerate()
        .find(|(at, name)| names[..*at].contains(name))
    {
        return Err(Error::InterfaceTwice {
            option,
            name: twice.clone(),
        });
    }
    let links = netlink.links()?;
    let find = |name: &String| {
        let found = links.iter().find(|link| link.name == *name);
        found.cloned().unwrap_or_else(|| Link::absent(name))
    };
    Ok(names.iter().map(find).collect())
}

/// Fails when no WAN exists: then there is nothing to forward by. Without any LAN there still is if a
/// server is this host; if none is, no server is found.
fn check_wan_exists(netlink: &Netlink, wans: &[Link]) -> Result<()> {
    match wans.first() {
        Some(first) if !wans.iter().any(Link::exists) => netlink.link(&first.name).map(drop),
        Some(_) | None => Ok(()),
    }
}

/// Checks an interface that is WAN and LAN: it must be the first of both, in one mode, because it
/// has one XDP program for both sides.
fn check_arms(wans: &[Link], lans: &[Link], modes: Modes) -> Result<()> {
    for (at, wan) in wans.iter().enumerate() {
        let Some(as_lan) = lans.iter().position(|lan| lan.name == wan.name) else {
            continue;
        };
        let name = wan.name.clone();
        if (at, as_lan) != (0, 0) {
            return Err(Error::ArmNotFirst { name });
        }
        if modes.wan != modes.lan {
            return Err(Error::ArmInTwoModes { name });
        }
    }
    Ok(())
}

impl Plan {
    /// Checks settings against this host and returns the plan.
    pub fn check(settings: Settings, netlink: &Netlink) -> Result<Self> {
        capabilities::check()?;
        check_kernel()?;
        services::check(&settings.services)?;
        check_addresses(&settings.services, &netlink.addresses()?)?;
        let wans = look_up(netlink, "--wan", &settings.wans)?;
        let lans = look_up(netlink, "--lan", &settings.lans)?;
        check_wan_exists(netlink, &wans)?;
        let existing = || wans.iter().chain(&lans).filter(|link| link.exists());
        for link in existing() {
            check_ethernet(link)?;
        }
        check_arms(&wans, &lans, settings.modes)?;
        let macvlans = macvlans::on_top(&netlink.links()?, &[&*wans, &lans].concat());
        let network = Network {
            wans: &wans,
            lans: &lans,
            macvlans: &macvlans,
        };
        let locations = network.locate(netlink, &settings.services)?;
        let numbers = ServiceNumbers::in_order(&settings.services);
        let plan = Self {
            settings,
            wans,
            lans,
            macvlans,
            locations,
            numbers,
            namespace: netns::own()?,
        };
        // Packets to this host itself need no forwarding.
        for (_, link) in plan.interfaces().iter().filter(|_| plan.has_lan_servers()) {
            check_forwarding(link)?;
        }
        Ok(plan)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::settings::Mode;

    #[test]
    fn only_addresses_of_hosts_are_taken() {
        let server = Ipv4Addr::new(192, 168, 0, 1);
        let check = |vip, server| check_addresses(&[Service::new("x", vip, server)], &[]);
        for bad in ["0.0.0.1", "127.0.0.1", "224.0.0.1", "255.255.255.255"] {
            let address = bad.parse().expect("an address");
            for (role, checked) in [
                ("the VIP", check(address, server)),
                ("the server", check(server, address)),
            ] {
                let error = checked.expect_err(bad).to_string();
                assert!(error.contains(role) && error.contains(bad), "{error}");
            }
        }
        assert!(check(Ipv4Addr::new(203, 0, 113, 1), server).is_ok());
    }

    #[test]
    fn the_network_and_the_broadcast_address_of_a_link_are_no_hosts() {
        let own = |prefix| Address {
            index: 1,
            address: Ipv4Addr::new(192, 168, 4, 1),
            prefix,
            secondary: false,
        };
        let why = |last: [u8; 2], prefix| {
            not_unicast(Ipv4Addr::new(192, 168, last[0], last[1]), &[own(prefix)])
        };
        let broadcast = "it is the broadcast address of 192.168.4.0/24";
        assert_eq!(why([4, 255], 24).as_deref(), Some(broadcast));
        let network = "it is the network address of 192.168.4.0/22";
        assert_eq!(why([4, 0], 22).as_deref(), Some(network));
        for (last, prefix) in [([4, 255], 22), ([4, 1], 24), ([4, 0], 31), ([4, 1], 32)] {
            assert_eq!(why(last, prefix), None, "{last:?} in /{prefix}");
        }
        // This host itself has it.
        let first = Address {
            address: Ipv4Addr::new(192, 168, 4, 0),
            ..own(24)
        };
        assert_eq!(not_unicast(first.address, &[first]), None);
    }

    #[test]
    fn the_way_out_of_missing_forwarding_can_be_pasted() {
        assert_eq!(
            sysctl_key("eth0", "forwarding"),
            "net.ipv4.conf.eth0.forwarding"
        );
        assert_eq!(
            sysctl_key("eth0.5", "forwarding"),
            "net/ipv4/conf/eth0.5/forwarding"
        );
    }

    fn link(index: u8) -> Link {
        Link {
            index: index.into(),
            name: format!("x{index}"),
            ..Link::default()
        }
    }

    #[test]
    fn an_interface_that_is_both_is_the_first_of_both_in_one_mode() {
        let native = Modes {
            wan: Mode::Native,
            lan: Mode::Native,
        };
        let mixed = Modes {
            lan: Mode::Generic,
            ..native
        };
        let links =
            |indexes: &[u8]| -> Vec<Link> { indexes.iter().map(|index| link(*index)).collect() };
        assert!(check_arms(&links(&[1, 2]), &links(&[1, 3]), native).is_ok());
        assert!(check_arms(&links(&[1, 2]), &links(&[3, 4]), mixed).is_ok());
        for (wans, lans) in [([1, 2], [2, 3]), ([1, 2], [3, 1]), ([1, 2], [1, 2])] {
            let error = check_arms(&links(&wans), &links(&lans), native).expect_err("not first");
            assert!(error.to_string().contains("first"), "{error}");
        }
        let error = check_arms(&links(&[1]), &links(&[1]), mixed).expect_err("two modes");
        assert!(error.to_string().contains("--lan-mode"), "{error}");
    }
}
