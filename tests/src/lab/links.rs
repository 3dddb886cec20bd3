//! The links between namespaces: veth pairs, and the settings that make their ends behave like a
//! real wire.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use super::frames::Mac;
use super::netns::Namespace;

/// The object file with an XDP program that passes everything, in its section `xdp`.
const PEER_OBJECT: &str = "IKENAT_PEER_OBJECT";
const PEER_OBJECT_DEFAULT: &str = "bpf/peer.o";

/// One end of a wire.
#[derive(Clone, Copy, Debug)]
pub struct Interface<'a> {
    /// Where it is.
    pub namespace: &'a Namespace,
    /// Its name there.
    pub name: &'a str,
    /// Its hardware address.
    pub mac: Mac,
}

/// Makes a wire; both ends are down.
pub fn join(a: Interface<'_>, b: Interface<'_>) -> Result<()> {
    a.namespace.run(&format!(
        "ip link add {} address {} type veth peer name {} address {} netns {}",
        a.name,
        mac_text(a.mac),
        b.name,
        mac_text(b.mac),
        b.namespace.name()
    ))?;
    Ok(())
}

/// Prepares the far end of one of the gateway's wires.
///
/// A veth accepts redirected frames only if its peer polls: with an XDP program of its own, or with
/// GRO, which then delivers in bursts. Without `checksum_offload` its senders compute their
/// checksums, as on a real wire.
pub fn prepare_peer(peer: &Namespace, name: &str, checksum_offload: bool) -> Result<()> {
    if !checksum_offload {
        compute_checksums(peer, name)?;
    }
    match peer_object()? {
        // This runs in a mount namespace of its own: if there is no bpffs on /sys/fs/bpf, iproute2
        // mounts one, and that mount would stay.
        Some(object) => peer.run(&format!(
            "unshare --mount ip link set dev {name} xdpdrv obj {} sec xdp",
            object.display()
        ))?,
        None => peer.run(&format!("ethtool -K {name} gro on"))?,
    };
    Ok(())
}

/// Lets the senders on a device compute their checksums.
pub fn compute_checksums(namespace: &Namespace, name: &str) -> Result<()> {
    namespace.run(&format!("ethtool -K {name} tx off"))?;
    Ok(())
}

/// The program for the peers, where it has been built.
fn peer_object() -> Result<Option<PathBuf>> {
    if let Some(path) = std::env::var_os(PEER_OBJECT).map(PathBuf::from) {
        ensure!(
            path.is_file(),
            "{PEER_OBJECT} names {}, which is not a file",
            path.display()
        );
        return Ok(Some(path));
    }
    let target = target_directory()?;
    let path = target.join(PEER_OBJECT_DEFAULT);
    Ok(path.is_file().then_some(path))
}

/// The directory that cargo builds into, found from where this program lies in it.
pub(crate) fn target_directory() -> Result<PathBuf> {
    let program = std::env::current_exe().context("failed to find the running program")?;
    program
        .ancestors()
        .find(|directory| directory.join("CACHEDIR.TAG").is_file())
        .map(Path::to_path_buf)
        .with_context(|| format!("{} is not in a target directory", program.display()))
}

/// A MAC address as `ip` prints it.
pub fn mac_text(mac: Mac) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}
