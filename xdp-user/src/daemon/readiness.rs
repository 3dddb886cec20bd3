//! Registers a descriptor with the event loop, which then waits until it is readable.

use std::io;
use std::os::fd::{AsFd, AsRawFd};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Registers `inner` until the result is dropped. Call it within the runtime of the event loop.
#[expect(
    deprecated,
    reason = "its successor is unsafe, because a type with AsRawFd alone may close its descriptor while it is registered; a type with AsFd keeps it open"
)]
pub(super) fn readable<T: AsFd + AsRawFd>(inner: T) -> io::Result<AsyncFd<T>> {
    AsyncFd::with_interest(inner, Interest::READABLE)
}
