//! TCP 4500 (RFC 9329): real connections through the gateway in both directions, on every kind of
//! gateway; and what forged segments do not do.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ikenat_tests::lab::frames::{Body, Packet};
use ikenat_tests::lab::ikenat::Ikenat;
use ikenat_tests::lab::json::InstanceStats;
use ikenat_tests::lab::netns::Namespace;
use ikenat_tests::lab::topology::{CLIENT, SERVER, VIP, WAN};
use ikenat_tests::lab::transfer::send_all;
use ikenat_tests::lab::wire::{Wire, from_client};
use ikenat_tests::lab::{Host, Lab, Options};
use ikenat_tests::suite::Scenario;

use crate::support::{everything_crosses, force_slow_path};

/// What an originator sends first (RFC 9329 section 4).
const PREFIX: &[u8; 6] = b"IKETCP";
const PORT: u16 = 4500;
const BYTES: usize = 8 << 20;
const STALLED: Duration = Duration::from_secs(5);

pub(crate) fn scenarios() -> Vec<Scenario> {
    // Segments of up to 64 KiB with partial checksums leave client and server.
    let offload = |options| Options {
        checksum_offload: true,
        ..options
    };
    let one_armed = Options {
        one_armed: true,
        ..Options::default()
    };
    let scenario = |name, options| Scenario::new(name, two_arms).with_options(options);
    vec![
        scenario("tcp_4500_crosses_both_ways", Options::default()),
        scenario("tcp_4500_crosses_with_offload", offload(Options::default())),
        Scenario::on_host(
            "tcp_4500_crosses_under_forward_drop",
            Host::ForwardDropConntrack,
            two_arms,
        ),
        Scenario::new("tcp_4500_crosses_by_the_slow_path", slow_path)
            .with_options(offload(Options::default())),
        Scenario::new("tcp_4500_crosses_one_armed", one_arm).with_options(one_armed),
        Scenario::new("tcp_4500_crosses_one_armed_with_offload", one_arm)
            .with_options(offload(one_armed)),
        Scenario::new("tcp_4500_reaches_a_server_on_the_gateway", local)
            .with_options(offload(Options::default())),
        Scenario::new("tcp_4500_learns_a_smaller_mtu", smaller_mtu)
            .with_options(offload(Options::default())),
        Scenario::new("forged_segments_begin_and_end_nothing", forged),
    ]
}

/// A connection of the client to the VIP, and the server's end of it.
fn connect(lab: &Lab, server: &Namespace, address: Ipv4Addr) -> Result<(TcpStream, TcpStream)> {
    let listener = server.enter(|| {
        TcpListener::bind(SocketAddrV4::new(address, PORT))
            .with_context(|| format!("failed to listen on {address}"))
    })?;
    let to = SocketAddrV4::new(VIP, PORT);
    let stream = lab.client.enter(|| {
        TcpStream::connect_timeout(&to.into(), STALLED)
            .with_context(|| format!("failed to connect to {to}"))
    })?;
    let (accepted, from) = listener.accept().context("failed to accept")?;
    ensure!(from.ip() == CLIENT, "the server sees {from}");
    Ok((stream, accepted))
}

/// Megabytes both ways, and what is counted.
fn transfers(lab: &Lab, server: &Namespace, address: Ipv4Addr) -> Result<()> {
    let begun = |lab: &Lab| -> Result<u64> { Ok(lab.status()?.count("stream", "ike-tcp-in")) };
    let before = begun(lab)?;
    let (mut client, mut accepted) = connect(lab, server, address)?;
    client.write_all(PREFIX)?;
    let mut start = [0; PREFIX.len()];
    accepted.set_read_timeout(Some(STALLED))?;
    accepted.read_exact(&mut start).context("the prefix")?;
    ensure!(start == *PREFIX, "the server read {start:?}");
    ensure!(
        begun(lab)? == before + 1,
        "{} streams have begun",
        begun(lab)?
    );
    send_all((&mut client, &mut accepted), BYTES).context("client to server")?;
    let (mut client, mut accepted) = connect(lab, server, address)?;
    send_all((&mut accepted, &mut client), BYTES).context("server to client")?;
    ensure!(
        begun(lab)? == before + 1,
        "a stream without the prefix counts"
    );
    let status = lab.status()?;
    for reason in ["tcp-in", "tcp-out"] {
        ensure!(
            status.count("forwarded", reason) > 10,
            "{reason}: {}",
            status.given()
        );
    }
    let stats = lab.stats()?;
    ensure!(
        stats.sessions.is_empty() && stats.spis.is_empty(),
        "TCP made entries: {stats:?}"
    );
    Ok(())
}

