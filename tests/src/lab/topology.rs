//! Client, gateway and server, joined by veths, with their addresses and a private bpffs.
//!
//! Knows where things are; knows nothing of what is sent.

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use nix::mount::{MsFlags, mount};

use super::cleanup::{self, Directory};
use super::frames::Mac;
use super::netns::Namespace;

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

/// The object file with an XDP program that passes everything, in its section `xdp`.
const PEER_OBJECT: &str = "IKENAT_PEER_OBJECT";
const PEER_OBJECT_DEFAULT: &str = "bpf/peer.o";

/// How a lab differs from the usual one.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Let client and server leave their checksums to the device (`CHECKSUM_PARTIAL`), as every
    /// container and virtual machine does. Off, they compute them, as a real wire needs it.
    pub checksum_offload: bool,
}

/// A running lab. Dropping it removes everything.
#[derive(Debug)]
pub struct Lab {
    /// Holds [`CLIENT`] on [`PEER`].
    pub client: Namespace,
    /// Holds [`VIP`] on [`WAN`] and [`GATEWAY_LAN`] on [`LAN`].
    pub gateway: Namespace,
    /// Holds [`SERVER`] on [`PEER`].
    pub server: Namespace,
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
        let lab = Self {
            client: Namespace::create(&unique, "client")?,
            gateway: Namespace::create(&unique, "gateway")?,
            server: Namespace::create(&unique, "server")?,
            directory,
            unique,
        };
        lab.connect(&lab.client, CLIENT_MAC, WAN, WAN_MAC)?;
        lab.connect(&lab.server, SERVER_MAC, LAN, LAN_MAC)?;
        for peer in [&lab.client, &lab.server] {
            prepare_peer(peer, options)?;
        }
        lab.address()?;
        lab.mount_bpffs()?;
        Ok(lab)
    }

    /// Another namespace of this lab.
    pub fn add_namespace(&self, role: &str) -> Result<Namespace> {
        Namespace::create(&self.unique, role)
    }

    fn connect(&self, peer: &Namespace, peer_mac: Mac, port: &str, port_mac: Mac) -> Result<()> {
        peer.run(&format!(
            "ip link add {PEER} address {} type veth peer name {port} address {} netns {}",
            mac_text(peer_mac),
            mac_text(port_mac),
            self.gateway.name()
        ))?;
        Ok(())
    }

    fn address(&self) -> Result<()> {
        self.client.shell(&format!(
            "ip address add {CLIENT}/24 dev {PEER}; ip address add {CLIENT_2}/24 dev {PEER}
             ip link set {PEER} up"
        ))?;
        self.gateway.shell(&format!(
            "ip address add {VIP}/24 dev {WAN}; ip address add {GATEWAY_LAN}/24 dev {LAN}
             ip link set {WAN} up; ip link set {LAN} up
             sysctl -qw net.ipv4.ip_forward=1"
        ))?;
        self.server.shell(&format!(
            "ip address add {SERVER}/24 dev {PEER}; ip link set {PEER} up
             ip route add default via {GATEWAY_LAN}"
        ))?;
        Ok(())
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

    /// Lets client and server be silent about packets that nobody there listens for.
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

    /// Makes the gateway forget who has which hardware address.
    pub fn flush_neighbours(&self) -> Result<()> {
        self.gateway.run("ip neighbour flush all")?;
        Ok(())
    }

    /// The gateway's own NAT, as people did it before: proves the lab without `ikenat`.
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
        // What became of every packet. Without an instance it says so, which is worth knowing too.
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

/// The usual lab around a test; what its logs say is added to a failure.
pub fn with_lab(options: Options, test: impl FnOnce(&Lab) -> Result<()>) -> Result<()> {
    let lab = Lab::new(options)?;
    test(&lab).map_err(|error| {
        let evidence = lab.evidence();
        error.context(format!("{evidence}--- the failure"))
    })
}

fn prepare_peer(peer: &Namespace, options: Options) -> Result<()> {
    if !options.checksum_offload {
        peer.run(&format!("ethtool -K {PEER} tx off"))?;
    }
    // A veth takes redirected frames only if its peer polls: with an XDP program of its own, or
    // with GRO, which then delivers in bursts.
    match peer_object()? {
        // In a mount namespace of its own: iproute2 mounts a bpffs on /sys/fs/bpf if there is none, and that
        // would stay.
        Some(object) => peer.run(&format!(
            "unshare --mount ip link set dev {PEER} xdpdrv obj {} sec xdp",
            object.display()
        ))?,
        None => peer.run(&format!("ethtool -K {PEER} gro on"))?,
    };
    Ok(())
}

/// The program for the peers, where it has been built.
fn peer_object() -> Result<Option<PathBuf>> {
    if let Some(path) = std::env::var_os(PEER_OBJECT).map(PathBuf::from) {
        ensure!(
            path.is_file(),
            "{PEER_OBJECT} names {}, which is not a file",
            path.display()
        );
        return Ok(Some(path));
    }
    let target = target_directory()?;
    let path = target.join(PEER_OBJECT_DEFAULT);
    Ok(path.is_file().then_some(path))
}

/// The directory that cargo builds into, found from where this program lies in it.
pub(crate) fn target_directory() -> Result<PathBuf> {
    let program = std::env::current_exe().context("failed to find the running program")?;
    program
        .ancestors()
        .find(|directory| directory.join("CACHEDIR.TAG").is_file())
        .map(Path::to_path_buf)
        .with_context(|| format!("{} is not in a target directory", program.display()))
}

fn mac_text(mac: Mac) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}
