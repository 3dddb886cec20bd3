//! Attaches the programs of a plan to their hook points, and replaces programs that are attached
//! already without losing a packet. A start that fails is rolled back.

use crate::bpffs::layout::{self, Instance};
use crate::config::interfaces::{AttachTarget, HookPoint};
use crate::config::plan::Plan;
use crate::config::settings::Mode;
use crate::dataplane::clsact::slot::{self, FilterSlot, InstancePrograms};
use crate::dataplane::clsact::{self, FilterTarget, cleanup, pending};
use crate::dataplane::link_moves::{self, LiveLink, live_link};
use crate::dataplane::loader::{LoadedObject, tc};
use crate::dataplane::program::{attach, attach_failed, replace};
use crate::dataplane::refusals::Refusals;
use crate::dataplane::tc_backend::TcBackend;
use crate::error::{Error, InstanceError, Result, causes, log_clean_up};
use crate::failpoints::{Step, pass};
use crate::netlink::{Block, Netlink};
use aya::Ebpf;
use aya::programs::ProgramError;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::PathBuf;
use xdp_common::Hook;

/// What a start did at a hook point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttachAction {
    /// It attached a program where there was none.
    Attached,
    /// It replaced the program of a live link or filter, with no packet in between.
    Replaced,
    /// It attached a program because the old link was dead or on another interface.
    Reattached,
}

/// A program that is attached to an interface.
#[derive(Clone, Debug)]
pub struct AttachedProgram {
    /// The interface.
    pub interface: String,
    /// The hook.
    pub hook: Hook,
    /// The mode of an XDP program.
    pub mode: Mode,
    /// How it was attached.
    pub action: AttachAction,
}

/// Fails when an XDP program of the instance is attached in another mode than the plan asks for: a
/// link cannot change its mode.
pub(crate) fn check_modes(instance: &Instance, plan: &Plan) -> Result<()> {
    for target in plan.attach_targets() {
        let AttachTarget {
            hook_point, link, ..
        } = target;
        let current = Mode::of(!link.native_xdp);
        if hook_point.hook == Hook::Xdp
            && current != plan.settings.modes.of(hook_point.interface.side)
            && live_link(instance, &target)?.is_some()
        {
            return Err(Error::OtherMode {
                instance: instance.name.clone(),
                interface: link.name.clone(),
                current: current.name(),
                unload: instance.unload_command(),
            });
        }
    }
    Ok(())
}

/// An object that a start created, for [`rollback`].
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Created {
    /// A pin.
    Pin(PathBuf),
    /// A filter in a block of the interface of this index. Its clsact may be new too.
    Filter((u32, Block)),
}

/// Removes what a failed start created, the newest first. What cannot be removed is logged.
pub(crate) fn rollback(netlink: &Netlink, instance: &Instance, created: &[Created]) {
    for object in created.iter().rev() {
        let removed = match object {
            Created::Pin(path) => layout::remove_file(path).map(drop),
            Created::Filter(block) => clsact::remove(netlink, instance, *block),
        };
        let removed = removed.map_err(|error| InstanceError::Detach {
            why: instance.named(&causes(&error)),
        });
        log_clean_up(removed, &instance.unload_command());
    }
}

/// The arguments that all functions of this file share.
pub(crate) struct AttachContext<'c> {
    pub(crate) plan: &'c Plan,
    pub(crate) netlink: &'c Netlink,
    pub(crate) instance: &'c Instance,
    pub(crate) objects: &'c mut [LoadedObject],
    pub(crate) created: &'c mut Vec<Created>,
    /// True once a program of the start before was replaced, or a hook point has moved.
    pub(crate) has_exchanged: bool,
    /// Collects the interfaces that refuse a program; `None`: the first one is an error.
    pub(crate) refusals: Option<&'c mut Refusals>,
}

impl AttachContext<'_> {
    /// Notes that a hook point has moved: what was created stays, whatever fails from here on.
    fn moved(&mut self) {
        self.created.clear();
        self.has_exchanged = true;
    }

    /// Whether the programs of a target's interface were loaded. Those of the others stay.
    fn has_loaded(&self, target: &AttachTarget<'_>) -> bool {
        let mut objects = self.objects.iter();
        objects.any(|object| object.interface == target.hook_point.interface)
    }

    /// The object that was loaded for the interface of a target.
    fn ebpf(&mut self, target: &AttachTarget<'_>) -> Result<&mut Ebpf> {
        let mut objects = self.objects.iter_mut();
        match objects.find(|object| object.interface == target.hook_point.interface) {
            Some(object) => Ok(&mut object.ebpf),
            None => Err(Error::Load {
                step: target.program,
                why: format!("it was not loaded for {}", target.link.name),
            }),
        }
    }
}

