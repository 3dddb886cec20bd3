//! A client of one uplink that moves to the other one with MOBIKE (RFC 4555): for the server no
//! address changes, and its replies leave from the other VIP.

use std::net::Ipv4Addr;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use ikenat_tests::lab::Lab;
use ikenat_tests::lab::capture::PacketSocket;
use ikenat_tests::lab::frames::{Captured, protocol};
use ikenat_tests::lab::json::State;
use ikenat_tests::lab::links::compute_checksums;
use ikenat_tests::lab::netns::Namespace;
use ikenat_tests::lab::second_wan::{FAR_CLIENT, WAN_2, WAN_2_ADDRESS, second_wan, start_office};
use ikenat_tests::lab::strongswan::{End, Ends, INNER_CLIENT, INNER_SERVER, Settings, Tunnel};
use ikenat_tests::lab::topology::{CLIENT, PEER, SERVER, VIP, WAN};
use ikenat_tests::suite::Scenario;

use super::answers::Payload;
use super::uplinks::SILENCE;
use super::{PINGS, QUICK};

pub(crate) fn scenarios() -> Vec<Scenario> {
    vec![Scenario::new(
        "a_client_moves_to_the_other_uplink_with_mobike",
        moves,
    )]
}

/// The client's address, which stays. The routers of both providers lead to it.
const OWN: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 10);
/// The client's interface to the router of the second provider.
const SECOND: &str = "up1";
/// strongSwan reacts to a change of routes within two seconds.
const PATIENCE: Duration = Duration::from_secs(15);

/// What has come on one of the client's interfaces: IKE and ESP, all from one VIP.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Came {
    ike: u32,
    esp: u32,
}

/// Reads what has come since the last call.
fn came(wire: &PacketSocket, vip: Ipv4Addr) -> Result<Came> {
    let mut came = Came::default();
    while let Some(frame) = wire.receive(SILENCE)? {
        let Ok(ip) = Captured::read(&frame) else {
            continue;
        };
        if ip.protocol != protocol::UDP || ip.destination != OWN {
            continue;
        }
        ensure!(ip.source == vip, "from {} instead of {vip}", ip.source);
        match Payload::of(&ip.body) {
            Payload::Ike => came.ike += 1,
            Payload::Esp => came.esp += 1,
            Payload::Keepalive => {}
        }
    }
    Ok(came)
}

/// A second way from the client to the gateway, by the router of the second provider, for the second VIP
/// alone. The server announces both VIPs, which are among its addresses (RFC 4555 section 3.4).
fn second_way(lab: &Lab) -> Result<(Namespace, PacketSocket)> {
    let (router, _) = second_wan(lab)?;
    lab.client.shell(&format!(
        "ip address add {OWN}/32 dev lo
         ip link add {SECOND} type veth peer name down1 netns {}
         ip address add 10.99.0.1/30 dev {SECOND}; ip link set {SECOND} up",
        router.name()
    ))?;
    router.shell(&format!(
        "ip address add 10.99.0.2/30 dev down1; ip link set down1 up
         sysctl -qw net.ipv4.ip_forward=1
         ip route add {OWN}/32 via 10.99.0.1"
    ))?;
    compute_checksums(&lab.client, SECOND)?;
    lab.client.run(&format!(
        "ip route add 198.51.102.0/24 via 10.99.0.2 src {OWN}"
    ))?;
    lab.server.shell(&format!(
        "ip address add {VIP}/32 dev {PEER}; ip address add {WAN_2_ADDRESS}/32 dev {PEER}"
    ))?;
    lab.gateway.shell(&format!(
        "ip route add default via {CLIENT} dev {WAN}
         ip route add default via {FAR_CLIENT} dev {WAN_2} metric 200"
    ))?;
    let wire = PacketSocket::open(&lab.client, SECOND)?;
    Ok((router, wire))
}

fn moves(lab: &Lab) -> Result<()> {
    let (_router, second) = second_way(lab)?;
    let first = PacketSocket::open(&lab.client, PEER)?;
    let _ikenat = start_office(lab)?;
    let ends = Ends {
        name: "",
        namespaces: [&lab.client, &lab.server],
        addresses: [OWN, SERVER],
        responder: VIP,
        inner: [INNER_CLIENT, INNER_SERVER],
    };
    let settings = Settings {
        mobike: true,
        ..Settings::default()
    };
    let tunnel = Tunnel::between(lab, ends, settings)?;
    tunnel.initiate()?;
    tunnel.ping(PINGS, QUICK)?;
    let before = came(&first, VIP)?;
    ensure!(before.esp == PINGS && before.ike >= 2, "{before:?}");
    ensure!(came(&second, WAN_2_ADDRESS)? == Came::default());

    // The client's way to the first VIP is gone, and its link is still up.
    lab.client.run(&format!("ip route flush dev {PEER}"))?;
    moved(&tunnel, &second)?;
    // The IKE SA is the same. The child SA is a new one: with ESP in user space strongSwan rekeys it instead of
    // giving it another address.
    let deadline = Instant::now() + PATIENCE;
    let log = loop {
        let log = tunnel.log(End::Client);
        // It comes after the answer to the first probe of the path.
        if log.contains("N(UPD_SA_ADDR)") {
            break log;
        }
        ensure!(Instant::now() < deadline, "no UPDATE_SA_ADDRESSES: {log}");
        thread::sleep(Duration::from_millis(50));
    };
    ensure!(log.matches("IKE_SA_INIT request").count() == 1, "{log}");
    let deadline = Instant::now() + PATIENCE;
    while tunnel.ping(1, QUICK).is_err() {
        ensure!(Instant::now() < deadline, "no ESP by the second uplink");
    }
    came(&second, WAN_2_ADDRESS)?;
    came(&first, VIP)?;
    let sas = || -> Result<[u64; 4]> {
        let [client, server] = [End::Client, End::Server].map(|end| tunnel.installed_sa(end));
        let (client, server) = (client?, server?);
        Ok([
            client.packets_out,
            server.packets_in,
            server.packets_out,
            client.packets_in,
        ])
    };
    let counts = sas()?;
    tunnel.ping(PINGS, QUICK)?;
    let after = sas()?;
    ensure!(
        after == counts.map(|count| count + u64::from(PINGS)),
        "{counts:?} became {after:?}"
    );
    tunnel.rekey_child().context("rekeyed by the client")?;
    tunnel
        .rekey_child_by(End::Server)
        .context("by the server")?;
    let by_second = came(&second, WAN_2_ADDRESS)?;
    ensure!(
        by_second.esp == PINGS && by_second.ike >= 4,
        "from the second VIP: {by_second:?}"
    );
    let by_first = came(&first, VIP)?;
    ensure!(by_first == Came::default(), "astray: {by_first:?}");
    let stats = lab.stats()?;
    stats.check_conservation()?;
    let session = stats.session(OWN).context("no session")?;
    ensure!(
        stats.sessions.len() == 1 && session.state == State::Established,
        "{stats:?}"
    );
    Ok(())
}

/// The client's IKE SA uses the second VIP.
fn moved(tunnel: &Tunnel<'_>, second: &PacketSocket) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    let is_done = || came(second, WAN_2_ADDRESS).map(|came| came.ike > 0);
    while !is_done()? {
        ensure!(
            Instant::now() < deadline,
            "the client has not moved:\n{}",
            tunnel.log(End::Client)
        );
        thread::sleep(QUICK);
    }
    Ok(())
}
