//! What the administrator asks for, checked against this host before anything is changed.

pub mod client_routes;
pub mod commands;
pub mod instance_name;
pub mod interfaces;
pub mod location;
pub mod macvlans;
mod names;
pub mod numbers;
pub mod peer_lists;
pub mod plan;
pub mod routing_rules;
pub mod services;
pub mod settings;
pub mod validate;
mod vip_constants;
pub(crate) mod vip_route;
