//! The programs at their hooks: which belong where, by what means each is attached, and how one of a running instance
//! is exchanged for a new one with no packet lost.
//!
//! It may not know what the programs do, nor how they were loaded.

use crate::config::{Mode, Plan, Tc};
use crate::error::{Error, Result, causes};
use crate::filters::{self, Ours, Seat};
use crate::links::{self, Attachment};
use crate::netlink::{Link, Netlink};
use crate::object::{XDP, tc, xdp};
use crate::pins::{self, Instance};
use aya::Ebpf;
use aya::programs::links::{FdLink, PinnedLink};
use aya::programs::tc::{SchedClassifierLink, TcAttachOptions, TcAttachType};
use aya::programs::xdp::{XdpLink, XdpMode};
use aya::programs::{LinkOrder, ProgramError};
use std::os::fd::AsFd as _;
use std::path::PathBuf;
use xdp_common::Hook;

/// By what means the tc program is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// By a pinned tcx link (Linux 6.6).
    Tcx,
    /// As a filter in a clsact.
    Clsact,
}

impl Way {
    /// The word for people.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tcx => "tcx",
            Self::Clsact => "clsact",
        }
    }

    /// As the pins tell; `None` when nothing is attached.
    fn of(instance: &Instance) -> Option<Self> {
        let has_link = pins::LINKS
            .iter()
            .any(|(name, hook, _)| *hook == Hook::Tc && instance.pin(name).exists());
        if has_link {
            Some(Self::Tcx)
        } else {
            instance.has_filters().then_some(Self::Clsact)
        }
    }

    /// What was asked for, if that is possible; left to us, what is there is kept, because there must never be two.
    pub(crate) fn choose(plan: &Plan, instance: &Instance) -> Result<Self> {
        let asked = match plan.request.tc {
            Tc::Auto => None,
            Tc::Tcx => Some(Self::Tcx),
            Tc::Clsact => Some(Self::Clsact),
        };
        let has_tcx = links::has_tcx(&plan.wan.name);
        if asked == Some(Self::Tcx) && !has_tcx {
            return Err(Error::NoTcx);
        }
        match (Self::of(instance), asked) {
            (Some(is), Some(asked)) if is != asked => Err(Error::OtherWay {
                vip: instance.vip,
                is: is.name(),
            }),
            (Some(is), _) => Ok(is),
            (None, Some(asked)) => Ok(asked),
            (None, None) if has_tcx => Ok(Self::Tcx),
            (None, None) => Ok(Self::Clsact),
        }
    }
}

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

/// What the hook of a program is called.
pub const fn hook_name(hook: Hook, way: Way) -> &'static str {
    match hook {
        Hook::Xdp => "xdp",
        Hook::Tc | Hook::Egress => way.name(),
    }
}

/// A place where a program belongs.
struct Place<'p> {
    /// The pin of its link ...
    pin: &'static str,
    /// ... or, where it is a filter, of its program.
    filter: &'static str,
    hook: Hook,
    /// The XDP program, where it is one.
    xdp: &'static str,
    link: &'p Link,
}

/// The places, in the order of attaching: the slow path first, so that whatever XDP hands over has somewhere to go.
fn places(plan: &Plan) -> Vec<Place<'_>> {
    let sides = pins::LINKS
        .iter()
        .filter(|(.., wan)| *wan || !plan.is_one_armed());
    let place = |&(pin, hook, wan): &(&'static str, Hook, bool)| Place {
        pin,
        filter: pins::FILTERS[usize::from(!wan)].0,
        hook,
        xdp: XDP[usize::from(!wan)],
        link: if wan { &plan.wan } else { &plan.lan },
    };
    let mut places: Vec<Place<'_>> = sides.map(place).collect();
    places.sort_by_key(|place| place.hook == Hook::Xdp);
    places
}

/// True when an XDP program of an instance is on an interface of the plan.
pub(crate) fn is_attached(instance: &Instance, plan: &Plan) -> Result<bool> {
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

/// Something that was not there before a start, in the order of its making.
#[derive(Debug)]
pub(crate) enum Made {
    /// A pin.
    Pin(PathBuf),
    /// A filter on the interface of this index, and its clsact where that was made too.
    Filter(u32),
}

/// Takes back what a start has made that then failed.
pub(crate) fn undo(netlink: &Netlink, instance: &Instance, made: &[Made]) -> Result<()> {
    for made in made.iter().rev() {
        match made {
            Made::Pin(path) => _ = pins::remove_file(path)?,
            Made::Filter(index) => filters::leave(netlink, instance, *index)?,
        }
    }
    Ok(())
}

/// What attaching works on.
pub(crate) struct Work<'w> {
    pub(crate) plan: &'w Plan,
    pub(crate) netlink: &'w Netlink,
    pub(crate) instance: &'w Instance,
    pub(crate) ebpf: &'w mut Ebpf,
    pub(crate) made: &'w mut Vec<Made>,
}

