//! Where this host has a service: by which LAN its server is reached, and which WAN has each VIP.

use crate::config::macvlans::{self, Macvlan};
use crate::config::plan::Plan;
use crate::config::services::Service;
use crate::error::{Error, Result, word};
use crate::netlink::address::Address;
use crate::netlink::{Link, Netlink, Route};
use std::net::Ipv4Addr;

/// Where packets to a server go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServerLocation {
    /// To this host itself.
    Here,
    /// By a LAN.
    ByLan {
        /// Its number among the LANs.
        lan: usize,
        /// The address that this host has towards the server; 0.0.0.0: none.
        address: Ipv4Addr,
    },
    /// No LAN leads to it now: its LAN is absent, is down, or has no route yet.
    Absent,
}

impl ServerLocation {
    /// The address that this host has towards the server.
    pub const fn lan_address(self) -> Option<Ipv4Addr> {
        match self {
            Self::ByLan { address, .. } => Some(address),
            Self::Here | Self::Absent => None,
        }
    }
}

/// Where a VIP is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VipLocation {
    /// It is an address of this host, which then answers ARP for it.
    pub is_local: bool,
    /// The WAN that owns it, if one of them does.
    pub wan: Option<OwningWan>,
}

/// The WAN that has a VIP as an address, or else a network that contains the VIP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OwningWan {
    /// Its number among the WANs.
    pub number: usize,
    /// The index of the interface with the address: the WAN, or a macvlan on top of it.
    pub index: u32,
}

/// Where this host has a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceLocation {
    /// Its server.
    pub server: ServerLocation,
    /// Its IPv4 VIPs, in their order.
    pub vips: Vec<VipLocation>,
}

/// The interfaces of an instance, as a location is looked for on them.
pub(crate) struct Network<'n> {
    pub(crate) wans: &'n [Link],
    pub(crate) lans: &'n [Link],
    pub(crate) macvlans: &'n [Macvlan],
}

impl<'n> Network<'n> {
    /// That of a plan.
    pub(crate) fn of(plan: &'n Plan) -> Self {
        Self {
            wans: &plan.wans,
            lans: &plan.lans,
            macvlans: &plan.macvlans,
        }
    }

    /// The locations of services, in their order. Fails when no server is found: one that is not holds
    /// up no other.
    pub(crate) fn locate(
        &self,
        netlink: &Netlink,
        services: &[Service],
    ) -> Result<Vec<ServiceLocation>> {
        let addresses = netlink.addresses()?;
        let mut located = Vec::with_capacity(services.len());
        let mut first_absent = None;
        for service in services {
            let server = service.server_v4().unwrap_or(Ipv4Addr::UNSPECIFIED);
            let server = match self.server_or_lan(netlink, server)? {
                Ok(found) => found,
                Err(error) => {
                    first_absent.get_or_insert(error);
                    ServerLocation::Absent
                }
            };
            let vip = |vip| self.vip(netlink, &addresses, vip);
            let vips = service.vips_v4().map(vip).collect();
            located.push(ServiceLocation { server, vips });
        }
        let is_found = |one: &ServiceLocation| one.server != ServerLocation::Absent;
        let is_here = |one: &ServiceLocation| one.server == ServerLocation::Here;
        if let Some(error) = first_absent.filter(|_| !located.iter().any(is_found)) {
            return Err(error);
        }
        // Without any server behind a LAN, the LANs are a mistake.
        if let Some(service) = services.first()
            && !self.lans.is_empty()
            && located.iter().all(is_here)
        {
            let server = service.server_v4().unwrap_or(Ipv4Addr::UNSPECIFIED);
            return Err(Error::ServerIsLocal { server });
        }
        Ok(located)
    }

    /// Where a server is. The inner error: no LAN leads to it now; where a LAN does not exist, it is
    /// that.
    fn server_or_lan(
        &self,
        netlink: &Netlink,
        server: Ipv4Addr,
    ) -> Result<Result<ServerLocation, Error>> {
        match self.server(netlink, server) {
            Err(error @ (Error::OtherLan { .. } | Error::NotRoutable { .. })) => {
                let absent = self.lans.iter().find(|lan| !lan.exists());
                // It may have appeared meanwhile.
                let missing = absent.and_then(|lan| netlink.link(&lan.name).err());
                Ok(Err(missing.unwrap_or(error)))
            }
            located => located.map(Ok),
        }
    }

