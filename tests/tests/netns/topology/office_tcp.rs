//! TCP 4500 to a server with a VIP on each of two uplinks, with the kernel's own TCP at both ends: each connection
//! is answered from the VIP that it was made to, and not ended or moved by the other one.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ikenat_tests::lab::capture::PacketSocket;
use ikenat_tests::lab::frames::{Body, Captured, Mac, Packet, protocol};
use ikenat_tests::lab::ikenat::Ikenat;
use ikenat_tests::lab::json::InstanceStatus;
use ikenat_tests::lab::netns::Namespace;
use ikenat_tests::lab::second_wan::{
    FAR_CLIENT, FAR_CLIENT_MAC, WAN_2, WAN_2_ADDRESS, WAN_2_MAC, second_wan, start_office,
};
use ikenat_tests::lab::topology::{CLIENT, CLIENT_MAC, PEER, SERVER, VIP, WAN, WAN_MAC};
use ikenat_tests::lab::{Lab, Options};
use ikenat_tests::suite::Scenario;

use super::office::{REMOTE, default_routes};
use crate::support::force_slow_path;

pub(crate) fn scenarios() -> Vec<Scenario> {
    let offload = Options {
        checksum_offload: true,
        ..Options::default()
    };
    vec![
        Scenario::new("tcp_4500_is_answered_from_its_own_vip", by_xdp),
        Scenario::new("tcp_4500_is_answered_from_its_own_vip_in_tc", by_tc).with_options(offload),
        Scenario::new(
            "tcp_4500_of_a_server_here_is_answered_from_its_own_vip",
            local,
        )
        .with_options(offload),
    ]
}

const PORT: u16 = 4500;
const BYTES: usize = 32 << 10;
const STALLED: Duration = Duration::from_secs(5);
/// By then all has come that will.
const SILENCE: Duration = Duration::from_millis(200);

const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const PSH: u8 = 0x08;
const ACK: u8 = 0x10;

/// A client of an uplink.
struct Client<'l> {
    namespace: &'l Namespace,
    address: Ipv4Addr,
    vip: Ipv4Addr,
    wire: &'l PacketSocket,
    /// The hardware addresses of the gateway and of the client.
    macs: [Mac; 2],
}

/// A connection of a client, and the server's end of it.
struct Connection<'c> {
    client: &'c Client<'c>,
    near: TcpStream,
    accepted: TcpStream,
    port: u16,
}

/// As many bytes with this value as fit the buffers.
fn carry((from, to): (&mut TcpStream, &mut TcpStream), value: u8) -> Result<()> {
    let data = vec![value; BYTES];
    let mut came = vec![0; BYTES];
    from.write_all(&data)?;
    to.read_exact(&mut came)?;
    ensure!(came == data, "other bytes came");
    Ok(())
}

/// What a segment of the server says: the numbers of the next one, as the client would send it.
type Numbers = [u32; 2];

impl<'c> Connection<'c> {
    fn open(client: &'c Client<'c>, listener: &TcpListener) -> Result<Self> {
        let to = SocketAddrV4::new(client.vip, PORT);
        let near = client.namespace.enter(|| {
            TcpStream::connect_timeout(&to.into(), STALLED)
                .with_context(|| format!("failed to connect to {to}"))
        })?;
        let (accepted, from) = listener.accept().context("failed to accept")?;
        ensure!(from.ip() == client.address, "the server sees {from}");
        for socket in [&near, &accepted] {
            socket.set_read_timeout(Some(STALLED))?;
            socket.set_write_timeout(Some(STALLED))?;
        }
        Ok(Self {
            client,
            near,
            accepted,
            port: from.port(),
        })
    }

    /// Data both ways; all that comes to the client comes from its VIP. The last numbers of the server.
    fn talk(&mut self, value: u8) -> Result<Numbers> {
        let vip = self.client.vip;
        let stalled = || format!("the connection by {vip} stalled");
        carry((&mut self.near, &mut self.accepted), value).with_context(stalled)?;
        carry((&mut self.accepted, &mut self.near), value).with_context(stalled)?;
        let last = self.came()?;
        last.with_context(|| format!("nothing came from {vip}"))
    }

    /// Whatever has come to the client has come from its own VIP, and to its own port. The last numbers.
    fn came(&self) -> Result<Option<Numbers>> {
        let Client { vip, address, .. } = *self.client;
        let mut last = None;
        while let Some(frame) = self.client.wire.receive(SILENCE)? {
            let Ok(ip) = Captured::read(&frame) else {
                continue;
            };
            if ip.protocol != protocol::TCP {
                continue;
            }
            ensure!(
                (ip.source, ip.destination) == (vip, address) && ip.header_checksum,
                "a segment from {} to {}, not from {vip} to {address}",
                ip.source,
                ip.destination
            );
            let word = |at: usize| -> Result<u32> {
                Ok(u32::from_be_bytes(ip.body[at..at + 4].try_into()?))
            };
            ensure!(ip.body[2..4] == self.port.to_be_bytes(), "to another port");
            let data = ip.body.len() - usize::from(ip.body[12] >> 4) * 4;
            last = Some([word(8)?, word(4)?.wrapping_add(u32::try_from(data)?)]);
        }
        Ok(last)
    }

