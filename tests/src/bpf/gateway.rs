//! A gateway on the host with routes to the whole Internet, and the verdicts of its slow path in the
//! words of the golden table.

use std::net::Ipv4Addr;

use xdp_common::Config;
use xdp_common::config::mac_word;
use xdp_core::icmp::rate_limit::{self, Origin};
use xdp_core::neighbour::{Gateway as GatewayAddress, Neighbour};
use xdp_core::{FibResult, Side};

use super::fixture::{self, MTU};
use super::host::{self, Fib, Host, Tables};
use crate::lab::frames::icmp::{code, kind, quote};
use crate::lab::frames::{Icmp, Packet};
use crate::lab::topology::{CLIENT_MAC, GATEWAY_LAN, LAN_MAC, SERVER, SERVER_MAC, VIP, WAN_MAC};

/// A moment in jiffies.
pub const NOW: u64 = 1 << 20;

/// The gateway; its tables are empty at first.
pub struct Gateway {
    /// The tables.
    pub tables: Tables,
    config: Config,
    peer: u32,
    has_neighbours: bool,
}

impl Default for Gateway {
    fn default() -> Self {
        Self::new(fixture::config())
    }
}

impl Gateway {
    fn new(config: Config) -> Self {
        Self {
            tables: Tables::new(&config),
            config,
            peer: u32::from(Ipv4Addr::new(100, 64, 0, 0)),
            has_neighbours: false,
        }
    }

    /// With the MAC addresses of all neighbours, which XDP needs, and its fast path.
    pub fn with_neighbours() -> Self {
        Self {
            has_neighbours: true,
            ..Self::default()
        }
    }

    /// With this many buckets of FLOW.
    pub fn with_flow_buckets(buckets: u32) -> Self {
        Self::with_sizes(buckets, 256)
    }

    /// With so many buckets of FLOW and of SESSION.
    pub fn with_sizes(flow_buckets: u32, session_buckets: u32) -> Self {
        let config = super::with_sizes(fixture::config(), flow_buckets, session_buckets);
        Self::new(config)
    }

    /// With sessions in all slots of SESSION, of which half may be live otherwise.
    pub fn with_a_session_in_every_slot() -> Self {
        let mut config = super::with_sizes(fixture::config(), 1 << 12, 256);
        config.session_limit *= 2;
        Self::new(config)
    }

    /// For a VIP that belongs to the server alone (`--dedicated`).
    pub fn dedicated() -> Self {
        let mut config = fixture::config();
        config.vip.dedicated = 1;
        Self::new(config)
    }

    /// An address of a client that has not been used before.
    pub fn next_peer(&mut self) -> Ipv4Addr {
        self.peer += 1;
        Ipv4Addr::from(self.peer)
    }

    /// A handshake of IKEv2 on port 500, as far as it makes a peer established.
    ///
    /// # Panics
    /// It does not.
    pub fn establish_by_ike(&self, peer: Ipv4Addr) {
        let message = |kind: [u8; 4], id: u32| {
            let [id, length] = [id, 40].map(u32::to_be_bytes);
            // The server chooses another SPI for each of them.
            let spis = [&b"initiatoresp"[..], &peer.octets()].concat();
            [&spis[..], &kind, &id, &length, &[0x55; 12]].concat()
        };
        // RFC 7296 section 1.2: the response of IKE_SA_INIT begins with SA, IKE_AUTH with SK.
        let reply = message([33, 0x20, 34, 0x20], 0);
        self.outbound(500, (peer, 500), &reply, NOW);
        let next = message([46, 0x20, 35, 0x08], 1);
        let verdict = self.inbound((peer, 500), 500, &next, NOW);
        assert_eq!(verdict, "forward ike in", "{peer} is not established");
    }

    /// The verdict on a packet, in the words of the golden table. The default route leads to the
    /// WAN, for every address but those of the server's network.
    pub fn verdict(&self, side: Side, packet: &Packet, jiffies: u64) -> String {
        self.verdict_and_copies(side, &packet.build(), jiffies).0
    }

    /// The same, and how many copies the host's own stack gets.
    pub fn verdict_and_copies(&self, side: Side, frame: &[u8], jiffies: u64) -> (String, u32) {
        self.with_fib(|fib| {
            let gateway = Host::<true>::new(&self.tables, fib, jiffies);
            let verdict = gateway.run_and_answer(&self.config, side, &mut frame.to_vec());
            (host::word(verdict), gateway.copies())
        })
    }

