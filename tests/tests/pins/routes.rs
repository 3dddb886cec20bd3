//! By which uplink packets leave that have a VIP as their source: each provider drops the other one's
//! addresses (BCP 38).

use super::*;
use ikenat_tests::lab::frames::DONT_FRAGMENT;

/// The FIB is asked with the WAN of the VIP, where the plain route leads elsewhere: each provider drops the
/// other one's addresses (BCP 38).
#[test]
fn replies_leave_by_the_wan_of_their_vip() {
    for (vip, egresses) in [(VIP, vec![0, 0]), (VIP_2, vec![0, WAN_2, WAN_2])] {
        Uplinks::both(|gateway| {
            gateway.peer_sends(vip, 500, &ike(1, Message::InitRequest));
            let reply = Packet::udp((SERVER, 500), (PEER, 500), ike(1, Message::InitResponse));
            let reply = reply.with_macs(LAN_MAC, SERVER_MAC);
            let (_, _, asked) = gateway.run(Side::Lan, reply.build());
            for asked in &asked {
                assert_eq!(asked.source, vip.octets());
                assert_eq!(asked.ports, [500, 500]);
            }
            let asked: Vec<u32> = asked.iter().map(|query| query.egress).collect();
            assert_eq!(asked, egresses);
        });
    }
}

/// A WAN without a VIP leads to a network of its own, which the default route of the VIP's WAN does not: its
/// route holds, for packets and for the errors about them. So does one by no WAN at all, which is the kernel's.
#[test]
fn replies_to_the_network_of_a_wan_without_vip_leave_by_it() {
    let router = Ipv4Addr::new(192, 168, 0, 77);
    let quoted = quote(&Packet::udp((PEER, 4500), (SERVER, 4500), [1; 40]), 8);
    let error = Icmp::new(kind::UNREACHABLE, code::PORT, quoted);
    let to_guests = |query: &FibQuery| {
        let guests = to_neighbour((WAN_2, WAN_2_MAC), ROUTERS[1], query);
        (query.egress == 0 && query.destination == PEER.octets()).then_some(guests)
    };
    for vip in [VIP, VIP_2] {
        Uplinks::both(|mut gateway| {
            gateway.handshake(vip, 1);
            gateway.now += 2 * TICK;
            gateway.config.vips.vips[1].wan = gateway.config.wan_ifindex;
            gateway.config.uplinks = [gateway.config.wan_ifindex, 0, 0, 0];
            let frame = reply(0, 100).build();
            let (word, frame, asked) = gateway.run_with(&to_guests, Side::Lan, frame);
            assert!(word.starts_with("forward esp-in-udp out"), "{word}");
            let second_lan = |query: &FibQuery| {
                (query.egress == 0).then(|| to_neighbour((77, LAN_MAC), SERVER_MAC, query))
            };
            gateway.now += 2 * TICK;
            let again = reply(0, 100).build();
            let (word, ..) = gateway.run_with(&second_lan, Side::Lan, again);
            assert_eq!(word, "punted not-by-wan");
            let egresses: Vec<u32> = asked.iter().map(|query| query.egress).collect();
            assert_eq!(egresses, [0, 0]);
            if gateway.hook == Hook::Xdp {
                assert_eq!(frame[..12], [ROUTERS[1], WAN_2_MAC].concat());
            } else {
                let packet = Packet::icmp(router, PEER, &error).with_macs(LAN_MAC, SERVER_MAC);
                let (_, _, asked) = gateway.run_with(&to_guests, Side::Lan, packet.build());
                let egresses: Vec<u32> = asked.iter().map(|query| query.egress).collect();
                assert_eq!(egresses, [0, 0]);
            }
        });
    }
}

/// A reply of the server on port 4500 to the peer, which uses the second VIP.
fn reply(flags: u16, length: usize) -> Packet {
    let packet = Packet::udp((SERVER, 4500), (PEER, 4500), vec![0xc1; length]);
    Packet { flags, ..packet }.with_macs(LAN_MAC, SERVER_MAC)
}

/// A reply that is too long for the route out of its own WAN takes no other one, which has room: it is
/// fragmented or answered.
#[test]
fn a_reply_that_is_too_long_for_its_wan_takes_no_other_one() {
    let small = |query: &FibQuery| (query.egress == WAN_2).then_some(FibResult::TooBig(1400));
    Uplinks::both(|gateway| {
        gateway.handshake(VIP_2, 1);
        for (flags, in_tc) in [
            (0, "slow to-fragment"),
            (DONT_FRAGMENT, "answered fragmentation-needed"),
        ] {
            let frame = reply(flags, 1420).build();
            let (word, _, asked) = gateway.run_with(&small, Side::Lan, frame);
            let expected = match gateway.hook {
                Hook::Tc => in_tc,
                Hook::Xdp | Hook::Egress => "slow too-big",
            };
            assert_eq!(word, expected);
            let egresses: Vec<u32> = asked.iter().map(|query| query.egress).collect();
            assert_eq!(egresses, [0, WAN_2, WAN_2]);
        }
    });
}

