//! An instance of ABI 3 to 6, as its daemon leaves it: programs attached, pins, and tables with entries.
//!
//! `tests/older/ikenat-abi3.o.gz` is the object of the last commit with that ABI, 6dfc561: its
//! `target/bpf/ikenat.o` after `cargo xtask build`, `llvm-strip --strip-debug` and `gzip -9n`; those of
//! the others were made likewise ([`Version`]). The old daemons are not there; this is what they did.

mod config;
mod tables;

use crate::lab::Lab;
use crate::lab::netns::execute;
use crate::lab::topology::{GATEWAY_LAN, LAN, SERVER, VIP, WAN};
use anyhow::{Context, Result, ensure};
use aya::maps::{Array, MapData};
use aya::programs::links::FdLink;
use aya::programs::tc::{SchedClassifierLink, TcAttachOptions, TcAttachType};
use aya::programs::xdp::{XdpLink, XdpMode};
use aya::programs::{LinkOrder, RawTracePoint, SchedClassifier, Xdp};
use aya::{Ebpf, EbpfLoader};
use config::Config;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
pub use tables::began;
use tables::{describe, fill};
use xdp_common::counters::{Class, Direction};
use xdp_common::limits::{self, INTERFACES};
use xdp_common::{Secret, cpu, meta};
use xdp_user::tables::clock::{self, Clock, Moment};
use xdp_user::tables::mmap::{Bytes, Tables};

/// Slots of FLOW and of SESSION: so many that every entry finds room.
pub const SLOTS: u32 = 1 << 17;
const WAYS: u32 = 4;
const META_WORDS: usize = 512;
/// Counters of a hook, the place of those of a class, and words of the block of a CPU.
const HOOK_WORDS: usize = 128;
const CPU_WORDS: usize = INTERFACES * 2 + 3 * HOOK_WORDS;

/// A version of the ABI.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// Of commit 6dfc561.
    Three = 3,
    /// Of commit 3daa8d7.
    Four = 4,
    /// Of commit 8aebc8d.
    Five = 5,
    /// Of commit adbe7b7, the last one whose pins are named after the VIP.
    Six = 6,
}

impl Version {
    /// Those after the third.
    pub const LATER: [Self; 3] = [Self::Four, Self::Five, Self::Six];

    /// Its number.
    #[must_use]
    pub const fn number(self) -> u64 {
        self as u64
    }
}

/// Packets of an inbound SPI that has expired.
pub const RETIRED: u64 = 5;

/// What the entries that [`start`] adds have counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Filled {
    /// Peers, each with a session and two SPIs.
    pub peers: u32,
    /// Packets of all SPIs, inbound and outbound; each has a hundred bytes.
    pub packets: [u64; 2],
}

/// Where its pins are.
#[must_use]
pub fn directory(lab: &Lab) -> PathBuf {
    let name = VIP.to_string().replace('.', "_");
    lab.bpffs().join("ikenat").join(name)
}

fn object(version: Version) -> Result<Vec<u8>> {
    let name = format!("older/ikenat-abi{}.o.gz", version.number());
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
    let output = Command::new("gzip").arg("-dc").arg(&path).output();
    let output = output.context("failed to start gzip")?;
    ensure!(
        output.status.success(),
        "gzip cannot read {}",
        path.display()
    );
    Ok(output.stdout)
}

/// The number of this thread's network namespace.
fn inode() -> Result<u64> {
    let meta = fs::metadata("/proc/thread-self/ns/net");
    Ok(meta.context("failed to look at the namespace")?.ino())
}

fn ifindex(name: &str) -> Result<u32> {
    let index = nix::net::if_::if_nametoindex(name);
    index.with_context(|| format!("no interface {name}"))
}

fn mac(name: &str) -> Result<[u8; 6]> {
    let text = execute(Command::new("ip").args(["-o", "link", "show", name]))?;
    let mut words = text.split_whitespace();
    let field = words.find(|word| word.matches(':').count() == 5);
    let field = field.with_context(|| format!("{name} has no MAC address: {text}"))?;
    let bytes: Vec<u8> = field
        .split(':')
        .filter_map(|byte| u8::from_str_radix(byte, 16).ok())
        .collect();
    bytes.try_into().ok().context("not six bytes")
}

/// The kernel's jiffies.
#[derive(Clone, Copy, Debug)]
pub struct Jiffies {
    rate: u64,
    now: u64,
}

