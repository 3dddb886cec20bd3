//! An instance of ABI 3, as its daemon leaves it: programs attached, pins, and tables with entries.
//!
//! `tests/older/ikenat-abi3.o.gz` is the object of the last commit with that ABI, 6dfc561: its
//! `target/bpf/ikenat.o` after `cargo xtask build`, `llvm-strip --strip-debug` and `gzip -9n`. The old
//! daemon is not there; this is what it did.

mod config;

use crate::lab::Lab;
use crate::lab::netns::execute;
use crate::lab::topology::{GATEWAY_LAN, LAN, SERVER, VIP, WAN};
use anyhow::{Context, Result, ensure};
use aya::maps::{Array, MapData};
use aya::programs::links::FdLink;
use aya::programs::tc::{SchedClassifierLink, TcAttachOptions, TcAttachType};
use aya::programs::xdp::{XdpLink, XdpMode};
use aya::programs::{LinkOrder, SchedClassifier, Xdp};
use aya::{Ebpf, EbpfLoader};
use config::Config;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use xdp_common::counters::{Class, Direction};
use xdp_common::limits::{self, INTERFACES};
use xdp_common::{Secret, cpu, meta};
use xdp_core::table::Place;
use xdp_core::table::hash::pair;
use xdp_user::tables::clock::{self, Clock, Moment};
use xdp_user::tables::mmap::{Bytes, Tables};

/// Slots of FLOW and of SESSION: so many that every entry finds room.
pub const SLOTS: u32 = 1 << 17;
const WAYS: u32 = 4;
const WORDS: usize = 16;
type Bucket = [[u64; WORDS]; WAYS as usize];
/// Bytes, as the kernel sees a value: aya has to know that a bucket is plain bytes.
type Value = Bytes<Bucket>;
const META_WORDS: usize = 512;
/// Counters of a hook, the place of those of a class, and words of the block of a CPU.
const HOOK_WORDS: usize = 128;
const CPU_WORDS: usize = INTERFACES * 2 + 3 * HOOK_WORDS;

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

fn object() -> Result<Vec<u8>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("older/ikenat-abi3.o.gz");
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
    let directory = directory(lab);
    fs::create_dir_all(&directory).context("failed to create the directory of the pins")?;
    lab.gateway.enter(|| {
        let secret: Secret =
            std::array::from_fn(|i| 0x9E37_79B9_7F4A_7C15_u64.wrapping_mul(2 * i as u64 + 1));
        let mut ebpf = load(&directory, constants(secret, jiffies.rate)?)?;
        let filled = fill(&directory, &secret, peers, jiffies.now)?;
        write_blocks(&directory, filled)?;
        describe(&directory, &secret, filled, jiffies)?;
        attach(&mut ebpf, &directory, backend == "clsact")?;
        Ok(filled)
    })
}

