//! The capabilities of this process: those that a start needs, and those that it gives up
//! afterwards. `docs/privileges.md` explains each.

use crate::error::{Error, Result};
use crate::sys::kernel_version;
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, clear_ambient_capability_set,
    remove_capability_from_bounding_set, set_capabilities, set_no_new_privs,
};

/// What maintenance needs: CAP_NET_ADMIN to examine hooks and to restore a filter, CAP_BPF and,
/// where it was given, CAP_PERFMON to load programs for an interface that comes back.
const KEPT: CapabilitySet = CapabilitySet::NET_ADMIN
    .union(CapabilitySet::BPF)
    .union(CapabilitySet::PERFMON);

fn own() -> Result<CapabilitySets> {
    capabilities(None)
        .map_err(|error| Error::system("read the capabilities of this process")(error.into()))
}

/// Refuses to continue without the capabilities that loading and attaching need.
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

/// Whether this process may learn the contents of kernel memory (CAP_PERFMON): then the verifier
/// need not bound addresses against speculation.
pub(crate) fn has_perfmon() -> bool {
    let enough = CapabilitySet::PERFMON | CapabilitySet::SYS_ADMIN;
    own().is_ok_and(|own| own.effective.intersects(enough))
}

/// Since this release the verifier inserts a barrier where it finds a fault in what is only
/// speculated, instead of refusing the program (`error_recoverable_with_nospec` in
/// kernel/bpf/verifier.c). As tested, 6.18 loads ikenat's programs; 6.12 and 6.1 do not.
const BARRIERS: (u32, u32) = (6, 17);

/// Whether a kernel loads the programs that are for a process without CAP_PERFMON. An older one
/// loads none, unless its mitigations are off (`mitigations=off`): then it loads the usual ones.
pub(crate) fn knows_barriers(release: &str) -> bool {
    kernel_version::is_at_least(release, BARRIERS) == Some(true)
}

/// Whether this process gets the programs that need no CAP_PERFMON, and are slower.
pub fn is_hardened() -> bool {
    !has_perfmon() && knows_barriers(&kernel_version::release())
}

/// Gives up everything but what maintenance needs, for good: no program that this process might
/// start gets more. Call it while there is one thread: capabilities belong to threads, and later
/// threads inherit them.
pub fn give_up() -> Result<CapabilitySet> {
    let failed = |error: rustix::io::Errno| Error::system("give up capabilities")(error.into());
    let own = own()?;
    let mut kept = own.permitted & KEPT;
    if !kept.contains(CapabilitySet::BPF) {
        // A process without CAP_BPF has the right by CAP_SYS_ADMIN.
        kept |= own.permitted & CapabilitySet::SYS_ADMIN;
    }
    // Only a process with CAP_SETPCAP can remove a capability from the bounding set. With
    // no_new_privs, one that stays there gives nothing.
    if own.effective.contains(CapabilitySet::SETPCAP) {
        for capability in CapabilitySet::all().difference(kept).iter() {
            match remove_capability_from_bounding_set(capability) {
                // A capability that this kernel does not have.
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
