//! The lab's topology: client, gateway and server, joined by veths, with their addresses and a
//! private bpffs.

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use nix::mount::{MsFlags, mount};

use super::cleanup::{self, Directory};
use super::fragment_reverser::FragmentReverser;
use super::frames::Mac;
use super::hosts::Host;
use super::links::{self, Interface};
use super::netns::Namespace;
use super::network_cards::{self, Card};
use super::routers::Routers;

/// The client's address.
pub const CLIENT: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 10);
/// A second address of the client: another peer, as far as the gateway can tell.
pub const CLIENT_2: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 11);
/// The gateway's address on the WAN, which is the VIP.
pub const VIP: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);
/// The gateway's address on the LAN.
pub const GATEWAY_LAN: Ipv4Addr = Ipv4Addr::new(192, 168, 0, 254);
/// The VPN server.
pub const SERVER: Ipv4Addr = Ipv4Addr::new(192, 168, 0, 1);

/// The client's hardware address.
pub const CLIENT_MAC: Mac = [2, 0, 0, 0, 1, 10];
/// The gateway's hardware address on the WAN.
pub const WAN_MAC: Mac = [2, 0, 0, 0, 1, 1];
/// The gateway's hardware address on the LAN.
pub const LAN_MAC: Mac = [2, 0, 0, 0, 2, 254];
/// The server's hardware address.
pub const SERVER_MAC: Mac = [2, 0, 0, 0, 2, 1];

/// The gateway's interface towards the client.
pub const WAN: &str = "wan0";
/// The gateway's interface towards the server.
pub const LAN: &str = "lan0";
/// The only interface of the client, and of the server.
pub const PEER: &str = "eth0";

/// How a lab differs from the usual one.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Let client and server leave their checksums to the device (`CHECKSUM_PARTIAL`), as every
    /// container and virtual machine does. Off, they compute them, as a real wire needs it.
    pub checksum_offload: bool,
    /// The kind of host that the gateway is.
    pub host: Host,
    /// Two routers with a small link between them on the path to the client.
    pub client_routers: bool,
    /// The same on the path to the server.
    pub server_routers: bool,
    /// The client's wire reverses the order of fragments, both ways.
    pub reversing_wire: bool,
    /// The wire to the client is a real one, between the only two network cards of this machine:
    /// [`WAN`] is the card with this driver.
    pub wan_driver: Option<&'static str>,
    /// The gateway has one interface, [`WAN`] with [`WAN_MAC`], on one switch with client and
    /// server.
    pub one_armed: bool,
}

/// A running lab. Dropping it removes everything.
#[derive(Debug)]
pub struct Lab {
    // First field, so dropped first: the cards return before their namespaces are removed.
    cards: Vec<Card>,
    /// Holds [`CLIENT`] on [`PEER`].
    pub client: Namespace,
    /// Holds [`VIP`] on [`WAN`] and [`GATEWAY_LAN`] on [`LAN`].
    pub gateway: Namespace,
    /// Holds [`SERVER`] on [`PEER`].
    pub server: Namespace,
    /// On the path to the client, if requested.
    pub client_routers: Option<Routers>,
    /// On the path to the server, if requested.
    pub server_routers: Option<Routers>,
    /// Between all three, if the gateway is one-armed.
    pub switch: Option<Namespace>,
    /// In the client's wire, if requested.
    pub reverser: Option<FragmentReverser>,
    /// How it differs from the usual one.
    pub options: Options,
    directory: Directory,
    unique: String,
}

impl Lab {
    /// Makes the namespaces, the wires between them and the private bpffs.
    pub fn new(options: Options) -> Result<Self> {
        ensure!(
            nix::unistd::geteuid().is_root(),
            "the lab makes network namespaces: run it as root"
        );
        let unique = cleanup::unique();
        let directory = Directory::create(&unique)?;
        let mut lab = Self {
            cards: Vec::new(),
            client: Namespace::create(&unique, "client")?,
            gateway: Namespace::create(&unique, "gateway")?,
            server: Namespace::create(&unique, "server")?,
            client_routers: None,
            server_routers: None,
            switch: None,
            reverser: None,
            options,
            directory,
            unique,
        };
        if options.one_armed {
            lab.one_arm()?;
        } else {
            lab.client_side()?;
            lab.server_side()?;
        }
        lab.gateway.run("sysctl -qw net.ipv4.ip_forward=1")?;
        options.host.set_up(&lab.gateway)?;
        lab.mount_bpffs()?;
        Ok(lab)
    }

