//! Several VIPs and several servers in one instance: counters apart, and changes under load.

use std::net::Ipv4Addr;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use ikenat_tests::lab::Lab;
use ikenat_tests::lab::frames::Packet;
use ikenat_tests::lab::ikenat::Ikenat;
use ikenat_tests::lab::load::Load;
use ikenat_tests::lab::three_services::{NAMES, SERVERS, VIPS, service, start};
use ikenat_tests::lab::topology::{CLIENT, LAN, PEER, WAN};
use ikenat_tests::lab::wire::{Wire, at_client, at_server, esp, from_client, from_server, ike};
use ikenat_tests::suite::Scenario;

use crate::support::{full_rate, tenth_rate, wait_for_log};

pub(crate) fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario::new("three_services_on_one_wan", three),
        Scenario::new("a_service_that_stays_loses_nothing", exchanged).alone(),
        Scenario::new("a_server_without_a_route_holds_up_no_other", without_route),
    ]
}

pub(super) const IN: u32 = 0xC000_0201;
pub(super) const OUT: u32 = 0xC000_0202;

/// An IKE message of an exchange that is under way.
pub(super) fn message(number: u32) -> Vec<u8> {
    ike(u64::from(number) + 1, 0x1234, 37, false, 80)
}

/// The gateway has all VIPs, and the server's host all servers.
fn addresses(lab: &Lab) -> Result<()> {
    for (vip, server) in VIPS.iter().zip(SERVERS).skip(1) {
        lab.gateway
            .run(&format!("ip address add {vip}/24 dev {WAN}"))?;
        lab.server
            .run(&format!("ip address add {server}/24 dev {PEER}"))?;
    }
    Ok(())
}

/// A packet of the client to a VIP arrives at its server.
fn inbound(wire: &Wire, at: usize, packet: &Packet) -> Result<()> {
    let (mut sent, mut wanted) = (packet.clone(), at_server(packet));
    sent.destination = VIPS[at];
    wanted.destination = SERVERS[at];
    wire.inbound_frames(&[sent.build()], &[wanted.build()])
        .with_context(|| format!("to {}", NAMES[at]))
}

/// A packet of a server arrives at the client from its VIP.
fn outbound(wire: &Wire, at: usize, packet: &Packet) -> Result<()> {
    let (mut sent, mut wanted) = (packet.clone(), at_client(packet));
    sent.source = SERVERS[at];
    wanted.source = VIPS[at];
    wire.outbound_frames(&[sent.build()], &[wanted.build()])
        .with_context(|| format!("from {}", NAMES[at]))
}

/// The client has the same SPIs with each server, and a number of packets of its own.
fn three(lab: &Lab) -> Result<()> {
    addresses(lab)?;
    let first = start(lab, &[0, 1, 2])?;
    let wire = Wire::open(lab)?;
    let all = |sequence: u32| -> Result<()> {
        for at in 0..3_u32 {
            let which = usize::try_from(at)?;
            for step in 0..=at {
                let sequence = sequence * 10 + step;
                outbound(
                    &wire,
                    which,
                    &from_server(4500, 4500, esp(OUT, sequence, 60)),
                )?;
                inbound(
                    &wire,
                    which,
                    &from_client(4500, 4500, esp(IN, sequence, 60)),
                )?;
                inbound(&wire, which, &from_client(500, 500, message(sequence)))?;
                outbound(&wire, which, &from_server(500, 500, message(sequence)))?;
            }
        }
        Ok(())
    };
    all(1)?;
    counted(lab, 1)?;
    first.kill()?;
    all(2)?;
    // Another order is no other numbers.
    let _second = start(lab, &[2, 0, 1])?;
    all(3)?;
    counted(lab, 3)?;
    // Each with the SPIs of its own service.
    let stats = lab.stats_with(&["--service", NAMES[1]])?;
    let services: Vec<&str> = stats.spis.iter().map(|spi| spi.service.as_str()).collect();
    ensure!(services == [NAMES[1]; 2], "{services:?}");
    Ok(())
}

