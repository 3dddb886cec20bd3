//! Goes through the network namespaces of this host. Links can be seen and removed from anywhere by their pins; a tc
//! filter only in the network namespace of its device, and the shell that asks may be in another one.
//!
//! It may not know what is looked for.

use crate::error::{Error, Result};
use crate::netlink::Netlink;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::fd::AsFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// Where namespaces have names; the second for those who see another /run than process 1.
const NAMED: [&str; 3] = ["/run/netns", "/proc/1/root/run/netns", "/run/docker/netns"];

/// That of this thread.
const OWN: &str = "/proc/thread-self/ns/net";

/// A network namespace, and a way to ask in it.
#[derive(Debug)]
pub struct Inside<'n> {
    /// Its sockets.
    pub netlink: &'n Netlink,
    /// Tells it from the others that there are now.
    pub number: u64,
    /// True for the one that this process is in.
    pub own: bool,
    /// What `nsenter --net=` takes to enter it.
    pub path: &'n Path,
}

/// Whether to go on to the next namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// There is more to find.
    GoOn,
    /// Everything was found.
    Enough,
}

/// The number of the network namespace that this process is in.
pub fn own() -> Result<u64> {
    let meta = fs::metadata(OWN).map_err(Error::system(format!("look at {OWN}")))?;
    Ok(meta.ino())
}

/// Looks in the own namespace first and then in all others that have a name or a process. One that cannot be entered is
/// left out.
pub fn visit(
    own_netlink: &Netlink,
    mut look: impl FnMut(&Inside<'_>) -> Result<Next> + Send,
) -> Result<()> {
    let own = own()?;
    let inside = Inside {
        netlink: own_netlink,
        number: own,
        own: true,
        path: Path::new(OWN),
    };
    if look(&inside)? == Next::Enough {
        return Ok(());
    }
    let mut seen = BTreeSet::from([own]);
    for path in candidates() {
        let Ok(meta) = fs::metadata(&path) else {
            continue;
        };
        if !seen.insert(meta.ino()) {
            continue;
        }
        if enter(&path, meta.ino(), &mut look)? == Next::Enough {
            return Ok(());
        }
    }
    Ok(())
}

fn candidates() -> Vec<PathBuf> {
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

/// On a thread of its own: a namespace is entered by a thread, and this one ends in it.
fn enter(
    path: &Path,
    number: u64,
    look: &mut (impl FnMut(&Inside<'_>) -> Result<Next> + Send),
) -> Result<Next> {
    let inside = || {
        let Ok(file) = File::open(path) else {
            return Ok(Next::GoOn);
        };
        if move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).is_err() {
            return Ok(Next::GoOn);
        }
        let netlink = Netlink::open()?;
        look(&Inside {
            netlink: &netlink,
            number,
            own: false,
            path,
        })
    };
    std::thread::scope(|scope| {
        let thread = scope.spawn(inside);
        thread
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_own_namespace_comes_first_and_none_comes_twice() {
        let netlink = Netlink::open().expect("netlink needs no privilege");
        let mut seen = Vec::new();
        visit(&netlink, |inside| {
            seen.push((inside.number, inside.own));
            Ok(Next::GoOn)
        })
        .expect("a visit");
        assert_eq!(seen.first(), Some(&(own().expect("a number"), true)));
        let numbers: BTreeSet<u64> = seen.iter().map(|(number, _)| *number).collect();
        assert_eq!(numbers.len(), seen.len());
        let mut calls = 0;
        visit(&netlink, |_| {
            calls += 1;
            Ok(Next::Enough)
        })
        .expect("a visit");
        assert_eq!(calls, 1);
    }
}
