//! The BPF maps of an instance: how they are read, and how old entries leave them.

pub(crate) mod bpf_syscall;
pub(crate) mod carry;
pub mod clock;
pub mod expiry;
mod going;
pub mod grace;
pub mod invalidate;
pub(crate) mod meta;
pub mod mmap;
pub mod nexthop;
pub(crate) mod older;
pub mod overview;
pub mod reclaim;
mod records;
pub mod removal;
pub mod retired;
mod retiring;
pub mod secret;
mod service_record;
pub mod services;
pub mod small;
pub mod snapshot;
#[cfg(test)]
mod test_table;
pub mod usage;
