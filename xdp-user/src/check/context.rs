//! What all conditions look at: the interfaces, addresses and namespaces of this host, asked for once.
//!
//! It may not know what is good or bad.

use super::veth_peer::{self, Far};
use crate::bpffs::layout::{self, Instance};
use crate::config::settings::Settings;
use crate::error::Result;
use crate::netlink::address::Address;
use crate::netlink::{Link, Netlink, Route};
use crate::sys::capabilities;
use crate::tables::snapshot::Snapshot;
use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::path::PathBuf;

/// An address that stands for the clients: of a network that no host is in (RFC 5737), so the way to it is the default
/// route unless somebody has given it one of its own.
pub(super) const A_CLIENT: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);

/// This host, as seen from the network namespace of this process.
pub(super) struct Scene<'a> {
    pub(super) subject: &'a Settings,
    pub(super) netlink: &'a Netlink,
    /// The interfaces of the subject that exist: WANs.
    pub(super) wans: Vec<Link>,
    /// LANs.
    pub(super) lans: Vec<Link>,
    pub(super) links: Vec<Link>,
    pub(super) addresses: Vec<Address>,
    /// The far ends of veths, where they can be seen.
    pub(super) far: Vec<Far>,
    /// True when the capabilities suffice to load a program.
    pub(super) privileged: bool,
    pub(super) bpffs: Option<PathBuf>,
    /// The instance of this VIP and its tables, where it exists.
    pub(super) instance: Option<(Instance, Option<Snapshot>)>,
}

impl<'a> Scene<'a> {
    pub(super) fn of(subject: &'a Settings, netlink: &'a Netlink) -> Result<Self> {
        let links = netlink.links()?;
        let named = |names: &[String]| -> Vec<Link> {
            let find = |name: &String| links.iter().find(|link| link.name == *name).cloned();
            names.iter().filter_map(find).collect()
        };
        let (wans, lans) = (named(&subject.wans), named(&subject.lans));
        let bpffs = layout::bpffs(subject.bpffs.as_deref()).ok();
        let instance = bpffs
            .as_ref()
            .map(|bpffs| Instance::of(bpffs, subject.vip))
            .filter(Instance::is_used)
            .map(|instance| {
                let snapshot = Snapshot::take(&instance.directory, instance.vip).ok();
                (instance, snapshot)
            });
        let mut scene = Self {
            subject,
            netlink,
            wans,
            lans,
            addresses: netlink.addresses()?,
            links,
            far: Vec::new(),
            privileged: capabilities::check().is_ok(),
            bpffs,
            instance,
        };
        scene.far = veth_peer::far_ends(&scene);
        Ok(scene)
    }

    /// Each interface once, also where one is both.
    pub(super) fn interfaces(&self) -> impl Iterator<Item = &Link> {
        let mut seen = BTreeSet::new();
        let both = self.wans.iter().chain(&self.lans);
        both.filter(move |link| seen.insert(link.index))
    }

    /// Those that are WAN and LAN at once.
    pub(super) fn one_armed(&self) -> impl Iterator<Item = &Link> {
        let is_lan = |wan: &&Link| self.lans.iter().any(|lan| lan.index == wan.index);
        self.wans.iter().filter(is_lan)
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

    /// The gateway's address in the server's network, or any of the LAN.
    pub(super) fn lan_address(&self) -> Option<Ipv4Addr> {
        let on_lan = |one: &&Address| self.lans.iter().any(|lan| lan.index == one.index);
        let near = self.addresses.iter().filter(on_lan);
        let near: Vec<&Address> = near.collect();
        let best = near.iter().find(|one| one.is_on_link(self.subject.server));
        best.or(near.first()).map(|one| one.address)
    }

    /// The route of replies to clients.
    pub(super) fn route_to_clients(&self) -> io::Result<Route> {
        if self.is_local(self.subject.vip) {
            self.netlink.route_from(self.subject.vip, A_CLIENT)
        } else {
            self.netlink.route(A_CLIENT)
        }
    }
}

/// A file of one line under /proc/sys; `None` where there is none.
pub(super) fn sysctl(path: &str) -> Option<i64> {
    let text = fs::read_to_string(format!("/proc/sys/{path}")).ok()?;
    text.trim().parse().ok()
}
