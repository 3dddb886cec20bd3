//! The direction of a packet, as seen from the gateway.

use std::net::Ipv4Addr;

use serde::Deserialize;

use super::topology::{GATEWAY_LAN, VIP};

/// The direction of a packet.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
pub enum Direction {
    /// From a client to the server.
    #[serde(rename = "in")]
    Inbound,
    /// From the server to a client.
    #[serde(rename = "out")]
    Outbound,
}

impl Direction {
    /// Both directions.
    pub const BOTH: [Self; 2] = [Self::Inbound, Self::Outbound];

    /// The source address of the gateway's own ICMP errors about such a packet: one that the
    /// sender expects.
    pub const fn answers_from(self) -> Ipv4Addr {
        match self {
            Self::Inbound => VIP,
            Self::Outbound => GATEWAY_LAN,
        }
    }
}
