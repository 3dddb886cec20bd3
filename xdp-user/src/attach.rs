//! Loads the object, attaches its programs, and replaces those of a running instance by link update, with no packet
//! lost. A start that fails leaves behind what was there before it, and nothing of its own.
//!
//! It may not know the sentences that are printed, nor what the programs do.

use crate::clock::{self, Clock, Moment};
use crate::config::{Mode, Plan};
use crate::error::{Error, Result, causes};
use crate::links::{self, Attachment};
use crate::maps::{Bytes, Seen, Tables};
use crate::netlink::{Link, Netlink};
use crate::pins::{self, Instance, Lock};
use aya::programs::links::{FdLink, PinnedLink};
use aya::programs::tc::{TcAttachOptions, TcAttachType};
use aya::programs::xdp::{XdpLink, XdpMode};
use aya::programs::{
    LinkOrder, ProgramError, SchedClassifier, TestRun as _, TestRunOptions, Xdp,
    tc::SchedClassifierLink,
};
use aya::{Ebpf, EbpfLoader};
use aya_log::EbpfLogger;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU64;
use std::time::Duration;
use xdp_common::{ABI_VERSION, Hook, Secret, meta};
use xdp_core::Word;

static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/ikenat.o"));

/// How a program came to its interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// There was none.
    Attached,
    /// The program of a live link was exchanged, with no packet in between.
    Replaced,
    /// The link was dead, or on another interface.
    Again,
}

/// A program on an interface.
#[derive(Clone, Debug)]
pub struct Attached {
    /// The interface.
    pub interface: String,
    /// The hook.
    pub hook: Hook,
    /// How it came there.
    pub how: How,
}

/// A running instance.
#[derive(Debug)]
pub struct Running {
    /// Its pins.
    pub instance: Instance,
    /// Its tables.
    pub tables: Tables<AtomicU64>,
    /// Its time.
    pub clock: Clock,
    /// What was attached.
    pub attached: Vec<Attached>,
    /// True when the tables were there before.
    pub reused: bool,
    lock: Lock,
}

/// The dataplane's own messages.
pub type Logger = EbpfLogger<&'static dyn tracing_log::log::Log>;

/// Loads and attaches.
pub fn start(plan: &Plan, netlink: &Netlink) -> Result<(Running, Option<Logger>)> {
    let bpffs = pins::bpffs(plan.request.bpffs.as_deref())?;
    let instance = Instance::of(&bpffs, plan.request.vip);
    check_other_programs(plan, &bpffs, &instance)?;
    instance.create()?;
    let lock = instance.lock()?;
    let known = match Known::of(&instance, plan) {
        Ok(known) => known,
        Err(error) => {
            if !instance.is_used() {
                instance.remove()?;
            }
            return Err(error);
        }
    };
    let mut pinned = Vec::new();
    match bring_up(plan, netlink, &instance, known, &mut pinned) {
        Ok((tables, clock, attached, logger)) => {
            let running = Running {
                instance,
                tables,
                clock,
                attached,
                reused: known.is_some(),
                lock,
            };
            Ok((running, logger))
        }
        Err(error) => {
            for path in &pinned {
                pins::remove_file(path)?;
            }
            if known.is_none() {
                instance.remove()?;
            }
            Err(error)
        }
    }
}

/// What the tables of an earlier start say of themselves.
#[derive(Clone, Copy)]
struct Known {
    secret: Secret,
    rate: u64,
    anchor: Moment,
}

impl Known {
    /// `None`: there is nothing yet, after removing what a start left that died before anything was attached.
    fn of(instance: &Instance, plan: &Plan) -> Result<Option<Self>> {
        let complete = || {
            let meta = crate::maps::open(&instance.pin("META")).ok()?;
            let meta = crate::maps::Memory::<Seen>::of(&meta, "META").ok()?;
            meta.words().get(meta::VERSION).map(|word| word.load() != 0)
        };
        if !instance.has_links() && !complete().unwrap_or(false) {
            instance.remove()?;
            instance.create()?;
            return Ok(None);
        }
        instance.check_maps(&plan.request.sizes)?;
        let tables = Tables::<Seen>::open(&instance.directory)?;
        instance.check_version(tables.meta(meta::VERSION).load())?;
        let mode = Mode::of(tables.meta(meta::MODE).load());
        if mode != plan.request.mode && is_attached(instance, plan)? {
            return Err(Error::OtherMode {
                vip: instance.vip,
                is: mode.name(),
            });
        }
        Ok(Some(Self {
            secret: std::array::from_fn(|i| tables.meta(meta::SECRET + i).load()),
            rate: tables.meta(meta::HZ).load(),
            anchor: Moment {
                jiffies: tables.meta(meta::JIFFIES).load(),
                monotonic: tables.meta(meta::MONOTONIC).load(),
            },
        }))
    }

