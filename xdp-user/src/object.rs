//! The object: how it is loaded over pinned maps, and what META says of it.
//!
//! It may not know what a program is attached to.

use crate::clock::{self, Moment};
use crate::config::{Mode, Plan};
use crate::error::{Error, Result, causes};
use crate::maps::{self, Bytes, Memory, Seen, Tables};
use crate::pins::Instance;
use crate::snapshot::address;
use aya::programs::{ProgramError, SchedClassifier, TestRun as _, TestRunOptions, Xdp};
use aya::{Ebpf, EbpfLoader};
use std::net::Ipv4Addr;
use std::sync::atomic::AtomicU64;
use std::time::Duration;
use xdp_common::{ABI_VERSION, Secret, meta};
use xdp_core::Word;

static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/ikenat.o"));

/// What the tables of an earlier start say of themselves.
#[derive(Clone, Copy)]
pub(crate) struct Known {
    /// The hash key.
    pub(crate) secret: Secret,
    /// Jiffies per second.
    pub(crate) rate: u64,
    /// A moment on both clocks.
    pub(crate) anchor: Moment,
    /// How the programs were attached.
    pub(crate) mode: Mode,
    /// The server that they translate to.
    pub(crate) server: Ipv4Addr,
}

impl Known {
    /// `None`: there is nothing yet, after removing what a start left that died before anything was attached.
    pub(crate) fn of(instance: &Instance, plan: &Plan) -> Result<Option<Self>> {
        let complete = || {
            let meta = maps::open(&instance.pin("META")).ok()?;
            let meta = Memory::<Seen>::of(&meta, "META").ok()?;
            meta.words().get(meta::VERSION).map(|word| word.load() != 0)
        };
        if !instance.has_programs() && !complete().unwrap_or(false) {
            instance.clear()?;
            return Ok(None);
        }
        instance.check_maps(&plan.request.sizes)?;
        let tables = Tables::<Seen>::open(&instance.directory)?;
        instance.check_version(tables.meta(meta::VERSION).load())?;
        Ok(Some(Self {
            mode: Mode::of(tables.meta(meta::MODE).load()),
            server: address(tables.meta(meta::SERVER).load()),
            secret: std::array::from_fn(|i| tables.meta(meta::SECRET + i).load()),
            rate: tables.meta(meta::HZ).load(),
            anchor: Moment {
                jiffies: tables.meta(meta::JIFFIES).load(),
                monotonic: tables.meta(meta::MONOTONIC).load(),
            },
        }))
    }

    /// For new tables: a random key, and the time.
    pub(crate) fn fresh(mode: Mode, server: Ipv4Addr) -> Result<Self> {
        let mut bytes = [0_u8; size_of::<Secret>()];
        let filled = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())
            .map_err(|error| Error::system("get random numbers")(error.into()))?;
        if filled != bytes.len() {
            return Err(Error::system("get random numbers")(
                std::io::ErrorKind::UnexpectedEof.into(),
            ));
        }
        let (rate, anchor) = learn_time()?;
        Ok(Self {
            secret: bytemuck::cast(bytes),
            rate,
            anchor,
            mode,
            server,
        })
    }
}

fn load_failed(step: &'static str) -> impl Fn(&dyn std::error::Error) -> Error {
    move |error| Error::Load {
        step,
        why: causes(error),
    }
}

/// Loads the object over the pinned maps, making those that are missing, and all programs.
pub(crate) fn load(plan: &Plan, instance: &Instance, facts: &Known) -> Result<Ebpf> {
    let constants = Bytes(plan.constants(facts.secret, facts.rate));
    let mut loader = EbpfLoader::new();
    for layout in plan.request.sizes.layouts()? {
        loader
            .map_max_entries(layout.name, layout.max_entries)
            .map_pin_path(layout.name, instance.pin(layout.name));
    }
    loader.override_global("CONFIG", &constants, true);
    let mut ebpf = loader
        .load(OBJECT)
        .map_err(|error| load_failed("maps")(&error))?;
    for name in XDP {
        xdp(&mut ebpf, name)?
            .load()
            .map_err(|error| load_failed(name)(&error))?;
    }
    tc(&mut ebpf)?
        .load()
        .map_err(|error| load_failed(TC)(&error))?;
    Ok(ebpf)
}

/// The fast path on the WAN and on the LAN.
pub(crate) const XDP: [&str; 2] = ["ikenat_xdp_wan", "ikenat_xdp_lan"];
/// The slow path.
pub(crate) const TC: &str = "ikenat_tc";
/// Tells the time.
const CLOCK: &str = "ikenat_clock";

