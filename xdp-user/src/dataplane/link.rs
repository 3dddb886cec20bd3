//! Pinned links: to which interface one is attached, whether it still is, and whose an XDP program is.
//!
//! It may not know why anything is attached.

use crate::bpffs::layout::{self, Instance};
use crate::config::interfaces::HookPoint;
use crate::error::{Error, Result, causes};
use crate::netlink::{Link, Netlink};
use crate::tables::bpf_syscall;
use aya::programs::links::PinnedLink;
use aya::programs::{loaded_links, loaded_programs};
use rustix::fs::{Access, access};
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};
use xdp_common::Hook;

/// What the kernel knows of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attachment {
    /// Id of the link.
    pub link: u32,
    /// Id of the program.
    pub program: u32,
    /// Index of the interface in its own network namespace; 0 when it is gone.
    pub ifindex: u32,
}

/// Opens a pinned link; `None` when there is no such pin.
pub fn open(path: &Path) -> Result<Option<(PinnedLink, Attachment)>> {
    if !path.exists() {
        return Ok(None);
    }
    let failed = |why: String| Error::Map {
        action: "open",
        name: path.display().to_string(),
        why,
    };
    let link = PinnedLink::from_pin(path).map_err(|error| failed(causes(&error)))?;
    let link = aya::programs::links::FdLink::from(link);
    let info = link.info().map_err(|error| failed(causes(&error)))?;
    let attachment = Attachment {
        link: info.id(),
        program: info.program_id(),
        ifindex: ifindex(info.id())
            .ok_or_else(|| failed("/proc/self/fdinfo does not tell its interface".to_owned()))?,
    };
    // The fd that has been looked at goes; the pin holds the link.
    let link = PinnedLink::from_pin(path).map_err(|error| failed(causes(&error)))?;
    Ok(Some((link, attachment)))
}

/// Whether there is a pin that this user may not open. A link or a program can only be opened for writing as well.
pub fn is_closed(path: &Path) -> bool {
    let both = Access::READ_OK | Access::WRITE_OK;
    path.exists() && access(path, both).is_err()
}

/// The interface of a link of which this process holds a descriptor. aya keeps that part of the answer to itself, so
/// it is read where the kernel shows it too.
fn ifindex(link: u32) -> Option<u32> {
    let descriptors = fs::read_dir("/proc/self/fdinfo").ok()?;
    descriptors
        .filter_map(Result::<_, _>::ok)
        .find_map(|entry| {
            let text = fs::read_to_string(entry.path()).ok()?;
            (field(&text, "link_id:")? == link).then_some(())?;
            field(&text, "ifindex:")
        })
}

fn field(text: &str, name: &str) -> Option<u32> {
    text.lines()
        .find_map(|line| line.strip_prefix(name))?
        .trim()
        .parse()
        .ok()
}

/// Whether a link is attached to this interface of our own network namespace. The index alone does not tell: another
/// namespace may have the same one.
pub fn is_on(attachment: &Attachment, hook: Hook, link: &Link) -> bool {
    let runs_here = match hook {
        Hook::Xdp => link.xdp == Some(attachment.program),
        Hook::Tc | Hook::Egress => {
            let programs = bpf_syscall::tcx_programs(link.index, hook == Hook::Egress);
            programs.is_ok_and(|programs| programs.contains(&attachment.program))
        }
    };
    attachment.ifindex == link.index && runs_here
}

/// Whether the kernel has tcx links. It is asked, because one of 6.6 may be built without them.
pub fn has_tcx(index: u32) -> bool {
    bpf_syscall::tcx_programs(index, false).is_ok()
}

/// The name of a program, if it may be looked at.
pub fn program_name(id: u32) -> Option<String> {
    loaded_programs()
        .filter_map(Result::<_, _>::ok)
        .find(|program| program.id() == id)?
        .name_as_str()
        .filter(|name| !name.is_empty())
        .map(ToOwned::to_owned)
}

