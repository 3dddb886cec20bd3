//! The programs on tracepoints that count what is lost after XDP has redirected it.
//!
//! They are pinned like the others, and count without the daemon. Nothing depends on them: where
//! they cannot be attached, `status` says that losses are not counted.

use crate::bpffs::layout::{Instance, LossPoint};
use crate::dataplane::loader::{LoadedObject, tracepoint};
use crate::error::{Error, Result, causes, log_clean_up};
use crate::sys::btf::Btf;
use crate::sys::capabilities;
use aya::programs::ProgramError;
use aya::programs::links::{FdLink, PinnedLink};
use std::io;
use std::sync::OnceLock;
use xdp_common::LossConfig;

/// Offsets in the structures of this kernel, which take long to find.
static OFFSETS: OnceLock<Option<LossConfig>> = OnceLock::new();

/// The ids of the attached programs.
pub(crate) fn attached(instance: &Instance) -> Vec<u32> {
    let of_point = |point: &LossPoint| {
        let link = PinnedLink::from_pin(instance.pin(&point.pin())).ok()?;
        FdLink::from(link).info().ok().map(|info| info.program_id())
    };
    LossPoint::ALL.iter().filter_map(of_point).collect()
}

/// The constants of the programs; all zero where the kernel does not tell them.
pub(crate) fn constants(namespace: u64) -> LossConfig {
    let offsets = *OFFSETS.get_or_init(offsets);
    let namespace = u32::try_from(namespace).ok();
    let known = offsets
        .zip(namespace)
        .map(|(offsets, namespace)| LossConfig {
            namespace,
            ..offsets
        });
    known.unwrap_or_default()
}

fn offsets() -> Option<LossConfig> {
    let btf = Btf::of_kernel()?;
    Some(LossConfig {
        ifindex: btf.offset("net_device", "ifindex")?,
        net: btf.offset("net_device", "nd_net")?,
        inode: btf.offset("net", "ns")? + btf.offset("ns_common", "inum")?,
        namespace: 0,
    })
}

/// Attaches the programs, in place of those of an earlier start: these have its interfaces. A loss
/// between the two is not counted.
pub(crate) fn attach(objects: &mut [LoadedObject], instance: &Instance, namespace: u64) {
    if let Err(error) = try_attach(objects, instance, namespace) {
        tracing::warn!(
            "packets lost after the redirect are not counted: {}",
            instance.named(&causes(&error))
        );
        log_clean_up(
            instance.clear_tracepoints().map(drop),
            &instance.unload_command(),
        );
    }
}

fn try_attach(objects: &mut [LoadedObject], instance: &Instance, namespace: u64) -> Result<()> {
    instance.clear_tracepoints()?;
    let Some(object) = objects.first_mut() else {
        return Ok(());
    };
    // `status` says so; the start has said what this capability is for.
    if !capabilities::has_perfmon() {
        return Ok(());
    }
    if constants(namespace) == LossConfig::default() {
        return Err(Error::system("find net_device in /sys/kernel/btf/vmlinux")(
            io::ErrorKind::Unsupported.into(),
        ));
    }
    for point in &LossPoint::ALL {
        let name = point.program;
        let failed = |error: &dyn std::error::Error| Error::Load {
            step: name,
            why: causes(error),
        };
        let program = tracepoint(&mut object.ebpf, name)?;
        match program.load() {
            Ok(()) | Err(ProgramError::AlreadyLoaded) => {}
            Err(error) => return Err(failed(&error)),
        }
        let id = program
            .attach(point.tracepoint)
            .map_err(|error| failed(&error))?;
        let link = program.take_link(id).map_err(|error| failed(&error))?;
        FdLink::from(link)
            .pin(instance.pin(&point.pin()))
            .map_err(|error| failed(&error))?;
    }
    Ok(())
}
