//! An object of ABI 6, in which a slot was 128 bytes in one map: how it is configured and filled.

use super::gateway::{Filling, fill, key, sized_for};
use super::wrapper::program;
use anyhow::{Context, Result, ensure};
use aya::maps::{Array, Map, MapData};
use aya::programs::Xdp;
use aya::{Ebpf, EbpfLoader, TestRun as _, TestRunOptions};
use bytemuck::{Pod, Zeroable};
use ikenat_tests::bpf::fixture;
use ikenat_tests::bpf::tables::SlotTable;
use std::path::Path;
use std::sync::atomic::AtomicU64;
use xdp_common::counters::{self, CLASSES, Counters};
use xdp_common::limits::{INTERFACES, MACVLANS, NATT_PORT};
use xdp_common::slot::{ADDRESS, KEY, NUMBER, STATE};
use xdp_common::vips::Translation;
use xdp_common::{Config, Secret, cpu};
use xdp_core::Word;
use xdp_user::tables::mmap::Memory;

/// The program for inbound packets.
const WAN: &str = "ikenat_xdp_wan";
/// Words of a slot.
const WORDS: usize = 16;
/// Counters of a hook before those of the classes.
const REASONS: usize = 64;
/// Counters of the classes in one direction: eight classes of four.
const OF_DIRECTION: usize = 32;
/// Counters of a class.
const QUANTITIES: usize = 4;
/// Counters of a hook.
const HOOK_WORDS: usize = REASONS + 2 * OF_DIRECTION;
/// The block of a CPU: the egress words are where they are today.
type Block = [u64; cpu::COUNTERS + 3 * HOOK_WORDS];
/// The port word of a flow.
const FIRST: usize = 9;
/// Time and highest sequence number of a flow.
const SEEN: usize = 6;
/// The next hop of a flow.
const HOP: usize = 7;
/// The bits of a state word but those of the service and of the generation: they are as they were.
const STATE_AND_KIND: u64 = 0x1fff;

/// The load-time constants.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct OlderConfig {
    secret: Secret,
    accepted_macs: [u64; MACVLANS],
    vip: [u8; 4],
    server: [u8; 4],
    lan_address: [u8; 4],
    wans: [u32; INTERFACES],
    lans: [u32; INTERFACES],
    wan_macvlans: [u32; MACVLANS],
    lan_macvlans: [u32; MACVLANS],
    wan_ifindex: u32,
    lan_ifindex: u32,
    flow_mask: u32,
    session_mask: u32,
    half_mask: u32,
    fragment_mask: u32,
    flow_limit: u32,
    session_limit: u32,
    tick_shift: u32,
    confirm_ticks: u32,
    wan_mac: [u8; 6],
    lan_mac: [u8; 6],
    main_mac: [u8; 6],
    wan_partial: u8,
    lan_partial: u8,
    log: u8,
    dry_run: u8,
    dedicated: u8,
    server_is_local: u8,
    lists: u8,
    reserved: [u8; 3],
    directions: [OlderDirection; 2],
}

/// The constants of a direction.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct OlderDirection {
    own_mac: u64,
    source_mac: u64,
    source_high: u64,
    old: u32,
    new: u32,
    udp_plus: u32,
    ip_minus: u32,
    source_low: u32,
    egress: u32,
    partial: u32,
    hop_shift: u32,
}

impl OlderConfig {
    /// That which does the same as a configuration of today.
    fn of(config: &Config) -> Self {
        let directions = config.directions.map(|direction| {
            let Translation {
                source_mac,
                source_high,
                source_low,
                egress,
                old,
                new,
                udp_plus,
                ip_minus,
                ..
            } = direction.translation;
            OlderDirection {
                own_mac: direction.own_mac,
                source_mac,
                source_high,
                old,
                new,
                udp_plus,
                ip_minus,
                source_low,
                egress,
                partial: direction.partial,
                hop_shift: direction.translation.hop_shift,
            }
        });
        Self {
            secret: config.secret,
            accepted_macs: config.accepted_macs,
            vip: config.vip.address,
            server: config.vip.server,
            lan_address: config.vip.lan_address,
            wans: config.wans,
            lans: config.lans,
            wan_macvlans: config.wan_macvlans,
            lan_macvlans: config.lan_macvlans,
            wan_ifindex: config.wan_ifindex,
            lan_ifindex: config.lan_ifindex,
            flow_mask: config.flow_mask,
            session_mask: config.session_mask,
            half_mask: config.half_mask,
            fragment_mask: config.fragment_mask,
            flow_limit: config.flow_limit,
            session_limit: config.session_limit,
            tick_shift: config.tick_shift,
            confirm_ticks: config.confirm_ticks,
            wan_mac: config.wan_mac,
            lan_mac: config.lan_mac,
            main_mac: config.main_mac,
            wan_partial: config.wan_partial,
            lan_partial: config.lan_partial,
            log: config.log,
            dry_run: config.dry_run,
            dedicated: config.vip.dedicated,
            server_is_local: config.vip.server_is_local,
            lists: config.lists,
            reserved: [0; 3],
            directions,
        }
    }
}

