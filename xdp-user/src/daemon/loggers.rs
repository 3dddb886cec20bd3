//! Passes the log messages of the programs on as soon as they are written.

use crate::config::interfaces::Interface;
use crate::daemon::readiness::readable;
use crate::dataplane::{Logger, RingBuffer};
use std::future::poll_fn;
use std::task::{Context, Poll};
use tokio::io::unix::AsyncFd;

/// The ring buffers of the loaded programs.
#[derive(Default)]
pub struct Loggers(Vec<(Interface, AsyncFd<RingBuffer>)>);

impl Loggers {
    /// Registers those of programs that are attached now with the event loop, in place of those of
    /// the same interfaces.
    pub fn replace(&mut self, new: Vec<Logger>) {
        for (interface, logger) in new {
            self.0.retain(|(old, _)| *old != interface);
            match readable(logger) {
                Ok(registered) => self.0.push((interface, registered)),
                Err(error) => {
                    tracing::warn!("the log messages of the programs cannot be read: {error}");
                }
            }
        }
    }

    /// Logs what has been written.
    pub fn flush(&mut self) {
        for (_, logger) in &mut self.0 {
            logger.get_mut().flush();
        }
    }

    /// Waits until something has been written, and logs it.
    pub async fn next(&mut self) {
        poll_fn(|context| self.poll(context)).await;
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let mut polled = Poll::Pending;
        for (_, logger) in &mut self.0 {
            if let Poll::Ready(Ok(mut guard)) = logger.poll_read_ready_mut(context) {
                guard.get_inner_mut().flush();
                guard.clear_ready();
                polled = Poll::Ready(());
            }
        }
        polled
    }
}
