//! Loads the eBPF object over the pinned maps, and writes to META what describes the instance.

use crate::bpffs::layout::Instance;
use crate::config::interfaces::Interface;
use crate::config::peer_lists::Lists;
use crate::config::plan::Plan;
use crate::config::settings::Mode;
use crate::dataplane::losses;
use crate::error::{Error, Result, causes, is_denied};
use crate::failpoints::{self, Step, pass};
use crate::sys::capabilities;
use crate::tables::clock::{self, Moment, tick_shift};
use crate::tables::grace::GracePeriod;
use crate::tables::meta::check_version;
use crate::tables::mmap::{self, Bytes, Memory, ReadOnlyWord, Tables};
use crate::tables::secret;
use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::programs::{
    ProgramError, RawTracePoint, SchedClassifier, TestRun as _, TestRunOptions, Xdp,
};
use aya::{Ebpf, EbpfLoader};
use std::sync::atomic::AtomicU64;
use std::time::Duration;
use xdp_common::config::{LIST_BITS, peers_key};
use xdp_common::meta::flag;
use xdp_common::vips::SERVICES;
use xdp_common::{ABI_VERSION, Hook, Secret, meta};
use xdp_core::Word;

/// The dataplane for a process with CAP_PERFMON.
static USUAL: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/ikenat.o"));
/// The dataplane for a process without it, built so that no address of a packet's byte is computed
/// from a variable (`docs/decisions/two-builds-of-the-object.md`).
static WITHOUT_PERFMON: &[u8] =
    aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/ikenat-without-perfmon.o"));

/// The build that the verifier accepts from this process.
fn embedded() -> &'static [u8] {
    if capabilities::is_hardened() {
        WITHOUT_PERFMON
    } else {
        USUAL
    }
}

/// What META records of an earlier start.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SavedState {
    /// The hash key.
    pub(crate) secret: Secret,
    /// Jiffies per second.
    pub(crate) rate: u64,
    /// One moment, in jiffies and on `CLOCK_MONOTONIC`.
    pub(crate) anchor: Moment,
    /// The settings, as bits ([`meta::FLAGS`]).
    pub(crate) flags: u64,
}

impl SavedState {
    /// Reads META; `None` when there are no tables. Pins that are left from a start that died
    /// before it attached anything are removed first.
    pub(crate) fn of(instance: &Instance, plan: &Plan) -> Result<Option<Self>> {
        let words = || -> Option<Vec<u64>> {
            let meta = mmap::open(&instance.pin("META")).ok()?;
            let meta = Memory::<ReadOnlyWord>::of(&meta, "META").ok()?;
            let words: Vec<u64> = meta.words().iter().map(Word::load).collect();
            // Zero until everything has been written.
            words
                .get(meta::VERSION)
                .is_some_and(|version| *version != 0)
                .then_some(words)
        };
        let words = words();
        if !instance.has_programs()? && words.is_none() {
            instance.clear()?;
            return Ok(None);
        }
        // First: another version has maps of other sizes too.
        if let Some(words) = &words {
            let word = |at: usize| words.get(at).copied().unwrap_or_default();
            check_version(&instance.directory, &instance.name, word)?;
        }
        instance.check_maps(&plan.settings.sizes)?;
        let tables = Tables::<ReadOnlyWord>::open(&instance.directory)?;
        if words.is_none() {
            let word = |at| tables.meta(at).load();
            check_version(&instance.directory, &instance.name, word)?;
        }
        Ok(Some(Self {
            flags: tables.meta(meta::FLAGS).load(),
            secret: secret::read(&instance.directory)?,
            rate: tables.meta(meta::HZ).load(),
            anchor: Moment {
                jiffies: tables.meta(meta::JIFFIES).load(),
                monotonic: tables.meta(meta::MONOTONIC).load(),
            },
        }))
    }

    /// The state of new tables: a random hash key and the current time.
    pub(crate) fn fresh(plan: &Plan) -> Result<Self> {
        let mut bytes = [0_u8; size_of::<Secret>()];
        let filled = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())
            .map_err(|error| Error::system("get random numbers")(error.into()))?;
        if filled != bytes.len() {
            return Err(Error::system("get random numbers")(
                std::io::ErrorKind::UnexpectedEof.into(),
            ));
        }
        let (rate, anchor) = learn_time()?;
        pass(Step::TimeLearned)?;
        Ok(Self {
            secret: bytemuck::cast(bytes),
            rate,
            anchor,
            flags: flags(plan),
        })
    }
}

