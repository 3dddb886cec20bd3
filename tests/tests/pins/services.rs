//! Services beside each other: each has sessions of its own.

use super::*;

/// A proof for one service opens no session at another one.
#[test]
fn services_have_sessions_of_their_own() {
    Uplinks::both(|gateway| {
        gateway.handshake(VIP, 1);
        let other = Ipv4Addr::new(100, 64, 0, 7);
        let request = Packet::udp((PEER, 4500), (other, 4500), natt(1, Message::Request));
        let (word, frame, _) =
            gateway.run(Side::Wan, request.with_macs(WAN_MAC, CLIENT_MAC).build());
        assert_eq!(word, "forward natt-ike in untracked");
        assert_eq!(frame[30..34], [10, 200, 0, 7]);
        assert_eq!(gateway.tables.sessions().len(), 1);
    });
}
