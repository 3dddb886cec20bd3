//! Passes the log messages of the programs on as soon as they are written.

use crate::daemon::readiness::readable;
use crate::dataplane::Logger;
use std::future::poll_fn;
use std::task::{Context, Poll};
use tokio::io::unix::AsyncFd;

/// The ring buffers of the loaded programs.
#[derive(Default)]
pub struct Loggers(Vec<AsyncFd<Logger>>);

impl Loggers {
    /// Registers them with the event loop.
    pub fn new(loggers: Vec<Logger>) -> Self {
        let register = |logger| match readable(logger) {
            Ok(registered) => Some(registered),
            Err(error) => {
                tracing::warn!("the log messages of the programs cannot be read: {error}");
                None
            }
        };
        Self(loggers.into_iter().filter_map(register).collect())
    }

    /// Logs what has been written.
    pub fn flush(&mut self) {
        for logger in &mut self.0 {
            logger.get_mut().flush();
        }
    }

    /// Waits until something has been written, and logs it.
    pub async fn next(&mut self) {
        poll_fn(|context| self.poll(context)).await;
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let mut polled = Poll::Pending;
        for logger in &mut self.0 {
            if let Poll::Ready(Ok(mut guard)) = logger.poll_read_ready_mut(context) {
                guard.get_inner_mut().flush();
                guard.clear_ready();
                polled = Poll::Ready(());
            }
        }
        polled
    }
}