fn two_arms(lab: &Lab) -> Result<()> {
    let _ikenat = Ikenat::start(lab)?;
    transfers(lab, &lab.server, SERVER)?;
    if !lab.options.checksum_offload {
        let by_xdp = lab.status()?.count_at("xdp", "forwarded", "tcp-in");
        ensure!(by_xdp > 100, "XDP has forwarded {by_xdp}");
    }
    Ok(())
}

fn slow_path(lab: &Lab) -> Result<()> {
    force_slow_path(lab)?;
    let _ikenat = Ikenat::start(lab)?;
    transfers(lab, &lab.server, SERVER)?;
    let status = lab.status()?;
    ensure!(status.count_at("xdp", "forwarded", "tcp-out") == 0);
    ensure!(
        status.count("answered", "fragmentation-needed") == 0,
        "a segment of offload is not too big"
    );
    Ok(())
}

fn one_arm(lab: &Lab) -> Result<()> {
    let (vip, server) = (VIP.to_string(), SERVER.to_string());
    let words = [
        "run", "--wan", WAN, "--lan", WAN, "--vip", &vip, "--server", &server,
    ];
    let _ikenat = Ikenat::run(lab, &lab.gateway, "ikenat", &words)?;
    transfers(lab, &lab.server, SERVER)
}

fn local(lab: &Lab) -> Result<()> {
    const LOOPBACK: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
    lab.gateway
        .run(&format!("ip address add {LOOPBACK}/32 dev lo"))?;
    let (vip, server) = (VIP.to_string(), LOOPBACK.to_string());
    let words = ["run", "--wan", WAN, "--vip", &vip, "--server", &server];
    let _ikenat = Ikenat::run(lab, &lab.gateway, "ikenat", &words)?;
    transfers(lab, &lab.gateway, LOOPBACK)
}

/// The server's segments are too big for the WAN: ikenat's ICMP errors make them smaller.
fn smaller_mtu(lab: &Lab) -> Result<()> {
    lab.gateway.run(&format!("ip link set {WAN} mtu 1300"))?;
    let _ikenat = Ikenat::start(lab)?;
    let (mut client, mut accepted) = connect(lab, &lab.server, SERVER)?;
    send_all((&mut accepted, &mut client), BYTES).context("server to client")?;
    let status = lab.status()?;
    ensure!(
        status.count("answered", "fragmentation-needed") > 0,
        "{}",
        status.given()
    );
    Ok(())
}

/// A segment with these flags.
fn segment(from: Ipv4Addr, wanted: u8, payload: &[u8]) -> Packet {
    let mut packet = Packet {
        source: from,
        ..from_client(4500, 4500, [])
    };
    packet.body = Packet::tcp((from, 40_000), (VIP, PORT), payload).body;
    if let Body::Tcp { flags, .. } = &mut packet.body {
        *flags = wanted;
    }
    packet
}

fn forged(lab: &Lab) -> Result<()> {
    const STRANGER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 77);
    const FLAGS: [u8; 5] = [0x02, 0x10, 0x18, 0x11, 0x04];
    let _ikenat = Ikenat::start(lab)?;
    // Only the wire answers, not the server's stack.
    lab.server.shell(
        "nft add table ip mute
         nft 'add chain ip mute out { type filter hook output priority 0; }'
         nft add rule ip mute out meta l4proto tcp drop",
    )?;
    let send = |from| -> Result<()> {
        let wire = Wire::open(lab)?;
        for flags in FLAGS {
            for payload in [&[][..], PREFIX] {
                wire.inbound(&segment(from, flags, payload))?;
            }
        }
        Ok(())
    };
    send(STRANGER)?;
    let stats = lab.stats()?;
    ensure!(
        stats.sessions.is_empty() && stats.spis.is_empty(),
        "a stranger has made entries: {stats:?}"
    );
    everything_crosses(lab)?;
    let before = lab.stats()?;
    std::thread::sleep(Duration::from_secs(2));
    send(CLIENT)?;
    let after = lab.stats()?;
    let entries = |stats: &InstanceStats| (stats.sessions.len(), stats.spis.len());
    ensure!(
        entries(&before) == entries(&after) && after.sessions.len() == 1,
        "{before:?} became {after:?}"
    );
    let age = after.sessions[0].last_seen_secs;
    ensure!(age >= 2.0, "a segment has refreshed the session: {age} s");
    everything_crosses(lab)
}
