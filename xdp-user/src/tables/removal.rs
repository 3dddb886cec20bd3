//! Removes what a removed service or VIP has left in the tables, and frees its number.
//!
//! Entries have the numbers of services and VIPs, so a number that is going (`config/numbers.rs`) can
//! be given away when no entry has it any more. The tables are swept in slices, one a second: entries
//! of a service that is going are retired, as expired ones are; a flow, a session or an entry of PIN
//! forgets a VIP that is going. HALF and FRAGMENT do not show their numbers: what the earlier programs
//! have written there is too old after [`HOLD`], and is erased, because its time of 16 bits would seem
//! young again some day.
//!
//! Nothing writes a number that is going: before the first sweep a grace period has passed since the
//! exchange of programs. The number is free after a sweep that began after [`HOLD`] and found nothing.
//! All that is kept is in the records; the next daemon starts from the beginning.

use crate::error::Result;
use crate::tables::clock::{Clock, tick_shift};
use crate::tables::expiry::{SLICES, slice};
use crate::tables::going::Numbers;
use crate::tables::reclaim::{Reclaimed, TableWords};
use crate::tables::retired::EntryKind;
use crate::tables::retiring::Retiring;
use crate::tables::small::SmallTables;
use xdp_common::Config;
use xdp_common::limits::{FRAGMENT_TICKS, HALF_OPEN_TICKS};
use xdp_common::meta;
use xdp_common::slot::recent::{DETAILS, DIGEST, WORDS};
use xdp_common::slot::{self, NO_VIP, SPI_VIP, STATE, WAYS, flow, pin, session};
use xdp_core::Word;
use xdp_core::table::recent::Bucket;
use xdp_core::table::{Slot, State};

/// Ticks after which nothing proves anything any more that was written into HALF or FRAGMENT before. What HALF
/// shows for longer (a second address of an IKE SA) is erased with it.
pub const HOLD: u64 = 2 + HALF_OPEN_TICKS as u64;
const _: () = assert!(FRAGMENT_TICKS <= HALF_OPEN_TICKS);

/// Seconds after which a number is free at the latest, if the daemon runs: [`HOLD`], the sweep that is
/// under way then, and one more. A tick is 1.4 seconds at most.
pub const SECONDS: u64 = HOLD * 7 / 5 + 2 * SLICES as u64;

/// What a pass has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Removed {
    /// Entries that were reclaimed.
    pub entries: Reclaimed,
    /// Numbers of services and of VIPs that are free now.
    pub numbers: usize,
}

/// Removes what is going, one slice at a time.
#[derive(Debug)]
pub struct Removal {
    clock: Clock,
    /// The numbers that the programs have in their constants, which are not touched whatever the
    /// records say.
    in_programs: Numbers,
    /// What this sweep removes.
    going: Numbers,
    /// The tick at which that was first seen.
    since: Option<u64>,
    /// The slice that is next.
    next: usize,
    /// Whether this sweep began after [`HOLD`] and has found nothing.
    is_clean: bool,
    retiring: Retiring,
}

impl Removal {
    /// For programs with these constants.
    pub fn new(clock: Clock, config: &Config) -> Self {
        Self {
            clock,
            in_programs: in_programs(config),
            going: Numbers::default(),
            since: None,
            next: 0,
            is_clean: false,
            retiring: Retiring::default(),
        }
    }

    /// Sweeps the next slice of all tables, if a number is going.
    pub fn pass<W: Word>(
        &mut self,
        words: TableWords<'_, W>,
        small: SmallTables<'_, W>,
        grace: impl Fn() -> Result<()>,
    ) -> Result<Removed> {
        let tick = self.clock.now() >> tick_shift(self.clock.rate());
        self.pass_at(tick, words, small, grace)
    }

    fn pass_at<W: Word>(
        &mut self,
        tick: u64,
        words: TableWords<'_, W>,
        small: SmallTables<'_, W>,
        grace: impl Fn() -> Result<()>,
    ) -> Result<Removed> {
        if self.next == 0 && !self.begin(tick, small, &grace)? {
            return Ok(Removed::default());
        }
        let mut removed = Removed::default();
        removed.entries += self.sweep(EntryKind::Flow, words, forget_in_flow, &grace)?;
        removed.entries += self.sweep(EntryKind::Session, words, forget_in_session, &grace)?;
        removed.entries += self.retiring.reclaim(words, &grace)?;
        self.sweep_small(tick, small);
        self.next = (self.next + 1) % SLICES;
        if self.next == 0 && self.is_clean {
            for service in self.going.services() {
                words.meta[meta::server_hop(service)].store(0);
            }
            removed.numbers = self.going.free(small.services, small.vips);
            self.since = None;
        }
        Ok(removed)
    }

    /// Begins a sweep. False: nothing is going.
    fn begin<W: Word>(
        &mut self,
        tick: u64,
        small: SmallTables<'_, W>,
        grace: impl Fn() -> Result<()>,
    ) -> Result<bool> {
        let going = Numbers::going(small.services, small.vips).without(&self.in_programs);
        if going != self.going {
            self.going = going;
            self.since = None;
        }
        if self.going.is_empty() {
            return Ok(false);
        }
        let since = match self.since {
            Some(since) => since,
            None => {
                grace()?;
                *self.since.insert(tick)
            }
        };
        self.is_clean = tick.saturating_sub(since) >= HOLD;
        Ok(true)
    }

