//! One server behind two VIPs, each on an uplink of its own: its replies leave from the VIP, and by the
//! uplink, that the peer uses; and whoever forges addresses does not change that for long.
//!
//! The packets go through the packet logic on the host, in XDP and in tc.

#[path = "pins/connections.rs"]
mod connections;
#[path = "pins/errors.rs"]
mod errors;
#[path = "pins/forged.rs"]
mod forged;
#[path = "pins/forged_segments.rs"]
mod forged_segments;
#[path = "pins/messages.rs"]
mod messages;
#[path = "pins/routes.rs"]
mod routes;
#[path = "pins/services.rs"]
mod services;

use ikenat_tests::bpf::fixture::{self, PEER, Services, VIP_2};
use ikenat_tests::bpf::gateway::NOW;
use ikenat_tests::bpf::host::{Host, Rules, Tables, word};
use ikenat_tests::lab::frames::icmp::{code, kind, quote};
use ikenat_tests::lab::frames::{Icmp, Packet, protocol};
use ikenat_tests::lab::topology::{CLIENT_MAC, LAN_MAC, SERVER, SERVER_MAC, VIP, WAN_MAC};
use messages::{KEEPALIVE, Message, esp, ike, natt};
use std::cell::Cell;
use std::net::Ipv4Addr;
use xdp_common::config::mac_word;
use xdp_common::slot::session;
use xdp_common::vips::{Egress, Translation};
use xdp_common::{Config, Hook};
use xdp_core::neighbour::{Gateway, Neighbour};
use xdp_core::{FibQuery, FibResult, Side};

/// The index of the second uplink.
const WAN_2: u32 = 5;
const WAN_2_MAC: [u8; 6] = [2, 0, 0, 0, 5, 1];
/// The provider's router on each uplink.
const ROUTERS: [[u8; 6]; 2] = [[2, 0, 0, 0, 1, 254], [2, 0, 0, 0, 5, 254]];
/// A tick.
const TICK: u64 = 1 << 8;

/// The gateway.
struct Uplinks {
    hook: Hook,
    config: Config,
    tables: Tables,
    now: u64,
    /// The message ID of the peer's last request, in whatever IKE SA.
    message_id: Cell<u32>,
}

/// A route to the destination of a query by this egress and router.
fn to_neighbour((ifindex, mac): (u32, [u8; 6]), router: [u8; 6], query: &FibQuery) -> FibResult {
    FibResult::Neighbour(Neighbour {
        ifindex,
        gateway: Gateway::v4(query.destination),
        destination: mac_word(router),
        source: mac_word(mac),
        mtu: fixture::MTU,
    })
}

impl Uplinks {
    fn new(hook: Hook) -> Self {
        let mut config = fixture::config();
        config.wans[1] = WAN_2;
        let mut config = Services::Many.of(config);
        let by_wan_2 = Egress {
            ifindex: WAN_2,
            mac: WAN_2_MAC,
            word: 1,
        };
        let second = &config.vips.vips[1];
        config.vips.translations[1][1] =
            Translation::new(second, true, by_wan_2, config.tick_shift);
        config.vips.vips[0].wan = config.wan_ifindex;
        config.vips.vips[1].wan = WAN_2;
        config.uplinks = config.wans;
        Self {
            hook,
            config,
            tables: Tables::new(&config),
            now: NOW,
            message_id: Cell::new(0),
        }
    }

    /// On both hooks.
    fn both(test: impl Fn(Self)) {
        for hook in [Hook::Xdp, Hook::Tc] {
            test(Self::new(hook));
        }
    }

    fn forget(&mut self) {
        self.tables = Tables::new(&self.config);
    }

    fn run(&self, side: Side, frame: Vec<u8>) -> (String, Vec<u8>, Vec<FibQuery>) {
        self.run_with(&|_| None, side, frame)
    }