/// The step that remains at a target once nothing can be refused any more.
enum Pending {
    /// Replace the program of this live link. Then its pin gets the name, if it has another one.
    ReplaceInLink(LiveLink),
    /// Give the new link of this id the name, instead of `NAME-new`.
    NameLink(u32),
    /// Replace the program of the filter, which runs this one, and then the pin.
    ReplaceInFilter(Option<u32>),
    /// Give the program of the new filter the name, instead of `NAME-new`.
    NameProgram,
    /// Nothing.
    Nothing,
}

/// Attaches or replaces every program of the plan, and detaches those of hook points that the plan
/// no longer has.
///
/// The first loop does what the kernel may refuse, beside what is attached: a start that is refused
/// therefore changes nothing of a working instance, even if it was to move to another interface.
/// The second loop then replaces the running programs.
pub(crate) fn attach_all(
    context: &mut AttachContext<'_>,
    tc_backend: TcBackend,
) -> Result<Vec<AttachedProgram>> {
    let mut attached = Vec::new();
    let mut all_pending = Vec::new();
    let mut refused = Ok(());
    let plan = context.plan;
    let targets = plan.attach_targets();
    let mut loaded = targets.clone();
    loaded.retain(|target| context.has_loaded(target));
    for target in &loaded {
        let prepared = match (FilterTarget::of(target), tc_backend) {
            (None, _) | (Some(_), TcBackend::Tcx) => prepare_link(context, target),
            (Some(filter), TcBackend::Clsact) => prepare_filter(context, target, filter),
        };
        let (action, pending) = match (prepared, context.refusals.as_mut()) {
            (Ok(prepared), _) => prepared,
            (Err(error), None) => return Err(error),
            (Err(error), Some(refusals)) => {
                refused = refused.and(refusals.note(target.link, error));
                continue;
            }
        };
        all_pending.push((target, pending));
        attached.push(AttachedProgram {
            interface: target.link.name.clone(),
            hook: target.hook_point.hook,
            mode: plan.settings.modes.of(target.hook_point.interface.side),
            action,
        });
    }
    refused?;
    pass(Step::Prepared)?;
    for (target, pending) in all_pending {
        commit(context, target, pending)?;
        if let (Some(filter), TcBackend::Tcx) = (FilterTarget::of(target), tc_backend) {
            remove_orphan(context, filter)?;
        }
    }
    detach_unused(context, tc_backend, &targets)?;
    pass(Step::AllAttached)?;
    Ok(attached)
}

