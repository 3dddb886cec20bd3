//! When XDP's general path asks the FIB, and by which interfaces it sends.
//!
//! The packets go through the packet logic on the host; the FIB counts the questions.

use std::cell::Cell;

use ikenat_tests::bpf::fixture::{self, MTU, peer_sends, server_sends};
use ikenat_tests::bpf::host::{self, Host, Tables};
use ikenat_tests::lab::frames::{DONT_FRAGMENT, Packet};
use ikenat_tests::lab::topology::{CLIENT_MAC, LAN_MAC, SERVER, SERVER_MAC, WAN_MAC};
use xdp_common::config::mac_word;
use xdp_common::limits::NEXTHOPS;
use xdp_common::{Config, Hook, cpu};
use xdp_core::neighbour::{Gateway, Neighbour};
use xdp_core::{FibResult, Side};

const MESSAGE: usize = 60;
const LARGE: usize = 1400;

/// A gateway whose FIB counts what it is asked.
struct Counting {
    config: Config,
    tables: Tables,
    asked: Cell<u32>,
}

impl Counting {
    /// The peer has a session.
    fn new() -> Self {
        let config = fixture::config();
        let gateway = Self {
            tables: Tables::new(&config),
            config,
            asked: Cell::new(0),
        };
        gateway.asks(Hook::Xdp, &server_sends(4500, vec![0xc1; MESSAGE]));
        gateway
    }

    /// How often the FIB is asked for this packet, which must be forwarded to the neighbour.
    fn asks(&self, hook: Hook, (side, packet): &(Side, Packet)) -> u32 {
        let before = self.asked.get();
        let fib = |_: [u8; 4], destination, length| {
            self.asked.set(self.asked.get() + 1);
            fixture::fib(&self.config, destination, length)
        };
        let mut frame = packet.build();
        let ran = host::run_in(hook, (&self.tables, &fib, &self.config), *side, &mut frame);
        let verdict = host::word(ran.verdict);
        assert!(verdict.starts_with("forward "), "{verdict}");
        let to = match side {
            Side::Lan => [CLIENT_MAC, WAN_MAC],
            Side::Wan | Side::Both | Side::Out => [SERVER_MAC, LAN_MAC],
        };
        if hook == Hook::Xdp {
            assert_eq!(frame[..12], to.concat());
        }
        self.asked.get() - before
    }
}

/// Each session remembers the next hop to its peer, and the gateway the one to the server: for IKE
/// and keepalives, which belong to no flow.
#[test]
fn the_fib_is_asked_once_for_a_session_and_once_for_the_server() {
    let gateway = Counting::new();
    for message in [
        peer_sends(500, vec![0x21; MESSAGE]),
        server_sends(500, vec![0x21; MESSAGE]),
    ] {
        let asked: Vec<u32> = (0..3).map(|_| gateway.asks(Hook::Xdp, &message)).collect();
        assert_eq!(asked, [1, 0, 0], "{message:?}");
        assert_eq!(gateway.asks(Hook::Tc, &message), 1, "tc remembers nothing");
    }
    assert_eq!(gateway.asks(Hook::Xdp, &peer_sends(4500, vec![0xff])), 0);
}

/// What is larger than the egress of its direction is a question for the FIB: a route may carry
/// more than the interface is known to.
#[test]
fn the_fib_is_asked_for_what_is_larger_than_the_egress() {
    let inbound = peer_sends(500, vec![0x21; LARGE]);
    let outbound = server_sends(500, vec![0x21; LARGE]);
    for (small, asked) in [(cpu::EGRESS_WAN, [0, 1]), (cpu::EGRESS_LAN, [1, 0])] {
        let gateway = Counting::new();
        for message in [
            peer_sends(500, vec![0x21; MESSAGE]),
            server_sends(500, vec![0x21; MESSAGE]),
        ] {
            gateway.asks(Hook::Xdp, &message);
        }
        let size = u16::try_from(LARGE + 28).expect("small");
        gateway.tables.set_egress_mtu(small, size);
        for message in [&inbound, &outbound] {
            assert_eq!(
                gateway.asks(Hook::Xdp, message),
                0,
                "as large as the egress"
            );
        }
        gateway.tables.set_egress_mtu(small, size - 1);
        let larger = [&inbound, &outbound].map(|message| gateway.asks(Hook::Xdp, message));
        assert_eq!(larger, asked);
    }
}

