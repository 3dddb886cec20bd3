//! What the checks share: interfaces, addresses, veth peers and the running instance, read once.

use super::veth_peer::{self, VethPeer};
use crate::bpffs::layout::{self, Instance};
use crate::bpffs::older::{self, Older};
use crate::config::client_routes::{ClientRoutes, EXAMPLE_CLIENT, Replies, Unrouted};
use crate::config::location::{Network, ServerLocation};
use crate::config::macvlans::{self, Macvlan};
use crate::config::services::Service;
use crate::config::settings::Settings;
use crate::config::vip_route::VipRoutes;
use crate::error::Result;
use crate::netlink::address::Address;
use crate::netlink::{Link, Netlink, Route};
use crate::report;
use crate::sys::{capabilities, netns};
use crate::tables::overview::Overview;
use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::path::PathBuf;

/// This host, as seen from the network namespace of this process.
pub(super) struct Context<'a> {
    pub(super) settings: &'a Settings,
    /// The VIP at hand ...
    pub(super) vip: Ipv4Addr,
    /// ... and its server.
    pub(super) server: Ipv4Addr,
    pub(super) netlink: &'a Netlink,
    /// The WANs of the settings that exist.
    pub(super) wans: Vec<Link>,
    /// The LANs of the settings that exist.
    pub(super) lans: Vec<Link>,
    pub(super) links: Vec<Link>,
    /// The macvlans on top of WANs and LANs.
    macvlans: Vec<Macvlan>,
    pub(super) addresses: Vec<Address>,
    /// The peers of the veths among them, as far as they can be inspected.
    pub(super) veth_peers: Vec<VethPeer>,
    /// True when the capabilities are sufficient to load a program.
    pub(super) privileged: bool,
    pub(super) bpffs: Option<PathBuf>,
    /// The instance of this name, if it exists, and its tables, if they can be read.
    pub(super) instance: Option<(Instance, Option<Overview>)>,
    /// The instance of an older version that a start with these settings takes over.
    pub(super) older: Option<Older>,
    /// Where the servers are, as far as they are found: not those to which no LAN leads.
    servers: Vec<ServerLocation>,
    /// The numbers of the WANs that have a VIP.
    uplinks: BTreeSet<usize>,
    to_clients: VipRoutes<'a>,
}

impl<'a> Context<'a> {
    pub(super) fn of(settings: &'a Settings, netlink: &'a Netlink) -> Result<Self> {
        let links = netlink.links()?;
        let named = |names: &[String]| -> Vec<Link> {
            let find = |name: &String| links.iter().find(|link| link.name == *name).cloned();
            names.iter().filter_map(find).collect()
        };
        let (wans, lans) = (named(&settings.wans), named(&settings.lans));
        let macvlans = macvlans::on_top(&links, &[&wans[..], &lans].concat());
        let bpffs = layout::bpffs(settings.bpffs.as_deref()).ok();
        let instance = bpffs
            .as_ref()
            .map(|bpffs| Instance::of(bpffs, &settings.instance))
            .filter(|instance| instance.check_place().is_ok() && instance.is_used())
            .map(|instance| {
                let overview = report::instance::read(&instance).ok();
                (instance, overview)
            });
        let mut context = Self {
            settings,
            vip: settings.vips().next().unwrap_or(Ipv4Addr::UNSPECIFIED),
            server: settings.servers().next().unwrap_or(Ipv4Addr::UNSPECIFIED),
            netlink,
            wans,
            lans,
            addresses: netlink.addresses()?,
            macvlans,
            links,
            veth_peers: Vec::new(),
            privileged: capabilities::check().is_ok(),
            bpffs,
            instance,
            older: older(settings),
            servers: Vec::new(),
            uplinks: BTreeSet::new(),
            to_clients: VipRoutes::to(netlink, EXAMPLE_CLIENT),
        };
        let network = context.network();
        let located = settings
            .servers()
            .map(|server| network.server(netlink, server));
        context.servers = located.filter_map(Result::ok).collect();
        let owner = |vip| context.network().owner(&context.addresses, vip);
        let owners = settings.vips().filter_map(owner);
        context.uplinks = owners.map(|wan| wan.number).collect();
        context.veth_peers = veth_peer::find(&context);
        Ok(context)
    }

    /// Turns to another VIP.
    pub(super) fn look_at(&mut self, vip: Ipv4Addr, server: Ipv4Addr) {
        self.vip = vip;
        if self.server != server {
            self.server = server;
            self.veth_peers = veth_peer::find(self);
        }
    }

