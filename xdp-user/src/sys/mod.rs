//! What the kernel grants this process: capabilities and network namespaces.

pub mod capabilities;
pub mod netns;
