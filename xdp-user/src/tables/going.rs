//! Sets of the numbers of services and VIPs, and those whose records are going.

use crate::tables::services::is_going;
use xdp_common::services::{NUMBERS, service, state, vip};
use xdp_core::Word;

const BITS: usize = u64::BITS as usize;

/// Numbers of one kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Set([u64; NUMBERS as usize / BITS]);

impl Set {
    fn add(&mut self, number: u16) {
        let number = usize::from(number);
        if let Some(word) = self.0.get_mut(number / BITS) {
            *word |= 1 << (number % BITS);
        }
    }

    fn has(&self, number: u16) -> bool {
        let number = usize::from(number);
        let word = self.0.get(number / BITS).copied().unwrap_or_default();
        word >> (number % BITS) & 1 != 0
    }

    fn without(&self, other: &Self) -> Self {
        Self(std::array::from_fn(|at| self.0[at] & !other.0[at]))
    }

    fn all(&self) -> impl Iterator<Item = u16> + '_ {
        (0..)
            .take(NUMBERS as usize)
            .filter(|number| self.has(*number))
    }
}

/// Numbers of services and of VIPs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Numbers {
    services: Set,
    vips: Set,
}

impl Numbers {
    /// Those whose records are going.
    pub(super) fn going<W: Word>(services: &[W], vips: &[W]) -> Self {
        Self {
            services: going_in(services, service::WORDS),
            vips: going_in(vips, vip::WORDS),
        }
    }

    /// Adds a service and a VIP.
    pub(super) fn add(&mut self, service: u16, vip: u16) {
        self.services.add(service);
        self.vips.add(vip);
    }

    /// Those that are not in another set.
    pub(super) fn without(&self, other: &Self) -> Self {
        Self {
            services: self.services.without(&other.services),
            vips: self.vips.without(&other.vips),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    pub(super) fn has_service(&self, number: u16) -> bool {
        self.services.has(number)
    }

    pub(super) fn has_vip(&self, number: u16) -> bool {
        self.vips.has(number)
    }

    /// The services, in ascending order.
    pub(super) fn services(&self) -> impl Iterator<Item = u16> + '_ {
        self.services.all()
    }

    /// Frees the records that are still going, and returns how many.
    pub(super) fn free<W: Word>(&self, services: &[W], vips: &[W]) -> usize {
        // A record of a service names a VIP, so it goes first.
        free_in(services, service::WORDS, &self.services) + free_in(vips, vip::WORDS, &self.vips)
    }
}

/// The numbers of the records of a map that are going. The state is in the first word of each.
fn going_in<W: Word>(words: &[W], record: usize) -> Set {
    let mut found = Set::default();
    for (record, number) in words.chunks_exact(record).zip(0..) {
        if is_going(record[0].load()) == Some(true) {
            found.add(number);
        }
    }
    found
}

fn free_in<W: Word>(words: &[W], record: usize, set: &Set) -> usize {
    let mut freed = 0;
    for (record, number) in words.chunks_exact(record).zip(0..) {
        let head = record[0].load();
        let unused = u64::from(state::UNUSED);
        if set.has(number) && is_going(head) == Some(true) && record[0].replace(head, unused) {
            freed += 1;
        }
    }
    freed
}
