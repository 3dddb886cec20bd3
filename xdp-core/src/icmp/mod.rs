//! ICMP errors: those that are translated, those that ikenat sends, and the rate limit for both.

pub mod error;
mod quote;
pub mod rate_limit;
mod report;
pub mod translate;
