//! What `ikenat stats` and `ikenat status` report, as data, and the JSON documents of all verbs.

mod attached;
pub mod document;
pub mod instance;
pub mod selection;
pub mod stats;
pub mod status;
pub mod wanted_services;
