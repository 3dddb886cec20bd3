//! Loads the object, attaches its programs, and replaces those of a running instance by link update, with no packet
//! lost. A start that fails leaves behind what was there before it, and nothing of its own.
//!
//! It may not know the sentences that are printed, nor what the programs do.

use crate::clock::Clock;
use crate::config::{Mode, Plan};
use crate::error::{Error, Result, causes};
use crate::links::{self, Attachment};
use crate::lock::Lock;
use crate::maps::Tables;
use crate::netlink::{Link, Netlink};
use crate::object::{self, Known, XDP, tc, xdp};
use crate::others;
use crate::pins::{self, Instance};
use aya::Ebpf;
use aya::programs::LinkOrder;
use aya::programs::links::{FdLink, PinnedLink};
use aya::programs::tc::{SchedClassifierLink, TcAttachOptions, TcAttachType};
use aya::programs::xdp::{XdpLink, XdpMode};
use aya_log::EbpfLogger;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::atomic::AtomicU64;
use xdp_common::{Hook, meta};
use xdp_core::Word;

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
    /// The server that the programs translated to until now.
    pub earlier_server: Option<Ipv4Addr>,
    lock: Lock,
}

/// The dataplane's own messages.
pub type Logger = EbpfLogger<&'static dyn tracing_log::log::Log>;

/// Loads and attaches.
pub fn start(plan: &Plan, netlink: &Netlink) -> Result<(Running, Option<Logger>)> {
    let bpffs = pins::bpffs(plan.request.bpffs.as_deref())?;
    let instance = Instance::of(&bpffs, plan.request.vip);
    others::check(plan, &bpffs, &instance)?;
    instance.create()?;
    let lock = instance.lock()?;
    let known = match earlier(&instance, plan) {
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
                earlier_server: known.map(|known| known.server),
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

/// What an earlier start left, if this one can take it over.
fn earlier(instance: &Instance, plan: &Plan) -> Result<Option<Known>> {
    let known = Known::of(instance, plan)?;
    if let Some(Known { mode, .. }) = known
        && mode != plan.request.mode
        && is_attached(instance, plan)?
    {
        return Err(Error::OtherMode {
            vip: instance.vip,
            is: mode.name(),
        });
    }
    Ok(known)
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
        None => Known::fresh(plan.request.mode, plan.request.server)?,
    };
    let mut ebpf = object::load(plan, instance, &facts)?;
    let tables = Tables::open(&instance.directory)?;
    object::describe(&tables, plan, &facts, known.is_none());
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

/// Whether a device takes frames that XDP redirects to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// It does.
    Ready,
    /// It does not.
    NotReady,
    /// The kernel knows no such device any more.
    Gone,
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
    pub fn refresh_readiness(&self, netlink: &Netlink, plan: &Plan) -> Vec<(String, Readiness)> {
        let mut changed = Vec::new();
        for (side, link) in sides(plan) {
            let readiness = match is_ready(netlink, plan, link) {
                Ok(true) => Readiness::Ready,
                Ok(false) => Readiness::NotReady,
                Err(_) => Readiness::Gone,
            };
            let ready = readiness == Readiness::Ready;
            let word = self.tables.meta(side);
            if (Word::load(word) != 0) != ready {
                Word::store(word, u64::from(ready));
                changed.push((link.name.clone(), readiness));
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
    let attachments = links::attachments(instance);
    let removed = instance.remove()?;
    links::wait_gone(&attachments);
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
