//! The pins of an instance in the BPF file system: their names, layout, lock, owner and permissions.

pub mod layout;
pub mod lock;
pub mod map_layout;
pub mod owner;
pub mod permissions;
pub mod stop;