/// A loaded object with a full FLOW.
pub(super) struct Older {
    ebpf: Ebpf,
    flows: Memory<AtomicU64>,
    /// Number of the first flow's slot.
    first: usize,
    without_slot: u64,
    /// The valid word for a next hop.
    hop: Option<u64>,
}

impl Older {
    /// Whether an object is of ABI 6.
    ///
    /// # Errors
    /// The file cannot be read.
    pub(super) fn is(path: &Path) -> Result<bool> {
        let ebpf = EbpfLoader::new()
            .load_file(path)
            .with_context(|| format!("failed to load {}", path.display()))?;
        Ok(ebpf.map("FLOW_COLD").is_none())
    }

    /// Loads the object and fills its FLOW with the same entries in the same places as that of today.
    ///
    /// # Errors
    /// The kernel refuses the object, or it is of another ABI.
    pub(super) fn new(path: &Path, base: &Config, filling: Filling) -> Result<Self> {
        let config = sized_for(base, filling)?;
        let older = OlderConfig::of(&config);
        let blocks = u32::try_from(
            aya::util::nr_cpus()
                .map_err(|(path, error)| anyhow::anyhow!("failed to read {path}: {error}"))?,
        )?;
        let mut ebpf = EbpfLoader::new()
            .override_global("CONFIG", bytemuck::bytes_of(&older), true)
            .map_max_entries("FLOW", config.flow_mask + 1)
            .map_max_entries("SESSION", config.session_mask + 1)
            .map_max_entries("CPU", blocks)
            .load_file(path)
            .with_context(|| {
                format!(
                    "failed to load {} as an object of ABI 6: it is of another one, which the benchmark does not know",
                    path.display()
                )
            })?;
        let program: &mut Xdp = ebpf
            .program_mut(WAN)
            .with_context(|| format!("failed to find {WAN}"))?
            .try_into()?;
        program
            .load()
            .with_context(|| format!("failed to load {WAN}"))?;
        let Some(Map::Array(data)) = ebpf.map("FLOW") else {
            anyhow::bail!("failed to find the array FLOW in {}", path.display());
        };
        let flows = Memory::of(data, "FLOW")?;
        let table = SlotTable::new(config.flow_mask + 1);
        let numbers = 0..u32::try_from(filling.flows)?;
        let keys = numbers.map(|number| key(filling, number));
        let without_slot = fill(table.arrays(), &config.secret, keys, |_| ());
        let first = key(filling, 0);
        let mut of_first = None;
        for slot in table.live() {
            let at = usize::try_from(slot.hot[NUMBER])?;
            let to = words(&flows, at)?;
            for (word, value) in [
                (KEY, slot.hot[KEY]),
                // The third word of the key.
                (
                    KEY + 2,
                    (filling.class as u64) << 8 | filling.direction as u64,
                ),
                (FIRST, u64::from(NATT_PORT)),
                (STATE, slot.hot[STATE] & STATE_AND_KIND),
            ] {
                Word::store(&to[word], value);
            }
            if slot.cold[ADDRESS..ADDRESS + 2] == first.address {
                of_first = Some(at);
            }
        }
        let mut this = Self {
            ebpf,
            flows,
            first: of_first.context("failed to find a slot for the first flow")?,
            without_slot,
            hop: None,
        };
        this.open_egresses(blocks)?;
        Ok(this)
    }

    /// The interfaces accept frames from XDP.
    fn open_egresses(&mut self, blocks: u32) -> Result<()> {
        let map = self.ebpf.map_mut("CPU").context("failed to find CPU")?;
        let mut map: Array<&mut MapData, Block> = map.try_into()?;
        let mut block = Block::zeroed();
        block[cpu::EGRESS_WAN] = cpu::egress(fixture::MTU, 1);
        block[cpu::EGRESS_LAN] = block[cpu::EGRESS_WAN];
        for number in 0..blocks {
            map.set(number, block, 0)?;
        }
        Ok(())
    }

