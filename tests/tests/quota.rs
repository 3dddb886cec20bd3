//! How many flows a peer may have: what the server has proved pays for what may be guessed.
//!
//! The packets go through the slow path's packet logic on the host.

use ikenat_tests::bpf::gateway::{Gateway, NOW};
use std::net::Ipv4Addr;
use xdp_common::slot::{self, session};
use xdp_common::{Direction, Hook, Untracked};

/// ESP in UDP with this SPI.
fn esp(spi: u32) -> Vec<u8> {
    let mut payload = spi.to_be_bytes().to_vec();
    payload.extend([0, 0, 0, 1]);
    payload.extend([0x55; 32]);
    payload
}

/// True when the packet was counted in a flow; it is forwarded in any case.
fn sends(gateway: &Gateway, direction: Direction, peer: (Ipv4Addr, u16), spi: u32) -> bool {
    let (way, verdict) = match direction {
        Direction::Inbound => ("in", gateway.inbound(peer, 4500, &esp(spi), NOW)),
        Direction::Outbound => ("out", gateway.outbound(4500, peer, &esp(spi), NOW)),
    };
    let tracked = verdict == format!("forward esp-in-udp {way}");
    let untracked = verdict == format!("forward esp-in-udp {way} untracked");
    assert!(tracked || untracked, "{verdict}");
    tracked
}

/// The peer's open SPIs, inbound and outbound, as its session has them.
fn open(gateway: &Gateway, peer: Ipv4Addr) -> [u64; 2] {
    let sessions = gateway.tables.sessions();
    let of_peer = sessions
        .iter()
        .find(|words| words.peer() == Some(peer.octets()));
    let word = of_peer.map_or(0, |words| words.hot[session::SPIS]);
    Direction::ALL.map(|direction| slot::half_of(word, direction))
}

/// What a peer may open, by the decision's words: 8, and 4 for each SPI of the server.
const fn allowed(outbound: u64) -> u64 {
    8 + 4 * outbound
}

/// A hundred clients behind one NAT, each with its own port. Each rekeys several times, and the old
/// SPIs stay until they have been idle for an hour. Within a client the order of the first packets
/// is any.
#[test]
fn an_office_behind_one_address_has_all_its_flows() {
    let mut gateway = Gateway::with_flow_buckets(1 << 12);
    let office = gateway.next_peer();
    let mut spi = 0x1000;
    for rekey in 0..4 {
        for client in 0..100_u16 {
            let peer = (office, 10_000 + client);
            let mut order = [Direction::Inbound, Direction::Outbound];
            if (client + rekey) % 3 == 0 {
                order.reverse();
            }
            // The very first packet of the address can only be proved by the server.
            if (rekey, client) == (0, 0) {
                order = [Direction::Outbound, Direction::Inbound];
            }
            for direction in order {
                spi += 1;
                assert!(sends(&gateway, direction, peer, spi), "{rekey} {client}");
            }
        }
    }
    assert_eq!(open(&gateway, office), [400, 400]);
    assert_eq!(gateway.tables.untracked(Hook::Tc, Untracked::SpiLimit), 0);
}

/// RFC 9611: one SA for each CPU, so that many SPIs at the same moment. They are rekeyed every hour, and
/// those before stay for an hour.
#[test]
fn an_sa_for_each_of_many_cpus_fits() {
    let mut gateway = Gateway::with_flow_buckets(1 << 12);
    let peer = (gateway.next_peer(), 4500);
    for rekey in 0..3 {
        for cpu in 0..256 {
            let spi = 0x1000 * (rekey + 1) + cpu;
            assert!(sends(&gateway, Direction::Outbound, peer, spi));
        }
        for cpu in 0..256 {
            let spi = 0x1_0000 * (rekey + 1) + cpu;
            assert!(sends(&gateway, Direction::Inbound, peer, spi));
        }
    }
    assert_eq!(open(&gateway, peer.0), [768, 768]);
}

/// A client that rekeys without end makes the server open as many SPIs as it likes, and each of them
/// pays for four that are guessed. It gets its share of FLOW, and others have theirs.
#[test]
fn a_client_that_rekeys_without_end_has_a_share() {
    let mut gateway = Gateway::with_flow_buckets(1 << 13);
    let [greedy, other] = [(); 2].map(|()| (gateway.next_peer(), 4500));
    for spi in 0..20_000 {
        sends(&gateway, Direction::Outbound, greedy, 0x1_0000 + spi);
        sends(&gateway, Direction::Inbound, greedy, 0x10_0000 + spi);
    }
    let [inbound, outbound] = open(&gateway, greedy.0);
    assert_eq!([inbound, outbound], [allowed(1024), 1024]);
    let counted = |cause| gateway.tables.untracked(Hook::Tc, cause);
    assert_eq!(
        counted(Untracked::SpiLimit),
        40_000 - (inbound + outbound),
        "each refusal is counted"
    );
    assert_eq!(counted(Untracked::FlowTableFull), 0);
    for spi in 0x1000..0x1100 {
        assert!(sends(&gateway, Direction::Outbound, other, spi));
        assert!(sends(&gateway, Direction::Inbound, other, spi));
    }
}