/// XDP sends by the interfaces of the gateway that accept its frames, and by no other.
#[test]
fn xdp_sends_by_the_interfaces_that_accept_its_frames() {
    let mut config = fixture::config();
    config.wans = [2, 4, 6, 8];
    config.lans = [3, 5, 7, 9];
    let config = config.seal();
    let wans = (
        config.wans,
        cpu::EGRESS_WAN,
        server_sends(500, vec![0x21; MESSAGE]),
    );
    let lans = (
        config.lans,
        cpu::EGRESS_LAN,
        peer_sends(500, vec![0x21; MESSAGE]),
    );
    for (interfaces, first, (side, packet)) in [wans, lans] {
        for (place, ifindex) in interfaces.into_iter().enumerate() {
            for closed in 0..interfaces.len() {
                let tables = Tables::new(&config);
                for place in 0..interfaces.len() {
                    tables.set_egress_mtu(first + place, MTU);
                }
                tables.close_egress(first + closed);
                let fib = |_: [u8; 4], gateway, _: u16| {
                    // The source of an inbound packet is outside.
                    let is_peer = interfaces == config.lans && gateway != SERVER.octets();
                    FibResult::Neighbour(Neighbour {
                        ifindex: if is_peer { config.wans[0] } else { ifindex },
                        gateway: Gateway::v4(gateway),
                        destination: mac_word(SERVER_MAC),
                        source: mac_word(LAN_MAC),
                        mtu: MTU,
                    })
                };
                let mut frame = packet.build();
                let ran = host::run_in(Hook::Xdp, (&tables, &fib, &config), side, &mut frame);
                let verdict = host::word(ran.verdict);
                let expected = if place == closed {
                    "slow egress-not-xdp"
                } else {
                    "forward ike"
                };
                assert!(
                    verdict.starts_with(expected),
                    "{ifindex}, {closed}: {verdict}"
                );
            }
        }
    }
}

/// A FIB that has this to say about every destination.
fn verdict(
    config: &Config,
    tables: &Tables,
    (side, packet): &(Side, Packet),
    fib: FibResult,
) -> String {
    let fib = |_: [u8; 4], _: [u8; 4], _: u16| fib;
    let mut frame = packet.build();
    let ran = host::run_in(Hook::Xdp, (tables, &fib, config), *side, &mut frame);
    host::word(ran.verdict)
}

/// tc resolves what is not resolved, but only for packets that ikenat handles: outbound those that
/// leave by a WAN.
#[test]
fn an_unresolved_neighbour_is_for_the_slow_path() {
    let config = fixture::config();
    let tables = Tables::new(&config);
    let unresolved = |ifindex| FibResult::Unresolved {
        ifindex,
        gateway: Gateway::v4([192, 0, 2, 1]),
    };
    let inbound = peer_sends(500, vec![0x21; MESSAGE]);
    let outbound = server_sends(500, vec![0x21; MESSAGE]);
    for (packet, ifindex, expected) in [
        (&inbound, config.lan_ifindex, "slow neighbour-unresolved"),
        (&inbound, config.wan_ifindex, "slow neighbour-unresolved"),
        (&outbound, config.wan_ifindex, "slow neighbour-unresolved"),
        (&outbound, config.lan_ifindex, "punted not-by-wan"),
    ] {
        let verdict = verdict(&config, &tables, packet, unresolved(ifindex));
        assert_eq!(verdict, expected, "{packet:?} by {ifindex}");
    }
}

/// One packet per neighbour and period goes through the kernel's neighbour layer, which frames of
/// XDP never confirm; also when more neighbours than one have a hash in common.
#[test]
fn each_neighbour_is_confirmed_by_one_packet() {
    let mut config = fixture::config();
    config.confirm_ticks = 4;
    let tables = Tables::new(&config);
    let outbound = server_sends(500, vec![0x21; MESSAGE]);
    let confirmed = (0..=255_u8).filter(|number| {
        let gateway = Gateway::v4([192, 0, 2, *number]);
        let neighbour = FibResult::Neighbour(Neighbour {
            ifindex: config.wan_ifindex,
            gateway,
            destination: mac_word(CLIENT_MAC),
            source: mac_word(WAN_MAC),
            mtu: MTU,
        });
        let verdicts = [(); 3].map(|()| verdict(&config, &tables, &outbound, neighbour));
        assert_eq!(verdicts[1..], ["forward ike out untracked"; 2], "{number}");
        verdicts[0] == "slow neighbour-confirm"
    });
    // The table has as many entries: some neighbours find none in four tries, and are sent to.
    let confirmed = confirmed.count();
    assert!(confirmed > 190, "{confirmed} of 256 neighbours");
}

