//! A word that shows what the dataplane does with it, and when.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use xdp_core::Word;

/// A word that records what is written, and that another CPU may change at a certain moment.
#[derive(Default)]
pub(crate) struct Traced {
    place: usize,
    pub(crate) value: Cell<u64>,
    writes: Rc<RefCell<Vec<(usize, u64)>>>,
    /// What another CPU writes just before the word is replaced.
    pub(crate) rival: Cell<Option<u64>>,
    /// What another CPU writes after the word has been read.
    pub(crate) later: Cell<Option<u64>>,
}

impl Word for Traced {
    fn load(&self) -> u64 {
        let value = self.value.get();
        self.value.set(self.later.take().unwrap_or(value));
        value
    }
    fn store(&self, value: u64) {
        self.value.set(value);
        self.writes.borrow_mut().push((self.place, value));
    }
    fn add(&self, value: u64) {
        self.store(self.load().wrapping_add(value));
    }
    fn replace(&self, old: u64, new: u64) -> bool {
        if let Some(value) = self.rival.take() {
            self.value.set(value);
        }
        let is_old = self.load() == old;
        if is_old {
            self.store(new);
        }
        is_old
    }
    fn publish(&self, value: u64) {
        self.store(value);
    }
}

/// Words that are zero.
pub(crate) fn traced<const N: usize>() -> [Traced; N] {
    let writes = Rc::default();
    std::array::from_fn(|place| Traced {
        place,
        writes: Rc::clone(&writes),
        ..Traced::default()
    })
}

/// What was written since the last time.
pub(crate) fn writes(words: &[Traced]) -> Vec<(usize, u64)> {
    words[0].writes.take()
}
