//! The load-time constants of the VIPs of a plan, and the lists of peers that services share.

use crate::config::interfaces::{Interface, Side};
use crate::config::location::{ServerLocation, ServiceLocation};
use crate::config::numbers::ServiceNumbers;
use crate::config::peer_lists::Lists;
use crate::config::plan::Plan;
use crate::config::services::Service;
use crate::netlink::Link;
use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use xdp_common::vips::Egress;
use xdp_common::{Config, Vip};

/// A VIP with its egress inbound and outbound, as [`Config::with_vips`] takes it.
pub(crate) type VipConstants = (Vip, [Egress; 2]);

impl Plan {
    /// Those of all VIPs to whose servers a LAN leads, or which are this host, for the programs of an
    /// interface.
    pub(super) fn vip_constants(&self, interface: Interface) -> Vec<VipConstants> {
        let lists = self.lists();
        let located = self.settings.services.iter().zip(&self.locations);
        let numbered = located.zip(&self.numbers);
        // What the default route would take to the server, out of a WAN, is left to this host.
        let is_there = |one: &ServiceLocation| one.server != ServerLocation::Absent;
        numbered
            .filter(|((_, location), _)| is_there(location))
            .flat_map(|((service, location), numbers)| {
                let list = list_number(&lists, service);
                self.of_service(interface, (service, location, numbers), list)
            })
            .collect()
    }

    fn of_service(
        &self,
        interface: Interface,
        (service, location, numbers): (&Service, &ServiceLocation, &ServiceNumbers),
        list: u16,
    ) -> Vec<VipConstants> {
        let Some(first) = numbers.vips.first() else {
            return Vec::new();
        };
        let server = service.server_v4().unwrap_or(Ipv4Addr::UNSPECIFIED);
        let lan_address = location.server.lan_address();
        let vip = Vip {
            server: server.octets(),
            lan_address: lan_address.unwrap_or(Ipv4Addr::UNSPECIFIED).octets(),
            service: numbers.service,
            first: *first,
            list,
            several: u8::from(numbers.vips.len() > 1),
            dedicated: u8::from(service.dedicated),
            server_is_local: u8::from(location.server == ServerLocation::Here),
            ..Vip::default()
        };
        let lan = match location.server {
            ServerLocation::ByLan { lan, .. } => Some(lan),
            ServerLocation::Here | ServerLocation::Absent => None,
        };
        let inbound = self.egress(interface, Side::Lan, lan);
        let vips = service.vips_v4().zip(&location.vips).zip(&numbers.vips);
        vips.map(|((address, vip_location), number)| {
            let wan = vip_location.wan;
            let outbound = self.egress(interface, Side::Wan, wan.map(|wan| wan.number));
            let vip = Vip {
                address: address.octets(),
                wan: wan.map_or(0, |wan| wan.index),
                number: *number,
                ..vip
            };
            (vip, [inbound, outbound])
        })
        .collect()
    }

    /// The interface of this number on a side; where there is none, that of the programs or the first
    /// one.
    fn egress(&self, interface: Interface, side: Side, number: Option<usize>) -> Egress {
        let of = |interface: Interface, link: &Link| Egress {
            ifindex: link.index,
            mac: link.mac.unwrap_or_default(),
            word: u16::try_from(interface.egress()).unwrap_or_default(),
        };
        let planned = self.interfaces_by_side();
        let find = |number| {
            let wanted = Interface { side, number };
            let mut all = planned.iter();
            all.find(|(found, _)| *found == wanted)
                .map(|(found, link)| of(*found, link))
        };
        let own = (interface.side == side).then_some(interface.number);
        let mut of_side = planned.iter().filter(|(found, _)| found.side == side);
        number
            .and_then(find)
            .or_else(|| own.and_then(find))
            .or_else(|| of_side.next().map(|(found, link)| of(*found, link)))
            .unwrap_or_default()
    }

    /// The numbers of the WANs that have a VIP, also by a macvlan on top of them.
    pub(super) fn uplink_numbers(&self) -> BTreeSet<usize> {
        let owners = self.vips().filter_map(|(_, location)| location.wan);
        owners.map(|owner| owner.number).collect()
    }