/// The period is counted in ticks of the configuration, and four neighbours of one hash have room.
#[test]
fn a_neighbour_is_confirmed_again_after_the_period() {
    const NOW: u64 = 1 << 20;
    let mut config = fixture::config();
    config.confirm_ticks = 4;
    let tables = Tables::new(&config);
    let (side, packet) = server_sends(500, vec![0x21; MESSAGE]);
    let of = |number: u32| Neighbour {
        ifindex: config.wan_ifindex,
        gateway: Gateway::v4(number.to_be_bytes()),
        destination: mac_word(CLIENT_MAC),
        source: mac_word(WAN_MAC),
        mtu: MTU,
    };
    let is_confirmed = |neighbour: Neighbour, ticks: u64| {
        let fib = |_: [u8; 4], _: [u8; 4], _: u16| FibResult::Neighbour(neighbour);
        let host = Host::<false>::new(&tables, &fib, NOW + (ticks << config.tick_shift));
        let verdict = host::word(host.run(&config, side, &mut packet.build()));
        verdict == "slow neighbour-confirm"
    };
    let place = |number: u32| of(number).hash() % NEXTHOPS;
    let alike: Vec<u32> = (1..).filter(|n| place(*n) == place(1)).take(5).collect();
    for number in &alike[..4] {
        let at = [0, 3, 4, 7, 8].map(|ticks| is_confirmed(of(*number), ticks));
        assert_eq!(at, [true, false, true, false, true], "{number}");
    }
    assert!(
        !is_confirmed(of(alike[4]), 0),
        "there is no room for a fifth"
    );
}

/// tc's verdict on a packet of this size, TTL and DF.
fn in_tc(config: &Config, (side, packet): &(Side, Packet), (ttl, flags): (u8, u16)) -> String {
    let fib = |_: [u8; 4], destination, length| fixture::fib(config, destination, length);
    let packet = Packet {
        ttl,
        flags,
        ..packet.clone()
    };
    let tables = Tables::new(config);
    let ran = host::run_in(
        Hook::Tc,
        (&tables, &fib, config),
        *side,
        &mut packet.build(),
    );
    host::word(ran.verdict)
}

/// RFC 1812 sections 4.3.3.3 and 5.3.1. Without an address inside there is no source for an error to
/// the server, and its packets are left to the host; those of clients are answered from the VIP. A
/// packet whose TTL has expired is not cut any more.
#[test]
fn without_an_address_inside_the_server_is_left_to_the_host() {
    let with = fixture::config();
    let mut without = with;
    without.vip.lan_address = [0; 4];
    without.lan_addresses[0] = 0;
    let size = usize::from(MTU);
    let (large_in, large_out) = (
        peer_sends(500, vec![0x21; size]),
        server_sends(500, vec![0x21; size]),
    );
    let (inbound, outbound) = (
        peer_sends(500, vec![0x21; MESSAGE]),
        server_sends(500, vec![0x21; MESSAGE]),
    );
    let expired = "answered time-exceeded";
    let needed = "answered fragmentation-needed";
    for (packet, what, expected, expected_without) in [
        (&inbound, (1, 0), expired, expired),
        (&outbound, (1, 0), expired, "slow ttl-expired"),
        (&large_in, (1, DONT_FRAGMENT), expired, expired),
        (&large_in, (1, 0), expired, expired),
        (&large_out, (1, DONT_FRAGMENT), expired, "slow ttl-expired"),
        (&large_in, (2, DONT_FRAGMENT), needed, needed),
        (&large_out, (2, DONT_FRAGMENT), needed, "slow too-big"),
        (
            &large_in,
            (2, 0),
            "forward ike in untracked",
            "forward ike in untracked",
        ),
        (&large_out, (2, 0), "slow to-fragment", "slow to-fragment"),
    ] {
        assert_eq!(in_tc(&with, packet, what), expected, "{what:?}");
        assert_eq!(in_tc(&without, packet, what), expected_without, "{what:?}");
    }
}

/// A server on this host gets its packets from the host's stack, whatever the FIB says and however
/// low the TTL is; what it sends is routed.
#[test]
fn a_server_on_this_host_is_reached_through_the_stack() {
    let mut config = fixture::config();
    config.vip.server_is_local = 1;
    let inbound = peer_sends(500, vec![0x21; MESSAGE]);
    assert_eq!(in_tc(&config, &inbound, (1, 0)), "forward ike in untracked");
    let outbound = server_sends(500, vec![0x21; MESSAGE]);
    assert_eq!(in_tc(&config, &outbound, (1, 0)), "answered time-exceeded");
}

/// Where rules look at protocol or port, a next hop that one kind of packet has asked for is not for another.
#[test]
fn next_hops_are_not_shared_where_rules_look_deeper() {
    let gateway = Counting::new();
    let message = server_sends(500, vec![0x21; MESSAGE]);
    assert_eq!([(); 2].map(|()| gateway.asks(Hook::Xdp, &message)), [1, 0]);
    for side in [cpu::EGRESS_WAN, cpu::EGRESS_LAN] {
        gateway.tables.set_not_shared(side);
    }
    assert_eq!([(); 2].map(|()| gateway.asks(Hook::Xdp, &message)), [1, 1]);
}