    /// The program for inbound packets.
    ///
    /// # Errors
    /// There is none.
    pub(super) fn program(&self) -> Result<&Xdp> {
        program(&self.ebpf, WAN)
    }

    /// Slots of FLOW.
    pub(super) fn slots(&self) -> u64 {
        (self.flows.words().len() / WORDS) as u64
    }

    /// Number of keys that have found no slot.
    pub(super) const fn without_slot(&self) -> u64 {
        self.without_slot
    }

    /// The counters of XDP, summed over all CPUs, where they stand today.
    ///
    /// # Errors
    /// The map cannot be read.
    pub(super) fn counters(&self) -> Result<Counters> {
        let map = self.ebpf.map("CPU").context("failed to find CPU")?;
        let map: Array<&MapData, Block> = map.try_into()?;
        let mut sum = [0; counters::WORDS];
        for block in map.iter() {
            // XDP is the first hook.
            let of_xdp = &block?[cpu::COUNTERS..][..HOOK_WORDS];
            for (at, word) in of_xdp.iter().enumerate() {
                sum[place_now(at)] += word;
            }
        }
        Ok(sum)
    }

    /// Makes all flows' next hops fresh. `first` is a packet of the first flow.
    ///
    /// # Errors
    /// The packet is not forwarded.
    pub(super) fn freshen(&mut self, ingress: u32, first: &[u8]) -> Result<()> {
        let hop = self.look(ingress, first)?;
        for slot in self.flows.words().as_chunks::<WORDS>().0 {
            Word::store(&slot[HOP], hop);
            Word::store(&slot[SEEN], 0);
        }
        self.hop = Some(hop);
        Ok(())
    }

    /// True when the tick in which the flows were made fresh has ended.
    ///
    /// # Errors
    /// The packet is not forwarded.
    pub(super) fn tick_has_ended(&self, ingress: u32, first: &[u8]) -> Result<bool> {
        Ok(self.hop != Some(self.look(ingress, first)?))
    }

    fn look(&self, ingress: u32, first: &[u8]) -> Result<u64> {
        const REDIRECT: u32 = 4;
        let context = [0, u32::try_from(first.len())?, 0, ingress, 0, 0];
        let mut options = TestRunOptions::new();
        options.data_in = Some(first);
        options.ctx_in = Some(bytemuck::cast_slice(&context));
        let run = self.program()?.test_run(options)?;
        ensure!(
            run.return_value == REDIRECT,
            "the first flow's packet was not forwarded: action {}",
            run.return_value
        );
        Ok(Word::load(&words(&self.flows, self.first)?[HOP]))
    }
}

/// Where the counter of a hook stands today that stood at this place.
const fn place_now(at: usize) -> usize {
    if at < REASONS {
        return at;
    }
    let (direction, rest) = ((at - REASONS) / OF_DIRECTION, (at - REASONS) % OF_DIRECTION);
    REASONS + direction * CLASSES * QUANTITIES + rest
}

/// The words of a slot.
fn words(flows: &Memory<AtomicU64>, number: usize) -> Result<&[AtomicU64; WORDS]> {
    let slots = flows.words().as_chunks::<WORDS>().0;
    slots
        .get(number)
        .with_context(|| format!("failed to find slot {number}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use xdp_common::{Class, Direction};

    #[test]
    fn the_constants_have_the_size_that_they_had() {
        // `size_of::<Config>()` of commit 3ce6ab9, the last one of ABI 6.
        assert_eq!(size_of::<OlderConfig>(), 480);
        assert_eq!(size_of::<OlderDirection>(), 56);
    }

    #[test]
    fn counters_are_read_from_where_they_were() {
        // `size_of` of its block of a CPU.
        assert_eq!(size_of::<Block>(), 3136);
        let (way, class) = (Direction::Outbound, Class::EspInUdp);
        let then = REASONS + way as usize * OF_DIRECTION + class as usize * QUANTITIES;
        assert_eq!(place_now(then), counters::class(way, class));
        let (way, class) = (Direction::Inbound, Class::Esp);
        let then = REASONS + class as usize * QUANTITIES;
        assert_eq!(place_now(then), counters::class(way, class));
    }
}
