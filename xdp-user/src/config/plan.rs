//! The plan of an instance: its settings, the interfaces of this host that they name, and the
//! load-time constants of the programs that follow from both. `validate.rs` makes a plan of
//! settings.

use crate::config::interfaces::{Interface, Side};
use crate::config::location::{ServerLocation, ServiceLocation, VipLocation};
use crate::config::macvlans::{Macs, Macvlan};
use crate::config::numbers::ServiceNumbers;
use crate::config::settings::{Mode, Settings, Sizes};
use crate::netlink::Link;
use std::net::Ipv4Addr;
use xdp_common::{Config, Secret, limits, slot};

/// Settings that fit this host, and the interfaces that they name.
#[derive(Clone, Debug)]
pub struct Plan {
    /// What was asked for.
    pub settings: Settings,
    /// The WANs in the order of the settings; those that do not exist are [`Link::absent`]. One at
    /// least exists.
    pub wans: Vec<Link>,
    /// The LANs likewise. There may be none, or none that exists, only if the server of a service is this
    /// host.
    pub lans: Vec<Link>,
    /// The macvlans on top of them that have a MAC address of their own.
    pub macvlans: Vec<Macvlan>,
    /// Where this host has each service, in the order of the settings.
    pub locations: Vec<ServiceLocation>,
    /// The numbers of the services and of their VIPs, likewise: from 0 on until a start has found
    /// those of the earlier one.
    pub numbers: Vec<ServiceNumbers>,
    /// The number of the network namespace that the interfaces are in.
    pub namespace: u64,
}

impl Plan {
    /// True when one interface is both the first WAN and the first LAN.
    pub fn is_one_armed(&self) -> bool {
        let first = |links: &[Link]| links.first().map(|link| link.name.clone());
        first(&self.wans) == first(&self.lans)
    }

    /// Whether the server of any service is behind a LAN.
    pub fn has_lan_servers(&self) -> bool {
        let mut servers = self.locations.iter().map(|one| one.server);
        servers.any(|server| server != ServerLocation::Here)
    }

    /// Whether the server of any service is this host.
    pub fn has_local_server(&self) -> bool {
        let mut servers = self.locations.iter().map(|one| one.server);
        servers.any(|server| server == ServerLocation::Here)
    }

    /// The VIPs with their locations.
    pub fn vips(&self) -> impl Iterator<Item = (Ipv4Addr, VipLocation)> {
        let services = self.settings.services.iter().zip(&self.locations);
        services
            .flat_map(|(service, location)| service.vips_v4().zip(location.vips.iter().copied()))
    }

    /// The same plan with some interfaces absent; `None` when no WAN is left, or when no LAN is left and
    /// no server is this host.
    pub fn without(&self, names: &[String]) -> Option<Self> {
        let mut plan = self.clone();
        for links in [&mut plan.wans, &mut plan.lans] {
            for link in links.iter_mut().filter(|link| names.contains(&link.name)) {
                *link = Link::absent(&link.name);
            }
        }
        let some = |links: &[Link]| links.iter().any(Link::exists);
        let leads_to_a_server = plan.has_local_server() || some(&plan.lans);
        (some(&plan.wans) && leads_to_a_server).then_some(plan)
    }

    /// The interface itself on its own side, and the first one that exists of the other side.
    pub(super) fn own_or_first(&self, interface: Interface, side: Side) -> Option<&Link> {
        let links = match side {
            Side::Wan => &self.wans,
            Side::Lan => &self.lans,
        };
        if interface.side == side {
            links.get(interface.number)
        } else {
            links.iter().find(|link| link.exists())
        }
    }

    /// Whether the programs of an interface are the same under another plan with the same settings.
    pub(crate) fn has_same_programs(&self, other: &Self, interface: Interface) -> bool {
        // Neither the key nor the tick rate depends on the plan.
        let constants = |plan: &Self| plan.constants(Secret::default(), 0, interface);
        let (one, another) = (constants(self), constants(other));
        bytemuck::bytes_of(&one) == bytemuck::bytes_of(&another)
            && self.is_one_armed() == other.is_one_armed()
    }

