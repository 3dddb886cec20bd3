//! Keeps a thread on one CPU for a moment.

use rustix::thread::{CpuSet, sched_getaffinity, sched_getcpu, sched_setaffinity};

/// Runs something on one CPU, whose number it is given, and lets the thread move again. Where the
/// kernel does not permit that, it runs all the same.
pub(crate) fn stay<T>(run: impl FnOnce(usize) -> T) -> T {
    let before = sched_getaffinity(None);
    let number = sched_getcpu();
    let mut one = CpuSet::new();
    one.set(number);
    if let Err(error) = sched_setaffinity(None, &one) {
        tracing::debug!("this thread cannot stay on CPU {number}: {error}");
    }
    let result = run(number);
    if let Ok(before) = before
        && let Err(error) = sched_setaffinity(None, &before)
    {
        tracing::debug!("this thread stays on CPU {number}: {error}");
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_stays_and_moves_again() {
        let of = || sched_getaffinity(None).expect("its own").count();
        let before = of();
        stay(|number| {
            assert_eq!(of(), 1);
            assert_eq!(sched_getcpu(), number);
        });
        assert_eq!(of(), before);
    }
}
