//! Detaches the programs of an instance, and waits until the kernel has removed them.

use crate::bpffs::layout::Instance;
use crate::dataplane::bpf_query;
use crate::dataplane::clsact::cleanup;
use crate::dataplane::link::{self, BpfLink};
use crate::dataplane::losses;
use crate::error::Result;
use crate::netlink::Netlink;
use std::time::{Duration, Instant};

/// Removes an instance and waits until its programs are gone. Returns the names of its pins. When a
/// step fails, the tables keep, so that a second call finds the rest by them.
pub fn remove(instance: &Instance, netlink: &Netlink) -> Result<Vec<String>> {
    let mut removed = detach_all(instance, netlink)?;
    removed.extend(instance.remove()?);
    Ok(removed)
}

/// Detaches all programs of an instance and leaves its tables. Returns the names of the pins that
/// it removed.
pub(crate) fn detach_all(instance: &Instance, netlink: &Netlink) -> Result<Vec<String>> {
    let links = link::all_of(instance)?;
    let mut programs: Vec<u32> = links.iter().map(|link| link.program).collect();
    programs.extend(losses::attached(instance));
    programs.extend(instance.filter_programs().collect::<Result<Vec<_>>>()?);
    // XDP first: what still arrives after that takes the tc slow path.
    let mut removed = instance.clear_links()?;
    if instance.has_filters()? {
        cleanup::remove_filters(netlink, instance, &[])?;
        removed.extend(instance.clear_filters()?);
    }
    wait_until_gone(netlink, &links, &programs);
    Ok(removed)
}

/// Waits up to two seconds until the kernel has removed these links and programs. It does so in the
/// background after the last pin is gone. A link loses its id before it is detached, and its
/// program is freed after that (`bpf_link_free` in kernel/bpf/syscall.c), so the programs decide.
/// Listing programs needs CAP_SYS_ADMIN; without it only the interfaces show whether one still
/// runs.
pub(crate) fn wait_until_gone(netlink: &Netlink, links: &[BpfLink], programs: &[u32]) {
    let deadline = Instant::now() + Duration::from_secs(2);
    let ids: Vec<u32> = links.iter().map(|link| link.id).collect();
    let attached = |link: &BpfLink| bpf_query::is_attached(netlink, link.ifindex, link.program);
    let remains = || links.iter().any(attached) || bpf_query::any_loaded(programs, &ids);
    while Instant::now() < deadline && remains() {
        std::thread::sleep(Duration::from_millis(5));
    }
}
