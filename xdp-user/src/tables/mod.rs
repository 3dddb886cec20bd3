//! The BPF maps of an instance, as the daemon and the readers see them.

pub mod clock;
pub mod expiry;
pub mod invalidate;
pub mod mmap;
pub mod reclaim;
pub mod retired;
pub mod snapshot;
