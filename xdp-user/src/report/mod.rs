//! What `ikenat stats` and `ikenat status` report, as data.

pub mod stats;
pub mod status;