/// Where no route leads out of the WAN of the VIP, or it does not forward, the FIB decides alone.
#[test]
fn a_reply_that_its_wan_cannot_send_goes_by_the_fib() {
    for refusal in [
        FibResult::NotForwarded,
        FibResult::NoRoute,
        FibResult::ForwardingDisabled,
    ] {
        // A rule by the LAN that the packet comes from is not asked for what leaves by an egress.
        let refuse = |query: &FibQuery| (query.egress != 0).then_some(refusal);
        for (vip, expected) in [(VIP, vec![0, 0]), (VIP_2, vec![0, WAN_2, 0])] {
            Uplinks::both(|gateway| {
                gateway.handshake(vip, 1);
                let frame = reply(0, 100).build();
                let (word, _, asked) = gateway.run_with(&refuse, Side::Lan, frame);
                assert!(word.starts_with("forward esp-in-udp out"), "{word}");
                let egresses: Vec<u32> = asked.iter().map(|query| query.egress).collect();
                assert_eq!(egresses, expected);
            });
        }
    }
}

/// So does what a host of the server's side reports to a peer.
#[test]
fn an_error_of_the_servers_side_leaves_by_the_wan_of_its_vip() {
    let quoted = quote(&Packet::udp((PEER, 4500), (SERVER, 4500), [1; 40]), 8);
    let error = Icmp::new(kind::UNREACHABLE, code::PORT, quoted);
    let router = Ipv4Addr::new(192, 168, 0, 77);
    for (vip, egresses) in [(VIP, vec![0, 0]), (VIP_2, vec![0, WAN_2, WAN_2])] {
        for reporter in [SERVER, router] {
            let gateway = Uplinks::new(Hook::Tc);
            gateway.handshake(vip, 1);
            let packet = Packet::icmp(reporter, PEER, &error).with_macs(LAN_MAC, SERVER_MAC);
            let (word, _, asked) = gateway.run(Side::Lan, packet.build());
            assert_eq!(word, "forward icmp out untracked");
            assert!(asked.iter().all(|query| query.source == vip.octets()));
            let asked: Vec<u32> = asked.iter().map(|query| query.egress).collect();
            assert_eq!(asked, egresses);
        }
    }
}

/// A table of its own for the replies of a VIP (`ip rule add from VIP`) may have the default route of its
/// WAN and nothing else. What the server itself sends shows who is on a LAN.
#[test]
fn a_table_for_the_vip_hides_no_source_on_a_lan() {
    let forged = Ipv4Addr::new(192, 168, 0, 77);
    let router = Ipv4Addr::new(192, 168, 0, 253);
    let by = |ifindex, gateway: Ipv4Addr| {
        Some(FibResult::Unresolved {
            ifindex,
            gateway: Gateway::v4(gateway.octets()),
        })
    };
    Uplinks::both(|uplinks| {
        let lan = uplinks.config.lan_ifindex;
        // The table of the second VIP; the main table, whose default route leads to a router on the LAN.
        let rules = |query: &FibQuery| match (query.ingress != 0, query.source) {
            (false, _) => None,
            (true, source) if source == VIP_2.octets() => by(WAN_2, Ipv4Addr::new(192, 0, 2, 1)),
            (true, _) if query.destination == forged.octets() => by(lan, forged),
            (true, _) => by(lan, router),
        };
        let verdict = |source| {
            let request = Packet::udp((source, 500), (VIP_2, 500), ike(9, Message::InitRequest));
            let request = request.with_macs(WAN_MAC, CLIENT_MAC).build();
            let (word, _, asked) = uplinks.run_with(&rules, Side::Wan, request);
            let asked = asked.iter().filter(|query| query.ingress != 0);
            (word, asked.map(|query| query.source).collect::<Vec<_>>())
        };
        let both = vec![VIP_2.octets(), SERVER.octets()];
        assert_eq!(
            verdict(forged),
            ("dropped inside-source".to_owned(), both.clone())
        );
        // A route by a router on the LAN may be the default one, so it shows nothing.
        assert_eq!(verdict(PEER), ("forward ike in untracked".to_owned(), both));
        // Who has a session is not asked about.
        uplinks.handshake(VIP_2, 1);
        assert_eq!(verdict(PEER), ("forward ike in".to_owned(), Vec::new()));
    });
}

/// A cached next hop lasts a second where a service has several VIPs, and eight seconds elsewhere.
#[test]
fn only_services_with_several_vips_have_short_lived_next_hops() {
    let mut uplinks = Uplinks::new(Hook::Xdp);
    let other = Ipv4Addr::new(100, 64, 0, 7);
    let routes = |uplinks: &Uplinks, vip| {
        let request = Packet::udp((PEER, 500), (vip, 500), ike(9, Message::InitRequest));
        let request = request.with_macs(WAN_MAC, CLIENT_MAC).build();
        let (word, _, asked) = uplinks.run(Side::Wan, request);
        assert!(word.starts_with("forward ike in"), "{word}");
        // Not the question who is inside.
        asked.iter().filter(|query| query.ingress == 0).count()
    };
    for (vip, again) in [(VIP, 1), (VIP_2, 0), (other, 1)] {
        assert_eq!(routes(&uplinks, vip), again, "{vip}");
    }
    uplinks.now += 7 * TICK;
    for (vip, again) in [(other, 0), (VIP, 1)] {
        assert_eq!(routes(&uplinks, vip), again, "{vip}");
    }
    uplinks.now += TICK;
    assert_eq!(routes(&uplinks, other), 1);
}