    /// The same with rules that come before the usual routes.
    fn run_with(
        &self,
        rules: &Rules<'_>,
        side: Side,
        mut frame: Vec<u8>,
    ) -> (String, Vec<u8>, Vec<FibQuery>) {
        // Both uplinks have a default route, and that of the first one has the smaller metric.
        let by_second = |query: &FibQuery| {
            (query.egress == WAN_2).then(|| to_neighbour((WAN_2, WAN_2_MAC), ROUTERS[1], query))
        };
        let rules = |query: &FibQuery| rules(query).or_else(|| by_second(query));
        let rules: &Rules<'_> = &rules;
        let fib = |source: [u8; 4], destination: [u8; 4], length: u16| {
            let query = FibQuery::without_ports((source, destination), (0, 0), length);
            if matches!(destination[0], 192 | 10) {
                to_neighbour((self.config.lan_ifindex, LAN_MAC), SERVER_MAC, &query)
            } else {
                to_neighbour((self.config.wan_ifindex, WAN_MAC), ROUTERS[0], &query)
            }
        };
        match self.hook {
            Hook::Xdp => {
                let host = Host::<false>::new(&self.tables, &fib, self.now).with_rules(rules);
                let verdict = host.run(&self.config, side, &mut frame);
                (word(verdict), frame, host.questions())
            }
            Hook::Tc | Hook::Egress => {
                let host = Host::<true>::new(&self.tables, &fib, self.now).with_rules(rules);
                let verdict = host.run(&self.config, side, &mut frame);
                (word(verdict), frame, host.questions())
            }
        }
    }

    /// What the peer sends to a VIP, from the same port.
    fn peer_sends(&self, vip: Ipv4Addr, port: u16, payload: &[u8]) {
        let packet = Packet::udp((PEER, port), (vip, port), payload);
        let (word, frame, _) = self.run(Side::Wan, packet.with_macs(WAN_MAC, CLIENT_MAC).build());
        assert!(word.starts_with("forward"), "{word}");
        assert_eq!(frame[30..34], SERVER.octets(), "the server gets it");
    }

    /// The VIP from which what the server sends to the peer leaves.
    fn server_sends(&self, port: u16, payload: &[u8]) -> Ipv4Addr {
        self.vip_of(&Packet::udp((SERVER, port), (PEER, port), payload))
    }

    fn vip_of(&self, packet: &Packet) -> Ipv4Addr {
        let packet = packet.clone().with_macs(LAN_MAC, SERVER_MAC);
        self.vip_of_frame(packet.build())
    }

    fn vip_of_frame(&self, frame: Vec<u8>) -> Ipv4Addr {
        let (word, frame, _) = self.run(Side::Lan, frame);
        assert!(word.starts_with("forward"), "{word}");
        let [a, b, c, d] = [26, 27, 28, 29].map(|at| frame[at]);
        let vip = Ipv4Addr::new(a, b, c, d);
        if self.hook == Hook::Xdp {
            let (router, mac) = if vip == VIP_2 {
                (ROUTERS[1], WAN_2_MAC)
            } else {
                (ROUTERS[0], WAN_MAC)
            };
            assert_eq!(frame[..12], [router, mac].concat(), "the uplink of {vip}");
        }
        vip
    }

    /// The first two messages of IKEv2 by a VIP, and an encrypted request and its response.
    fn handshake(&self, vip: Ipv4Addr, initiator: u8) {
        self.peer_sends(vip, 500, &ike(initiator, Message::InitRequest));
        assert_eq!(
            self.server_sends(500, &ike(initiator, Message::InitResponse)),
            vip
        );
        self.exchange(vip, initiator);
    }

    /// The next encrypted request by a VIP and its response.
    fn exchange(&self, vip: Ipv4Addr, initiator: u8) {
        let id = self.message_id.get() + 1;
        self.message_id.set(id);
        self.peer_sends(vip, 4500, &natt(initiator, Message::Request(id)));
        let response = natt(initiator, Message::Response(id));
        assert_eq!(self.server_sends(4500, &response), vip);
    }
}

