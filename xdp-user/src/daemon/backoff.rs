//! Exponential back-off of an attempt that was refused: each wait is twice as long as the one before,
//! and a change of what the attempt depends on ends it.

use std::time::Duration;
use tokio::time::Instant;

const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(60);

/// When an attempt may be made again. `T` is what it depends on.
#[derive(Debug)]
pub struct Backoff<T> {
    /// The last refusal: what it depended on, when the next attempt is due, and how long that wait
    /// is.
    refused: Option<(T, Instant, Duration)>,
}

impl<T> Default for Backoff<T> {
    fn default() -> Self {
        Self { refused: None }
    }
}

impl<T: PartialEq> Backoff<T> {
    /// Whether an attempt may be made now. When `state` differs from that of the refusal, it may,
    /// and the waits begin with the shortest one again.
    pub fn permits(&mut self, state: &T) -> bool {
        match &self.refused {
            None => true,
            Some((refused, due, _)) if refused == state => *due <= Instant::now(),
            Some(_) => {
                self.refused = None;
                true
            }
        }
    }

    /// The attempt was refused in this state.
    pub fn refused(&mut self, state: T) {
        let wait = match &self.refused {
            Some((_, _, wait)) => LONGEST.min(*wait * 2),
            None => FIRST,
        };
        self.refused = Some((state, Instant::now() + wait, wait));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::advance;

    /// The seconds of ten minutes at which an attempt is made and refused.
    async fn attempts(backoff: &mut Backoff<u8>, state: u8) -> Vec<u64> {
        let mut made = Vec::new();
        for second in 0..600 {
            if backoff.permits(&state) {
                made.push(second);
                backoff.refused(state);
            }
            advance(Duration::from_secs(1)).await;
        }
        made
    }

    #[tokio::test(start_paused = true)]
    async fn each_wait_is_twice_as_long_up_to_a_minute() {
        let made = attempts(&mut Backoff::default(), 1).await;
        assert_eq!(made[..9], [0, 1, 3, 7, 15, 31, 63, 123, 183]);
        assert_eq!(made.len(), 15);
    }

    #[tokio::test(start_paused = true)]
    async fn a_change_ends_the_wait() {
        let mut backoff = Backoff::default();
        attempts(&mut backoff, 1).await;
        assert!(!backoff.permits(&1));
        assert_eq!(attempts(&mut backoff, 2).await[..4], [0, 1, 3, 7]);
    }
}