/// Each service has counted its own packets so many times.
fn counted(lab: &Lab, times: u64) -> Result<()> {
    let stats = lab.stats()?;
    for (name, packets) in NAMES.iter().zip(1..) {
        let own = stats.spis.iter().filter(|spi| spi.service == *name);
        let mut counts: Vec<u64> = own.map(|spi| spi.packets).collect();
        counts.sort_unstable();
        ensure!(
            counts == [packets * times; 2],
            "{name}: {counts:?} in {stats:?}"
        );
        let sessions = stats
            .sessions
            .iter()
            .filter(|one| one.service.as_deref() == Some(*name));
        let peers: Vec<Ipv4Addr> = sessions.map(|one| one.peer).collect();
        ensure!(peers == [CLIENT], "{name}: {peers:?}");
    }
    Ok(())
}

/// A service that comes.
const NEW: [Ipv4Addr; 2] = [Ipv4Addr::new(203, 0, 113, 4), Ipv4Addr::new(192, 168, 0, 4)];
/// The client of the third service: that of the first one has its port.
const OTHER_CLIENT: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 20);

fn start_all(lab: &Lab, services: &[String]) -> Result<Ikenat> {
    let mut words = vec!["run", "--wan", WAN, "--lan", LAN];
    for service in services {
        words.extend(["--service", service]);
    }
    Ikenat::run(lab, &lab.gateway, "ikenat", &words)
}

/// Loads of the two services that stay, with so many packets a second in each direction together.
fn loads(lab: &Lab, rate: u32) -> Result<[Load; 2]> {
    let ends = [
        [CLIENT, VIPS[0], SERVERS[0]],
        [OTHER_CLIENT, VIPS[2], SERVERS[2]],
    ];
    let [first, second] = ends.map(|ends| Load::between(lab, ends, [rate / 2; 2]));
    Ok([first?, second?])
}

/// Whether all packets arrive at this rate while nothing changes. The machine may be too slow to send
/// that many.
fn is_lossless(lab: &Lab, services: &[String], rate: u32) -> Result<bool> {
    let ikenat = start_all(lab, services)?;
    let Ok(loads) = loads(lab, rate) else {
        return Ok(false);
    };
    thread::sleep(Duration::from_secs(1));
    let mut all = Vec::new();
    for load in loads {
        all.extend(load.losses(&format!(
            "both services at {rate} packets a second each way"
        ))?);
    }
    ikenat.terminate()?;
    Ok(all.iter().all(|loss| loss.lost == 0))
}

/// The second service goes and another one comes, under the usual full rate, or the highest one below it
/// that this machine carries.
fn exchanged(lab: &Lab) -> Result<()> {
    addresses(lab)?;
    let [new_vip, new_server] = NEW;
    lab.gateway
        .run(&format!("ip address add {new_vip}/24 dev {WAN}"))?;
    lab.server
        .run(&format!("ip address add {new_server}/24 dev {PEER}"))?;
    lab.client
        .run(&format!("ip address add {OTHER_CLIENT}/24 dev {PEER}"))?;
    let [red, green, blue] = [0, 1, 2].map(service);
    let new = format!("new:{new_vip}={new_server}");
    let before = [red.clone(), green.clone(), blue.clone()];
    let mut parts = [125, 100, 75, 50, 25].into_iter();
    let rate = loop {
        let part = parts
            .next()
            .context("the generator loses packets at any rate")?;
        if is_lossless(lab, &before, full_rate()? / 100 * part)? {
            // Not at the very edge of what the machine can do.
            break full_rate()? / 100 * part / 5 * 4;
        }
    };
    lab.unload()?;
    let first = start_all(lab, &before)?;
    let wire = Wire::open(lab)?;
    outbound(&wire, 1, &from_server(4500, 4500, esp(OUT, 1, 60)))?;
    drop(wire);
    let loads = loads(lab, rate)?;
    let began = Instant::now();
    let flow = || loads.iter().try_for_each(Load::flows);
    flow()?;
    first.terminate()?;
    // What stays has another place.
    let second = start_all(lab, &[new.clone(), blue.clone(), red.clone()])?;
    flow()?;
    second.kill()?;
    let _third = start_all(lab, &[red, green, blue, new])?;
    flow()?;
    let took = began.elapsed().as_secs_f64();
    let [mut inbound_sent, mut outbound_sent] = [0.0; 2];
    for load in loads {
        let sent = load.finish()?;
        inbound_sent += f64::from(sent.inbound) / took;
        outbound_sent += f64::from(sent.outbound) / took;
    }
    println!(
        "services exchanged at {inbound_sent:.0} packets a second in and {outbound_sent:.0} out (asked for {rate}), none lost"
    );
    let least = f64::from(tenth_rate()?);
    ensure!(
        inbound_sent > least && outbound_sent > least,
        "the machine did not get to send: {inbound_sent:.0} in, {outbound_sent:.0} out"
    );
    let wire = Wire::open(lab)?;
    inbound(&wire, 1, &from_client(500, 500, message(7)))?;
    let mut sent = from_server(4500, 4500, esp(OUT, 1, 60));
    let mut wanted = at_client(&sent);
    (sent.source, wanted.source) = (new_server, new_vip);
    wire.outbound_frames(&[sent.build()], &[wanted.build()])
}

