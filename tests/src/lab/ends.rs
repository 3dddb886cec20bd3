//! Where the two ends of a tunnel are, and what they are called.

use std::net::Ipv4Addr;

use super::netns::Namespace;
use super::strongswan::{INNER_CLIENT, INNER_SERVER};
use super::topology::{CLIENT, Lab, SERVER, VIP};

const CONNECTION: &str = "demo";

/// Where the two daemons of a tunnel run.
#[derive(Clone, Copy, Debug)]
pub struct Ends<'lab> {
    /// Distinguishes the files and addresses of one tunnel in a lab from those of another.
    pub name: &'static str,
    /// The namespaces of the initiator and of the responder.
    pub namespaces: [&'lab Namespace; 2],
    /// Their addresses there.
    pub addresses: [Ipv4Addr; 2],
    /// The address at which the initiator finds the responder.
    pub responder: Ipv4Addr,
    /// Their addresses inside the tunnel.
    pub inner: [&'static str; 2],
}

impl<'lab> Ends<'lab> {
    /// Client and server of the lab.
    pub fn usual(lab: &'lab Lab) -> Self {
        Self {
            name: "",
            namespaces: [&lab.client, &lab.server],
            addresses: [CLIENT, SERVER],
            responder: VIP,
            inner: [INNER_CLIENT, INNER_SERVER],
        }
    }

    /// The name of the connection. A responder has one for each tunnel.
    pub(crate) fn connection(&self) -> String {
        format!("{}{CONNECTION}", self.name)
    }

    /// Who the peers say they are. A responder tells its clients apart by that.
    pub(crate) fn identities(&self) -> [String; 2] {
        [
            format!("{}client@{CONNECTION}", self.name),
            format!("server@{CONNECTION}"),
        ]
    }
}
