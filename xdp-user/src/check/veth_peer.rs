//! The peers of veth interfaces, and the network namespaces that they are in. A container's end of a
//! veth can be inspected from this host; the far end of a cable cannot.

use super::context::Context;
use crate::config::client_routes::EXAMPLE_CLIENT;
use crate::config::commands::{quoted, quoted_path};
use crate::netlink::namespaces::{self, Namespace};
use crate::netlink::{Link, Route};
use std::collections::BTreeSet;
use std::fs::File;
use std::ops::ControlFlow;
use std::os::fd::AsFd as _;

/// The peer of a veth.
#[derive(Clone, Debug)]
pub(super) struct VethPeer {
    /// Index of the interface of this host.
    pub(super) interface: u32,
    /// Name of the peer in its own namespace.
    pub(super) name: String,
    /// The offloads that are on.
    pub(super) features: BTreeSet<String>,
    /// The prefix of a command that has to run in the peer's namespace; empty for this namespace.
    pub(super) nsenter: String,
    /// True when the peer is in this network namespace.
    pub(super) same_namespace: bool,
    /// True when the server's address is one of the peer's namespace.
    pub(super) has_server: bool,
    /// The route from the peer's namespace to the clients.
    pub(super) route_to_clients: Option<Route>,
}

impl VethPeer {
    /// The command that sets an offload of the peer.
    pub(super) fn command(&self, offload: &str) -> String {
        format!(
            "{}ethtool -K {} {offload}",
            self.nsenter,
            quoted(&self.name)
        )
    }
}

/// The peers of the interfaces that can be inspected. To enter another namespace needs
/// CAP_SYS_ADMIN.
pub(super) fn find(context: &Context<'_>) -> Vec<VethPeer> {
    let veths: Vec<&Link> = context
        .interfaces()
        .filter(|link| link.peer.is_some())
        .collect();
    let mut found = Vec::new();
    if veths.is_empty() {
        return found;
    }
    let visit = namespaces::visit(context.netlink, |namespace| {
        let id = File::open(namespace.path)
            .ok()
            .and_then(|file| context.netlink.namespace_id(file.as_fd()));
        for veth in &veths {
            if let Some(peer) = peer(veth, id, namespace) {
                found.push(inspect(context, veth, peer, namespace));
            }
        }
        Ok(if found.len() == veths.len() {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        })
    });
    if let Err(error) = visit {
        tracing::debug!("network namespaces: not all could be inspected: {error}");
    }
    found
}

/// The peer, if it is in the namespace that has this id. Its index alone does not identify it:
/// every namespace counts from 1.
fn peer(veth: &Link, id: Option<i32>, namespace: &Namespace<'_>) -> Option<Link> {
    let peer = veth.peer?;
    let is_there = match peer.namespace {
        None => namespace.own,
        Some(wanted) => !namespace.own && id == Some(wanted),
    };
    if !is_there {
        return None;
    }
    namespace.netlink.link_by_index(peer.index).ok()
}

fn inspect(context: &Context<'_>, veth: &Link, peer: Link, namespace: &Namespace<'_>) -> VethPeer {
    let netlink = namespace.netlink;
    let nsenter = if namespace.own {
        String::new()
    } else {
        format!("nsenter --net={} ", quoted_path(namespace.path))
    };
    let to_server = netlink.route(context.server);
    VethPeer {
        interface: veth.index,
        features: netlink.features(&peer.name).unwrap_or_default(),
        name: peer.name,
        nsenter,
        same_namespace: namespace.own,
        has_server: to_server.is_ok_and(|route| route == Route::Local),
        route_to_clients: netlink.route(EXAMPLE_CLIENT).ok(),
    }
}