impl Jiffies {
    /// As an instance of this version has found out, which may have ended.
    ///
    /// # Errors
    /// It has no tables.
    pub fn of(lab: &Lab) -> Result<Self> {
        let tables = Tables::<AtomicU64>::open(&lab.pins())?;
        let word = |at| tables.meta(at).load(Ordering::SeqCst);
        let anchor = Moment {
            jiffies: word(meta::JIFFIES),
            monotonic: word(meta::MONOTONIC),
        };
        let rate = word(meta::HZ);
        let now = Clock::new(rate, anchor).now();
        Ok(Self { rate, now })
    }
}

fn constants(secret: Secret, rate: u64) -> Result<Config> {
    let indices = |name| -> Result<[u32; INTERFACES]> {
        let mut all = [0; INTERFACES];
        all[0] = ifindex(name)?;
        Ok(all)
    };
    let config = Config {
        secret,
        vip: VIP.octets(),
        server: SERVER.octets(),
        lan_address: GATEWAY_LAN.octets(),
        wans: indices(WAN)?,
        lans: indices(LAN)?,
        wan_ifindex: ifindex(WAN)?,
        lan_ifindex: ifindex(LAN)?,
        flow_mask: SLOTS / WAYS - 1,
        session_mask: SLOTS / WAYS - 1,
        half_mask: limits::HALF_BUCKETS - 1,
        fragment_mask: limits::FRAGMENT_BUCKETS - 1,
        flow_limit: SLOTS / 2,
        session_limit: SLOTS / 2,
        spis_per_session: 64,
        tick_shift: clock::tick_shift(rate),
        confirm_ticks: 4,
        wan_mac: mac(WAN)?,
        lan_mac: mac(LAN)?,
        wan_partial: 1,
        lan_partial: 1,
        ..Config::ZERO
    };
    Ok(config.seal())
}

/// Attaches the programs of ABI 3 in the lab's gateway by this tc backend, with a session and two SPIs of each of so many
/// peers in its tables.
///
/// # Errors
/// The kernel refuses something.
pub fn start(lab: &Lab, backend: &str, peers: u32, jiffies: Jiffies) -> Result<Filled> {
    start_in(
        lab,
        &directory(lab),
        (Version::Three, backend),
        (peers, jiffies),
    )
}

/// The same with a version, whose pins are in this directory.
///
/// # Errors
/// The kernel refuses something.
pub fn start_in(
    lab: &Lab,
    directory: &Path,
    (version, backend): (Version, &str),
    (peers, jiffies): (u32, Jiffies),
) -> Result<Filled> {
    fs::create_dir_all(directory).context("failed to create the directory of the pins")?;
    lab.gateway.enter(|| {
        let secret: Secret =
            std::array::from_fn(|i| 0x9E37_79B9_7F4A_7C15_u64.wrapping_mul(2 * i as u64 + 1));
        let mut ebpf = load(directory, version, &constants(secret, jiffies.rate)?)?;
        let filled = fill(directory, &secret, peers, (version, jiffies))?;
        write_blocks(directory, filled)?;
        describe(directory, (version, &secret), filled, jiffies)?;
        attach(&mut ebpf, directory, backend == "clsact")?;
        if version == Version::Six {
            attach_tracepoints(&mut ebpf, directory)?;
        }
        Ok(filled)
    })
}

fn load(directory: &Path, version: Version, config: &Config) -> Result<Ebpf> {
    let constants = config.bytes(version);
    let mut loader = EbpfLoader::new();
    let cpus = u32::try_from(aya::util::nr_cpus().map_err(|(_, error)| error)?)?;
    let of_six = [("HOSTPEER", limits::HOST_PEER_BUCKETS), ("SECRET", 1)];
    let of_all = [
        ("FLOW", SLOTS / WAYS),
        ("SESSION", SLOTS / WAYS),
        ("HALF", limits::HALF_BUCKETS),
        ("FRAGMENT", limits::FRAGMENT_BUCKETS),
        ("NEXTHOP", limits::NEXTHOPS),
        ("LIMIT", limits::ICMP_BUCKETS),
        ("META", 1),
        ("CPU", cpus),
    ];
    let more = of_six.iter().filter(|_| version == Version::Six);
    for (name, entries) in of_all.iter().chain(more).copied() {
        loader
            .map_max_entries(name, entries)
            .map_pin_path(name, directory.join(name));
    }
    loader.override_global("CONFIG", &constants[..], true);
    let load = loader.load(&object(version)?);
    load.with_context(|| format!("failed to load ABI {}", version.number()))
}

