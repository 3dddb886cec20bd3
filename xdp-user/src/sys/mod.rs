//! What the kernel is and what it grants this process: its release, capabilities, network
//! namespaces.

pub mod capabilities;
pub mod kernel_version;
pub mod netns;
