//! When the daemon reacts to a change: soon after the first of a burst, and not too often.

use crate::netlink::changes::Changes;
use std::future::pending;
use std::time::Duration;
use tokio::time::{Instant, sleep_until};

/// How long the events of a burst are gathered. Many changes come as several messages: a route is
/// deleted and added, an interface is created, given an address and set up.
const GATHER: Duration = Duration::from_millis(20);

/// The shortest time between two invalidations of the cached next hops. After each one the FIB is
/// asked for every flow again. It is also that between two searches for the peers that a route
/// concerns: a BGP feed changes routes all the time.
const BETWEEN_INVALIDATIONS: Duration = Duration::from_secs(1);

/// One reaction to many events: soon after the first of a burst, and not before a pause since the
/// last reaction is over.
#[derive(Debug)]
struct Throttle {
    /// The shortest time between two reactions.
    pause: Duration,
    /// When the first event without a reaction is due, unless `hold` is later.
    due: Option<Instant>,
    /// No reaction before this.
    hold: Option<Instant>,
}

impl Throttle {
    const fn new(pause: Duration) -> Self {
        Self {
            pause,
            due: None,
            hold: None,
        }
    }

    /// An event has happened.
    fn note(&mut self) {
        self.due.get_or_insert_with(|| Instant::now() + GATHER);
    }

    fn due(&self) -> Option<Instant> {
        self.due.max(self.due.and(self.hold))
    }

    /// True when a reaction is due, which counts as done from then on.
    fn take(&mut self) -> bool {
        let is_due = self.due().is_some_and(|due| due <= Instant::now());
        if is_due {
            self.due = None;
            self.hold = Some(Instant::now() + self.pause);
        }
        is_due
    }
}

/// The reactions to changes that netlink notifies.
#[derive(Debug)]
pub struct Reactions {
    links: Throttle,
    hops: Throttle,
    routes: Throttle,
    vip: Throttle,
}

impl Default for Reactions {
    fn default() -> Self {
        Self {
            links: Throttle::new(Duration::ZERO),
            hops: Throttle::new(BETWEEN_INVALIDATIONS),
            routes: Throttle::new(BETWEEN_INVALIDATIONS),
            vip: Throttle::new(Duration::ZERO),
        }
    }
}

impl Reactions {
    /// These changes have been notified.
    pub fn note(&mut self, changes: Changes) {
        for (changed, throttle) in [
            (changes.links, &mut self.links),
            (changes.hops, &mut self.hops),
            (changes.routes, &mut self.routes),
            (changes.vip, &mut self.vip),
        ] {
            if changed {
                throttle.note();
            }
        }
    }

    /// Waits until a reaction is due and returns what to react to. A call that is cancelled loses
    /// nothing.
    pub async fn due(&mut self) -> Changes {
        let all = [&self.links, &self.hops, &self.routes, &self.vip];
        match all.into_iter().filter_map(Throttle::due).min() {
            Some(first) => sleep_until(first).await,
            None => pending().await,
        }
        Changes {
            links: self.links.take(),
            hops: self.hops.take(),
            routes: self.routes.take(),
            vip: self.vip.take(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::{advance, timeout};

    const LINKS: Changes = Changes {
        links: true,
        hops: false,
        routes: false,
        vip: false,
    };
    const HOPS: Changes = Changes::HOPS;

    /// Milliseconds from `start` until the next reaction, and the reaction.
    async fn next(reactions: &mut Reactions, start: Instant) -> (u128, Changes) {
        let changes = reactions.due().await;
        (start.elapsed().as_millis(), changes)
    }

    async fn is_quiet(reactions: &mut Reactions) -> bool {
        timeout(Duration::from_secs(60), reactions.due())
            .await
            .is_err()
    }

    #[tokio::test(start_paused = true)]
    async fn a_burst_has_one_reaction() {
        let (mut reactions, start) = (Reactions::default(), Instant::now());
        for _ in 0..10 {
            reactions.note(Changes::ALL);
            advance(Duration::from_millis(1)).await;
        }
        assert_eq!(next(&mut reactions, start).await, (20, Changes::ALL));
        assert!(is_quiet(&mut reactions).await);
    }

    #[tokio::test(start_paused = true)]
    async fn endless_changes_of_links_have_a_reaction_every_20_ms() {
        let (mut reactions, start) = (Reactions::default(), Instant::now());
        let mut times = Vec::new();
        for _ in 0..100 {
            reactions.note(LINKS);
            if let Ok(changes) = timeout(Duration::from_millis(1), reactions.due()).await {
                assert_eq!(changes, LINKS);
                times.push(start.elapsed().as_millis());
            }
        }
        assert_eq!(times, [20, 40, 60, 80, 100]);
    }

    #[tokio::test(start_paused = true)]
    async fn next_hops_are_invalidated_at_once_and_then_once_a_second() {
        let (mut reactions, start) = (Reactions::default(), Instant::now());
        reactions.note(HOPS);
        assert_eq!(next(&mut reactions, start).await, (20, HOPS));
        advance(Duration::from_millis(80)).await;
        reactions.note(HOPS);
        reactions.note(LINKS);
        assert_eq!(next(&mut reactions, start).await, (120, LINKS), "no limit");
        reactions.note(HOPS);
        assert_eq!(
            next(&mut reactions, start).await,
            (1020, HOPS),
            "the last one counts"
        );
        assert!(is_quiet(&mut reactions).await);
        let start = Instant::now();
        reactions.note(HOPS);
        assert_eq!(
            next(&mut reactions, start).await,
            (20, HOPS),
            "after a rest"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_cancelled_wait_loses_nothing() {
        let (mut reactions, start) = (Reactions::default(), Instant::now());
        reactions.note(LINKS);
        timeout(Duration::from_millis(5), reactions.due())
            .await
            .expect_err("it is not due yet");
        assert_eq!(next(&mut reactions, start).await, (20, LINKS));
    }
}