fn missing(step: &'static str) -> Error {
    Error::Load {
        step,
        why: "the object has no such program; this binary was built with another one".to_owned(),
    }
}

pub(crate) fn xdp<'e>(ebpf: &'e mut Ebpf, name: &'static str) -> Result<&'e mut Xdp> {
    let program = ebpf.program_mut(name).ok_or_else(|| missing(name))?;
    program.try_into().map_err(|_: ProgramError| missing(name))
}

pub(crate) fn tc(ebpf: &mut Ebpf) -> Result<&mut SchedClassifier> {
    let program = ebpf.program_mut(TC).ok_or_else(|| missing(TC))?;
    program.try_into().map_err(|_: ProgramError| missing(TC))
}

/// Lets the kernel tell its jiffies twice, a tenth of a second apart. Again, if they fit no rate: a virtual machine that
/// did not get its CPU in between catches up on its ticks.
fn learn_time() -> Result<(u64, Moment)> {
    const TRIES: usize = 20;
    let mut ebpf = Ebpf::load(OBJECT).map_err(|error| load_failed("clock")(&error))?;
    let program = xdp(&mut ebpf, CLOCK)?;
    program.load().map_err(|error| load_failed(CLOCK)(&error))?;
    let mut first = moment(program)?;
    let mut second = first;
    for _ in 0..TRIES {
        std::thread::sleep(Duration::from_millis(100));
        second = moment(program)?;
        if let Some(rate) = clock::rate(first, second) {
            return Ok((rate, second));
        }
        first = second;
    }
    Err(Error::Jiffies {
        why: format!("no two of {TRIES} moments fit a kernel's tick; the last one is {second:?}"),
    })
}

fn moment(program: &Xdp) -> Result<Moment> {
    let mut output = [0; 64];
    let mut options = TestRunOptions::new();
    options.data_in = Some(&[0; 64]);
    options.data_out = Some(&mut output);
    let monotonic = clock::monotonic();
    program
        .test_run(options)
        .map_err(|error| load_failed(CLOCK)(&error))?;
    let [a, b, c, d, e, f, g, h, ..] = output;
    Ok(Moment {
        jiffies: u64::from_ne_bytes([a, b, c, d, e, f, g, h]),
        monotonic,
    })
}

/// Writes what `stats` and the next start need to know. The version comes last: without it the rest counts for nothing.
pub(crate) fn describe(tables: &Tables<AtomicU64>, plan: &Plan, facts: &Known, fresh: bool) {
    let set = |word: usize, value: u64| Word::store(tables.meta(word), value);
    if fresh {
        set(meta::HZ, facts.rate);
        set(meta::JIFFIES, facts.anchor.jiffies);
        set(meta::MONOTONIC, facts.anchor.monotonic);
        set(meta::GENERATION, facts.secret[0] ^ facts.anchor.monotonic);
        for (i, word) in facts.secret.iter().enumerate() {
            set(meta::SECRET + i, *word);
        }
    }
    let octets = |octets: [u8; 4]| u64::from(u32::from_ne_bytes(octets));
    set(meta::VIP, octets(plan.request.vip.octets()));
    set(meta::SERVER, octets(plan.request.server.octets()));
    set(meta::WAN_IFINDEX, u64::from(plan.wan.index));
    set(meta::LAN_IFINDEX, u64::from(plan.lan.index));
    set(meta::MODE, plan.request.mode.number());
    for (word, link) in [(meta::WAN_NAME, &plan.wan), (meta::LAN_NAME, &plan.lan)] {
        let [first, second] = name_words(&link.name);
        set(word, first);
        set(word + 1, second);
    }
    tables.meta(meta::VERSION).publish(u64::from(ABI_VERSION));
}

/// An interface's name (15 bytes at most) as two words.
fn name_words(name: &str) -> [u64; 2] {
    let mut bytes = [0; 16];
    for (to, from) in bytes.iter_mut().zip(name.bytes()) {
        *to = from;
    }
    bytemuck::cast(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_survives_its_two_words() {
        let words = name_words("enp0s31f6.4094a");
        let bytes: [u8; 16] = bytemuck::cast(words);
        assert_eq!(&bytes, b"enp0s31f6.4094a\0");
    }

    #[test]
    fn the_object_has_the_programs_that_are_asked_for() {
        for name in XDP.into_iter().chain([TC, CLOCK]) {
            assert!(
                OBJECT
                    .windows(name.len())
                    .any(|window| window == name.as_bytes()),
                "no {name} in the object"
            );
        }
    }
}
