//! Three clients behind one NAT, each with a tunnel to a server of its own: what tells the services
//! apart is the VIP alone.

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use ikenat_tests::lab::Lab;
use ikenat_tests::lab::direction::Direction;
use ikenat_tests::lab::json::{InstanceStats, Kind, State};
use ikenat_tests::lab::links::compute_checksums;
use ikenat_tests::lab::netns::Namespace;
use ikenat_tests::lab::strongswan::{End, Ends, Settings, Tunnel};
use ikenat_tests::lab::three_services::{NAMES, SERVERS, VIPS, start};
use ikenat_tests::lab::topology::{CLIENT, GATEWAY_LAN, PEER, WAN};
use ikenat_tests::suite::Scenario;

use super::{PATIENCE, QUICK};

pub(crate) fn scenarios() -> Vec<Scenario> {
    vec![Scenario::new(
        "three_tunnels_of_one_address_to_three_services",
        three,
    )]
}

const CLIENTS: [Ipv4Addr; 3] = [
    Ipv4Addr::new(10, 60, 0, 2),
    Ipv4Addr::new(10, 60, 1, 2),
    Ipv4Addr::new(10, 60, 2, 2),
];
const INNER: [[&str; 2]; 3] = [
    ["10.10.0.1", "10.20.0.1"],
    ["10.10.1.1", "10.20.1.1"],
    ["10.10.2.1", "10.20.2.1"],
];
/// Pings of each tunnel in a round.
const PINGS: [u32; 3] = [10, 20, 30];

/// The clients, behind the address of the usual one.
fn clients(lab: &Lab) -> Result<Vec<Namespace>> {
    lab.client.shell(&format!(
        "sysctl -qw net.ipv4.ip_forward=1
         nft add table ip nat
         nft 'add chain ip nat post {{ type nat hook postrouting priority srcnat; }}'
         nft add rule ip nat post oifname {PEER} snat to {CLIENT}"
    ))?;
    let behind = CLIENTS.iter().zip(NAMES).map(|(address, name)| {
        let [a, b, c, _] = address.octets();
        let (router, inside) = (Ipv4Addr::new(a, b, c, 1), format!("to-{name}"));
        let client = lab.add_namespace(name)?;
        lab.client.shell(&format!(
            "ip link add {inside} type veth peer name {PEER} netns {client}
             ip address add {router}/24 dev {inside}; ip link set {inside} up",
            client = client.name()
        ))?;
        client.shell(&format!(
            "ip address add {address}/24 dev {PEER}; ip link set {PEER} up
             ip route add default via {router}"
        ))?;
        Ok(client)
    });
    behind.collect()
}

/// The second and the third server, on the link of the first.
fn more_servers(lab: &Lab) -> Result<Vec<Namespace>> {
    let others = SERVERS.iter().zip(NAMES).skip(1).map(|(address, name)| {
        let server = lab.add_namespace(&format!("{name}-s"))?;
        lab.server.run(&format!(
            "ip link add link {PEER} name {PEER} netns {} type macvlan mode bridge",
            server.name()
        ))?;
        compute_checksums(&server, PEER)?;
        server.shell(&format!(
            "ip address add {address}/24 dev {PEER}; ip link set {PEER} up
             ip route add default via {GATEWAY_LAN}"
        ))?;
        Ok(server)
    });
    others.collect()
}

