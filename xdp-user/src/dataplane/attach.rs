//! The programs at their hooks: which belong where, by what means each is attached, and how one of a running instance
//! is exchanged for a new one with no packet lost.
//!
//! It may not know what the programs do, nor how they were loaded.

use crate::bpffs::layout::{self, Instance};
use crate::config::interfaces::{AttachTarget, HookPoint};
use crate::config::plan::Plan;
use crate::config::settings::{Mode, Tc};
use crate::dataplane::clsact::cleanup;
use crate::dataplane::clsact::{self, Device, Ours, Seat};
use crate::dataplane::link;
use crate::dataplane::loader::{Load, tc};
use crate::dataplane::program::{attach, attach_failed, replace};
use crate::error::{Error, Result, causes};
use crate::failpoints::{Step, pass};
use crate::netlink::{Block, Netlink};
use aya::Ebpf;
use aya::programs::ProgramError;
use aya::programs::links::PinnedLink;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::PathBuf;
use xdp_common::Hook;

/// By what means the tc program is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TcBackend {
    /// By a pinned tcx link (Linux 6.6).
    Tcx,
    /// As a filter in a clsact.
    Clsact,
}

impl TcBackend {
    /// The word for people.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tcx => "tcx",
            Self::Clsact => "clsact",
        }
    }

    /// As the pins tell; `None` when nothing is attached.
    fn of(instance: &Instance) -> Option<Self> {
        let mut spots = HookPoint::all().filter(|hook_point| hook_point.hook == Hook::Tc);
        let has_link = spots.any(|hook_point| instance.pin(&hook_point.link_pin()).exists());
        if has_link {
            Some(Self::Tcx)
        } else {
            instance.has_filters().then_some(Self::Clsact)
        }
    }

    /// What was asked for, if that is possible; left to us, what is there is kept, because there must never be two.
    pub(crate) fn choose(plan: &Plan, instance: &Instance) -> Result<Self> {
        let asked = match plan.settings.tc {
            Tc::Auto => None,
            Tc::Tcx => Some(Self::Tcx),
            Tc::Clsact => Some(Self::Clsact),
        };
        let has_tcx = plan
            .wans
            .first()
            .is_some_and(|wan| link::has_tcx(wan.index));
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
    /// How an XDP program runs there.
    pub mode: Mode,
    /// How it came there.
    pub how: How,
}

/// What the hook of a program is called.
pub const fn hook_name(hook: Hook, way: TcBackend) -> &'static str {
    match hook {
        Hook::Xdp => "xdp",
        Hook::Tc | Hook::Egress => way.name(),
    }
}

/// Refuses another mode than that in which a program of the instance is attached: a link keeps the one it has.
pub(crate) fn check_modes(instance: &Instance, plan: &Plan) -> Result<()> {
    for AttachTarget { hook_point, link } in plan.places() {
        if hook_point.hook != Hook::Xdp {
            continue;
        }
        let Some((_, attachment)) = link::open(&instance.pin(&hook_point.link_pin()))? else {
            continue;
        };
        let is = Mode::of(!link.native_xdp);
        if link::is_on(&attachment, hook_point.hook, link)
            && is != plan.settings.modes.of(hook_point.port.side)
        {
            return Err(Error::OtherMode {
                vip: instance.vip,
                interface: link.name.clone(),
                is: is.name(),
            });
        }
    }
    Ok(())
}

/// Something that was not there before a start, in the order of its making.
#[derive(Debug)]
pub(crate) enum Made {
    /// A pin.
    Pin(PathBuf),
    /// A filter in a block of the interface of this index, and its clsact where that was made too.
    Filter((u32, Block)),
}

/// Takes back what a start has made that then failed.
pub(crate) fn undo(netlink: &Netlink, instance: &Instance, made: &[Made]) -> Result<()> {
    for made in made.iter().rev() {
        match made {
            Made::Pin(path) => _ = layout::remove_file(path)?,
            Made::Filter(block) => clsact::leave(netlink, instance, *block)?,
        }
    }
    Ok(())
}