/// Egress words and counters: both egresses accept frames of XDP, with an MTU of 1500, in epoch 1.
fn write_blocks(directory: &Path, filled: Filled) -> Result<()> {
    let map = MapData::from_pin(directory.join("CPU"))?;
    let cpus = map.info()?.max_entries();
    let mut blocks: Array<_, Bytes<[u64; CPU_WORDS]>> =
        Array::try_from(aya::maps::Map::Array(map))?;
    let mut block = [0; CPU_WORDS];
    block[0] = cpu::egress(1500, 1);
    block[INTERFACES] = block[0];
    for cpu in (0..cpus).rev() {
        if cpu == 0 {
            for direction in Direction::ALL {
                // XDP is the first hook, and its classes begin at 64: four counters of eight of them.
                let class = direction as usize * 8 + Class::EspInUdp as usize;
                let at = INTERFACES * 2 + 64 + class * 4;
                let retired = if direction == Direction::Inbound {
                    RETIRED
                } else {
                    0
                };
                block[at] = filled.packets[direction as usize] + retired;
                block[at + 1] = block[at] * 100;
            }
        }
        blocks.set(cpu, Bytes(block), 0)?;
    }
    Ok(())
}

fn tc(words: &str) -> Result<()> {
    execute(Command::new("tc").args(words.split_whitespace())).map(drop)
}

fn attach(ebpf: &mut Ebpf, directory: &Path, by_clsact: bool) -> Result<()> {
    let pin = |link: FdLink, name: &str| -> Result<()> {
        link.pin(directory.join(name)).map(drop).context("pin")
    };
    for (name, interface, side) in [
        ("ikenat_xdp_wan", WAN, "wan"),
        ("ikenat_xdp_lan", LAN, "lan"),
    ] {
        let program: &mut Xdp = ebpf.program_mut(name).context(name)?.try_into()?;
        program.load().context(name)?;
        let id = program.attach_to_if_index(ifindex(interface)?, XdpMode::Driver)?;
        let link: XdpLink = program.take_link(id)?;
        pin(link.try_into()?, &format!("link-xdp-{side}"))?;
    }
    if by_clsact {
        for interface in [WAN, LAN] {
            let record = format!("clsact-{}-{}", inode()?, ifindex(interface)?);
            fs::create_dir(directory.join(record)).context("failed to record a clsact")?;
            tc(&format!("qdisc add dev {interface} clsact"))?;
        }
    }
    let first = || TcAttachOptions::TcxOrder(LinkOrder::first());
    for (name, hook, interface, side, kind) in [
        ("ikenat_tc", "tc", WAN, "wan", TcAttachType::Ingress),
        ("ikenat_tc", "tc", LAN, "lan", TcAttachType::Ingress),
        ("ikenat_egress", "egress", WAN, "wan", TcAttachType::Egress),
    ] {
        let program: &mut SchedClassifier = ebpf.program_mut(name).context(name)?.try_into()?;
        if program.fd().is_err() {
            program.load().context(name)?;
        }
        if by_clsact {
            let path = directory.join(format!("filter-{hook}-{side}"));
            program.pin(&path).context("failed to pin a program")?;
            let block = if hook == "egress" { hook } else { "ingress" };
            tc(&format!(
                "filter add dev {interface} {block} protocol all pref 5 handle 0x1ce bpf direct-action object-pinned {}",
                path.display()
            ))?;
            continue;
        }
        let id = program.attach_with_options(interface, kind, first())?;
        let link: SchedClassifierLink = program.take_link(id)?;
        pin(link.try_into()?, &format!("link-{hook}-{side}"))?;
    }
    Ok(())
}

/// Counts what is lost after a redirect, with constants that say that the kernel's structures are not
/// known, as on a kernel without BTF.
fn attach_tracepoints(ebpf: &mut Ebpf, directory: &Path) -> Result<()> {
    for (name, point) in [
        ("ikenat_lost_bulk", "xdp_devmap_xmit"),
        ("ikenat_lost_refused", "xdp_redirect_err"),
        ("ikenat_lost_generic", "xdp_exception"),
    ] {
        let program: &mut RawTracePoint = ebpf.program_mut(name).context(name)?.try_into()?;
        program.load().context(name)?;
        let id = program.attach(point).context(point)?;
        let link: FdLink = program.take_link(id)?.into();
        link.pin(directory.join(format!("loss-{point}")))
            .context("failed to pin a tracepoint")?;
    }
    Ok(())
}
