//! The pins of an instance in the BPF file system: where they are found, their layout, lock, owner and permissions, and which
//! directories are trusted.

pub mod find;
pub mod layout;
pub mod lock;
pub mod map_layout;
pub(crate) mod older;
pub mod owner;
pub mod permissions;
pub(crate) mod pin_names;
pub mod stop;
pub(crate) mod trust;