    /// The same WANs, as far as they exist.
    pub(super) fn uplinks(&self) -> Vec<Link> {
        let numbers = self.uplink_numbers().into_iter();
        let links = numbers.filter_map(|number| self.wans.get(number));
        links.filter(|wan| wan.exists()).cloned().collect()
    }

    /// Whether the programs for several VIPs are needed.
    pub(crate) fn needs_several(&self) -> bool {
        const ANY: Interface = Interface {
            side: Side::Wan,
            number: 0,
        };
        Config::needs_several(&self.vip_constants(ANY))
    }

    /// The different lists of the services that have any. The number of a list in PEERS is its place
    /// here, from 1 on.
    pub(crate) fn lists(&self) -> Vec<&Lists> {
        distinct(&self.settings.services)
    }

    /// The lists of the services that have any, by the numbers of the services.
    pub(crate) fn lists_by_service(&self) -> Vec<(u16, &Lists)> {
        let services = self.settings.services.iter().zip(&self.numbers);
        services
            .filter(|(service, _)| !service.lists.is_empty())
            .map(|(service, numbers)| (numbers.service, &service.lists))
            .collect()
    }
}

/// The different lists of services that have any.
pub(super) fn distinct(services: &[Service]) -> Vec<&Lists> {
    let mut all: Vec<&Lists> = Vec::new();
    for Service { lists, .. } in services {
        if !lists.is_empty() && !all.contains(&lists) {
            all.push(lists);
        }
    }
    all
}

