//! A thread that works until nothing needs it any more.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use anyhow::{Context, Result, anyhow};

/// The thread. When it is dropped, the thread has ended, and what it held is free.
#[derive(Debug)]
pub(super) struct Background<T> {
    stop: Arc<AtomicBool>,
    /// None once it has ended.
    thread: Option<JoinHandle<Result<T>>>,
}

impl<T: Send + 'static> Background<T> {
    /// Starts work, which has to end soon after the flag is set.
    pub(super) fn start(work: impl FnOnce(&AtomicBool) -> Result<T> + Send + 'static) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&stop);
        Self {
            stop,
            thread: Some(thread::spawn(move || work(&flag))),
        }
    }
}

impl<T> Background<T> {
    /// Ends it, and returns its result.
    ///
    /// # Errors
    /// That of the work, or it panicked.
    pub(super) fn end(mut self) -> Result<T> {
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().context("it has ended before")?;
        thread.join().map_err(|_| anyhow!("a thread panicked"))?
    }
}

impl<T> Drop for Background<T> {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