    fn network(&self) -> Network<'_> {
        Network {
            wans: &self.wans,
            lans: &self.lans,
            macvlans: &self.macvlans,
        }
    }

    /// Whether the server of any service is this host.
    pub(super) fn has_local_server(&self) -> bool {
        self.servers.contains(&ServerLocation::Here)
    }

    /// Whether the servers of all services are this host.
    pub(super) fn has_only_local_servers(&self) -> bool {
        let mut servers = self.settings.servers();
        servers.all(|server| self.is_local(server))
    }

    /// Whether the server of any service is found. Then `run` leaves the packets of the others to this
    /// host until a LAN leads to theirs.
    pub(super) fn any_server_found(&self) -> bool {
        !self.servers.is_empty()
    }

    /// The WAN with the VIP at hand or with a network around it; the first one, if there is none.
    pub(super) fn wan_of_vip(&self) -> Option<&Link> {
        let owner = self.network().owner(&self.addresses, self.vip);
        let owner = owner.and_then(|wan| self.wans.get(wan.number));
        owner.or(self.wans.first())
    }

    /// The name of the LAN in whose network the server at hand is; of the first one, if there is none.
    /// `None`: no LAN exists, so no command about one works yet.
    pub(super) fn lan_of_server(&self) -> Option<&str> {
        let near = |lan: &&Link| {
            let mut addresses = self
                .addresses
                .iter()
                .filter(|one| one.is_on_link(self.server));
            addresses.any(|one| macvlans::lower_of(&self.macvlans, one.index) == lan.index)
        };
        let found = self.lans.iter().find(near).or(self.lans.first());
        found.map(|lan| lan.name.as_str())
    }

    /// Whether an interface is one of `links`, or a macvlan on top of one.
    pub(super) fn is_by(&self, links: &[Link], index: u32) -> bool {
        let lower = macvlans::lower_of(&self.macvlans, index);
        links.iter().any(|link| link.index == lower)
    }

    /// WANs and LANs, each interface once.
    pub(super) fn interfaces(&self) -> impl Iterator<Item = &Link> {
        let mut seen = BTreeSet::new();
        let both = self.wans.iter().chain(&self.lans);
        both.filter(move |link| seen.insert(link.index))
    }

    /// The interfaces that are both WAN and LAN.
    pub(super) fn one_armed(&self) -> impl Iterator<Item = &Link> {
        let is_lan = |wan: &&Link| self.lans.iter().any(|lan| lan.index == wan.index);
        self.wans.iter().filter(is_lan)
    }

    /// The peer of a veth, if it can be inspected.
    pub(super) fn veth_peer(&self, link: &Link) -> Option<&VethPeer> {
        let mut peers = self.veth_peers.iter();
        peers.find(|peer| peer.interface == link.index)
    }

    /// The name of an interface.
    pub(super) fn name(&self, index: u32) -> String {
        let found = self.links.iter().find(|link| link.index == index);
        found.map_or_else(|| format!("interface {index}"), |link| link.name.clone())
    }

    pub(super) fn is_local(&self, address: Ipv4Addr) -> bool {
        self.netlink
            .route(address)
            .is_ok_and(|route| route == Route::Local)
    }

    /// The gateway's address in the server's network, or else any address of a LAN.
    pub(super) fn lan_address(&self) -> Option<Ipv4Addr> {
        let on_lan = |one: &&Address| self.lans.iter().any(|lan| lan.index == one.index);
        let near = self.addresses.iter().filter(on_lan);
        let near: Vec<&Address> = near.collect();
        let best = near.iter().find(|one| one.is_on_link(self.server));
        best.or(near.first()).map(|one| one.address)
    }

    /// The route of replies to clients, as the host has it.
    pub(super) fn route_to_clients(&self) -> io::Result<Route> {
        self.client_routes().of_host(self.replies(self.vip))
    }

    /// Whether replies to clients would leave by an interface if it had the default route of the main table.
    pub(super) fn would_leave_by(&self, index: u32) -> bool {
        self.client_routes()
            .would_leave_by(self.replies(self.vip), index)
    }

    /// The interface by which replies from the VIP leave because it is of the WAN that has the VIP; `None`:
    /// the route of the host decides.
    pub(super) fn wan_to_clients(&self) -> Result<Option<&str>, Unrouted> {
        self.wan_from(self.vip)
    }

    /// The same for any VIP.
    pub(super) fn wan_from(&self, vip: Ipv4Addr) -> Result<Option<&str>, Unrouted> {
        self.client_routes().of_vip(self.replies(vip))
    }

    fn client_routes(&self) -> ClientRoutes<'_> {
        ClientRoutes {
            network: self.network(),
            names: self.settings.wans.iter().map(String::as_str).collect(),
            uplinks: &self.uplinks,
            routes: &self.to_clients,
        }
    }

    fn replies(&self, vip: Ipv4Addr) -> Replies {
        let network = self.network();
        let has_it = |service: &&Service| service.vips_v4().any(|one| one == vip);
        let service = self.settings.services.iter().find(has_it);
        let address = service.and_then(Service::server_v4);
        let server = address.and_then(|server| network.server(self.netlink, server).ok());
        Replies {
            vip,
            location: network.vip(self.netlink, &self.addresses, vip),
            server: server.unwrap_or(ServerLocation::Absent),
            server_address: address.unwrap_or(vip),
        }
    }
}

fn older(settings: &Settings) -> Option<Older> {
    let bpffs = layout::bpffs(settings.bpffs.as_deref()).ok()?;
    let own = Instance::of(&bpffs, &settings.instance);
    let found = older::to_take_over(&own, settings, netns::own().ok()?);
    found.filter(|older| !older.is_spent)
}

/// A number under /proc/sys; `None` when it cannot be read.
pub(super) fn sysctl(path: &str) -> Option<i64> {
    let text = fs::read_to_string(format!("/proc/sys/{path}")).ok()?;
    text.trim().parse().ok()
}
