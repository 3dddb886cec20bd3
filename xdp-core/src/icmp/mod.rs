//! ICMP errors: those that are translated, those that ikenat sends, and the rate limit for both.

pub mod error;
pub mod rate_limit;
pub mod translate;