/// What attaching works on.
pub(crate) struct Work<'w> {
    pub(crate) plan: &'w Plan,
    pub(crate) netlink: &'w Netlink,
    pub(crate) instance: &'w Instance,
    pub(crate) loads: &'w mut [Load],
    pub(crate) made: &'w mut Vec<Made>,
}

impl Work<'_> {
    /// The object as it was loaded for the interface of a place.
    fn ebpf(&mut self, place: &AttachTarget<'_>) -> Result<&mut Ebpf> {
        let mut loads = self.loads.iter_mut();
        match loads.find(|load| load.port == place.hook_point.port) {
            Some(load) => Ok(&mut load.ebpf),
            None => Err(Error::Load {
                step: place.hook_point.program(),
                why: format!("it was not loaded for {}", place.link.name),
            }),
        }
    }
}

/// What is left to do at a place after everything that can be refused.
enum Rest {
    /// To exchange the program of this link.
    Update(PinnedLink),
    /// To put the pin of the new link in the place of the old one.
    Rename,
    /// To exchange the program of the filter.
    Exchange,
    /// Nothing.
    Nothing,
}

/// Attaches or exchanges every program, and removes those of places that are no more.
///
/// First comes what an interface may refuse, beside what is there: so a start that is refused changes nothing of an
/// instance that works, also when it was to move to another interface. Then every program that runs is exchanged.
pub(crate) fn attach_all(work: &mut Work<'_>, way: TcBackend) -> Result<Vec<Attached>> {
    let mut attached = Vec::new();
    let mut rests = Vec::new();
    let plan = work.plan;
    let places = plan.places();
    for place in &places {
        let (how, rest) = match (Device::of(place), way) {
            (None, _) | (Some(_), TcBackend::Tcx) => by_link(work, place)?,
            (Some(device), TcBackend::Clsact) => by_filter(work, place, device)?,
        };
        rests.push(rest);
        attached.push(Attached {
            interface: place.link.name.clone(),
            hook: place.hook_point.hook,
            mode: plan.settings.modes.of(place.hook_point.port.side),
            how,
        });
    }
    for (place, rest) in places.iter().zip(rests) {
        finish(work, place, rest)?;
        if let (Some(device), TcBackend::Tcx) = (Device::of(place), way) {
            remove_orphan(work, device)?;
        }
    }
    leave_old_places(work, way, &places)?;
    pass(Step::AllAttached)?;
    Ok(attached)
}

/// Removes what earlier starts have attached where nothing belongs any more.
fn leave_old_places(work: &Work<'_>, way: TcBackend, places: &[AttachTarget<'_>]) -> Result<()> {
    let instance = work.instance;
    if way == TcBackend::Clsact {
        // Filters on other interfaces; a link would have gone with its pin. Nothing tells whether there are any: a start
        // may have died in the middle of a move.
        let devices = places.iter().filter_map(Device::of);
        let stay: Vec<(u32, Block)> = devices.map(|device| device.key()).collect();
        cleanup::sweep(work.netlink, instance, &stay)?;
    }
    // The gateway has fewer interfaces than before, or has become one-armed.
    let unused = HookPoint::all()
        .filter(|hook_point| places.iter().all(|place| place.hook_point != *hook_point));
    for hook_point in unused {
        layout::remove_file(&instance.pin(&hook_point.link_pin()))?;
        if let Some(pin) = hook_point.filter_pin() {
            layout::remove_file(&instance.pin(&pin))?;
        }
    }
    Ok(())
}

/// Where there is an ingress qdisc, no filter of ours can be on what leaves.
fn remove_orphan(work: &Work<'_>, device: Device<'_>) -> Result<()> {
    match clsact::remove_orphan(work.netlink, work.instance, device) {
        Err(Error::IngressQdisc { .. }) => Ok(()),
        done => done,
    }
}