    /// Where a server is. Fails when its packets leave by no LAN.
    pub(crate) fn server(&self, netlink: &Netlink, server: Ipv4Addr) -> Result<ServerLocation> {
        let lan_of = |index| {
            let lower = macvlans::lower_of(self.macvlans, index);
            let is_it = |lan: &Link| lan.exists() && lan.index == lower;
            self.lans.iter().position(is_it)
        };
        let names: Vec<&str> = self.lans.iter().map(|lan| lan.name.as_str()).collect();
        let first = names.first().map(|name| (*name).to_owned());
        let (index, source) = match netlink.route(server) {
            Ok(Route::Local) => return Ok(ServerLocation::Here),
            Ok(Route::Via { index, source, .. }) => (index, source),
            Err(error) => {
                return Err(Error::NotRoutable {
                    server,
                    why: word(&error),
                    lan: first.unwrap_or_else(|| "LAN".to_owned()),
                });
            }
        };
        if let Some(lan) = lan_of(index) {
            let address = source.unwrap_or(Ipv4Addr::UNSPECIFIED);
            return Ok(ServerLocation::ByLan { lan, address });
        }
        let found = netlink.link_by_index(index);
        let found = found.map_or_else(|_| format!("interface {index}"), |link| link.name);
        Err(match first {
            None => Error::NoLan { server, found },
            Some(lan) => Error::OtherLan {
                server,
                found,
                lans: names.join(" or "),
                lan,
            },
        })
    }

    /// Where a VIP is.
    pub(crate) fn vip(
        &self,
        netlink: &Netlink,
        addresses: &[Address],
        vip: Ipv4Addr,
    ) -> VipLocation {
        VipLocation {
            is_local: matches!(netlink.route(vip), Ok(Route::Local)),
            wan: self.owner(addresses, vip),
        }
    }

    /// The WAN with the address itself, or else with the smallest network around it.
    pub(crate) fn owner(&self, addresses: &[Address], vip: Ipv4Addr) -> Option<OwningWan> {
        let wan_of = |index| {
            let lower = macvlans::lower_of(self.macvlans, index);
            let is_it = |wan: &Link| wan.exists() && wan.index == lower;
            let number = self.wans.iter().position(is_it)?;
            Some(OwningWan { number, index })
        };
        let own = addresses.iter().find(|one| one.address == vip);
        if let Some(own) = own.and_then(|own| wan_of(own.index)) {
            return Some(own);
        }
        let around = addresses.iter().filter(|one| one.is_on_link(vip));
        let around = around.filter_map(|one| Some((one.prefix, wan_of(one.index)?)));
        around.max_by_key(|(prefix, _)| *prefix).map(|(_, wan)| wan)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(index: u32) -> Link {
        Link {
            index,
            name: format!("x{index}"),
            ..Link::default()
        }
    }

    fn address(index: u32, address: [u8; 4], prefix: u8) -> Address {
        Address {
            index,
            address: address.into(),
            prefix,
            secondary: false,
        }
    }

    #[test]
    fn a_vip_belongs_to_the_wan_with_it_or_with_the_smallest_network_around_it() {
        let wans = [link(5), Link::absent("x9"), link(7)];
        let macvlans = [Macvlan {
            lower: 7,
            index: 20,
            name: "v20".to_owned(),
            mac: [0, 0, 0x5e, 0, 1, 1],
        }];
        let network = Network {
            wans: &wans,
            lans: &[link(6)],
            macvlans: &macvlans,
        };
        let addresses = [
            address(1, [203, 0, 113, 9], 32),
            address(5, [203, 0, 113, 1], 24),
            address(7, [203, 0, 113, 129], 25),
            address(20, [198, 51, 100, 1], 32),
            address(6, [192, 0, 2, 1], 24),
        ];
        let owner = |vip: [u8; 4]| {
            let found = network.owner(&addresses, vip.into());
            found.map(|wan| (wan.number, wan.index))
        };
        assert_eq!(owner([203, 0, 113, 1]), Some((0, 5)));
        assert_eq!(owner([203, 0, 113, 129]), Some((2, 7)));
        assert_eq!(owner([203, 0, 113, 200]), Some((2, 7)), "by the /25");
        assert_eq!(owner([203, 0, 113, 9]), Some((0, 5)), "it is one of lo");
        assert_eq!(owner([198, 51, 100, 1]), Some((2, 20)), "of a macvlan");
        assert_eq!(owner([192, 0, 2, 1]), None, "a LAN is no WAN");
        assert_eq!(owner([10, 0, 0, 1]), None);
    }
}
