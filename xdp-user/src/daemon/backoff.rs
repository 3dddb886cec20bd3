//! Exponential back-off of an attempt that was refused: each wait is twice as long as the one before,
//! and a change of what the attempt depends on ends it.

use std::time::Duration;
use tokio::time::Instant;

const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(60);

/// When an attempt may be made again. `T` is the state that it depends on.
#[derive(Debug)]
pub struct Backoff<T> {
    /// The last refusal: the state after it if that is known, when the next attempt is due, and how
    /// long that wait is.
    refused: Option<(Option<T>, Instant, Duration)>,
}

impl<T> Default for Backoff<T> {
    fn default() -> Self {
        Self { refused: None }
    }
}

impl<T: PartialEq + Clone> Backoff<T> {
    /// Whether an attempt may be made now. When `state` differs from that of the refusal, it may,
    /// and the waits begin with the shortest one again.
    pub fn permits(&mut self, state: &T) -> bool {
        let Some((refused, due, _)) = &mut self.refused else {
            return true;
        };
        if refused.get_or_insert_with(|| state.clone()) == state {
            return *due <= Instant::now();
        }
        self.refused = None;
        true
    }

    /// The attempt was refused, and has left this state. One that is not known (`None`) is that of
    /// the next question.
    pub fn refused(&mut self, state: Option<T>) {
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

    /// The seconds of ten minutes at which an attempt is made and refused, in a state that is known
    /// afterwards or not.
    async fn attempts(backoff: &mut Backoff<u8>, state: u8, known: bool) -> Vec<u64> {
        let mut made = Vec::new();
        for second in 0..600 {
            if backoff.permits(&state) {
                made.push(second);
                backoff.refused(known.then_some(state));
            }
            advance(Duration::from_secs(1)).await;
        }
        made
    }

    #[tokio::test(start_paused = true)]
    async fn each_wait_is_twice_as_long_up_to_a_minute() {
        for known in [true, false] {
            let made = attempts(&mut Backoff::default(), 1, known).await;
            assert_eq!(made[..9], [0, 1, 3, 7, 15, 31, 63, 123, 183], "{known}");
            assert_eq!(made.len(), 15);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_change_ends_the_wait() {
        let mut backoff = Backoff::default();
        attempts(&mut backoff, 1, true).await;
        assert!(!backoff.permits(&1));
        let made = attempts(&mut backoff, 2, true).await;
        assert_eq!(made[..4], [0, 1, 3, 7]);
    }
}
