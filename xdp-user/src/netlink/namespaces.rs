//! Asks the kernel in every network namespace of this host. Links can be seen and removed from anywhere
//! by their pins; a tc filter only in the network namespace of its device, and the shell that asks may
//! be in another one.

use crate::error::Result;
use crate::netlink::Netlink;
use crate::sys::netns;
use std::collections::BTreeSet;
use std::fs;
use std::ops::ControlFlow;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

/// A network namespace, and the sockets to ask in it.
#[derive(Debug)]
pub struct Namespace<'n> {
    /// Its sockets.
    pub netlink: &'n Netlink,
    /// Distinguishes it from the others that exist now.
    pub number: u64,
    /// True for the namespace of this process.
    pub own: bool,
    /// What `nsenter --net=` needs to enter it.
    pub path: &'n Path,
}

/// Calls `look` in the namespace of this process first and then in all others that have a name or a
/// process, until it breaks. A namespace that cannot be entered is left out.
pub fn visit(
    own_netlink: &Netlink,
    mut look: impl FnMut(&Namespace<'_>) -> Result<ControlFlow<()>> + Send,
) -> Result<()> {
    let own = netns::own()?;
    let namespace = Namespace {
        netlink: own_netlink,
        number: own,
        own: true,
        path: Path::new(netns::OWN),
    };
    if look(&namespace)?.is_break() {
        return Ok(());
    }
    let mut seen = BTreeSet::from([own]);
    for path in netns::candidates() {
        let Ok(meta) = fs::metadata(&path) else {
            continue;
        };
        if !seen.insert(meta.ino()) {
            continue;
        }
        let visited = netns::inside(&path, || {
            look(&Namespace {
                netlink: &Netlink::open()?,
                number: meta.ino(),
                own: false,
                path: &path,
            })
        });
        if visited.transpose()?.is_some_and(|next| next.is_break()) {
            return Ok(());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_own_namespace_comes_first_and_none_comes_twice() {
        let netlink = Netlink::open().expect("netlink needs no privilege");
        let mut seen = Vec::new();
        visit(&netlink, |namespace| {
            seen.push((namespace.number, namespace.own));
            Ok(ControlFlow::Continue(()))
        })
        .expect("a visit");
        assert_eq!(seen.first(), Some(&(netns::own().expect("a number"), true)));
        let numbers: BTreeSet<u64> = seen.iter().map(|(number, _)| *number).collect();
        assert_eq!(numbers.len(), seen.len());
        let mut calls = 0;
        visit(&netlink, |_| {
            calls += 1;
            Ok(ControlFlow::Break(()))
        })
        .expect("a visit");
        assert_eq!(calls, 1);
    }
}
