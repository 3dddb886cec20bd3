//! What the integration tests and `ikenat-lab` have in common.

pub mod bpf;
pub mod json_page;
pub mod kernel;
pub mod lab;
pub mod older;
pub mod suite;
