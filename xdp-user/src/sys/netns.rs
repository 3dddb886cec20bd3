//! The network namespaces of this host: that of this process, the others that have a name or a
//! process, and how to run a function in one of them.

use crate::error::{Error, Result};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::fs::{self, File};
use std::os::fd::AsFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// Where network namespaces have names. The second path is for processes that see another /run than
/// process 1.
const NAMED: [&str; 3] = ["/run/netns", "/proc/1/root/run/netns", "/run/docker/netns"];

/// The network namespace of this thread.
pub(crate) const OWN: &str = "/proc/thread-self/ns/net";

/// The number of the network namespace that this process is in.
pub fn own() -> Result<u64> {
    let meta = fs::metadata(OWN).map_err(Error::system(format!("look at {OWN}")))?;
    Ok(meta.ino())
}

/// The paths by which the network namespaces of this host can be entered. Several may lead to one.
pub(crate) fn candidates() -> Vec<PathBuf> {
    let list = |directory: &Path| -> Vec<PathBuf> {
        let entries = fs::read_dir(directory).into_iter().flatten();
        entries.flatten().map(|entry| entry.path()).collect()
    };
    let named = NAMED.iter().flat_map(|named| list(Path::new(named)));
    let processes = list(Path::new("/proc"))
        .into_iter()
        .filter(|path| {
            let name = path.file_name().and_then(|name| name.to_str());
            name.is_some_and(|name| name.bytes().all(|byte| byte.is_ascii_digit()))
        })
        .map(|path| path.join("ns/net"));
    named.chain(processes).collect()
}

/// Runs a function in another network namespace. `None`: it cannot be entered. The function runs on
/// a thread of its own, because a thread enters a namespace, and this thread ends in it.
pub(crate) fn inside<T: Send>(path: &Path, function: impl FnOnce() -> T + Send) -> Option<T> {
    let enter = || {
        let file = File::open(path).ok()?;
        move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).ok()?;
        Some(function())
    };
    std::thread::scope(|scope| {
        let thread = scope.spawn(enter);
        thread
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}