#[test]
fn a_reply_leaves_from_the_vip_that_the_peer_has_sent_to() {
    for vip in [VIP, VIP_2] {
        Uplinks::both(|gateway| {
            gateway.handshake(vip, 1);
            assert_eq!(gateway.server_sends(4500, &esp(0x1001, 1)), vip);
            gateway.peer_sends(vip, 4500, &esp(0x2001, 1));
            for sequence in 2..5 {
                assert_eq!(gateway.server_sends(4500, &esp(0x1001, sequence)), vip);
            }
            assert_eq!(gateway.server_sends(4500, &KEEPALIVE), vip);
            assert_eq!(
                gateway.server_sends(4500, &natt(1, Message::ServerRequest)),
                vip
            );
            let native = Packet::raw(SERVER, PEER, protocol::ESP, esp(0x1002, 1));
            assert_eq!(gateway.vip_of(&native), vip);
        });
    }
}

/// Each reply goes to the router of its own uplink, whatever next hop the session has cached.
#[test]
fn the_next_hop_of_a_session_is_that_of_its_vip() {
    Uplinks::both(|gateway| {
        gateway.handshake(VIP, 1);
        assert_eq!(gateway.server_sends(4500, &KEEPALIVE), VIP);
        assert_eq!(gateway.server_sends(4500, &KEEPALIVE), VIP);
        for _ in 0..2 {
            gateway.peer_sends(VIP_2, 500, &ike(2, Message::InitRequest));
            let reply = ike(2, Message::InitResponse);
            assert_eq!(gateway.server_sends(500, &reply), VIP_2);
            assert_eq!(gateway.server_sends(4500, &KEEPALIVE), VIP);
        }
        gateway.exchange(VIP_2, 1);
        assert_eq!(gateway.server_sends(4500, &KEEPALIVE), VIP_2);
    });
}

/// RFC 4787 REQ-9 leaves a host that nothing has reached to the implementation: here the first VIP.
#[test]
fn a_peer_of_which_nothing_is_known_gets_the_first_vip() {
    Uplinks::both(|gateway| {
        assert_eq!(
            gateway.server_sends(500, &ike(1, Message::InitRequest)),
            VIP
        );
        assert_eq!(gateway.server_sends(4500, &esp(0x1001, 1)), VIP);
    });
}

#[test]
fn a_peer_may_begin_two_sas_by_two_vips_at_once() {
    Uplinks::both(|gateway| {
        gateway.peer_sends(VIP, 500, &ike(1, Message::InitRequest));
        gateway.peer_sends(VIP_2, 500, &ike(2, Message::InitRequest));
        assert_eq!(
            gateway.server_sends(500, &ike(1, Message::InitResponse)),
            VIP
        );
        assert_eq!(
            gateway.server_sends(500, &ike(2, Message::InitResponse)),
            VIP_2
        );
    });
}

/// Whoever forges the peer's address gets no tunnel of it to another uplink: not by IKE, not by ESP,
/// whatever the SPI, not by keepalives.
#[test]
fn forged_packets_do_not_move_an_established_peer() {
    Uplinks::both(|gateway| {
        gateway.handshake(VIP_2, 1);
        assert_eq!(gateway.server_sends(4500, &esp(0x1001, 1)), VIP_2);
        gateway.peer_sends(VIP_2, 4500, &esp(0x2001, 1));
        for forged in [
            natt(9, Message::InitRequest),
            natt(9, Message::Request(1)),
            natt(9, Message::Response(1)),
            esp(0x2001, 2),
            esp(0x3001, 1),
            KEEPALIVE.to_vec(),
            vec![0x77; 30],
        ] {
            gateway.peer_sends(VIP, 4500, &forged);
            assert_eq!(gateway.server_sends(4500, &esp(0x1001, 2)), VIP_2);
            assert_eq!(
                gateway.server_sends(4500, &natt(1, Message::ServerRequest)),
                VIP_2
            );
            assert_eq!(gateway.server_sends(4500, &KEEPALIVE), VIP_2);
            gateway.exchange(VIP_2, 1);
        }
    });
}