/// Detaches what earlier starts attached to hook points that the plan no longer has.
fn detach_unused(
    context: &AttachContext<'_>,
    tc_backend: TcBackend,
    targets: &[AttachTarget<'_>],
) -> Result<()> {
    let instance = context.instance;
    link_moves::detach_others(context.netlink, instance)?;
    if tc_backend == TcBackend::Clsact {
        // A link goes with its pin; a filter does not. No pin shows whether there are filters on
        // other interfaces, because a start may have died in the middle of a move.
        let keep: Vec<(u32, Block)> = targets
            .iter()
            .filter_map(FilterTarget::of)
            .map(|filter| filter.key())
            .collect();
        cleanup::remove_filters(context.netlink, instance, &keep)?;
        pending::remove_pins_aside(context.netlink, instance)?;
    }
    // The gateway has fewer interfaces than before, or has become one-armed.
    let unused = HookPoint::all().filter(|hook_point| {
        targets
            .iter()
            .all(|target| target.hook_point != *hook_point)
    });
    for hook_point in unused {
        layout::remove_file(&instance.pin(&hook_point.link_pin()))?;
        if let Some(pin) = hook_point.filter_pin() {
            layout::remove_file(&instance.pin(&pin))?;
            layout::remove_file(&instance.pending_pin(&pin))?;
        }
    }
    Ok(())
}

/// An interface with an ingress qdisc has no egress block, so it has no orphaned egress filter.
fn remove_orphan(context: &AttachContext<'_>, filter: FilterTarget<'_>) -> Result<()> {
    match clsact::remove_orphan(context.netlink, context.instance, filter) {
        Err(Error::IngressQdisc { .. }) => Ok(()),
        done => done,
    }
}

fn prepare_link(
    context: &mut AttachContext<'_>,
    target: &AttachTarget<'_>,
) -> Result<(AttachAction, Pending)> {
    let pin = target.hook_point.link_pin();
    if let Some(live) = live_link(context.instance, target)? {
        return Ok((AttachAction::Replaced, Pending::ReplaceInLink(live)));
    }
    let (action, path) = if context.instance.pin(&pin).exists() {
        // The old link stays until nothing can fail any more.
        link_moves::set_pending_aside(context.instance, target.hook_point)?;
        (AttachAction::Reattached, context.instance.pending_pin(&pin))
    } else {
        (AttachAction::Attached, context.instance.pin(&pin))
    };
    let mode = context
        .plan
        .settings
        .modes
        .of(target.hook_point.interface.side);
    let link = attach(context.ebpf(target)?, target, mode)?;
    let info = link.info().map_err(|error| attach_failed(target, &error))?;
    pass(Step::LinkMade)?;
    link.pin(&path)
        .map_err(|error| attach_failed(target, &error))?;
    context.created.push(Created::Pin(path));
    pass(Step::LinkPinned)?;
    let pending = match action {
        AttachAction::Reattached => Pending::NameLink(info.id()),
        AttachAction::Attached | AttachAction::Replaced => Pending::Nothing,
    };
    Ok((action, pending))
}

fn prepare_filter(
    context: &mut AttachContext<'_>,
    target: &AttachTarget<'_>,
    filter: FilterTarget<'_>,
) -> Result<(AttachAction, Pending)> {
    let (netlink, instance) = (context.netlink, context.instance);
    let pin = filter_pin(target);
    pending::settle_pending_program(netlink, instance, &pin, filter)?;
    let found = slot::state(netlink, filter, &InstancePrograms::of(instance))?;
    if let FilterSlot::Foreign(foreign) = &found {
        return Err(slot::occupied(filter, foreign));
    }
    let was_pinned = instance.pin(&pin).exists();
    let program = tc(context.ebpf(target)?, target.program)?;
    let pending = instance.pin_pending(&pin, program)?;
    context.created.push(Created::Pin(pending));
    if !was_pinned {
        instance.commit_pin(&pin)?;
        context.created.push(Created::Pin(instance.pin(&pin)));
        pass(Step::ProgramInPlace)?;
    }
    if !matches!(found, FilterSlot::Owned(_)) {
        context.created.push(Created::Filter(filter.key()));
    }
    match found {
        FilterSlot::Owned(running) => Ok((
            AttachAction::Replaced,
            Pending::ReplaceInFilter(Some(running)),
        )),
        FilterSlot::Orphaned => Ok((AttachAction::Reattached, Pending::ReplaceInFilter(None))),
        FilterSlot::Vacant | FilterSlot::Foreign(_) => {
            let program = tc_program(context.ebpf(target)?, target)?;
            clsact::install(netlink, instance, filter, program)?;
            pass(Step::FilterMade)?;
            Ok(if was_pinned {
                (AttachAction::Reattached, Pending::NameProgram)
            } else {
                (AttachAction::Attached, Pending::Nothing)
            })
        }
    }
}

fn tc_program<'e>(ebpf: &'e mut Ebpf, target: &AttachTarget<'_>) -> Result<BorrowedFd<'e>> {
    let program = tc(ebpf, target.program)?
        .fd()
        .map_err(|error: ProgramError| attach_failed(target, &error))?;
    Ok(program.as_fd())
}

/// Invariant: once a hook point has moved, what was created for the others stays, whatever fails: the
/// new interface keeps all its programs, and the old one has lost some. The next start goes on from there.
fn commit(
    context: &mut AttachContext<'_>,
    target: &AttachTarget<'_>,
    pending: Pending,
) -> Result<()> {
    match pending {
        Pending::ReplaceInLink(LiveLink { link, id }) => {
            replace(context.ebpf(target)?, target, link)?;
            context.has_exchanged = true;
            pass(Step::LinkUpdated)?;
            name_link(context, target, id)
        }
        Pending::NameLink(id) => name_link(context, target, id),
        Pending::ReplaceInFilter(replaced) => {
            let netlink = context.netlink;
            let program = tc_program(context.ebpf(target)?, target)?;
            if let Some(filter) = FilterTarget::of(target) {
                clsact::replace(netlink, filter, program)?;
            }
            context.has_exchanged = true;
            let pin = filter_pin(target);
            // The program that runs now has one of these: the pending one, or, if no program was pinned under this
            // name before, the final one.
            keep(context, &Created::Pin(context.instance.pending_pin(&pin)));
            keep(context, &Created::Pin(context.instance.pin(&pin)));
            pass(Step::FilterExchanged)?;
            pending::keep_named_program(netlink, context.instance, &pin, replaced)?;
            context.instance.commit_program(&pin)
        }
        Pending::NameProgram => {
            let pin = filter_pin(target);
            keep(context, &Created::Pin(context.instance.pending_pin(&pin)));
            if let Some(filter) = FilterTarget::of(target) {
                keep(context, &Created::Filter(filter.key()));
            }
            pending::keep_named_program(context.netlink, context.instance, &pin, None)?;
            context.moved();
            context.instance.commit_program(&pin)
        }
        Pending::Nothing => Ok(()),
    }
}

fn name_link(context: &mut AttachContext<'_>, target: &AttachTarget<'_>, id: u32) -> Result<()> {
    if link_moves::give_name(context.instance, target.hook_point, id)? {
        context.moved();
        pass(Step::LinkInPlace)?;
    }
    Ok(())
}

fn filter_pin(target: &AttachTarget<'_>) -> String {
    target.hook_point.filter_pin().unwrap_or_default()
}

/// Keeps an object that a start created, whatever fails from here on: the next start goes on from it.
fn keep(context: &mut AttachContext<'_>, object: &Created) {
    context.created.retain(|one| one != object);
}
