//! The thread that expires old entries of FLOW, SESSION and NEXTHOP, and removes those of removed
//! services. A grace period takes as long as
//! the slowest program on any CPU, and a pass over a large table milliseconds; the event loop waits
//! for neither.

use crate::error::{Error, Result};
use crate::tables::clock::Clock;
use crate::tables::expiry::Expiry;
use crate::tables::grace::GracePeriod;
use crate::tables::mmap::Tables;
use crate::tables::nexthop;
use crate::tables::reclaim::Reclaimed;
use crate::tables::removal::Removal;
use crate::tables::small::SmallMemory;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;
use tracing::{debug, info};
use xdp_common::Secret;

/// One slice of the tables is visited each time this has passed.
const BETWEEN_SLICES: Duration = Duration::from_secs(1);

/// The running thread. It ends when this is dropped.
#[derive(Debug)]
pub(super) struct Expirer {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<Result<()>>>,
}

impl Expirer {
    /// Starts it. It has the capabilities that this thread has now.
    pub(super) fn start(
        mut expiry: Expiry,
        mut removal: Removal,
        clock: Clock,
        (tables, small): (Arc<Tables<AtomicU64>>, SmallMemory),
        secret: Secret,
        grace: Arc<GracePeriod>,
    ) -> Result<Self> {
        let (stop, stopped) = channel();
        let work = move || {
            while stopped.recv_timeout(BETWEEN_SLICES) == Err(RecvTimeoutError::Timeout) {
                let words = tables.table_words(&secret);
                let freed = expiry.pass(words, || grace.wait())?;
                if freed.flows + freed.sessions > 0 {
                    debug!("{} SPIs and {} peers expired", freed.flows, freed.sessions);
                }
                let removed = removal.pass(words, small.tables(), || grace.wait())?;
                let Reclaimed { flows, sessions } = removed.entries;
                if flows + sessions > 0 {
                    debug!("{flows} SPIs and {sessions} peers of removed services were removed");
                }
                if removed.numbers > 0 {
                    info!("services: nothing is left in the tables of what was removed");
                }
                let neighbours = tables.nexthop.words();
                let released = nexthop::release(neighbours, clock.tick(), || grace.wait())?;
                if released > 0 {
                    debug!("{released} neighbours that are not used any more were released");
                }
            }
            Ok(())
        };
        let builder = thread::Builder::new().name("expiry".to_owned());
        let thread = builder
            .spawn(work)
            .map_err(Error::system("start a thread for expiry"))?;
        Ok(Self {
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    /// Whether it still works.
    ///
    /// # Errors
    /// It has ended: a grace period could not be waited for.
    pub(super) fn check(&mut self) -> Result<()> {
        match self.thread.take_if(|thread| thread.is_finished()) {
            Some(thread) => thread
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
            None => Ok(()),
        }
    }
}

impl Drop for Expirer {
    fn drop(&mut self) {
        self.stop.take();
        if let Some(thread) = self.thread.take() {
            // It has nothing to say any more.
            _ = thread.join();
        }
    }
}