    fn client_side(&mut self) -> Result<()> {
        let offload = self.options.checksum_offload;
        if self.options.client_routers {
            let routers = Routers::to_client(&self.unique, &self.client, &self.gateway)?;
            if !offload {
                links::compute_checksums(&self.client, PEER)?;
            }
            links::prepare_peer(&routers.near, PEER, offload)?;
            self.client_routers = Some(routers);
            return Ok(());
        }
        if let Some(driver) = self.options.wan_driver {
            let near = Interface {
                namespace: &self.gateway,
                name: WAN,
                mac: WAN_MAC,
            };
            let far = Interface {
                namespace: &self.client,
                name: PEER,
                mac: CLIENT_MAC,
            };
            self.cards = network_cards::join(driver, near, far)?.into();
        } else if self.options.reversing_wire {
            let wire = Namespace::create(&self.unique, "wire")?;
            self.reverser = Some(FragmentReverser::between(
                wire,
                &self.client,
                &self.gateway,
            )?);
        } else {
            self.connect(&self.client, CLIENT_MAC, WAN, WAN_MAC)?;
            links::prepare_peer(&self.client, PEER, offload)?;
        }
        self.client.shell(&format!(
            "ip address add {CLIENT}/24 dev {PEER}; ip address add {CLIENT_2}/24 dev {PEER}
             ip link set {PEER} up"
        ))?;
        self.gateway.shell(&format!(
            "ip address add {VIP}/24 dev {WAN}; ip link set {WAN} up"
        ))?;
        self.cards.iter().try_for_each(Card::wait_for_carrier)
    }

    fn server_side(&mut self) -> Result<()> {
        let offload = self.options.checksum_offload;
        if self.options.server_routers {
            let routers = Routers::to_server(&self.unique, &self.server, &self.gateway)?;
            if !offload {
                links::compute_checksums(&self.server, PEER)?;
            }
            links::prepare_peer(&routers.near, PEER, offload)?;
            self.server_routers = Some(routers);
            return Ok(());
        }
        self.connect(&self.server, SERVER_MAC, LAN, LAN_MAC)?;
        links::prepare_peer(&self.server, PEER, offload)?;
        self.gateway.shell(&format!(
            "ip address add {GATEWAY_LAN}/24 dev {LAN}; ip link set {LAN} up"
        ))?;
        self.server.shell(&format!(
            "ip address add {SERVER}/24 dev {PEER}; ip link set {PEER} up
             ip route add default via {GATEWAY_LAN}"
        ))?;
        Ok(())
    }

    /// All three on one switch: the gateway has both its addresses on the WAN.
    fn one_arm(&mut self) -> Result<()> {
        let switch = Namespace::create(&self.unique, "switch")?;
        switch.run("ip link add br0 type bridge")?;
        let ends = [
            (&self.client, PEER, CLIENT_MAC, "client0"),
            (&self.server, PEER, SERVER_MAC, "server0"),
            (&self.gateway, WAN, WAN_MAC, "gateway0"),
        ];
        for (number, (namespace, name, mac, port)) in (1..).zip(ends) {
            let far = Interface {
                namespace: &switch,
                name: port,
                mac: [2, 0, 0, 0, 9, number],
            };
            links::join(
                Interface {
                    namespace,
                    name,
                    mac,
                },
                far,
            )?;
            // Its forwarding database is static, so it floods no frames.
            switch.shell(&format!(
                "ip link set {port} master br0 up
                 bridge fdb add {} dev {port} master static",
                links::mac_text(mac)
            ))?;
            if !self.options.checksum_offload {
                links::compute_checksums(namespace, name)?;
            }
        }
        links::prepare_peer(&switch, "gateway0", self.options.checksum_offload)?;
        switch.run("ip link set br0 up")?;
        self.client.shell(&format!(
            "ip address add {CLIENT}/24 dev {PEER}; ip address add {CLIENT_2}/24 dev {PEER}
             ip link set {PEER} up"
        ))?;
        self.server.shell(&format!(
            "ip address add {SERVER}/24 dev {PEER}; ip link set {PEER} up
             ip route add default via {GATEWAY_LAN}"
        ))?;
        self.gateway.shell(&format!(
            "ip address add {VIP}/24 dev {WAN}; ip address add {GATEWAY_LAN}/24 dev {WAN}
             ip link set {WAN} up"
        ))?;
        self.switch = Some(switch);
        Ok(())
    }

    fn connect(&self, peer: &Namespace, peer_mac: Mac, port: &str, port_mac: Mac) -> Result<()> {
        let interface = |name, mac| Interface {
            namespace: &self.gateway,
            name,
            mac,
        };
        let peer = Interface {
            namespace: peer,
            ..interface(PEER, peer_mac)
        };
        links::join(peer, interface(port, port_mac))
    }