    /// The verdict of XDP.
    pub fn verdict_in_xdp(&self, side: Side, packet: &Packet, jiffies: u64) -> String {
        self.with_fib(|fib| {
            let gateway = Host::<false>::new(&self.tables, fib, jiffies);
            host::word(gateway.run(&self.config, side, &mut packet.build()))
        })
    }

    /// The verdict of the egress program on what the host sends.
    pub fn sent_by_host(&self, packet: &Packet, jiffies: u64) -> String {
        self.with_fib(|fib| {
            let gateway = Host::<true, true>::new(&self.tables, fib, jiffies);
            host::word(gateway.run(&self.config, Side::Out, &mut packet.build()))
        })
    }

    fn with_fib<T>(&self, run: impl FnOnce(&Fib<'_>) -> T) -> T {
        run(&|_: [u8; 4], destination: [u8; 4], length: u16| {
            if length > MTU {
                return FibResult::TooBig(MTU);
            }
            if destination == VIP.octets() || destination == GATEWAY_LAN.octets() {
                return FibResult::NotForwarded;
            }
            let (ifindex, router, mac) = if destination[..3] == SERVER.octets()[..3] {
                (self.config.lan_ifindex, SERVER_MAC, LAN_MAC)
            } else {
                (self.config.wan_ifindex, CLIENT_MAC, WAN_MAC)
            };
            let gateway = GatewayAddress::v4(destination);
            if self.has_neighbours {
                FibResult::Neighbour(Neighbour {
                    ifindex,
                    gateway,
                    destination: mac_word(router),
                    source: mac_word(mac),
                    mtu: MTU,
                })
            } else {
                FibResult::Unresolved { ifindex, gateway }
            }
        })
    }

    /// Whether one more ICMP error about a peer may pass now.
    pub fn allows_error(&self, peer: Ipv4Addr, origin: Origin) -> bool {
        let fib = |_: [u8; 4], _: [u8; 4], _: u16| FibResult::NoRoute;
        let host = Host::<true>::new(&self.tables, &fib, NOW);
        rate_limit::allow(&host, &self.config, (0, peer.octets()), origin, NOW)
    }

    /// A datagram from a client to the VIP.
    pub fn inbound(
        &self,
        peer: (Ipv4Addr, u16),
        port: u16,
        payload: &[u8],
        jiffies: u64,
    ) -> String {
        let packet = Packet::udp(peer, (VIP, port), payload).with_macs(WAN_MAC, CLIENT_MAC);
        self.verdict(Side::Wan, &packet, jiffies)
    }

    /// A datagram from the server to a client.
    pub fn outbound(
        &self,
        port: u16,
        peer: (Ipv4Addr, u16),
        payload: &[u8],
        jiffies: u64,
    ) -> String {
        let packet = Packet::udp((SERVER, port), peer, payload).with_macs(LAN_MAC, SERVER_MAC);
        self.verdict(Side::Lan, &packet, jiffies)
    }
}

/// A packet of a client to the VIP, with this many bytes in UDP.
pub fn from_client(peer: Ipv4Addr, payload: usize) -> Packet {
    let payload = vec![0x77; payload];
    Packet::udp((peer, 4500), (VIP, 4500), payload).with_macs(WAN_MAC, CLIENT_MAC)
}

/// A packet of the server to a client, likewise.
pub fn from_server(peer: Ipv4Addr, payload: usize) -> Packet {
    let payload = vec![0x77; payload];
    Packet::udp((SERVER, 4500), (peer, 4500), payload).with_macs(LAN_MAC, SERVER_MAC)
}

/// An error about a packet of the server, reported by whoever it is.
pub fn forged_error(peer: Ipv4Addr, reporter: Ipv4Addr) -> Packet {
    let quoted = quote(&Packet::udp((VIP, 4500), (peer, 4500), [1; 40]), 8);
    let error = Icmp::new(kind::UNREACHABLE, code::HOST, quoted);
    Packet::icmp(reporter, VIP, &error).with_macs(WAN_MAC, CLIENT_MAC)
}
