//! Tables in shared memory: the slots of FLOW and SESSION, the small overwriting buckets of HALF
//! and FRAGMENT, the keyed hash, and the atomic word that all of them consist of.

pub mod halves;
pub mod hash;
pub mod recent;
pub mod slots;
pub mod word;

pub use halves::{Arrays, Bucket, Buckets, Halves, Slot};
pub use slots::{Place, State, find, find_at, free, insert, retire, snapshot};
