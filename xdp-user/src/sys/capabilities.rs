//! What this process may do: what it needs to begin, and what it gives up when it has begun.
//!
//! It may not know what the capabilities are used for in detail; `docs/privileges.md` does.

use crate::error::{Error, Result};
use crate::sys::kernel_version;
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, clear_ambient_capability_set,
    remove_capability_from_bounding_set, set_capabilities, set_no_new_privs,
};

/// What house-keeping needs: CAP_NET_ADMIN to look at hooks and to put a filter back, CAP_BPF and, where it was given,
/// CAP_PERFMON to load programs again for an interface that comes back.
const KEPT: CapabilitySet = CapabilitySet::NET_ADMIN
    .union(CapabilitySet::BPF)
    .union(CapabilitySet::PERFMON);

fn own() -> Result<CapabilitySets> {
    capabilities(None)
        .map_err(|error| Error::system("read the capabilities of this process")(error.into()))
}

/// Refuses to go on without the capabilities that loading and attaching need.
pub fn check() -> Result<()> {
    let has = own()?.effective;
    let bpf = has.intersects(CapabilitySet::BPF | CapabilitySet::SYS_ADMIN);
    let net = has.contains(CapabilitySet::NET_ADMIN);
    let missing = match (bpf, net) {
        (true, true) => return Ok(()),
        (true, false) => "CAP_NET_ADMIN is missing",
        (false, true) => "CAP_BPF is missing",
        (false, false) => "both are missing",
    };
    Err(Error::Privilege { missing })
}

/// Whether the verifier is told that this process may know the kernel's memory: then it need not bound addresses against
/// speculation.
pub(crate) fn has_perfmon() -> bool {
    let enough = CapabilitySet::PERFMON | CapabilitySet::SYS_ADMIN;
    own().is_ok_and(|own| own.effective.intersects(enough))
}

/// Since then the verifier puts a barrier where it finds a fault in what is only speculated, instead of refusing the program
/// (`error_recoverable_with_nospec` in kernel/bpf/verifier.c). What was tried: 6.18 takes ours, 6.12 and 6.1 do not.
const BARRIERS: (u32, u32) = (6, 17);

/// Whether a kernel takes the programs that are for a process without CAP_PERFMON. An older one takes none, unless it was
/// told that nobody needs protection (`mitigations=off`): then it takes the usual ones.
pub(crate) fn knows_barriers(release: &str) -> bool {
    kernel_version::is_at_least(release, BARRIERS) == Some(true)
}

/// Whether this process gets the programs that need no CAP_PERFMON, and are slower.
pub fn is_hardened() -> bool {
    !has_perfmon() && knows_barriers(&kernel_version::release())
}

/// Gives up everything but what house-keeping needs, for good: no program that this process might start gets more. Call it
/// while there is one thread: capabilities belong to threads, and later ones inherit.
pub fn give_up() -> Result<CapabilitySet> {
    let failed = |error: rustix::io::Errno| Error::system("give up capabilities")(error.into());
    let own = own()?;
    let mut kept = own.permitted & KEPT;
    if !kept.contains(CapabilitySet::BPF) {
        // Who was started without CAP_BPF has it by this one.
        kept |= own.permitted & CapabilitySet::SYS_ADMIN;
    }
    // Only who has CAP_SETPCAP can take something out of the bounding set; with no_new_privs nobody gains by it.
    if own.effective.contains(CapabilitySet::SETPCAP) {
        for capability in CapabilitySet::all().difference(kept).iter() {
            match remove_capability_from_bounding_set(capability) {
                // A number that this kernel does not have.
                Ok(()) | Err(rustix::io::Errno::INVAL) => {}
                Err(error) => return Err(failed(error)),
            }
        }
    }
    clear_ambient_capability_set().map_err(failed)?;
    set_capabilities(
        None,
        CapabilitySets {
            effective: kept,
            permitted: kept,
            inheritable: CapabilitySet::empty(),
        },
    )
    .map_err(failed)?;
    set_no_new_privs(true).map_err(failed)?;
    Ok(kept)
}
