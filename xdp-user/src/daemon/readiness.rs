//! Registers a descriptor with the event loop, which then waits until it is readable.

use std::io;
use std::os::fd::{AsFd, AsRawFd};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Registers `inner`, until the result is dropped. Needs the event loop.
#[expect(
    deprecated,
    reason = "the new `register_with_interest` is unsafe, because a mere AsRawFd may close its descriptor; AsFd owns it"
)]
pub(super) fn readable<T: AsFd + AsRawFd>(inner: T) -> io::Result<AsyncFd<T>> {
    AsyncFd::with_interest(inner, Interest::READABLE)
}