    /// Retires the entries of services that are going, and lets others forget a VIP that is.
    fn sweep<W: Word>(
        &mut self,
        kind: EntryKind,
        words: TableWords<'_, W>,
        forget: impl Fn(&Numbers, &Slot<W>) -> bool,
        grace: impl Fn() -> Result<()>,
    ) -> Result<Reclaimed> {
        let slots = match kind {
            EntryKind::Flow => words.flows.hot(),
            EntryKind::Session => words.sessions.hot(),
        };
        let mut freed = Reclaimed::default();
        for index in slice(slots.len(), self.next) {
            let state = slots[index][STATE].load();
            if State::of(state) != State::Live {
                continue;
            }
            if self.going.has_service(slot::service(state)) {
                self.is_clean = false;
                let entry = (kind, index, state);
                freed += self.retiring.retire(entry, words, &grace)?;
            } else if forget(&self.going, &slots[index]) {
                self.is_clean = false;
            }
        }
        Ok(freed)
    }

    fn sweep_small<W: Word>(&mut self, tick: u64, small: SmallTables<'_, W>) {
        let range = |buckets: &[Bucket<W>]| slice(buckets.len(), self.next);
        for bucket in &small.halves[range(small.halves)] {
            erase(bucket, |way| is_old(way, tick, HALF_OPEN_TICKS));
        }
        for bucket in &small.fragments[range(small.fragments)] {
            erase(bucket, |way| is_old(way, tick, FRAGMENT_TICKS));
        }
        let going = &self.going;
        let mut found = false;
        for bucket in &small.pins[range(small.pins)] {
            found |= erase(bucket, |way| {
                let [owner, _, word] = details(way);
                going.has_service(pin::service(owner)) || going.has_vip(pin::vip(word))
            });
            for way in bucket.chunks_exact(WORDS) {
                found |= forget_other(going, way);
            }
            erase(bucket, |way| {
                let [owner, ..] = details(way);
                is_old(way, tick, pin::limit(owner))
            });
        }
        for bucket in &small.host_peers[range(small.host_peers)] {
            found |= erase(bucket, |way| {
                let [vip, ..] = details(way);
                going.has_vip(u16::try_from(vip).unwrap_or(NO_VIP))
            });
        }
        self.is_clean &= !found;
    }
}

/// Lets a flow forget a VIP that is going. True: it had one.
fn forget_in_flow<W: Word>(going: &Numbers, slot: &Slot<W>) -> bool {
    let word = slot[SPI_VIP].load();
    let is_going = going.has_vip(slot::vip(word));
    // A program that writes another VIP at this moment is right, and clears the hop itself.
    if is_going && slot[SPI_VIP].replace(word, slot::with_vip(word, NO_VIP)) {
        slot[flow::HOP].store(0);
    }
    is_going
}

/// The same for a session.
fn forget_in_session<W: Word>(going: &Numbers, slot: &Slot<W>) -> bool {
    let word = slot[session::PIN].load();
    let is_going = session::pinned(word).is_some_and(|vip| going.has_vip(vip));
    if is_going && slot[session::PIN].replace(word, 0) {
        slot[session::HOP].store(0);
    }
    is_going
}

/// The same for a connection, to which a SYN has come by another VIP than its own.
fn forget_other<W: Word>(going: &Numbers, way: &[W]) -> bool {
    let word = &way[DETAILS + 2];
    let before = word.load();
    let is_going = pin::has(before, pin::OTHER) != 0 && going.has_vip(pin::other(before));
    if is_going {
        word.replace(before, before & !pin::OTHER);
    }
    is_going
}

/// The details of a way.
fn details<W: Word>(way: &[W]) -> [u64; 3] {
    std::array::from_fn(|at| way[DETAILS + at].load())
}

/// Whether an entry counts no more. Two CPUs read the clock at different moments: one that is a tick
/// younger than now is young.
#[expect(clippy::cast_possible_truncation, reason = "16 bits of tick are kept")]
fn is_old<W: Word>(way: &[W], tick: u64, limit: u16) -> bool {
    let age = (tick as u16).wrapping_sub(way[DIGEST].load() as u16);
    age.wrapping_add(1) > limit + 1
}

/// Erases the entries of a bucket that are to go. True: there was one. A program that replaces an entry
/// at the same moment may lose its own, which costs a packet a hint.
fn erase<W: Word>(bucket: &Bucket<W>, goes: impl Fn(&[W]) -> bool) -> bool {
    let mut found = false;
    for way in 0..WAYS {
        let way = &bucket[way * WORDS..][..WORDS];
        let digest = way[DIGEST].load();
        if digest != 0 && goes(way) && way[DIGEST].replace(digest, 0) {
            found = true;
            for word in &way[DETAILS..] {
                word.store(0);
            }
        }
    }
    found
}

/// The numbers in the constants of programs.
fn in_programs(config: &Config) -> Numbers {
    let mut used = Numbers::default();
    if config.several_vips == 0 {
        // The programs for one VIP write zeros.
        used.add(0, 0);
    }
    for vip in config.vips.vips.iter().filter(|vip| vip.address != [0; 4]) {
        used.add(vip.service, vip.number);
    }
    used
}

#[cfg(test)]
#[path = "removal_tests.rs"]
mod tests;
