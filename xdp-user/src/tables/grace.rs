//! Grace periods: how the daemon waits until every program that runs now has ended.
//!
//! BPF programs run under RCU. `membarrier(MEMBARRIER_CMD_GLOBAL)` waits for RCU, but a kernel that
//! was booted with `nohz_full=` refuses it with EINVAL, one without CONFIG_MEMBARRIER with ENOSYS,
//! and a filter of system calls with EPERM. The update of an element of an ARRAY_OF_MAPS waits for
//! RCU as well (`maybe_wait_bpf_programs` in kernel/bpf/syscall.c), so that no program uses the
//! old inner map any more when the call returns.

use crate::error::{Error, Result, word};
use crate::failpoints;
use crate::tables::bpf_syscall::{create_array, set_inner};
use rustix::thread::{MembarrierCommand, membarrier};
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use xdp_common::meta::flag;

/// A way to wait until every program that runs now has ended.
#[derive(Debug)]
pub enum GracePeriod {
    /// By membarrier(2).
    Membarrier,
    /// By writing an inner map into a map of maps, because of membarrier's error.
    MapUpdate {
        /// The map of maps.
        outer: OwnedFd,
        /// The map that it contains.
        inner: OwnedFd,
        /// Why membarrier does not do.
        why: String,
    },
}

impl GracePeriod {
    /// Chooses the way that works here, by waiting once. The map of maps needs CAP_BPF to be
    /// created, and nothing afterwards.
    ///
    /// # Errors
    /// None works.
    pub fn choose() -> Result<Self> {
        let Err(error) = by_membarrier() else {
            return Ok(Self::Membarrier);
        };
        let why = word(&error);
        let chosen = Self::by_map(why.clone()).map_err(|error| Error::NoGracePeriod {
            membarrier: why,
            map: word(&error),
        })?;
        Ok(chosen)
    }

    fn by_map(why: String) -> io::Result<Self> {
        let inner = create_array(None)?;
        let outer = create_array(Some(inner.as_fd()))?;
        set_inner(outer.as_fd(), inner.as_fd())?;
        Ok(Self::MapUpdate { outer, inner, why })
    }

    /// Waits until every program that runs now has ended.
    pub fn wait(&self) -> Result<()> {
        let (done, how) = match self {
            Self::Membarrier => (by_membarrier(), "membarrier"),
            Self::MapUpdate { outer, inner, .. } => {
                (set_inner(outer.as_fd(), inner.as_fd()), "map update")
            }
        };
        done.map_err(Error::system(format!("wait for running programs ({how})")))
    }

    /// Its bit in [`xdp_common::meta::FLAGS`].
    pub const fn flag(&self) -> u64 {
        match self {
            Self::Membarrier => 0,
            Self::MapUpdate { .. } => flag::GRACE_BY_MAP,
        }
    }

    /// Its name in `status`, by the flags of an instance.
    pub const fn name(flags: u64) -> &'static str {
        if flags & flag::GRACE_BY_MAP == 0 {
            "membarrier"
        } else {
            "map-update"
        }
    }
}

fn by_membarrier() -> io::Result<()> {
    failpoints::membarrier()?;
    Ok(membarrier(MembarrierCommand::Global)?)
}
