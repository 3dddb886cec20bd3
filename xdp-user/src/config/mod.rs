//! What the administrator asks for, checked against this host before anything is changed.

pub mod interfaces;
pub mod macvlans;
pub mod peer_lists;
pub mod plan;
pub mod policy;
pub mod settings;
pub mod validate;