    /// One more namespace, for whatever else a test needs; it is removed when it is dropped.
    pub fn add_namespace(&self, role: &str) -> Result<Namespace> {
        Namespace::create(&self.unique, role)
    }

    fn mount_bpffs(&self) -> Result<()> {
        let bpffs = self.bpffs();
        fs::create_dir(&bpffs).with_context(|| format!("failed to create {}", bpffs.display()))?;
        let none = None::<&str>;
        mount(Some("bpf"), &bpffs, Some("bpf"), MsFlags::empty(), none)
            .with_context(|| format!("failed to mount bpffs on {}", bpffs.display()))
    }

    /// What `ikenat-lab clean` calls it.
    pub fn id(&self) -> &str {
        &self.unique
    }

    /// The lab's own directory: logs, configuration, mounts.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// The private bpffs.
    pub fn bpffs(&self) -> PathBuf {
        self.directory().join(cleanup::BPFFS)
    }

    /// A log file of this name.
    pub fn log(&self, name: &str) -> PathBuf {
        self.directory().join(format!("{name}.log"))
    }

    /// Stops client and server from sending destination-unreachable errors (for closed ports).
    pub fn no_unreachables(&self) -> Result<()> {
        for peer in [&self.client, &self.server] {
            peer.shell(
                "nft add table ip quiet
                 nft 'add chain ip quiet out { type filter hook output priority 0; }'
                 nft add rule ip quiet out icmp type destination-unreachable drop",
            )?;
        }
        Ok(())
    }

    /// Flushes the neighbour tables of the gateway.
    pub fn flush_neighbours(&self) -> Result<()> {
        self.gateway.run("ip neighbour flush all")?;
        Ok(())
    }

    /// Makes FORWARD accept the packets that the gateway's kernel gets, and turns `ip_forward` on.
    pub fn accept_forward(&self) -> Result<()> {
        self.options.host.accept_forward(&self.gateway)
    }

    /// NAT by the gateway's kernel, as it was done before ikenat: proves the lab without `ikenat`.
    pub fn kernel_nat(&self) -> Result<()> {
        self.gateway.shell(&format!(
            "nft add table ip nat
             nft 'add chain ip nat pre {{ type nat hook prerouting priority dstnat; }}'
             nft 'add rule ip nat pre ip daddr {VIP} udp dport {{ 500, 4500 }} dnat to {SERVER}'
             nft 'add rule ip nat pre ip daddr {VIP} ip protocol esp dnat to {SERVER}'
             nft 'add chain ip nat post {{ type nat hook postrouting priority srcnat; }}'
             nft 'add rule ip nat post oifname {WAN} ip saddr {SERVER} udp sport {{ 500, 4500 }} snat to {VIP}'"
        ))?;
        Ok(())
    }

    /// Everything in the lab's logs that may explain a failure.
    pub fn evidence(&self) -> String {
        const LINES: usize = 60;
        let Ok(listing) = fs::read_dir(self.directory()) else {
            return String::new();
        };
        let mut logs: Vec<PathBuf> = listing
            .flatten()
            .map(|entry| entry.path())
            .filter(|path| path.extension().is_some_and(|extension| extension == "log"))
            .collect();
        logs.sort();
        let mut text = String::new();
        for path in logs {
            let log = fs::read(&path).unwrap_or_default();
            let log = String::from_utf8_lossy(&log);
            let lines: Vec<&str> = log.lines().collect();
            let tail = lines[lines.len().saturating_sub(LINES)..].join("\n");
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            text.push_str(&format!("--- end of {name}\n{tail}\n"));
        }
        // The counters show the outcome of every packet. Without an instance this prints that,
        // which is useful too.
        for verb in ["stats", "status"] {
            let output = self
                .ikenat(&[verb])
                .and_then(|mut command| Ok(command.output()?));
            if let Ok(output) = output {
                let said = [output.stdout, output.stderr].concat();
                let said = String::from_utf8_lossy(&said);
                text.push_str(&format!("--- ikenat {verb}\n{said}\n"));
            }
        }
        text
    }
}

/// Runs a test in its lab; on a failure the logs of the lab are added to the error.
pub fn with_lab(options: Options, test: impl FnOnce(&Lab) -> Result<()>) -> Result<()> {
    let lab = Lab::new(options)?;
    test(&lab).map_err(|error| {
        let evidence = lab.evidence();
        error.context(format!("{evidence}--- the failure"))
    })
}
