//! The benchmark: the cost of a packet, in instructions (layer A), in nanoseconds of the program
//! alone (layer B), and end to end in namespaces (layer C).
//!
//! Every layer verifies the packets that arrive. The results are plain data, from which the report
//! is made.

pub mod boot;
pub mod conditions;
pub mod contest;
pub mod gate;
pub mod join;
pub mod kinds;
pub mod layer_a;
pub mod layer_b;
pub mod layer_c;
pub mod order;
pub mod progress;
pub mod report;
pub mod results;
pub mod rig;
mod rules;
pub mod run;
pub mod wire;
