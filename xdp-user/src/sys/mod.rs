//! The kernel's release, the capabilities of this process, and the network namespaces of this host.

pub mod capabilities;
pub mod kernel_version;
pub mod netns;