/// The id of a link that a program hangs on, if links may be looked at.
fn link_of(program: u32) -> Option<u32> {
    loaded_links()
        .filter_map(Result::<_, _>::ok)
        .find(|link| link.program_id() == program)
        .map(|link| link.id())
}

/// The command that takes a program of somebody else off an interface.
pub fn removal(interface: &str, program: u32) -> String {
    // `ip` cannot take away what hangs on a link of BPF's.
    match link_of(program) {
        Some(number) => format!("bpftool link detach id {number}"),
        None => format!("ip link set dev {interface} xdp off"),
    }
}

/// The instance whose XDP program this is.
pub fn instance_of(bpffs: &Path, program: u32) -> Option<Instance> {
    let instances = layout::instances(bpffs, None).ok()?;
    instances.into_iter().find(|instance| {
        HookPoint::all().any(|hook_point| {
            let found = open(&instance.pin(&hook_point.link_pin())).ok().flatten();
            found.is_some_and(|(_, attachment)| attachment.program == program)
        })
    })
}

/// Whether a program is still where a link had it, in our own network namespace.
fn still_runs(netlink: &Netlink, attachment: &Attachment) -> bool {
    let (index, program) = (attachment.ifindex, attachment.program);
    let xdp = netlink
        .link_by_index(index)
        .is_ok_and(|link| link.xdp == Some(program));
    let tcx =
        |egress| bpf_syscall::tcx_programs(index, egress).is_ok_and(|all| all.contains(&program));
    xdp || tcx(false) || tcx(true)
}

/// Finishes or takes back what a start had begun that was to attach an instance elsewhere and died: the new link is
/// pinned beside the old one then. Where the old one is alive, it stays.
pub(crate) fn settle_moves(netlink: &Netlink, instance: &Instance) -> Result<()> {
    for name in HookPoint::all().map(HookPoint::link_pin) {
        let new = instance.new_pin(&name);
        let Some((_, begun)) = open(&new)? else {
            continue;
        };
        let old = open(&instance.pin(&name))?;
        if old.is_some_and(|(_, old)| old.ifindex != 0) {
            layout::remove_file(&new)?;
            wait_gone(netlink, &[begun], &[begun.program]);
        } else {
            instance.put_in_place(&name)?;
        }
    }
    Ok(())
}

/// Waits until the kernel has taken these links and programs down: it does so in the background after the last pin is gone. A link
/// loses its number before it is detached, and its program goes after that (`bpf_link_free` in kernel/bpf/syscall.c): so
/// it is the programs that are waited for. To list those takes CAP_SYS_ADMIN; without it only the interfaces tell.
pub fn wait_gone(netlink: &Netlink, attachments: &[Attachment], ids: &[u32]) {
    let deadline = Instant::now() + Duration::from_secs(2);
    let is_left = || {
        let mut links = loaded_links().filter_map(Result::<_, _>::ok);
        let mut programs = loaded_programs().filter_map(Result::<_, _>::ok);
        attachments.iter().any(|one| still_runs(netlink, one))
            || links.any(|link| attachments.iter().any(|a| a.link == link.id()))
            || programs.any(|program| ids.contains(&program.id()))
    };
    while Instant::now() < deadline && is_left() {
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// An instance's links.
pub fn attachments(instance: &Instance) -> Vec<Attachment> {
    HookPoint::all()
        .filter_map(|hook_point| open(&instance.pin(&hook_point.link_pin())).ok().flatten())
        .map(|(_, attachment)| attachment)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_account_of_a_link_is_read() {
        let text = "pos:\t0\nlink_type:\txdp\nlink_id:\t7\nprog_id:\t91\nifindex:\t12\n";
        assert_eq!(field(text, "link_id:"), Some(7));
        assert_eq!(field(text, "ifindex:"), Some(12));
        assert_eq!(field("pos:\t0\n", "ifindex:"), None);
    }
}
