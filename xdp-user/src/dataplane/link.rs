//! Pinned BPF links: to which interface and program one belongs, and whether it is still attached.

use crate::bpffs::layout::Instance;
use crate::error::{Error, Result, causes};
use crate::netlink::Link;
use crate::tables::bpf_syscall;
use aya::programs::links::{FdLink, PinnedLink};
use rustix::fs::{Access, access};
use std::fs;
use std::path::{Path, PathBuf};
use xdp_common::Hook;

/// The kernel's description of a BPF link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BpfLink {
    /// Id of the link.
    pub id: u32,
    /// Id of the program.
    pub program: u32,
    /// Index of the interface in its own network namespace; 0 once the interface is gone or the
    /// link was detached.
    pub ifindex: u32,
}

/// Opens a pinned link; `None` when there is no such pin.
pub fn open(path: &Path) -> Result<Option<(PinnedLink, BpfLink)>> {
    if !path.exists() {
        return Ok(None);
    }
    let failed = |why: String| Error::Pin {
        action: "open",
        path: path.to_path_buf(),
        why,
    };
    let link = PinnedLink::from_pin(path).map_err(|error| failed(causes(&error)))?;
    let link = FdLink::from(link);
    let info = link.info().map_err(|error| failed(causes(&error)))?;
    let bpf_link = BpfLink {
        id: info.id(),
        program: info.program_id(),
        ifindex: ifindex(info.id())
            .ok_or_else(|| failed("/proc/self/fdinfo does not show its interface".to_owned()))?,
    };
    // `FdLink` cannot become a `PinnedLink` again, so the pin is opened a second time. Closing the
    // first descriptor detaches nothing: the pin holds the link.
    let link = PinnedLink::from_pin(path).map_err(|error| failed(causes(&error)))?;
    Ok(Some((link, bpf_link)))
}

/// Whether there is a pin that this user may not open. A link or a program can only be opened for
/// reading and writing.
pub fn is_closed(path: &Path) -> bool {
    let both = Access::READ_OK | Access::WRITE_OK;
    path.exists() && access(path, both).is_err()
}

/// The interface of a link of which this process has a descriptor open. aya does not expose that
/// part of the kernel's answer, so it is read from /proc.
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

/// Whether a link is attached to this interface of this network namespace. Its index alone does not
/// show it: an interface of another namespace may have the same one.
pub fn is_on(bpf_link: &BpfLink, hook: Hook, link: &Link) -> bool {
    let runs_here = match hook {
        Hook::Xdp => link.xdp == Some(bpf_link.program),
        Hook::Tc | Hook::Egress => {
            let programs = bpf_syscall::tcx_programs(link.index, hook == Hook::Egress);
            programs.is_ok_and(|programs| programs.contains(&bpf_link.program))
        }
    };
    bpf_link.ifindex == link.index && runs_here
}

/// The links of an instance, also those that starts left pending or set aside when they died while
/// they moved to another interface.
pub fn all_of(instance: &Instance) -> Result<Vec<BpfLink>> {
    let opened = pins(instance)?.filter_map(|path| open(&path).ok().flatten());
    Ok(opened.map(|(_, bpf_link)| bpf_link).collect())
}

/// The programs of the same links. Fails if one cannot be opened.
pub(crate) fn programs_of(instance: &Instance) -> Result<Vec<u32>> {
    let links = pins(instance)?.filter_map(|path| open(&path).transpose());
    links.map(|link| Ok(link?.1.program)).collect()
}

fn pins(instance: &Instance) -> Result<impl Iterator<Item = PathBuf>> {
    let names = instance.pins_of_links()?.into_iter();
    Ok(names.map(|name| instance.pin(&name)))
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