fn load_failed(step: &'static str) -> impl Fn(&dyn std::error::Error) -> Error {
    move |error| Error::Load {
        step,
        why: causes(error),
    }
}

/// The object as it is loaded for one interface: it has its own constants and peer lists, and
/// shares all other maps with the other interfaces (`docs/decisions/one-load-per-interface.md`).
#[derive(Debug)]
pub(crate) struct LoadedObject {
    pub(crate) interface: Interface,
    pub(crate) ebpf: Ebpf,
}

/// Loads the object once for each wanted interface, with the programs of that interface, over the
/// pinned maps. Creates maps that are missing.
pub(crate) fn load(
    plan: &Plan,
    instance: &Instance,
    state: &SavedState,
    is_wanted: impl Fn(Interface) -> bool,
) -> Result<Vec<LoadedObject>> {
    let interfaces = plan.interfaces().into_iter();
    interfaces
        .filter(|(interface, _)| is_wanted(*interface))
        .map(|(interface, _)| load_one(plan, instance, state, interface))
        .collect()
}

fn load_one(
    plan: &Plan,
    instance: &Instance,
    state: &SavedState,
    interface: Interface,
) -> Result<LoadedObject> {
    let constants = Bytes(plan.constants(state.secret, tick_shift(state.rate), interface));
    let mut loader = EbpfLoader::new();
    for layout in plan.settings.sizes.layouts()? {
        loader
            .map_max_entries(layout.name, layout.max_entries)
            .map_pin_path(layout.name, instance.pin(layout.name));
    }
    loader.override_global("CONFIG", &constants, true);
    let trace = Bytes(losses::constants(plan.namespace));
    loader.override_global("LOSSES", &trace, false);
    let mut ebpf = loader
        .load(&failpoints::object(embedded())?)
        .map_err(|error| load_failed("maps")(&error))?;
    pass(Step::MapsMade)?;
    fill_lists(&mut ebpf, &plan.lists())?;
    for target in plan.attach_targets() {
        if target.hook_point.interface != interface {
            continue;
        }
        let name = target.program;
        match target.hook_point.hook {
            Hook::Xdp => xdp(&mut ebpf, name)?.load(),
            Hook::Tc | Hook::Egress => tc(&mut ebpf, name)?.load(),
        }
        .map_err(|error| refused(name, &error))?;
        pass(Step::ProgramLoaded)?;
    }
    Ok(LoadedObject { interface, ebpf })
}

/// The error for a program that the kernel refused. Whatever the verifier refuses is "permission
/// denied", also what it would accept from a process with CAP_PERFMON.
fn refused(name: &'static str, error: &ProgramError) -> Error {
    if is_denied(error) && !capabilities::has_perfmon() {
        tracing::debug!("{}", causes(error));
        return Error::NoPerfmon { program: name };
    }
    load_failed(name)(error)
}

/// Fills PEERS with the prefixes of `--except-peer` and `--deny`. This happens before the programs
/// are attached, so that no packet of a denied peer is forwarded.
fn fill_lists(ebpf: &mut Ebpf, lists: &[&Lists]) -> Result<()> {
    const NAME: &str = "PEERS";
    let failed = |error: &dyn std::error::Error| Error::Map {
        action: "fill",
        name: NAME.to_owned(),
        why: causes(error),
    };
    let map = ebpf.map_mut(NAME).ok_or_else(|| missing(NAME))?;
    let mut peers: LpmTrie<_, [u8; 6], u32> =
        LpmTrie::try_from(map).map_err(|error| failed(&error))?;
    let numbered = (1..).zip(lists);
    let all = numbered.flat_map(|(list, lists)| lists.all().map(move |one| (list, one)));
    for (list, (prefix, verdict)) in all {
        let bits = LIST_BITS + u32::from(prefix.prefix_len());
        let key = Key::new(bits, peers_key(list, prefix.network().octets()));
        peers
            .insert(&key, verdict, 0)
            .map_err(|error| failed(&error))?;
    }
    Ok(())
}

/// The program that reads the jiffies.
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

pub(crate) fn tc<'e>(ebpf: &'e mut Ebpf, name: &'static str) -> Result<&'e mut SchedClassifier> {
    let program = ebpf.program_mut(name).ok_or_else(|| missing(name))?;
    program.try_into().map_err(|_: ProgramError| missing(name))
}