/// A peer whose uplink has failed sends to the other VIP: its requests are answered from there at once,
/// and its ESP follows within a second, since the server has accepted them (RFC 4555 section 3.5).
#[test]
fn a_peer_moves_when_the_server_accepts_its_request_at_another_vip() {
    Uplinks::both(|mut gateway| {
        gateway.handshake(VIP, 1);
        assert_eq!(gateway.server_sends(4500, &esp(0x1001, 1)), VIP);
        gateway.peer_sends(VIP, 4500, &esp(0x2001, 1));
        gateway.exchange(VIP_2, 1);
        gateway.peer_sends(VIP_2, 4500, &esp(0x2001, 2));
        gateway.now += TICK;
        assert_eq!(gateway.server_sends(4500, &esp(0x1001, 2)), VIP_2);
        assert_eq!(gateway.server_sends(4500, &KEEPALIVE), VIP_2);
        assert_eq!(gateway.server_sends(4500, &esp(0x1001, 3)), VIP_2);
    });
}

/// Without tables what the peer sends shows its VIP again; what is forged meanwhile holds until its next
/// packet, and not any more once the server has accepted a request.
#[test]
fn a_peer_is_found_again_when_the_tables_are_lost() {
    Uplinks::both(|mut gateway| {
        gateway.handshake(VIP_2, 1);
        assert_eq!(gateway.server_sends(4500, &esp(0x1001, 1)), VIP_2);
        gateway.forget();
        gateway.peer_sends(VIP_2, 4500, &esp(0x2001, 7));
        assert_eq!(gateway.server_sends(4500, &esp(0x1001, 7)), VIP_2);
        gateway.peer_sends(VIP, 4500, &KEEPALIVE);
        gateway.peer_sends(VIP_2, 4500, &esp(0x2001, 8));
        gateway.now += TICK;
        assert_eq!(gateway.server_sends(4500, &esp(0x1001, 8)), VIP_2);
        gateway.exchange(VIP_2, 1);
        gateway.peer_sends(VIP, 4500, &KEEPALIVE);
        gateway.now += TICK;
        assert_eq!(gateway.server_sends(4500, &esp(0x1001, 9)), VIP_2);
        assert_eq!(gateway.server_sends(4500, &KEEPALIVE), VIP_2);
    });
}

/// RFC 791 section 3.2: the source is part of what identifies a datagram, so all fragments need the same.
#[test]
fn later_fragments_leave_from_the_vip_of_the_first() {
    let pieces = |initiator| {
        let message = [ike(initiator, Message::InitResponse), vec![0x66; 1200]].concat();
        let packet = Packet::udp((SERVER, 500), (PEER, 500), message);
        packet
            .with_macs(LAN_MAC, SERVER_MAC)
            .build_fragments(&[600])
    };
    Uplinks::both(|gateway| {
        gateway.handshake(VIP, 1);
        gateway.peer_sends(VIP_2, 500, &ike(2, Message::InitRequest));
        for piece in pieces(2) {
            assert_eq!(gateway.vip_of_frame(piece), VIP_2);
        }
    });
}

/// The number in an entry may be that of a VIP that a later configuration does not have.
#[test]
fn a_vip_that_is_gone_gives_way_to_the_first() {
    Uplinks::both(|mut gateway| {
        gateway.handshake(VIP_2, 1);
        assert_eq!(gateway.server_sends(4500, &esp(0x1001, 1)), VIP_2);
        gateway.config.vips.vips[1] = xdp_common::Vip::default();
        gateway.config.vips.translations[1][1] = Default::default();
        gateway.now += TICK;
        assert_eq!(gateway.server_sends(4500, &esp(0x1001, 2)), VIP);
        assert_eq!(gateway.server_sends(4500, &KEEPALIVE), VIP);
        // It was proven, and what the peer sends replaces it.
        gateway.peer_sends(VIP, 4500, &KEEPALIVE);
        let pin = gateway.tables.sessions()[0].hot[session::PIN];
        assert_eq!(pin, session::claim_pin(0, 0));
    });
}
