//! A look-up and two counts alone: ikenat's table compared with the kernel's hash and LRU hash,
//! with the same keys in the same order.
//!
//! The same program without a look-up is measured right before and subtracted. The kernel's maps
//! get as many entries as ikenat's table has slots: twice the number of flows, which is to their
//! advantage. That is also the load at which a table accepts no more flows; the default size would be
//! four times 65,536 flows, and a look-up then costs twice as much.

use super::gateway::{PEER, SPI, buckets, fill, secret};
use super::rounds::{Random, Samples, go_first};
use super::wrapper::{Instrument, Packet, load};
use super::{FLOWS, Options, flows_text};
use crate::results::BTable;
use anyhow::{Context, Result, ensure};
use aya::EbpfLoader;
use aya::maps::{HashMap, Map, MapData};
use ikenat_bench_abi::measure::Plan;
use ikenat_tests::bpf::{slots, with_sizes};
use std::sync::atomic::AtomicU64;
use xdp_common::slot::{self, Key};
use xdp_common::{Class, Config, Direction};
use xdp_user::tables::mmap::{FLOW as FLOW_MAPS, Memory, SlotMemory};

const NOTHING: &str = "ikenat_nothing";

/// The compared tables: the program, and the name in the results.
const TABLES: [(&str, &str); 4] = [
    ("ikenat_digest", "hash alone"),
    ("ikenat_table", "ikenat"),
    ("ikenat_hash", "BPF_MAP_TYPE_HASH"),
    ("ikenat_lru_hash", "BPF_MAP_TYPE_LRU_HASH"),
];

/// A row that is being measured.
struct Row {
    table: usize,
    size: usize,
    samples: Samples,
}

fn label(table: usize, flows: u64) -> String {
    format!("table {} {}", TABLES[table].1, flows_text(flows))
}

/// The labels of all rows.
pub(super) fn labels() -> impl Iterator<Item = String> {
    let tables = |flows| (0..TABLES.len()).map(move |table| label(table, flows));
    FLOWS.into_iter().flat_map(tables)
}

/// Measures the selected tables.
///
/// # Errors
/// See [`super::run`].
pub(super) fn measure(options: &Options<'_>) -> Result<Vec<BTable>> {
    // On a separate thread, with which its priority ends.
    std::thread::scope(
        |scope| match scope.spawn(|| on_this_thread(options)).join() {
            Ok(outcome) => outcome,
            Err(panic) => std::panic::resume_unwind(panic),
        },
    )
}

fn on_this_thread(options: &Options<'_>) -> Result<Vec<BTable>> {
    let mut rows = Vec::new();
    for (size, flows) in FLOWS.into_iter().enumerate() {
        for table in 0..TABLES.len() {
            if options.wants(&label(table, flows)) {
                let samples = Samples::new();
                rows.push(Row {
                    table,
                    size,
                    samples,
                });
            }
        }
    }
    let mut yardsticks = Vec::new();
    for (size, flows) in FLOWS.into_iter().enumerate() {
        let wanted = rows.iter().any(|row| row.size == size);
        (options.progress)(size, FLOWS.len(), "filling the kernel's maps");
        yardsticks.push(wanted.then(|| Yardstick::new(flows)).transpose()?);
    }
    let all = options.rounds() * rows.len();
    if rows.is_empty() {
        return Ok(Vec::new());
    }
    let mut random = Random::new(11);
    go_first()?;
    for round in 0..options.rounds() {
        for (step, index) in random.order(rows.len()).into_iter().enumerate() {
            let done = round * rows.len() + step;
            let row = &mut rows[index];
            let text = label(row.table, FLOWS[row.size]);
            (options.progress)(done, all, &text);
            let yardstick = yardsticks[row.size]
                .as_mut()
                .context("failed to find a table that was filled")?;
            let program = TABLES[row.table].0;
            row.samples
                .take(|| yardstick.sample(program, options.packets()))
                .with_context(|| format!("failed to measure {text}"))?;
        }
    }
    Ok(rows
        .iter()
        .map(|row| BTable {
            table: TABLES[row.table].1.to_owned(),
            flows: FLOWS[row.size],
            nanoseconds: row.samples.spread(),
        })
        .collect())
}

/// The loaded yardstick with full tables.
struct Yardstick {
    instrument: Instrument,
    flows: u64,
    without_slot: u64,
}

fn key(number: u32) -> Key {
    let peer = (PEER + number).to_be_bytes();
    slot::flow_key(peer, SPI + number, Class::EspInUdp, Direction::Inbound, 0)
}

impl Yardstick {
    fn new(flows: u64) -> Result<Self> {
        let base = Config {
            secret: secret(1),
            ..Config::ZERO
        };
        let one_bucket = u32::try_from(slot::WAYS)?;
        let config = with_sizes(base, buckets(flows, one_bucket)?, 1);
        let slots = slots(config.flow_mask);
        let mut loader = EbpfLoader::new();
        loader
            .override_global("CONFIG", bytemuck::bytes_of(&config), true)
            .map_max_entries("FLOW", config.flow_mask + 1)
            .map_max_entries("FLOW_COLD", slots)
            .map_max_entries("HASH", slots)
            .map_max_entries("LRU_HASH", slots);
        let mut programs = vec![NOTHING];
        programs.extend(TABLES.map(|(program, _)| program));
        let ebpf = load(&mut loader, "yardstick.o", &programs)?;
        let mut instrument = Instrument::new(ebpf);
        let numbers = 0..u32::try_from(flows)?;
        let memory = |name| -> Result<Memory<AtomicU64>> {
            let Map::Array(data) = instrument.map(name)? else {
                anyhow::bail!("failed to use {name}: it is not an array");
            };
            Ok(Memory::of(data, name)?)
        };
        let [hot, cold] = FLOW_MAPS;
        let (hot, cold) = (memory(hot)?, memory(cold)?);
        let table = SlotMemory { hot, cold };
        let keys = numbers.clone().map(key);
        let without_slot = fill(table.arrays(), &config.secret, keys, |_| ());
        for name in ["HASH", "LRU_HASH"] {
            let mut map: HashMap<&mut MapData, [u64; 3], [u64; 2]> =
                instrument.map_mut(name)?.try_into()?;
            for number in numbers.clone() {
                // As the programs make it.
                let key = key(number);
                map.insert([key.word, 0, key.bits], [0, 0], 0)
                    .with_context(|| format!("failed to fill {name}"))?;
            }
        }
        Ok(Self {
            instrument,
            flows,
            without_slot,
        })
    }

    /// Measures the program without a look-up, the one in question, and the first again.
    fn sample(&mut self, program: &str, packets: u32) -> Result<[f64; 3]> {
        let plan = Plan {
            flow_mask: u32::try_from(self.flows - 1)?,
            peer: PEER,
            spi: SPI,
            ..bytemuck::Zeroable::zeroed()
        };
        let packet = Packet {
            frame: vec![0; 64],
            ingress: 0,
        };
        let floor = self.instrument.time(NOTHING, &plan, &packet, packets)?;
        let whole = self.instrument.time(program, &plan, &packet, packets)?;
        let again = self.instrument.time(NOTHING, &plan, &packet, packets)?;
        let packets = u64::from(packets);
        let excused = self.without_slot * (packets / self.flows + 1);
        ensure!(
            whole.found + excused >= packets,
            "{} of {packets} keys were found",
            whole.found
        );
        Ok([floor, whole, again].map(|timing| timing.nanoseconds))
    }
}