    /// What a stranger on the other uplink sends in the client's name: what would reset the connection, and what
    /// has the server answer. Returns how many segments could end it.
    fn is_attacked(&self, stranger: &Client<'_>, [next, acknowledged]: Numbers) -> Result<u64> {
        let late = next.wrapping_sub(1 << 20);
        let forged = [
            (SYN, [0x1234_5678, 0], 0),
            (ACK, [next, acknowledged], 0),
            (PSH | ACK, [late, acknowledged], 8),
            (FIN | ACK, [late, acknowledged], 0),
            (SYN | ACK, [next, acknowledged], 0),
            (RST, [next, 0], 0),
            (RST | ACK, [next, acknowledged], 0),
        ];
        let [gateway, own] = stranger.macs;
        for (wanted, wanted_numbers, length) in forged {
            let ends = [(self.client.address, self.port), (stranger.vip, PORT)];
            let mut packet = Packet::tcp(ends[0], ends[1], vec![0x66; length]);
            if let Body::Tcp { flags, numbers, .. } = &mut packet.body {
                (*flags, *numbers) = (wanted, wanted_numbers);
            }
            stranger
                .wire
                .send(&packet.with_macs(gateway, own).build())?;
        }
        let resets = forged.iter().filter(|(flags, ..)| flags & RST != 0);
        Ok(resets.count() as u64)
    }
}

/// A connection by each VIP, and what strangers send to the other one.
fn by_each_vip(lab: &Lab, clients: &[Client<'_>; 2], server: (&Namespace, Ipv4Addr)) -> Result<()> {
    let listener = server.0.enter(|| {
        TcpListener::bind(SocketAddrV4::new(server.1, PORT))
            .with_context(|| format!("failed to listen on {}", server.1))
    })?;
    for client in clients {
        client.wire.drain()?;
    }
    let [first, second] = clients;
    let mut by_first = Connection::open(first, &listener)?;
    let mut by_second = Connection::open(second, &listener)?;
    let mut refused = 0;
    for round in 1..=3 {
        let numbers = by_first.talk(round)?;
        refused += by_first.is_attacked(second, numbers)?;
        let numbers = by_second.talk(round)?;
        refused += by_second.is_attacked(first, numbers)?;
        by_first.came()?;
        by_second.came()?;
    }
    by_first.talk(0x55)?;
    by_second.talk(0x55)?;
    let status = lab.status()?;
    ensure!(
        status.count("dropped", "other-vip") == refused,
        "not {refused} segments were refused: {}",
        status.given()
    );
    Ok(())
}

/// The clients of the two uplinks.
fn clients<'l>(
    first: (&'l Namespace, &'l PacketSocket),
    second: (&'l Namespace, &'l PacketSocket),
    addresses: [Ipv4Addr; 2],
) -> [Client<'l>; 2] {
    [
        Client {
            namespace: first.0,
            address: addresses[0],
            vip: VIP,
            wire: first.1,
            macs: [WAN_MAC, CLIENT_MAC],
        },
        Client {
            namespace: second.0,
            address: addresses[1],
            vip: WAN_2_ADDRESS,
            wire: second.1,
            macs: [WAN_2_MAC, FAR_CLIENT_MAC],
        },
    ]
}

/// The clients are far away: nothing but the VIP says by which uplink a segment has to leave.
fn office(lab: &Lab, check: impl Fn(&InstanceStatus) -> Result<()>) -> Result<()> {
    let (far, far_wire) = second_wan(lab)?;
    default_routes(lab)?;
    for (client, address, vip) in [
        (&lab.client, REMOTE[0], VIP),
        (&far, REMOTE[1], WAN_2_ADDRESS),
    ] {
        client.shell(&format!(
            "ip link set lo up; ip address add {address}/32 dev lo
             ip route add {vip}/32 dev {PEER} src {address}"
        ))?;
    }
    let _ikenat = start_office(lab)?;
    let wire = PacketSocket::open(&lab.client, PEER)?;
    let clients = clients((&lab.client, &wire), (&far, &far_wire), REMOTE);
    by_each_vip(lab, &clients, (&lab.server, SERVER))?;
    check(&lab.status()?)
}

fn by_xdp(lab: &Lab) -> Result<()> {
    office(lab, |status| {
        let by_xdp = status.count_at("xdp", "forwarded", "tcp-out");
        ensure!(by_xdp > 100, "XDP has forwarded {by_xdp}");
        Ok(())
    })
}

fn by_tc(lab: &Lab) -> Result<()> {
    force_slow_path(lab)?;
    office(lab, |status| {
        let by_tc = status.count_at("tc", "forwarded", "tcp-out");
        ensure!(by_tc > 10, "tc has forwarded {by_tc}");
        Ok(())
    })
}

/// A server on the gateway itself: what it sends is seen by the egress program.
fn local(lab: &Lab) -> Result<()> {
    const LOOPBACK: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
    let (far, far_wire) = second_wan(lab)?;
    lab.gateway
        .run(&format!("ip address add {LOOPBACK}/32 dev lo"))?;
    let service = format!("office:{VIP},{WAN_2_ADDRESS}={LOOPBACK}");
    let words = ["run", "--wan", WAN, "--wan", WAN_2, "--service", &service];
    let _ikenat = Ikenat::run(lab, &lab.gateway, "ikenat", &words)?;
    let wire = PacketSocket::open(&lab.client, PEER)?;
    let clients = clients(
        (&lab.client, &wire),
        (&far, &far_wire),
        [CLIENT, FAR_CLIENT],
    );
    by_each_vip(lab, &clients, (&lab.gateway, LOOPBACK))?;
    let on_egress = lab.status()?.count_at("egress", "forwarded", "tcp-out");
    ensure!(on_egress > 10, "the egress program has seen {on_egress}");
    Ok(())
}