fn load(directory: &Path, config: Config) -> Result<Ebpf> {
    let constants = Bytes(config);
    let mut loader = EbpfLoader::new();
    let cpus = u32::try_from(aya::util::nr_cpus().map_err(|(_, error)| error)?)?;
    for (name, entries) in [
        ("FLOW", SLOTS / WAYS),
        ("SESSION", SLOTS / WAYS),
        ("HALF", limits::HALF_BUCKETS),
        ("FRAGMENT", limits::FRAGMENT_BUCKETS),
        ("NEXTHOP", limits::NEXTHOPS),
        ("LIMIT", limits::ICMP_BUCKETS),
        ("META", 1),
        ("CPU", cpus),
    ] {
        loader
            .map_max_entries(name, entries)
            .map_pin_path(name, directory.join(name));
    }
    loader.override_global("CONFIG", &constants, true);
    loader.load(&object()?).context("failed to load ABI 3")
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

/// A bucketed table that is written before programs use it.
struct Table(Vec<Bucket>);

impl Table {
    fn put(
        &mut self,
        secret: &Secret,
        kind: u64,
        (peer, spi): ([u8; 4], u32),
        words: &[(usize, u64)],
    ) {
        let key = u64::from(spi.to_be()) << 32 | u64::from(u32::from_ne_bytes(peer));
        for bucket in Place::new(pair(secret, key), SLOTS / WAYS - 1).buckets() {
            let bucket = &mut self.0[bucket as usize];
            let free = bucket
                .iter_mut()
                .zip(0_u64..)
                .find(|(slot, _)| slot[0] == 0);
            if let Some((slot, way)) = free {
                for (word, value) in words {
                    slot[*word] = *value;
                }
                // Live.
                slot[0] = 2 | way << 7 | kind << 9;
                slot[1] = key;
                return;
            }
        }
    }

    fn write(self, directory: &Path, name: &str) -> Result<u64> {
        let map = MapData::from_pin(directory.join(name))?;
        let mut map: Array<_, Value> = Array::try_from(aya::maps::Map::Array(map))?;
        let live = self.0.iter().flatten().filter(|slot| slot[0] != 0).count();
        for (index, bucket) in (0..).zip(self.0) {
            if bucket.iter().any(|slot| slot[0] != 0) {
                map.set(index, Bytes(bucket), 0)?;
            }
        }
        Ok(live as u64)
    }
}

fn fill(directory: &Path, secret: &Secret, peers: u32, now: u64) -> Result<Filled> {
    let empty = || Table(vec![[[0; WORDS]; WAYS as usize]; (SLOTS / WAYS) as usize]);
    let (mut flows, mut sessions) = (empty(), empty());
    let mut filled = Filled {
        peers,
        ..Filled::default()
    };
    let stamp = now & 0xffff_ffff;
    for number in 0..peers {
        let [_, a, b, c] = number.to_be_bytes();
        let peer = [100, 64 + a, b, c];
        let packets = u64::from(number % 1000) + 1;
        for (kind, spi, packets) in [(0, 0x1000_0000, packets), (1, 0x2000_0000, 2 * packets)] {
            flows.put(
                secret,
                kind,
                (peer, spi + number),
                &[
                    (4, packets),
                    (5, packets * 100),
                    (6, stamp << 32 | packets),
                    (8, now),
                    (9, 1 << 32 | 4500),
                ],
            );
            filled.packets[usize::from(kind != 0)] += packets;
        }
        sessions.put(
            secret,
            4,
            (peer, 0),
            &[(4, stamp), (5, 1), (7, 500 << 16 | 4500), (8, 3), (9, 2)],
        );
    }
    let flows = flows.write(directory, "FLOW")?;
    let sessions = sessions.write(directory, "SESSION")?;
    ensure!(
        (flows, sessions) == (2 * u64::from(peers), peers.into()),
        "{flows} flows and {sessions} sessions found room"
    );
    Ok(filled)
}

fn describe(directory: &Path, secret: &Secret, filled: Filled, jiffies: Jiffies) -> Result<()> {
    let map = MapData::from_pin(directory.join("META"))?;
    let mut map: Array<_, Bytes<[u64; META_WORDS]>> = Array::try_from(aya::maps::Map::Array(map))?;
    let mut meta = [0_u64; META_WORDS];
    let address = |octets| u64::from(u32::from_ne_bytes(octets));
    (meta[0], meta[1]) = (2 * u64::from(filled.peers), filled.peers.into());
    (meta[2], meta[3], meta[4]) = (3, jiffies.rate, jiffies.now);
    meta[5] = clock::monotonic();
    (meta[9], meta[10]) = (address(VIP.octets()), address(SERVER.octets()));
    meta[11] = inode()?;
    meta[16..32].copy_from_slice(secret);
    for (at, name) in [(40, WAN), (52, LAN)] {
        let mut bytes = [0; 16];
        bytes[..name.len()].copy_from_slice(name.as_bytes());
        let words: [u64; 2] = bytemuck::cast(bytes);
        meta[at] = ifindex(name)?.into();
        meta[at + 1..at + 3].copy_from_slice(&words);
    }
    (meta[64], meta[65], meta[74], meta[75]) = (RETIRED, RETIRED * 100, 1, 1);
    map.set(0, Bytes(meta), 0)?;
    Ok(())
}