fn by_link(work: &mut Work<'_>, place: &AttachTarget<'_>) -> Result<(How, Rest)> {
    let pin = place.hook_point.link_pin();
    let (how, path) = match link::open(&work.instance.pin(&pin))? {
        Some((link, found)) if link::is_on(&found, place.hook_point.hook, place.link) => {
            return Ok((How::Replaced, Rest::Update(link)));
        }
        // The old one stays until nothing can fail any more.
        Some(_) => (How::Again, work.instance.new_pin(&pin)),
        None => (How::Attached, work.instance.pin(&pin)),
    };
    let mode = work.plan.settings.modes.of(place.hook_point.port.side);
    let link = attach(work.ebpf(place)?, place, mode)?;
    pass(Step::LinkMade)?;
    link.pin(&path)
        .map_err(|error| attach_failed(place, &error))?;
    work.made.push(Made::Pin(path));
    pass(Step::LinkPinned)?;
    let rest = match how {
        How::Again => Rest::Rename,
        How::Attached | How::Replaced => Rest::Nothing,
    };
    Ok((how, rest))
}

fn by_filter(
    work: &mut Work<'_>,
    place: &AttachTarget<'_>,
    device: Device<'_>,
) -> Result<(How, Rest)> {
    let (netlink, instance) = (work.netlink, work.instance);
    let seat = clsact::seat(netlink, device, &Ours::of(instance))?;
    if let Seat::Other(filter) = &seat {
        return Err(clsact::in_the_way(device, filter));
    }
    let pin = place.hook_point.filter_pin().unwrap_or_default();
    let was_pinned = instance.pin(&pin).exists();
    let program = tc(work.ebpf(place)?, place.hook_point.program())?;
    let path = instance.pin_program(&pin, program)?;
    if !was_pinned {
        work.made.push(Made::Pin(path));
    }
    pass(Step::ProgramInPlace)?;
    if seat != Seat::Ours {
        work.made.push(Made::Filter(device.key()));
    }
    match seat {
        Seat::Ours => Ok((How::Replaced, Rest::Exchange)),
        Seat::Orphan => Ok((How::Again, Rest::Exchange)),
        Seat::Free | Seat::Other(_) => {
            let program = tc_program(work.ebpf(place)?, place)?;
            clsact::sit_down(netlink, instance, device, program)?;
            pass(Step::FilterMade)?;
            let how = if was_pinned {
                How::Again
            } else {
                How::Attached
            };
            Ok((how, Rest::Nothing))
        }
    }
}

fn tc_program<'e>(ebpf: &'e mut Ebpf, place: &AttachTarget<'_>) -> Result<BorrowedFd<'e>> {
    let program = tc(ebpf, place.hook_point.program())?
        .fd()
        .map_err(|error: ProgramError| attach_failed(place, &error))?;
    Ok(program.as_fd())
}

fn finish(work: &mut Work<'_>, place: &AttachTarget<'_>, rest: Rest) -> Result<()> {
    match rest {
        Rest::Update(link) => {
            replace(work.ebpf(place)?, place, link)?;
            pass(Step::LinkUpdated)
        }
        Rest::Rename => {
            work.instance.put_in_place(&place.hook_point.link_pin())?;
            pass(Step::LinkInPlace)
        }
        Rest::Exchange => {
            let netlink = work.netlink;
            let program = tc_program(work.ebpf(place)?, place)?;
            if let Some(device) = Device::of(place) {
                clsact::exchange(netlink, device, program)?;
            }
            pass(Step::FilterExchanged)
        }
        Rest::Nothing => Ok(()),
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
    for place in plan.places() {
        let Some(device) = Device::of(&place) else {
            continue;
        };
        let said = match clsact::put_back(netlink, instance, place.hook_point, device) {
            Ok(false) => continue,
            Ok(true) => PutBack::Done,
            Err(error) => PutBack::Failed(causes(&error)),
        };
        done.push((place.link.name.clone(), said));
    }
    done
}
