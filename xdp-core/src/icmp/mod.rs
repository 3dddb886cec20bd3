//! ICMP errors: those that are translated, those that ikenat sends, and how many of either a peer may cause.

pub mod error;
pub mod rate_limit;
pub mod translate;