    /// The load-time constants of the programs of an interface.
    pub fn constants(&self, secret: Secret, tick_shift: u32, interface: Interface) -> Config {
        let buckets = |slots: u32| slots / u32::try_from(slot::WAYS).unwrap_or(1);
        let Sizes {
            flow_slots,
            session_slots,
        } = self.settings.sizes;
        let indexes = |links: &[Link]| {
            std::array::from_fn(|at| links.get(at).map_or(0, |link: &Link| link.index))
        };
        // Packets from other network namespaces of this host arrive with partial checksums (by a
        // virtual device, which has a kind), and generic XDP sees those of any device.
        let side = |side| {
            let link = self.own_or_first(interface, side);
            let generic = self.settings.modes.of(side) == Mode::Generic;
            let index = link.map_or(0, |link| link.index);
            let mac = link.and_then(|link| link.mac).unwrap_or_default();
            let partial = link.is_some_and(|link| link.kind.is_some() || generic);
            (index, mac, u8::from(partial))
        };
        let (wan_ifindex, wan_mac, wan_partial) = side(Side::Wan);
        let (lan_ifindex, lan_mac, lan_partial) = side(Side::Lan);
        let Macs { main, more } = self.macs_of(self.own_or_first(interface, interface.side));
        let uplinks = self.uplinks();
        let config = Config {
            secret,
            accepted_macs: more,
            wans: indexes(&self.wans),
            lans: indexes(&self.lans),
            uplinks: indexes(&uplinks),
            uplink_macvlans: self.indices_on(&uplinks),
            wan_macvlans: self.indices_on(&self.wans),
            lan_macvlans: self.indices_on(&self.lans),
            wan_ifindex,
            lan_ifindex,
            flow_mask: buckets(flow_slots) - 1,
            session_mask: buckets(session_slots) - 1,
            half_mask: limits::HALF_BUCKETS - 1,
            fragment_mask: limits::FRAGMENT_BUCKETS - 1,
            flow_limit: flow_slots / 2,
            session_limit: session_slots / 2,
            tick_shift,
            confirm_ticks: limits::NEIGHBOUR_CONFIRM_TICKS,
            wan_mac,
            lan_mac,
            main_mac: main,
            wan_partial,
            lan_partial,
            log: u8::from(self.settings.log_sessions),
            dry_run: u8::from(self.settings.dry_run),
            lists: u8::from(!self.lists().is_empty()),
            ..Config::ZERO
        };
        let vips = self.vip_constants(interface);
        // The settings have no address twice, and the numbers are all different.
        config.with_vips(&vips).unwrap_or(config)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::config::macvlans::{TooMany, Unknown};
    use crate::config::services::Service;
    use crate::config::settings::{Modes, Tc};

    pub(in crate::config) fn link(index: u8, kind: Option<&str>) -> Link {
        Link {
            index: index.into(),
            name: format!("x{index}"),
            mac: Some([2, 0, 0, 0, 0, index]),
            kind: kind.map(ToOwned::to_owned),
            ..Link::default()
        }
    }

    pub(in crate::config) fn plan(wans: Vec<Link>, lans: Vec<Link>) -> Plan {
        let names = |links: &[Link]| links.iter().map(|link| link.name.clone()).collect();
        Plan {
            settings: Settings {
                instance: "default".to_owned(),
                complete: true,
                wans: names(&wans),
                lans: names(&lans),
                services: vec![Service::new(
                    "default",
                    Ipv4Addr::new(203, 0, 113, 1),
                    Ipv4Addr::new(192, 168, 0, 1),
                )],
                modes: Modes {
                    wan: Mode::Native,
                    lan: Mode::Native,
                },
                dry_run: false,
                tc: Tc::Auto,
                sizes: Sizes {
                    flow_slots: 1024,
                    session_slots: 256,
                },
                idle_secs: 300,
                log_sessions: false,
                bpffs: None,
                group: None,
            },
            wans,
            lans,
            macvlans: Vec::new(),
            locations: vec![ServiceLocation {
                server: ServerLocation::ByLan {
                    lan: 0,
                    address: Ipv4Addr::new(192, 168, 0, 254),
                },
                vips: vec![VipLocation {
                    is_local: true,
                    wan: None,
                }],
            }],
            numbers: vec![ServiceNumbers {
                service: 0,
                vips: vec![0],
            }],
            namespace: 1,
        }
    }

    const WAN: Interface = Interface {
        side: Side::Wan,
        number: 0,
    };
    const LAN_2: Interface = Interface {
        side: Side::Lan,
        number: 1,
    };

    #[test]
    fn the_constants_fit_the_tables() {
        let plan = plan(vec![link(5, None)], vec![link(6, Some("veth"))]);
        let constants = plan.constants([7; 16], 8, WAN);
        assert_eq!((constants.flow_mask, constants.flow_limit), (255, 512));
        assert_eq!((constants.session_mask, constants.session_limit), (63, 128));
        assert_eq!((constants.wan_partial, constants.lan_partial), (0, 1));
        assert_eq!(constants.tick_shift, 8);
        assert_eq!(constants.vip.address, [203, 0, 113, 1]);
        assert_eq!(constants.vip.lan_address, [192, 168, 0, 254]);
    }

    #[test]
    fn each_interface_has_itself_and_the_first_of_the_other_side() {
        let lans = vec![link(6, Some("veth")), link(8, None)];
        let plan = plan(vec![link(5, None), link(7, None)], lans);
        let constants = plan.constants([7; 16], 8, LAN_2);
        assert_eq!(constants.wans, [5, 7, 0, 0]);
        assert_eq!(constants.lans, [6, 8, 0, 0]);
        assert_eq!((constants.wan_ifindex, constants.lan_ifindex), (5, 8));
        assert_eq!(constants.lan_mac, [2, 0, 0, 0, 0, 8]);
        assert_eq!((constants.wan_partial, constants.lan_partial), (0, 0));
        let constants = plan.constants([7; 16], 8, WAN);
        assert_eq!((constants.wan_ifindex, constants.lan_ifindex), (5, 6));
        assert_eq!(constants.lan_partial, 1);
    }

    #[test]
    fn an_absent_interface_keeps_its_place_and_is_no_first_one() {
        let wans = vec![Link::absent("x5"), link(7, None)];
        let plan = plan(wans, vec![link(6, None)]);
        let lan = Interface {
            side: Side::Lan,
            number: 0,
        };
        let constants = plan.constants([7; 16], 8, lan);
        assert_eq!(constants.wans, [0, 7, 0, 0]);
        assert_eq!((constants.wan_ifindex, constants.lan_ifindex), (7, 6));
        let planned: Vec<String> = plan
            .interfaces()
            .iter()
            .map(|(interface, _)| interface.to_string())
            .collect();
        assert_eq!(planned, ["wan2", "lan"]);
        assert_eq!(plan.absent(), ["x5"]);
    }

    /// A macvlan on top of the interface `lower`.
    fn on(lower: u32, index: u8, vrrp: bool) -> Macvlan {
        Macvlan {
            lower,
            index: index.into(),
            name: format!("v{index}"),
            mac: if vrrp {
                [0, 0, 0x5e, 0, 1, index]
            } else {
                [2, 0, 0, 0, 1, index]
            },
        }
    }

    #[test]
    fn macvlans_are_too_many_for_an_interface_or_for_a_side() {
        let plan_with = |macvlans: Vec<Macvlan>| Plan {
            macvlans,
            ..plan(
                vec![link(5, None), link(7, None)],
                vec![link(6, None), link(8, None)],
            )
        };
        let too_many = |number, known, what| TooMany {
            number,
            known,
            what,
        };
        let by_two = (20..29).map(|index| on(if index % 2 == 0 { 5 } else { 7 }, index, false));
        assert_eq!(
            plan_with(by_two.collect()).too_many_macvlans(),
            [too_many(9, 8, Unknown::Routes(Side::Wan))]
        );
        let by_one = |number: u8| (20..20 + number).map(|index| on(6, index, false)).collect();
        assert_eq!(plan_with(by_one(8)).too_many_macvlans(), []);
        assert_eq!(
            plan_with(by_one(9)).too_many_macvlans(),
            [
                too_many(9, 8, Unknown::Frames("x6".to_owned())),
                too_many(9, 8, Unknown::Routes(Side::Lan))
            ]
        );
        // The interface's own address takes a place in the list.
        let with_vrrp = (20..28).map(|index| on(8, index, index == 20));
        assert_eq!(
            plan_with(with_vrrp.collect()).too_many_macvlans(),
            [too_many(8, 7, Unknown::Frames("x8".to_owned()))]
        );
    }

    #[test]
    fn the_virtual_address_of_vrrp_takes_the_place_of_the_interfaces_own() {
        let mut plan = plan(vec![link(5, None)], vec![link(6, None)]);
        plan.macvlans = vec![on(5, 20, false), on(5, 21, true), on(6, 22, false)];
        let of = |interface| {
            let constants = plan.constants([7; 16], 8, interface);
            let macs = constants.accepted_macs.map(|mac| mac.to_le_bytes()[5]);
            (constants, macs)
        };
        let (constants, macs) = of(WAN);
        let [inbound, outbound] = constants.directions;
        assert_eq!(inbound.own_mac >> 56, 21, "frames are sent to it");
        assert_eq!(
            outbound.translation.source_mac >> 40,
            5,
            "the interface sends with its own"
        );
        assert_eq!(macs, [5, 20, 21, 0, 0, 0, 0, 0]);
        assert_eq!(constants.wan_macvlans, [20, 21, 0, 0, 0, 0, 0, 0]);
        assert_eq!(constants.lan_macvlans, [22, 0, 0, 0, 0, 0, 0, 0]);
        let (constants, macs) = of(Interface { number: 0, ..LAN_2 });
        assert_eq!(constants.directions[1].own_mac >> 56, 6);
        assert_eq!(macs, [22, 0, 0, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn interfaces_are_left_out_as_long_as_some_remain() {
        let wans = vec![link(5, None), link(7, None)];
        let mut plan = plan(wans, vec![link(6, None)]);
        let without = |names: &[&str]| {
            let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            plan.without(&names)
        };
        let one = without(&["x5"]).expect("a WAN and a LAN are left");
        assert_eq!(one.absent(), ["x5"]);
        assert_eq!(one.wans[1], link(7, None));
        assert!(without(&["x5", "x7"]).is_none());
        assert!(without(&["x6"]).is_none());
        // A server on this host needs no LAN.
        let here = ServiceLocation {
            server: ServerLocation::Here,
            vips: Vec::new(),
        };
        plan.locations.push(here);
        let one = plan.without(&["x6".to_owned()]).expect("a WAN is left");
        assert_eq!(one.absent(), ["x6"]);
        assert!(plan.without(&["x5".to_owned(), "x7".to_owned()]).is_none());
    }

    #[test]
    fn a_server_on_this_host_has_no_lan() {
        let constants = plan(vec![link(5, None)], Vec::new()).constants([7; 16], 8, WAN);
        assert_eq!((constants.lan_ifindex, constants.lan_mac), (0, [0; 6]));
    }
}