/// Does something with each of these tunnels at once.
fn at_once<T: Send>(
    tunnels: &[Tunnel<'_>],
    each: impl Fn(usize, &Tunnel<'_>) -> Result<T> + Sync,
) -> Result<Vec<T>> {
    thread::scope(|scope| {
        let each = &each;
        let all = tunnels.iter().enumerate();
        let begun: Vec<_> = all
            .map(|(at, tunnel)| scope.spawn(move || each(at, tunnel)))
            .collect();
        let ended = begun.into_iter().map(|one| {
            one.join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        });
        ended
            .zip(NAMES)
            .map(|(one, name)| one.context(name))
            .collect()
    })
}

/// Pings through these tunnels, before, during and after what is done `meanwhile`: none is lost.
/// Adds to `sent` how many there were.
fn pings<T>(
    tunnels: &[Tunnel<'_>],
    sent: &mut [u32],
    meanwhile: impl FnOnce() -> Result<T>,
) -> Result<T> {
    let done = AtomicBool::new(false);
    let rounds = |at: usize, tunnel: &Tunnel<'_>| -> Result<u32> {
        let mut all = 0;
        loop {
            let last = done.load(Ordering::SeqCst);
            tunnel.ping(PINGS[at], QUICK)?;
            all += PINGS[at];
            if last {
                return Ok(all);
            }
        }
    };
    thread::scope(|scope| {
        let pings = scope.spawn(|| at_once(tunnels, rounds));
        let outcome = meanwhile();
        done.store(true, Ordering::SeqCst);
        let pings = pings
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        for (sent, pings) in sent.iter_mut().zip(pings) {
            *sent += pings;
        }
        outcome
    })
}

fn three(lab: &Lab) -> Result<()> {
    let (clients, others) = (clients(lab)?, more_servers(lab)?);
    for vip in &VIPS[1..] {
        lab.gateway
            .run(&format!("ip address add {vip}/24 dev {WAN}"))?;
    }
    let first = start(lab, &[0, 1, 2])?;
    let servers = std::iter::once(&lab.server).chain(&others);
    let ends = clients.iter().zip(servers).enumerate();
    let tunnels: Vec<Tunnel<'_>> = ends
        .map(|(at, (client, server))| {
            let ends = Ends {
                name: NAMES[at],
                namespaces: [client, server],
                addresses: [CLIENTS[at], SERVERS[at]],
                responder: VIPS[at],
                inner: INNER[at],
            };
            Tunnel::between(lab, ends, Settings::default())
        })
        .collect::<Result<_>>()?;
    at_once(&tunnels, |_, tunnel| tunnel.initiate())?;
    let mut sent = at_once(&tunnels, |at, tunnel| {
        tunnel.ping(PINGS[at], QUICK)?;
        Ok(PINGS[at])
    })?;
    counted(lab, &tunnels, &sent)?;
    established(&lab.stats()?)?;

    // The last one goes, and the first two get other numbers, while these two are used.
    let second = pings(&tunnels[..2], &mut sent, || {
        first.terminate()?;
        start(lab, &[1, 0])
    })?;
    counted(lab, &tunnels[..2], &sent)?;
    // It comes back, and its tunnel has not ended.
    second.kill()?;
    let _third = pings(&tunnels[..2], &mut sent, || start(lab, &[2, 0, 1]))?;
    pings(&tunnels, &mut sent, || Ok(()))?;
    counted(lab, &tunnels[..2], &sent)?;
    // What the last one had counted before may have expired since, but it is not lost. Without its session
    // its first packet is counted nowhere else than in the totals: the server's answer opens a new one.
    let totals = lab.stats()?.totals;
    let wanted = u64::from(sent.iter().sum::<u32>());
    let untracked = &totals.untracked;
    ensure!(
        totals.esp.inbound.packets + untracked.inbound.packets == wanted
            && totals.esp.outbound.packets == wanted
            && untracked.inbound.packets <= 1
            && untracked.outbound.packets == 0,
        "{wanted} packets each way were expected: {totals:?}"
    );
    Ok(())
}

/// Both ends of each tunnel, and `stats` for its service, have so many packets each way, and its
/// service has no other SPIs.
fn counted(lab: &Lab, tunnels: &[Tunnel<'_>], packets: &[u32]) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let Err(error) = compare(lab, tunnels, packets) else {
            return Ok(());
        };
        // The last packet may still be in transit.
        if Instant::now() > deadline {
            return Err(error);
        }
        thread::sleep(QUICK * 5);
    }
}

fn compare(lab: &Lab, tunnels: &[Tunnel<'_>], packets: &[u32]) -> Result<()> {
    lab.stats()?.check_conservation()?;
    for ((tunnel, name), packets) in tunnels.iter().zip(NAMES).zip(packets) {
        let (client, server) = (
            tunnel.installed_sa(End::Client)?,
            tunnel.installed_sa(End::Server)?,
        );
        let own = lab.stats_with(&["--service", name])?;
        let mut counts = vec![
            client.packets_out,
            client.packets_in,
            server.packets_in,
            server.packets_out,
        ];
        for (spi, direction) in [
            (client.spi_out, Direction::Inbound),
            (client.spi_in, Direction::Outbound),
        ] {
            let entry = own.spi(CLIENT, spi, direction);
            let entry =
                entry.with_context(|| format!("{name}: 0x{spi:08x} is not in {:?}", own.spis))?;
            ensure!(
                entry.service == name
                    && (entry.kind, entry.port) == (Kind::EspInUdp, Some(4500))
                    && u64::from(entry.highest_sequence) == entry.packets,
                "{name}: {entry:?}"
            );
            counts.push(entry.packets);
        }
        ensure!(
            counts == [u64::from(*packets); 6] && own.spis.len() == 2,
            "{name}: {packets} packets each way were expected, and the client's SA, the server's \
             and ikenat have {counts:?}"
        );
    }
    Ok(())
}

/// Each service has a session of the one address, with IKE_AUTH and two SPIs.
fn established(stats: &InstanceStats) -> Result<()> {
    for name in NAMES {
        let of_service = |service: &Option<String>| service.as_deref() == Some(name);
        let own = stats
            .sessions
            .iter()
            .find(|session| of_service(&session.service))
            .with_context(|| format!("{name} is not in {:?}", stats.sessions))?;
        ensure!(
            own.peer == CLIENT
                && own.state == State::Established
                // One each, and what a busy daemon repeats.
                && own.natt_ike.inbound > 0
                && own.natt_ike.outbound > 0
                && own.spis == 2,
            "{name}: {own:?}"
        );
    }
    Ok(())
}