/// Whoever forges the address of a tunnel with one SA takes what may be guessed, and nothing from
/// another peer. Each new SPI of the server makes room.
#[test]
fn guessed_spis_are_bounded_by_the_servers() {
    let mut gateway = Gateway::with_flow_buckets(1 << 12);
    let [victim, other] = [(); 2].map(|()| (gateway.next_peer(), 4500));
    assert!(sends(&gateway, Direction::Outbound, victim, 0x1000));
    assert!(sends(&gateway, Direction::Inbound, victim, 0x2000));
    let mut guess = 0x10_0000;
    let mut flood = |gateway: &Gateway| {
        for _ in 0..1000 {
            guess += 1;
            sends(gateway, Direction::Inbound, victim, guess);
        }
    };
    for outbound in 1..20 {
        let refused = gateway.tables.untracked(Hook::Tc, Untracked::SpiLimit);
        let [before, _] = open(&gateway, victim.0);
        flood(&gateway);
        assert_eq!(open(&gateway, victim.0), [allowed(outbound), outbound]);
        let refused = gateway.tables.untracked(Hook::Tc, Untracked::SpiLimit) - refused;
        assert_eq!(
            refused,
            1000 - (allowed(outbound) - before),
            "each refusal is counted"
        );
        // The flows that it had are counted, and a rekey gets its two.
        assert!(sends(&gateway, Direction::Inbound, victim, 0x2000));
        let new = u32::try_from(outbound).expect("small");
        assert!(sends(&gateway, Direction::Outbound, victim, 0x1000 + new));
        assert!(sends(&gateway, Direction::Inbound, victim, 0x2000 + new));
    }
    assert!(sends(&gateway, Direction::Outbound, other, 0x1000));
    assert!(sends(&gateway, Direction::Inbound, other, 0x2000));
}

/// A peer that has proved itself by IKE has 8.
#[test]
fn a_peer_without_an_spi_of_the_server_has_a_few() {
    let mut gateway = Gateway::with_flow_buckets(1 << 12);
    let peer = (gateway.next_peer(), 4500);
    gateway.establish_by_ike(peer.0);
    let tracked = (0..100).filter(|spi| sends(&gateway, Direction::Inbound, peer, 0x1000 + spi));
    assert_eq!(tracked.count(), 8);
    assert_eq!(gateway.tables.untracked(Hook::Tc, Untracked::SpiLimit), 92);
}

/// Forged ESP in the name of many peers fills three quarters of FLOW, if the server has sent none of
/// them ESP. The rest is for those to whom it has, and half of it for what the server sends.
#[test]
fn the_last_quarter_is_for_peers_that_the_server_sends_esp_to() {
    let mut gateway = Gateway::with_flow_buckets(1 << 8);
    let limit = 2_u64 << 8;
    for _ in 0..200 {
        let peer = (gateway.next_peer(), 4500);
        gateway.establish_by_ike(peer.0);
        for spi in 0..8 {
            sends(&gateway, Direction::Inbound, peer, 0x1000 + spi);
        }
    }
    let filled = gateway.tables.flows().len() as u64;
    let reserve = limit / 8;
    assert_eq!(filled, limit - 2 * reserve);
    assert!(gateway.tables.untracked(Hook::Tc, Untracked::FlowTableFull) > 0);
    // Forged ESP in the name of these takes what is theirs, and nothing of the server's own part.
    for _ in 0..3 {
        let peer = (gateway.next_peer(), 4500);
        assert!(sends(&gateway, Direction::Outbound, peer, 0x1000));
        for spi in 0..12 {
            assert!(sends(&gateway, Direction::Inbound, peer, 0x2000 + spi));
        }
    }
    let mut inbound = 0;
    let mut peers = 3;
    loop {
        let peer = (gateway.next_peer(), 4500);
        if !sends(&gateway, Direction::Outbound, peer, 0x1000) {
            break;
        }
        peers += 1;
        inbound += u64::from(sends(&gateway, Direction::Inbound, peer, 0x2000));
    }
    assert_eq!(gateway.tables.flows().len() as u64, limit);
    assert_eq!(peers + inbound + 36, 2 * reserve);
    assert!(peers - inbound - 3 >= reserve - 1, "{peers} {inbound}");
}

/// What SESSION has no room for is said as well, whether there are as many sessions as may be or the
/// two buckets of a peer are full.
#[test]
fn a_full_session_table_is_a_cause_of_its_own() {
    for mut gateway in [
        Gateway::with_flow_buckets(1 << 12),
        Gateway::with_a_session_in_every_slot(),
    ] {
        let mut refused = 0;
        for _ in 0..1000 {
            let peer = (gateway.next_peer(), 4500);
            refused += u64::from(!sends(&gateway, Direction::Outbound, peer, 0x1000));
        }
        assert!(refused > 0, "SESSION has place for 1,000");
        let counted = |cause| gateway.tables.untracked(Hook::Tc, cause);
        assert_eq!(counted(Untracked::SessionTableFull), refused);
        assert_eq!(counted(Untracked::FlowTableFull), 0);
    }
}