pub(crate) fn tracepoint<'e>(
    ebpf: &'e mut Ebpf,
    name: &'static str,
) -> Result<&'e mut RawTracePoint> {
    let program = ebpf.program_mut(name).ok_or_else(|| missing(name))?;
    program.try_into().map_err(|_: ProgramError| missing(name))
}

/// Determines the tick rate: reads the jiffies twice, 100 ms apart, and again as long as the two
/// fit no tick rate of a kernel. A virtual machine that did not run in between catches up on its
/// ticks later.
fn learn_time() -> Result<(u64, Moment)> {
    const TRIES: usize = 20;
    let mut ebpf = Ebpf::load(embedded()).map_err(|error| load_failed("clock")(&error))?;
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

/// The current time in jiffies and on `CLOCK_MONOTONIC`, read by a program of a loaded object.
pub(crate) fn now(objects: &mut [LoadedObject]) -> Result<Moment> {
    let object = objects.first_mut().ok_or_else(|| missing(CLOCK))?;
    let program = xdp(&mut object.ebpf, CLOCK)?;
    program.load().map_err(|error| load_failed(CLOCK)(&error))?;
    moment(program)
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

/// Writes to META what `stats`, `status` and the next start read. The version is written last:
/// until it is there, the rest is not valid.
pub(crate) fn write_meta(
    tables: &Tables<AtomicU64>,
    plan: &Plan,
    state: &SavedState,
    grace: &GracePeriod,
    fresh: bool,
) -> Result<()> {
    let set = |word: usize, value: u64| Word::store(tables.meta(word), value);
    if fresh {
        set(meta::HZ, state.rate);
        set(meta::JIFFIES, state.anchor.jiffies);
        set(meta::MONOTONIC, state.anchor.monotonic);
    }
    set(meta::FLAGS, flags(plan) | grace.flag());
    set(meta::NAMESPACE, plan.namespace);
    // A service may have another server now.
    for service in (0..).take(SERVICES) {
        set(meta::server_hop(service), 0);
    }
    // Those that do not exist have the index 0 and a name.
    let interfaces = plan.wanted_by_side();
    let generic = interfaces.iter().map(|(interface, _)| *interface);
    let generic =
        generic.filter(|interface| plan.settings.modes.of(interface.side) == Mode::Generic);
    set(
        meta::GENERIC,
        generic.fold(0, |bits, interface| bits | interface.generic()),
    );
    for interface in Interface::all() {
        let link = interfaces.iter().find(|(found, _)| *found == interface);
        let (index, name) = link.map_or((0, ""), |(_, link)| (link.index, &link.name));
        let [first, second] = name_words(name);
        // What was lost to another interface is not this one's.
        if Word::load(tables.meta(interface.meta() + 1)) != first
            || Word::load(tables.meta(interface.meta() + 2)) != second
        {
            set(interface.lost(), 0);
        }
        for (at, word) in [u64::from(index), first, second].into_iter().enumerate() {
            set(interface.meta() + at, word);
        }
    }
    pass(Step::Described)?;
    tables.meta(meta::VERSION).publish(u64::from(ABI_VERSION));
    pass(Step::VersionWritten)
}

const fn flags(plan: &Plan) -> u64 {
    plan.settings.dry_run as u64 * flag::DRY_RUN
}

/// The name of an interface, at most 15 bytes, as two words.
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
    use crate::config::interfaces::HookPoint;

    #[test]
    fn a_name_survives_its_two_words() {
        let words = name_words("enp0s31f6.4094a");
        let bytes: [u8; 16] = bytemuck::cast(words);
        assert_eq!(&bytes, b"enp0s31f6.4094a\0");
    }

    #[test]
    fn both_objects_have_the_programs_that_are_asked_for() {
        let of = |one_armed, several| {
            HookPoint::all().map(move |hook_point| hook_point.program(one_armed, several))
        };
        let wide = of(false, false).chain(of(false, true));
        let narrow = of(true, false).chain(of(true, true));
        for name in wide.chain(narrow).chain([CLOCK, "PEERS"]) {
            for object in [USUAL, WITHOUT_PERFMON] {
                let mut windows = object.windows(name.len());
                assert!(
                    windows.any(|window| window == name.as_bytes()),
                    "no {name} in an object of {} bytes",
                    object.len()
                );
            }
        }
    }
}
