//! The far ends of our veths, and the network namespace that each is in: a container's side of the wire can be looked at
//! from here, a machine's cannot.
//!
//! It may not know what is good or bad.

use super::context::{A_CLIENT, Scene};
use crate::netlink::namespaces::{self, Namespace};
use crate::netlink::{Link, Route};
use std::collections::BTreeSet;
use std::fs::File;
use std::ops::ControlFlow;
use std::os::fd::AsFd as _;

/// The far end of a veth.
#[derive(Clone, Debug)]
pub(super) struct Far {
    /// Our end.
    pub(super) near: u32,
    /// Its name in its own namespace.
    pub(super) name: String,
    /// The offloads that are on.
    pub(super) features: BTreeSet<String>,
    /// What one types before a command to run it there; empty when that is here.
    pub(super) entry: String,
    /// True when it is in this network namespace.
    pub(super) here: bool,
    /// True when the server's address is one of that namespace.
    pub(super) has_server: bool,
    /// The route from there to the clients.
    pub(super) route_to_clients: Option<Route>,
}

/// Those that can be seen. Entering another namespace takes CAP_SYS_ADMIN.
pub(super) fn far_ends(scene: &Scene<'_>) -> Vec<Far> {
    let wanted: Vec<&Link> = scene
        .interfaces()
        .filter(|near| near.peer.is_some())
        .collect();
    let mut found = Vec::new();
    if wanted.is_empty() {
        return found;
    }
    let server = scene.subject.server;
    let visit = namespaces::visit(scene.netlink, |inside| {
        let number = File::open(inside.path)
            .ok()
            .and_then(|file| scene.netlink.namespace_id(file.as_fd()));
        for near in &wanted {
            if let Some(link) = far_end(near, number, inside) {
                let features = inside.netlink.features(&link.name).unwrap_or_default();
                let local = |address| {
                    inside
                        .netlink
                        .route(address)
                        .is_ok_and(|route| route == Route::Local)
                };
                let entry = if inside.own {
                    String::new()
                } else {
                    format!("nsenter --net={} ", inside.path.display())
                };
                found.push(Far {
                    near: near.index,
                    name: link.name,
                    features,
                    entry,
                    here: inside.own,
                    has_server: local(server),
                    route_to_clients: inside.netlink.route(A_CLIENT).ok(),
                });
            }
        }
        let enough = found.len() == wanted.len();
        Ok(if enough {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        })
    });
    if let Err(error) = visit {
        tracing::debug!("not all network namespaces were looked at: {error}");
    }
    found
}

/// The far end, if it is in that namespace, which has this number for ours. An index is not enough to know it by: every
/// namespace counts from 1.
fn far_end(near: &Link, number: Option<i32>, inside: &Namespace<'_>) -> Option<Link> {
    let peer = near.peer?;
    let is_there = match peer.namespace {
        None => inside.own,
        Some(namespace) => !inside.own && number == Some(namespace),
    };
    if !is_there {
        return None;
    }
    inside.netlink.link_by_index(peer.index).ok()
}
