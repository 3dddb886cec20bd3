//! Two gateways with keepalived and virtual MAC addresses (`use_vmac`) on both sides: one takes over
//! from the other, and back.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use ikenat_tests::lab::Lab;
use ikenat_tests::lab::capture::PacketSocket;
use ikenat_tests::lab::frames::{Mac, Packet};
use ikenat_tests::lab::ikenat::{Ikenat, binary, usual_arguments};
use ikenat_tests::lab::links::{self, Interface};
use ikenat_tests::lab::netns::Namespace;
use ikenat_tests::lab::process::Process;
use ikenat_tests::lab::topology::{
    CLIENT, CLIENT_MAC, GATEWAY_LAN, LAN, LAN_MAC, PEER, SERVER, SERVER_MAC, VIP, WAN, WAN_MAC,
};
use ikenat_tests::lab::wire::{at_client, at_server};
use ikenat_tests::suite::Scenario;

use super::addresses::packets;
use crate::support::patience;

pub(crate) fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario::new("keepalived_with_virtual_macs_fails_over_and_back", works)
            .with_programs(&["keepalived"])
            .alone(),
    ]
}

const WAN_VIRTUAL: Mac = [0, 0, 0x5e, 0, 1, 51];
const LAN_VIRTUAL: Mac = [0, 0, 0x5e, 0, 1, 52];
/// Packets of each kind, each way, after each change of the master.
const ROUNDS: u32 = 10;

/// One of the two gateways.
struct Gateway<'a> {
    name: char,
    namespace: &'a Namespace,
    priority: u8,
    /// Of its WAN and its LAN.
    macs: [Mac; 2],
}

/// A switch for each side, with the end of that side and both gateways.
struct Switches {
    wan: Namespace,
    lan: Namespace,
}

impl Switches {
    fn between(lab: &Lab, gateways: &[Gateway<'_>; 2]) -> Result<Self> {
        let this = Self {
            wan: lab.add_namespace("wan-switch")?,
            lan: lab.add_namespace("lan-switch")?,
        };
        for (side, switch, end, end_mac, name) in [
            (0, &this.wan, &lab.client, CLIENT_MAC, WAN),
            (1, &this.lan, &lab.server, SERVER_MAC, LAN),
        ] {
            end.run(&format!("ip link del {PEER}"))?;
            switch.run("ip link add br0 type bridge mcast_snooping 0")?;
            plug(switch, "end", (end, PEER, end_mac))?;
            links::compute_checksums(end, PEER)?;
            for gateway in gateways {
                let port = format!("port-{}", gateway.name);
                plug(switch, &port, (gateway.namespace, name, gateway.macs[side]))?;
                links::prepare_peer(switch, &port, false)?;
            }
            switch.run("ip link set br0 up")?;
        }
        lab.client.shell(&format!(
            "ip address add {CLIENT}/24 dev {PEER}; ip link set {PEER} up"
        ))?;
        lab.server.shell(&format!(
            "ip address add {SERVER}/24 dev {PEER}; ip link set {PEER} up
             ip route add default via {GATEWAY_LAN}"
        ))?;
        Ok(this)
    }
}

fn plug(
    switch: &Namespace,
    port: &str,
    (namespace, name, mac): (&Namespace, &str, Mac),
) -> Result<()> {
    let far = [2, 0, 0, 8, mac[4], mac[5]];
    let end = |namespace, name, mac| Interface {
        namespace,
        name,
        mac,
    };
    links::join(end(namespace, name, mac), end(switch, port, far))?;
    switch.run(&format!("ip link set {port} master br0 up"))?;
    Ok(())
}

impl Gateway<'_> {
    /// Addresses of its own, and a firewall that forwards nothing.
    fn set_up(&self, last: u8) -> Result<()> {
        self.namespace.shell(&format!(
            "ip address add 203.0.113.{last}/24 dev {WAN}; ip link set {WAN} up
             ip address add 192.168.0.{last}/24 dev {LAN}; ip link set {LAN} up
             sysctl -qw net.ipv4.ip_forward=1
             nft add table ip firewall
             nft 'add chain ip firewall forward {{ type filter hook forward priority 0; policy drop; }}'"
        ))?;
        Ok(())
    }

    fn start_keepalived(&self, lab: &Lab) -> Result<Process> {
        let file = |end: &str| {
            lab.directory()
                .join(format!("keepalived-{}.{end}", self.name))
        };
        let instance = |name: &str, interface: &str, router: u8, address: String| {
            format!(
                "vrrp_instance {name} {{
                    state BACKUP
                    interface {interface}
                    use_vmac vrrp.{router}
                    virtual_router_id {router}
                    priority {}
                    advert_int 0.2
                    virtual_ipaddress {{
                        {address}/32
                    }}
                }}\n",
                self.priority
            )
        };
        let text = [
            "global_defs {\n vrrp_version 3\n vrrp_garp_master_delay 1\n}\n".to_owned(),
            "vrrp_sync_group both {\n group {\n wan\n lan\n }\n}\n".to_owned(),
            instance("wan", WAN, 51, VIP.to_string()),
            instance("lan", LAN, 52, GATEWAY_LAN.to_string()),
        ];
        fs::write(file("conf"), text.concat()).context("failed to write a configuration")?;
        let mut command = self.namespace.command("keepalived");
        command.args([
            "--dont-fork",
            "--log-console",
            "--log-detail",
            "--vrrp",
            "--use-file",
        ]);
        command.arg(file("conf")).arg("--pid").arg(file("pid"));
        command.arg("--vrrp_pid").arg(file("vrrp-pid"));
        Process::spawn(&mut command, lab.log(&format!("keepalived-{}", self.name)))
    }

    /// Whether it has the address of both virtual routers.
    fn is_master(&self) -> bool {
        let has = |name: &str, address: String| {
            let shown = self.namespace.run(&format!("ip -br address show {name}"));
            shown.is_ok_and(|text| text.contains(&address))
        };
        has("vrrp.51", VIP.to_string()) && has("vrrp.52", GATEWAY_LAN.to_string())
    }
}

