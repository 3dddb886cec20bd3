//! The kernel's release and its types, the distribution, the capabilities and the memory of this
//! process, and the network namespaces of this host.

pub(crate) mod allocator;
pub(crate) mod btf;
pub mod capabilities;
pub(crate) mod distribution;
pub mod kernel_version;
pub mod netns;
pub(crate) mod one_cpu;
