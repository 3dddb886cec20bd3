//! The key of the tables' hash: what the members of a group can see shows nothing about the places of
//! entries that they cannot see.
//!
//! The packets go through the packet logic of tc on the host.

use std::collections::BTreeSet;

use ikenat_tests::bpf::fixture::{self, PEER, Services};
use ikenat_tests::bpf::gateway::{NOW, forged_error, from_client};
use ikenat_tests::bpf::host::{Host, Tables};
use ikenat_tests::lab::frames::Packet;
use ikenat_tests::lab::topology::{CLIENT, CLIENT_MAC, LAN_MAC, SERVER, SERVER_MAC, VIP, WAN_MAC};
use xdp_common::Config;
use xdp_core::Side;

/// A reply in which the server chose its SPI: IKE_SA_INIT, whose first payload is SA.
fn ike_reply() -> Packet {
    let header = [33, 0x20, 34, 0x20, 0, 0, 0, 0, 0, 0, 0, 40];
    let message = [&b"initiatoresponde"[..], &header, &[0x55; 12]].concat();
    let other = [198, 51, 100, 7].into();
    Packet::udp((SERVER, 500), (other, 500), message).with_macs(LAN_MAC, SERVER_MAC)
}

/// Packets that make an entry in each table.
fn fill(config: &Config) -> Tables {
    let tables = Tables::new(config);
    let fib = |_: [u8; 4], destination, length| fixture::fib(config, destination, length);
    let esp = [0xc0, 1, 2, 3, 0, 0, 0, 1, 9, 9, 9, 9];
    let proof = Packet::udp((SERVER, 4500), (CLIENT, 4500), esp).with_macs(LAN_MAC, SERVER_MAC);
    let first = from_client(CLIENT, 100)
        .build_fragments(&[48])
        .swap_remove(0);
    for (side, frame) in [
        (Side::Lan, proof.build()),
        (Side::Lan, ike_reply().build()),
        (Side::Wan, first),
        (Side::Wan, from_client(PEER, 100).build()),
        (Side::Wan, forged_error(CLIENT, CLIENT).build()),
    ] {
        Host::<true>::new(&tables, &fib, NOW).run(config, side, &mut frame.clone());
    }
    let own = Packet::udp((VIP, 500), (CLIENT, 500), [7; 40]).with_macs(CLIENT_MAC, WAN_MAC);
    let egress = Host::<true, true>::new(&tables, &fib, NOW);
    egress.run(config, Side::Out, &mut own.build());
    tables
}

/// Which words of the key decide about the places and digests of a table's entries.
fn words_of(table: usize) -> BTreeSet<usize> {
    // With a service of several VIPs, for PIN.
    let config = Services::Many.of(fixture::config());
    let (name, before) = &fill(&config).hashed()[table];
    assert!(before.iter().any(|word| *word != 0), "{name} is empty");
    let decides = |word: &usize| {
        [0x5555, 0x1234_5678_9abc_def0, u64::MAX]
            .iter()
            .any(|flip| {
                let mut other = config;
                other.secret[*word] ^= flip;
                fill(&other).hashed()[table].1 != *before
            })
    };
    (0..config.secret.len()).filter(decides).collect()
}

/// FLOW and SESSION are shown with the places of their entries, and HOSTPEER with its digests. The
/// others can be opened by root alone.
#[test]
fn what_readers_see_is_not_hashed_with_the_key_of_what_they_do_not() {
    let [flow, session, half, fragment, pin, host_peer, limit] =
        [0, 1, 2, 3, 4, 5, 6].map(words_of);
    let closed: BTreeSet<usize> = half
        .iter()
        .chain(&fragment)
        .chain(&pin)
        .chain(&limit)
        .copied()
        .collect();
    for (name, open) in [
        ("FLOW", &flow),
        ("SESSION", &session),
        ("HOSTPEER", &host_peer),
    ] {
        assert!(
            !open.is_empty() && open.is_disjoint(&closed),
            "{name}: {open:?} {closed:?}"
        );
    }
    assert!(
        host_peer.is_disjoint(&flow) && host_peer.is_disjoint(&session),
        "{host_peer:?}"
    );
}