/// Sends until exactly this frame arrives, or the time is over.
fn arrives(ends: [&PacketSocket; 2], sent: &Packet, wanted: &Packet) -> Result<bool> {
    let [from, to] = ends;
    let wanted = wanted.build();
    from.send(&sent.build())?;
    let came = to.find(patience(Duration::from_secs(1)), |frame| frame == wanted)?;
    Ok(came.is_some())
}

/// Each kind of packet both ways by this gateway.
fn crosses(ends: [&PacketSocket; 2], sequence: u32, by: &Gateway<'_>) -> Result<()> {
    let [client, server] = ends;
    let [wan, lan] = by.macs;
    for (inbound, outbound) in packets(sequence) {
        let inbound = inbound.with_macs(WAN_VIRTUAL, CLIENT_MAC);
        let wanted = at_server(&inbound).with_macs(SERVER_MAC, lan);
        ensure!(
            arrives([client, server], &inbound, &wanted)?,
            "lost: {inbound:?}"
        );
        let outbound = outbound.with_macs(LAN_VIRTUAL, SERVER_MAC);
        let wanted = at_client(&outbound).with_macs(CLIENT_MAC, wan);
        ensure!(
            arrives([server, client], &outbound, &wanted)?,
            "lost: {outbound:?}"
        );
    }
    Ok(())
}

/// Waits until a gateway is the master and its packets cross; then none may be lost.
fn serves(ends: [&PacketSocket; 2], sequence: &mut u32, by: &Gateway<'_>) -> Result<()> {
    const TAKE_OVER: Duration = Duration::from_secs(20);
    let began = Instant::now();
    while !by.is_master() {
        ensure!(
            began.elapsed() < patience(TAKE_OVER),
            "{} is no master",
            by.name
        );
        std::thread::sleep(Duration::from_millis(20));
    }
    loop {
        *sequence += 1;
        match crosses(ends, *sequence, by) {
            Ok(()) => break,
            Err(error) if began.elapsed() > patience(TAKE_OVER) => return Err(error),
            Err(_) => {}
        }
    }
    for _ in 0..ROUNDS {
        *sequence += 1;
        crosses(ends, *sequence, by).with_context(|| format!("by {}", by.name))?;
    }
    Ok(())
}

/// ikenat on the second gateway, in a directory of its own of the lab's bpffs.
fn start_second(lab: &Lab, gateway: &Gateway<'_>) -> Result<Process> {
    let pins = lab.bpffs().join("second");
    fs::create_dir(&pins).with_context(|| format!("failed to create {}", pins.display()))?;
    let mut command = gateway.namespace.command(binary()?);
    command.args(usual_arguments()).arg("--bpffs").arg(pins);
    let mut process = Process::spawn(&mut command, lab.log("ikenat-b"))?;
    process.wait_for_log("ready: ", patience(Duration::from_secs(30)))?;
    Ok(process)
}

fn works(lab: &Lab) -> Result<()> {
    let second = lab.add_namespace("gateway-b")?;
    let gateway = |name, namespace, priority, macs| Gateway {
        name,
        namespace,
        priority,
        macs,
    };
    let other = [[2, 0, 0, 0, 1, 3], [2, 0, 0, 0, 2, 3]];
    let gateways = [
        gateway('a', &lab.gateway, 150, [WAN_MAC, LAN_MAC]),
        gateway('b', &second, 100, other),
    ];
    let switches = Switches::between(lab, &gateways)?;
    let [a, b] = &gateways;
    a.set_up(2)?;
    b.set_up(3)?;
    let _ikenat = Ikenat::start(lab)?;
    let _second = start_second(lab, b)?;
    let mut keepalived = a.start_keepalived(lab)?;
    let _other = b.start_keepalived(lab)?;
    lab.no_unreachables()?;
    let client = PacketSocket::open(&lab.client, PEER)?;
    let server = PacketSocket::open(&lab.server, PEER)?;
    let ends = [&client, &server];
    let mut sequence = 0;
    serves(ends, &mut sequence, a).context("at first")?;
    for (side, switch) in [(WAN, &switches.wan), (LAN, &switches.lan)] {
        switch.run("ip link set port-a down")?;
        serves(ends, &mut sequence, b).with_context(|| format!("{side} of a is down"))?;
        switch.run("ip link set port-a up")?;
        serves(ends, &mut sequence, a).with_context(|| format!("{side} of a is up again"))?;
    }
    // The end of keepalived takes the virtual interfaces away.
    keepalived.terminate(patience(Duration::from_secs(10)))?;
    serves(ends, &mut sequence, b).context("without keepalived on a")?;
    let _keepalived = a.start_keepalived(lab)?;
    serves(ends, &mut sequence, a).context("with keepalived on a again")
}
