//! Two gateways on one machine, in two namespaces and in one, with traffic through both.

use std::net::Ipv4Addr;

use anyhow::{Context, Result, ensure};
use ikenat_tests::lab::Lab;
use ikenat_tests::lab::capture::PacketSocket;
use ikenat_tests::lab::frames::{Mac, Packet, protocol};
use ikenat_tests::lab::ikenat::Ikenat;
use ikenat_tests::lab::json::InstanceStatus;
use ikenat_tests::lab::links::{self, Interface};
use ikenat_tests::lab::netns::{Namespace, execute};
use ikenat_tests::lab::topology::{PEER, VIP};
use ikenat_tests::lab::wire::{Wire, cross, esp, from_client, from_server};
use ikenat_tests::suite::Scenario;

pub(crate) fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario::new(
            "two_gateways_in_two_namespaces_share_a_bpffs",
            two_namespaces,
        ),
        Scenario::new("two_gateways_on_one_host_for_two_vips", two_vips),
    ]
}

const SPI: u32 = 0xC321_0007;

/// A second gateway's worth of client and server, beside the lab's own.
struct Second {
    client: PacketSocket,
    server: PacketSocket,
    _namespaces: [Namespace; 2],
}

const VIP_2: Ipv4Addr = Ipv4Addr::new(198, 51, 103, 1);
const CLIENT_B: Ipv4Addr = Ipv4Addr::new(198, 51, 103, 10);
const SERVER_B: Ipv4Addr = Ipv4Addr::new(192, 168, 3, 1);
const LAN_B: Ipv4Addr = Ipv4Addr::new(192, 168, 3, 254);
const WAN_B_MAC: Mac = [2, 0, 0, 0, 6, 1];
const CLIENT_B_MAC: Mac = [2, 0, 0, 0, 6, 10];
const LAN_B_MAC: Mac = [2, 0, 0, 0, 7, 254];
const SERVER_B_MAC: Mac = [2, 0, 0, 0, 7, 1];

impl Second {
    /// On interfaces `wan2` and `lan2` of a namespace.
    fn beside(lab: &Lab, gateway: &Namespace) -> Result<Self> {
        let namespaces = [
            lab.add_namespace("client-b")?,
            lab.add_namespace("server-b")?,
        ];
        let port = |namespace, name, mac| Interface {
            namespace,
            name,
            mac,
        };
        let [client, server] = &namespaces;
        links::join(
            port(client, PEER, CLIENT_B_MAC),
            port(gateway, "wan2", WAN_B_MAC),
        )?;
        links::join(
            port(server, PEER, SERVER_B_MAC),
            port(gateway, "lan2", LAN_B_MAC),
        )?;
        for (end, address, way) in [(client, CLIENT_B, VIP_2), (server, SERVER_B, LAN_B)] {
            links::prepare_peer(end, PEER, false)?;
            end.shell(&format!(
                "ip address add {address}/24 dev {PEER}; ip link set {PEER} up
                 ip route add default via {way}"
            ))?;
        }
        gateway.shell(&format!(
            "ip address add {VIP_2}/24 dev wan2; ip address add {LAN_B}/24 dev lan2
             ip link set wan2 up; ip link set lan2 up
             sysctl -qw net.ipv4.ip_forward=1"
        ))?;
        Ok(Self {
            client: PacketSocket::open(client, PEER)?,
            server: PacketSocket::open(server, PEER)?,
            _namespaces: namespaces,
        })
    }

    fn arguments() -> Vec<String> {
        let words = format!(
            "run --instance second --wan wan2 --lan lan2 --vip {VIP_2} --server {SERVER_B}"
        );
        words.split(' ').map(str::to_owned).collect()
    }

    fn start(lab: &Lab, gateway: &Namespace) -> Result<Ikenat> {
        let arguments = Self::arguments();
        let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
        Ikenat::run(lab, gateway, "ikenat-2", &words)
    }

    fn crosses(&self, sequence: u32) -> Result<()> {
        for native in [false, true] {
            let payload = esp(SPI, sequence, 80);
            let packet = |source, destination| {
                if native {
                    Packet::raw(source, destination, protocol::ESP, payload.clone())
                } else {
                    Packet::udp((source, 4500), (destination, 4500), payload.clone())
                }
            };
            let passed_on = |mut packet: Packet| {
                packet.ttl -= 1;
                packet.build()
            };
            let sent = packet(CLIENT_B, VIP_2).with_macs(WAN_B_MAC, CLIENT_B_MAC);
            let wanted = packet(CLIENT_B, SERVER_B).with_macs(SERVER_B_MAC, LAN_B_MAC);
            cross(
                &self.client,
                &self.server,
                &[sent.build()],
                &[passed_on(wanted)],
            )?;
            let sent = packet(SERVER_B, CLIENT_B).with_macs(LAN_B_MAC, SERVER_B_MAC);
            let wanted = packet(VIP_2, CLIENT_B).with_macs(CLIENT_B_MAC, WAN_B_MAC);
            cross(
                &self.server,
                &self.client,
                &[sent.build()],
                &[passed_on(wanted)],
            )?;
        }
        Ok(())
    }
}

fn first_crosses(wire: &Wire, sequence: u32) -> Result<()> {
    wire.inbound(&from_client(4500, 4500, esp(SPI, sequence, 80)))?;
    wire.outbound(&from_server(4500, 4500, esp(SPI, sequence, 80)))
}

/// Both translate, count for themselves, and one's end is not the other's.
fn two_work(lab: &Lab, second: &Second, gateway: &Namespace) -> Result<()> {
    let first = Ikenat::start(lab)?;
    let other = Second::start(lab, gateway)?;
    let wire = Wire::open(lab)?;
    for sequence in 1..=10 {
        first_crosses(&wire, sequence)?;
        second.crosses(sequence).context("the second gateway")?;
    }
    let all = lab.all_status()?;
    let esp_in = |vip: Ipv4Addr| -> Result<u64> {
        let of = |status: &&InstanceStatus| status.serves(vip);
        let status = all.iter().find(of).context("an instance is missing")?;
        Ok(status.count("forwarded", "esp-in-udp-in"))
    };
    ensure!(
        all.len() == 2 && esp_in(VIP)? == 10 && esp_in(VIP_2)? == 10,
        "{all:?}"
    );
    first.terminate()?;
    execute(&mut lab.ikenat(&["unload", "--vip", &VIP.to_string()])?)?;
    for sequence in 11..=20 {
        second
            .crosses(sequence)
            .context("after the first has gone")?;
    }
    other.terminate()?;
    lab.unload()
}

fn two_namespaces(lab: &Lab) -> Result<()> {
    let gateway = lab.add_namespace("gateway-b")?;
    let second = Second::beside(lab, &gateway)?;
    two_work(lab, &second, &gateway)
}

fn two_vips(lab: &Lab) -> Result<()> {
    let second = Second::beside(lab, &lab.gateway)?;
    two_work(lab, &second, &lab.gateway)
}