    /// For new tables: a random key, and the time.
    fn fresh() -> Result<Self> {
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
        })
    }
}

fn is_attached(instance: &Instance, plan: &Plan) -> Result<bool> {
    for place in places(plan) {
        if place.hook == Hook::Xdp
            && let Some((_, attachment)) = links::open(&instance.pin(place.pin))?
            && links::is_on(&attachment, place.hook, place.link)
        {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Refuses an interface on which an XDP program of somebody else runs.
fn check_other_programs(plan: &Plan, bpffs: &Path, instance: &Instance) -> Result<()> {
    let mut ours = Vec::new();
    for (name, hook, _) in pins::LINKS {
        if hook == Hook::Xdp
            && let Some((_, attachment)) = links::open(&instance.pin(name))?
        {
            ours.push(attachment.program);
        }
    }
    for link in [&plan.wan, &plan.lan] {
        let Some(id) = link.xdp.filter(|id| !ours.contains(id)) else {
            continue;
        };
        let program = match links::program_name(id) {
            Some(name) => format!("`{name}` (id {id})"),
            None => format!("id {id}"),
        };
        let name = &link.name;
        let way_out = match links::instance_of(bpffs, id) {
            Some(other) => format!(
                "that is ikenat for {0}, and an interface has room for one; remove it with `ikenat unload --vip {0}`",
                other.vip
            ),
            None => format!(
                "an interface has room for one; remove it with `ip link set dev {name} xdp off`, or stop the program that holds it"
            ),
        };
        return Err(Error::OtherProgram {
            interface: name.clone(),
            program,
            way_out,
        });
    }
    Ok(())
}

type Up = (Tables<AtomicU64>, Clock, Vec<Attached>, Option<Logger>);

fn bring_up(
    plan: &Plan,
    netlink: &Netlink,
    instance: &Instance,
    known: Option<Known>,
    pinned: &mut Vec<PathBuf>,
) -> Result<Up> {
    let facts = match known {
        Some(known) => known,
        None => Known::fresh()?,
    };
    let mut ebpf = load(plan, instance, &facts)?;
    let tables = Tables::open(&instance.directory)?;
    describe(&tables, plan, &facts, known.is_none());
    for (side, link) in sides(plan) {
        Word::store(tables.meta(side), u64::from(is_ready(netlink, plan, link)?));
    }
    let attached = attach_all(plan, instance, &mut ebpf, pinned)?;
    let logger = match EbpfLogger::init(&mut ebpf) {
        Ok(logger) => Some(logger),
        Err(error) => {
            tracing::debug!("the dataplane's own messages cannot be read: {error}");
            None
        }
    };
    Ok((
        tables,
        Clock::new(facts.rate, facts.anchor),
        attached,
        logger,
    ))
}

fn load_failed(step: &'static str) -> impl Fn(&dyn std::error::Error) -> Error {
    move |error| Error::Load {
        step,
        why: causes(error),
    }
}

/// Loads the object over the pinned maps, making those that are missing, and both programs.
fn load(plan: &Plan, instance: &Instance, facts: &Known) -> Result<Ebpf> {
    let constants = Bytes(plan.constants(facts.secret, facts.rate));
    let mut loader = EbpfLoader::new();
    for layout in plan.request.sizes.layouts() {
        loader
            .map_max_entries(layout.name, layout.max_entries)
            .map_pin_path(layout.name, instance.pin(layout.name));
    }
    loader.override_global("CONFIG", &constants, true);
    let mut ebpf = loader
        .load(OBJECT)
        .map_err(|error| load_failed("maps")(&error))?;
    xdp(&mut ebpf, XDP)?
        .load()
        .map_err(|error| load_failed(XDP)(&error))?;
    tc(&mut ebpf)?
        .load()
        .map_err(|error| load_failed(TC)(&error))?;
    Ok(ebpf)
}

const XDP: &str = "ikenat_xdp";
const TC: &str = "ikenat_tc";
const CLOCK: &str = "ikenat_clock";

fn missing(step: &'static str) -> Error {
    Error::Load {
        step,
        why: "the object has no such program; this binary was built with another one".to_owned(),
    }
}

fn xdp<'e>(ebpf: &'e mut Ebpf, name: &'static str) -> Result<&'e mut Xdp> {
    let program = ebpf.program_mut(name).ok_or_else(|| missing(name))?;
    program.try_into().map_err(|_: ProgramError| missing(name))
}

fn tc(ebpf: &mut Ebpf) -> Result<&mut SchedClassifier> {
    let program = ebpf.program_mut(TC).ok_or_else(|| missing(TC))?;
    program.try_into().map_err(|_: ProgramError| missing(TC))
}

/// Lets the kernel tell its jiffies twice, a tenth of a second apart.
fn learn_time() -> Result<(u64, Moment)> {
    let mut ebpf = Ebpf::load(OBJECT).map_err(|error| load_failed("clock")(&error))?;
    let program = xdp(&mut ebpf, CLOCK)?;
    program.load().map_err(|error| load_failed(CLOCK)(&error))?;
    let first = moment(program)?;
    std::thread::sleep(Duration::from_millis(100));
    let second = moment(program)?;
    let rate = clock::rate(first, second).ok_or_else(|| Error::Jiffies {
        why: format!("{first:?} and {second:?} fit no kernel's tick"),
    })?;
    Ok((rate, second))
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
fn describe(tables: &Tables<AtomicU64>, plan: &Plan, facts: &Known, fresh: bool) {
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
    let address = |octets: [u8; 4]| u64::from(u32::from_ne_bytes(octets));
    set(meta::VIP, address(plan.request.vip.octets()));
    set(meta::SERVER, address(plan.request.server.octets()));
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

/// The readiness word of each side.
fn sides(plan: &Plan) -> [(usize, &Link); 2] {
    [(meta::READY_WAN, &plan.wan), (meta::READY_LAN, &plan.lan)]
}

/// In generic mode any hardware takes what XDP redirects: it goes the way of the stack's own frames.
fn is_ready(netlink: &Netlink, plan: &Plan, link: &Link) -> Result<bool> {
    let by_stack = plan.request.mode == Mode::Generic && link.kind.is_none();
    Ok(by_stack || netlink.takes_frames(link)?)
}

impl Running {
    /// Asks again which devices take frames from XDP. Names those that changed; a device that is gone takes none.
    pub fn refresh_readiness(&self, netlink: &Netlink, plan: &Plan) -> Vec<(String, bool)> {
        let mut changed = Vec::new();
        for (side, link) in sides(plan) {
            let ready = is_ready(netlink, plan, link).unwrap_or(false);
            let word = self.tables.meta(side);
            if (Word::load(word) != 0) != ready {
                Word::store(word, u64::from(ready));
                changed.push((link.name.clone(), ready));
            }
        }
        changed.dedup();
        changed
    }

    /// Whether the device of a side takes frames from XDP, as the dataplane believes.
    pub fn readiness<'p>(&self, plan: &'p Plan) -> [(&'p str, bool); 2] {
        sides(plan)
            .map(|(side, link)| (link.name.as_str(), Word::load(self.tables.meta(side)) != 0))
    }

    /// Detaches everything and gives the lock back.
    pub fn detach(self) -> Result<Vec<String>> {
        let removed = remove(&self.instance);
        drop(self.lock);
        removed
    }
}

/// Removes an instance and waits until its programs are gone. Returns the names of its pins.
pub fn remove(instance: &Instance) -> Result<Vec<String>> {
    let ids = links::ids(instance);
    let removed = instance.remove()?;
    links::wait_gone(&ids);
    Ok(removed)
}

/// A place where a program belongs.
struct Place<'p> {
    pin: &'static str,
    hook: Hook,
    link: &'p Link,
}

/// The places, in the order of attaching: the slow path first, so that whatever XDP hands over has somewhere to go.
fn places(plan: &Plan) -> Vec<Place<'_>> {
    let sides = pins::LINKS
        .iter()
        .filter(|(.., wan)| *wan || !plan.is_one_armed());
    let place = |&(pin, hook, wan): &(&'static str, Hook, bool)| Place {
        pin,
        hook,
        link: if wan { &plan.wan } else { &plan.lan },
    };
    let mut places: Vec<Place<'_>> = sides.map(place).collect();
    places.sort_by_key(|place| place.hook == Hook::Xdp);
    places
}

fn attach_all(
    plan: &Plan,
    instance: &Instance,
    ebpf: &mut Ebpf,
    pinned: &mut Vec<PathBuf>,
) -> Result<Vec<Attached>> {
    let mut attached = Vec::new();
    let places = places(plan);
    for place in &places {
        let path = instance.pin(place.pin);
        let old = links::open(&path)?;
        let how = match old {
            Some((link, found)) if links::is_on(&found, place.hook, place.link) => {
                replace(ebpf, place, link)?;
                How::Replaced
            }
            other => {
                let link = attach(ebpf, place, plan.request.mode)?;
                pins::remove_file(&path)?;
                link.pin(&path)
                    .map_err(|error| attach_failed(place, &error))?;
                pinned.push(path);
                other.map_or(How::Attached, |_: (PinnedLink, Attachment)| How::Again)
            }
        };
        attached.push(Attached {
            interface: place.link.name.clone(),
            hook: place.hook,
            how,
        });
    }
    for (name, ..) in pins::LINKS {
        if !places.iter().any(|place| place.pin == name) {
            // The gateway has become one-armed.
            pins::remove_file(&instance.pin(name))?;
        }
    }
    Ok(attached)
}

fn attach_failed(place: &Place<'_>, error: &dyn std::error::Error) -> Error {
    Error::Attach {
        hook: hook_name(place.hook),
        interface: place.link.name.clone(),
        why: causes(error),
    }
}

/// What the hook is called outside of our own counters.
pub const fn hook_name(hook: Hook) -> &'static str {
    match hook {
        Hook::Xdp => "xdp",
        Hook::Tc => "tcx",
    }
}

fn attach(ebpf: &mut Ebpf, place: &Place<'_>, mode: Mode) -> Result<FdLink> {
    let failed = |error: &dyn std::error::Error| attach_failed(place, error);
    match place.hook {
        Hook::Xdp => {
            let program = xdp(ebpf, XDP)?;
            let flags = match mode {
                Mode::Native => XdpMode::Driver,
                Mode::Generic => XdpMode::Skb,
            };
            let id = program
                .attach_to_if_index(place.link.index, flags)
                .map_err(|error| match mode {
                    Mode::Native => Error::NativeRefused {
                        interface: place.link.name.clone(),
                        why: causes(&error),
                    },
                    Mode::Generic => failed(&error),
                })?;
            let link = program.take_link(id).map_err(|error| failed(&error))?;
            FdLink::try_from(link).map_err(|error| failed(&error))
        }
        Hook::Tc => {
            let program = tc(ebpf)?;
            let first = TcAttachOptions::TcxOrder(LinkOrder::first());
            let id = program
                .attach_with_options(&place.link.name, TcAttachType::Ingress, first)
                .map_err(|error| failed(&error))?;
            let link = program.take_link(id).map_err(|error| failed(&error))?;
            FdLink::try_from(link).map_err(|error| failed(&error))
        }
    }
}

/// Exchanges the program of a live link. The pin stays where it is and goes on holding the link.
fn replace(ebpf: &mut Ebpf, place: &Place<'_>, link: PinnedLink) -> Result<()> {
    let failed = |error: &dyn std::error::Error| attach_failed(place, error);
    let link = FdLink::from(link);
    match place.hook {
        Hook::Xdp => {
            let link = XdpLink::try_from(link).map_err(|error| failed(&error))?;
            let program = xdp(ebpf, XDP)?;
            program
                .attach_to_link(link)
                .map_err(|error| failed(&error))?;
        }
        Hook::Tc => {
            let link = SchedClassifierLink::try_from(link).map_err(|error| failed(&error))?;
            let program = tc(ebpf)?;
            program
                .attach_to_link(link)
                .map_err(|error| failed(&error))?;
        }
    }
    Ok(())
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
        for name in [XDP, TC, CLOCK] {
            assert!(
                OBJECT
                    .windows(name.len())
                    .any(|window| window == name.as_bytes()),
                "no {name} in the object"
            );
        }
    }
}