/// Attaches or exchanges every program, and removes those of places that are no more.
pub(crate) fn attach_all(work: &mut Work<'_>, way: Way) -> Result<Vec<Attached>> {
    let mut attached = Vec::new();
    let plan = work.plan;
    let places = places(plan);
    for place in &places {
        let how = match (place.hook, way) {
            (Hook::Xdp, _) => by_link(work, place)?,
            (Hook::Tc | Hook::Egress, Way::Tcx) => {
                let how = by_link(work, place)?;
                filters::remove_orphan(work.netlink, work.instance, place.link)?;
                how
            }
            (Hook::Tc | Hook::Egress, Way::Clsact) => by_filter(work, place)?,
        };
        attached.push(Attached {
            interface: place.link.name.clone(),
            hook: place.hook,
            how,
        });
    }
    let instance = work.instance;
    if way == Way::Clsact {
        // Those of an earlier start on other interfaces; a link would have gone with its pin.
        let stay: Vec<u32> = places.iter().map(|place| place.link.index).collect();
        let moved = |a: &Attached| a.hook == Hook::Tc && a.how == How::Again;
        if attached.iter().any(moved) || Way::is_elsewhere(instance, &places) {
            filters::sweep(work.netlink, instance, &stay)?;
        }
    }
    for (name, ..) in pins::LINKS {
        if !places.iter().any(|place| place.pin == name) {
            // The gateway has become one-armed.
            pins::remove_file(&instance.pin(name))?;
        }
    }
    for (name, _) in pins::FILTERS {
        if !places.iter().any(|place| place.filter == name) {
            pins::remove_file(&instance.pin(name))?;
        }
    }
    Ok(attached)
}

impl Way {
    fn is_elsewhere(instance: &Instance, places: &[Place<'_>]) -> bool {
        let unused = |name: &str| !places.iter().any(|place| place.filter == name);
        let mut names = pins::FILTERS.iter().map(|(name, _)| *name);
        names.any(|name| unused(name) && instance.pin(name).exists())
    }
}

fn by_link(work: &mut Work<'_>, place: &Place<'_>) -> Result<How> {
    let path = work.instance.pin(place.pin);
    match links::open(&path)? {
        Some((link, found)) if links::is_on(&found, place.hook, place.link) => {
            replace(work.ebpf, place, link)?;
            Ok(How::Replaced)
        }
        other => {
            let link = attach(work.ebpf, place, work.plan.request.mode)?;
            pins::remove_file(&path)?;
            link.pin(&path)
                .map_err(|error| attach_failed(place, &error))?;
            work.made.push(Made::Pin(path));
            Ok(other.map_or(How::Attached, |_: (PinnedLink, Attachment)| How::Again))
        }
    }
}

fn by_filter(work: &mut Work<'_>, place: &Place<'_>) -> Result<How> {
    let device = (place.link.index, place.link.name.as_str());
    let seat = filters::seat(work.netlink, device, &Ours::of(work.instance))?;
    if let Seat::Other(filter) = &seat {
        return Err(filters::in_the_way(device.1, filter));
    }
    let was_pinned = work.instance.pin(place.filter).exists();
    let program = tc(work.ebpf)?;
    let path = work.instance.pin_program(place.filter, program)?;
    if !was_pinned {
        work.made.push(Made::Pin(path));
    }
    let program = program
        .fd()
        .map_err(|error: ProgramError| attach_failed(place, &error))?
        .as_fd();
    match seat {
        Seat::Ours => {
            filters::exchange(work.netlink, device, program)?;
            Ok(How::Replaced)
        }
        Seat::Orphan => {
            filters::exchange(work.netlink, device, program)?;
            work.made.push(Made::Filter(place.link.index));
            Ok(How::Again)
        }
        Seat::Free | Seat::Other(_) => {
            filters::sit_down(work.netlink, work.instance, device, program)?;
            work.made.push(Made::Filter(place.link.index));
            Ok(if was_pinned {
                How::Again
            } else {
                How::Attached
            })
        }
    }
}

/// What was found at a hook out of which somebody had taken our program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PutBack {
    /// Nothing; ours is there again.
    Done,
    /// It could not be put back, for this reason.
    Failed(String),
}

/// Puts filters back that somebody has removed. Names the interfaces; those that are gone are none of its business.
pub(crate) fn put_back(
    netlink: &Netlink,
    instance: &Instance,
    plan: &Plan,
) -> Vec<(String, PutBack)> {
    let mut done = Vec::new();
    for place in places(plan).iter().filter(|place| place.hook == Hook::Tc) {
        let said = match filters::put_back(netlink, instance, place.link, place.filter) {
            Ok(false) => continue,
            Ok(true) => PutBack::Done,
            Err(error) => PutBack::Failed(causes(&error)),
        };
        done.push((place.link.name.clone(), said));
    }
    done
}

fn attach_failed(place: &Place<'_>, error: &dyn std::error::Error) -> Error {
    Error::Attach {
        hook: hook_name(place.hook, Way::Tcx),
        interface: place.link.name.clone(),
        why: causes(error),
    }
}

fn attach(ebpf: &mut Ebpf, place: &Place<'_>, mode: Mode) -> Result<FdLink> {
    let failed = |error: &dyn std::error::Error| attach_failed(place, error);
    match place.hook {
        Hook::Xdp => {
            let program = xdp(ebpf, place.xdp)?;
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
        Hook::Tc | Hook::Egress => {
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
            let program = xdp(ebpf, place.xdp)?;
            program
                .attach_to_link(link)
                .map_err(|error| failed(&error))?;
        }
        Hook::Tc | Hook::Egress => {
            let link = SchedClassifierLink::try_from(link).map_err(|error| failed(&error))?;
            let program = tc(ebpf)?;
            program
                .attach_to_link(link)
                .map_err(|error| failed(&error))?;
        }
    }
    Ok(())
}