/// The second server is in a network to which the gateway has no route yet. The route is followed.
fn without_route(lab: &Lab) -> Result<()> {
    const FAR: Ipv4Addr = Ipv4Addr::new(192, 168, 9, 1);
    lab.gateway
        .run(&format!("ip address add {}/24 dev {WAN}", VIPS[1]))?;
    lab.server
        .run(&format!("ip address add {FAR}/24 dev {PEER}"))?;
    lab.gateway
        .run(&format!("ip route replace default via {CLIENT}"))?;
    let far = format!("far:{}={FAR}", VIPS[1]);
    let ikenat = start_all(lab, &[service(0), far])?;
    let said = format!("service far: no LAN has a route to its server {FAR} yet");
    ensure!(ikenat.log().contains(&said), "{}", ikenat.log());
    let far_is_ready = format!("{} to {FAR}", VIPS[1]);
    ensure!(!ikenat.log().contains(&far_is_ready), "{}", ikenat.log());
    let wire = Wire::open(lab)?;
    outbound(&wire, 0, &from_server(4500, 4500, esp(OUT, 1, 60)))?;
    inbound(&wire, 0, &from_client(4500, 4500, esp(IN, 1, 60)))?;
    // Not by the default route, which leaves by the WAN.
    let mut early = from_client(500, 500, message(1));
    early.destination = VIPS[1];
    wire.punted_on_wan(&early.build())?;
    let to_server = |frame: &[u8]| frame.get(30..34) == Some(&FAR.octets()[..]);
    let left = wire.client.find(Duration::from_millis(200), to_server)?;
    ensure!(left.is_none(), "it left by the WAN: {left:02x?}");
    lab.gateway
        .run(&format!("ip route add {FAR}/32 dev {LAN}"))?;
    let deadline = Instant::now() + Duration::from_secs(20);
    while !ikenat.log().contains("ready again") {
        ensure!(Instant::now() < deadline, "{}", ikenat.log());
        thread::sleep(Duration::from_millis(20));
    }
    let (mut sent, packet) = (
        from_client(500, 500, message(1)),
        from_client(500, 500, message(1)),
    );
    sent.destination = VIPS[1];
    let mut wanted = at_server(&packet);
    wanted.destination = FAR;
    wire.inbound_frames(&[sent.build()], &[wanted.build()])?;
    inbound(&wire, 0, &from_client(4500, 4500, esp(IN, 2, 60)))?;
    let named = ikenat.log().matches(&far_is_ready).count();
    ensure!(named == 1, "{}", ikenat.log());
    // It is lost again, and the log says so beside `ready again`.
    lab.gateway
        .run(&format!("ip route del {FAR}/32 dev {LAN}"))?;
    lab.gateway
        .run(&format!("ip link set dev {LAN} address 02:00:00:00:77:01"))?;
    let stopped = format!("service far: no LAN has a route to its server {FAR} any more");
    wait_for_log(lab, &stopped)?;
    while ikenat.log().matches("ready again").count() < 2 {
        ensure!(Instant::now() < deadline, "{}", ikenat.log());
        thread::sleep(Duration::from_millis(20));
    }
    let named = ikenat.log().matches(&far_is_ready).count();
    ensure!(named == 1, "{}", ikenat.log());
    Ok(())
}