fn list_number(lists: &[&Lists], service: &Service) -> u16 {
    let place = lists.iter().position(|lists| **lists == service.lists);
    place.map_or(0, |place| u16::try_from(place + 1).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::location::{OwningWan, VipLocation};
    use crate::config::plan::tests::{link, plan};
    use xdp_common::Secret;

    const LAN: Interface = Interface {
        side: Side::Lan,
        number: 0,
    };
    const WAN: Interface = Interface {
        side: Side::Wan,
        number: 0,
    };

    /// Two WANs and two LANs; a service with a VIP on each WAN, and one of the second LAN.
    fn two_services() -> Plan {
        let wans = vec![link(5, None), link(7, None)];
        let mut plan = plan(wans, vec![link(6, None), link(8, None)]);
        let texts = [
            "a:203.0.113.1,198.51.100.1=192.168.0.1",
            "b:203.0.113.9=192.168.1.1",
        ];
        plan.settings.services = texts.map(|text| text.parse().expect(text)).to_vec();
        let wan = |number, index| VipLocation {
            is_local: true,
            wan: Some(OwningWan { number, index }),
        };
        let by_lan = |lan, last| ServerLocation::ByLan {
            lan,
            address: Ipv4Addr::new(192, 168, last, 254),
        };
        plan.locations = vec![
            ServiceLocation {
                server: by_lan(0, 0),
                vips: vec![wan(0, 5), wan(1, 7)],
            },
            ServiceLocation {
                server: by_lan(1, 1),
                vips: vec![VipLocation {
                    is_local: false,
                    wan: None,
                }],
            },
        ];
        plan.numbers = [(4, vec![11, 2]), (9, vec![3])]
            .map(|(service, vips)| ServiceNumbers { service, vips })
            .to_vec();
        plan
    }

    #[test]
    fn each_vip_leaves_by_its_wan_and_reaches_its_server_by_its_lan() {
        let plan = two_services();
        let config = plan.constants(Secret::default(), 8, LAN);
        assert_eq!((config.several_vips, config.pinned), (1, 1));
        let of = |number: usize| {
            let vip = config.vips.vips[number];
            let [inbound, outbound] = config.vips.translations;
            let by = [inbound[number], outbound[number]].map(|one| (one.egress, one.egress_word));
            (vip.address, vip.wan, vip.service, vip.first, by)
        };
        let word = |side, number| {
            let word = Interface { side, number }.egress();
            u16::try_from(word).expect("small")
        };
        let lans = [(6, word(Side::Lan, 0)), (8, word(Side::Lan, 1))];
        let wans = [(5, word(Side::Wan, 0)), (7, word(Side::Wan, 1))];
        assert_eq!(of(11), ([203, 0, 113, 1], 5, 4, 11, [lans[0], wans[0]]));
        assert_eq!(of(2), ([198, 51, 100, 1], 7, 4, 11, [lans[0], wans[1]]));
        assert_eq!(of(3), ([203, 0, 113, 9], 0, 9, 3, [lans[1], wans[0]]));
        assert_eq!(config.vips.vips[3].lan_address, [192, 168, 1, 254]);
        let lan_addresses = [[192, 168, 0, 254], [192, 168, 1, 254]].map(u32::from_ne_bytes);
        assert_eq!(
            config.lan_addresses[..3],
            [lan_addresses[0], lan_addresses[1], 0]
        );
        assert!(config.vips.vips[11].several == 1 && config.vips.vips[3].several == 0);
    }

    /// Also where a macvlan on top of it has the VIP.
    #[test]
    fn a_wan_with_a_vip_is_an_uplink() {
        let mut plan = two_services();
        plan.wans.push(link(9, None));
        let uplinks = |plan: &Plan| plan.constants(Secret::default(), 8, LAN).uplinks;
        assert_eq!(uplinks(&plan), [5, 7, 0, 0]);
        let on_macvlan = OwningWan {
            number: 1,
            index: 20,
        };
        plan.locations[0].vips[1].wan = Some(on_macvlan);
        assert_eq!(uplinks(&plan), [5, 7, 0, 0]);
        plan.locations[0].vips[1].wan = None;
        assert_eq!(uplinks(&plan), [5, 0, 0, 0]);
    }

    #[test]
    fn services_with_the_same_lists_share_a_number() {
        let mut plan = two_services();
        plan.settings
            .services
            .push("c:203.0.113.10=192.168.1.2".parse().expect("valid"));
        plan.locations.push(plan.locations[1].clone());
        plan.numbers.push(ServiceNumbers {
            service: 1,
            vips: vec![5],
        });
        let numbers = |plan: &Plan| {
            let vips = plan.vip_constants(WAN).into_iter();
            vips.map(|(vip, _)| vip.list).collect::<Vec<_>>()
        };
        assert_eq!(numbers(&plan), [0; 4]);
        let prefix = |text: &str| vec![text.parse().expect(text)];
        plan.settings.services[1].lists.deny = prefix("198.51.100.0/24");
        assert_eq!(numbers(&plan), [0, 0, 1, 0]);
        plan.settings.services[2].lists.deny = prefix("198.51.100.0/24");
        assert_eq!(numbers(&plan), [0, 0, 1, 1]);
        plan.settings.services[0].lists.except = prefix("198.51.100.0/24");
        assert_eq!(numbers(&plan), [1, 1, 2, 2]);
        assert_eq!(plan.lists().len(), 2);
        let by_service: Vec<u16> = plan.lists_by_service().iter().map(|one| one.0).collect();
        assert_eq!(by_service, [4, 9, 1]);
    }

    #[test]
    fn a_server_to_which_no_lan_leads_has_no_vip_in_the_programs() {
        let mut plan = two_services();
        plan.locations[0].server = ServerLocation::Absent;
        let vips = plan.vip_constants(WAN).into_iter();
        let addresses: Vec<_> = vips.map(|(vip, _)| vip.address).collect();
        assert_eq!(addresses, [[203, 0, 113, 9]]);
    }

    #[test]
    fn the_programs_for_one_vip_are_for_the_number_0_alone() {
        let mut plan = plan(vec![link(5, None)], vec![link(6, None)]);
        let xdp = |plan: &Plan| plan.attach_targets().last().map(|target| target.program);
        assert_eq!(xdp(&plan), Some("ikenat_xdp_lan"));
        plan.numbers[0].vips[0] = 1;
        assert_eq!(xdp(&plan), Some("ikenat_xdp_lan_several"));
        assert_eq!(plan.constants(Secret::default(), 8, WAN).several_vips, 1);
        assert_eq!(xdp(&two_services()), Some("ikenat_xdp_lan_several"));
    }
}
