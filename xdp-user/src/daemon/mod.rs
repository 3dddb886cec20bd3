//! What the daemon does while an instance runs.

pub mod maintenance;
pub mod neighbour_probe;
pub mod reattach;
