//! Services beside each other: each has sessions of its own.

use super::*;

/// A proof for one service opens no session at another one.
#[test]
fn services_have_sessions_of_their_own() {
    Uplinks::both(|gateway| {
        gateway.handshake(VIP, 1);
        let other = Ipv4Addr::new(100, 64, 0, 7);
        let request = Packet::udp((PEER, 4500), (other, 4500), natt(1, Message::Request(1)));
        let (word, frame, _) =
            gateway.run(Side::Wan, request.with_macs(WAN_MAC, CLIENT_MAC).build());
        assert_eq!(word, "forward natt-ike in untracked");
        assert_eq!(frame[30..34], [10, 200, 0, 7]);
        assert_eq!(gateway.tables.sessions().len(), 1);
    });
}

/// As many as there are services: their place in the table depends on the service, too.
#[test]
fn one_address_has_a_session_with_each_service() {
    Uplinks::both(|gateway| {
        for number in 2..=60_u8 {
            let vip = Ipv4Addr::new(100, 64, 0, number);
            let server = Ipv4Addr::new(10, 200, 0, number);
            let send = |side, packet: Packet, macs: ([u8; 6], [u8; 6])| {
                let (word, ..) = gateway.run(side, packet.with_macs(macs.0, macs.1).build());
                assert!(word.starts_with("forward"), "{word}");
                word
            };
            let reply = Packet::udp((server, 500), (PEER, 500), ike(1, Message::InitResponse));
            send(Side::Lan, reply, (LAN_MAC, SERVER_MAC));
            let request = Packet::udp((PEER, 4500), (vip, 4500), natt(1, Message::Request(1)));
            let word = send(Side::Wan, request, (WAN_MAC, CLIENT_MAC));
            assert_eq!(word, "forward natt-ike in", "{vip}");
        }
        assert_eq!(gateway.tables.sessions().len(), 59);
    });
}

/// The peers of a service with one VIP have used that one, whichever is the first one of several later.
#[test]
fn a_second_vip_takes_no_established_peer() {
    Uplinks::both(|mut gateway| {
        gateway.config.vips.vips[0].several = 0;
        gateway.handshake(VIP, 1);
        for vip in &mut gateway.config.vips.vips[..2] {
            (vip.several, vip.first) = (1, 1);
        }
        assert_eq!(gateway.server_sends(4500, &KEEPALIVE), VIP);
        assert_eq!(gateway.server_sends(4500, &esp(0x1001, 1)), VIP);
        gateway.peer_sends(VIP_2, 4500, &KEEPALIVE);
        assert_eq!(gateway.server_sends(4500, &KEEPALIVE), VIP);
        gateway.exchange(VIP_2, 1);
        assert_eq!(gateway.server_sends(4500, &KEEPALIVE), VIP_2);
    });
}
