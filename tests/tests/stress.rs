//! Concurrent counting and expiry: two CPUs count in the kernel while user space retires entries.
//! No count is lost, and none goes to another SPI.
//!
//! Every SPI has a packet length of its own, so a count in the wrong slot shows in its bytes, and a
//! sequence number of its own, so a cold half that belongs to another hot one shows as well.

use anyhow::{Context, Result, ensure};
use ikenat_tests::bpf::{Dataplane, fixture, with_sizes};
use ikenat_tests::lab::frames::Packet;
use ikenat_tests::lab::topology::{LAN, LAN_MAC, SERVER, SERVER_MAC, WAN, with_lab};
use ikenat_tests::lab::{Lab, Options, cleanup};
use ikenat_tests::suite::{not_root, test};
use libtest_mimic::Arguments;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;
use xdp_common::counters::{self, Quantity};
use xdp_common::slot::{Contents, STATE, flow, one_spi, session};
use xdp_common::{Class, Config, Direction, Hook, meta};
use xdp_core::Word;
use xdp_core::table::{self, Halves, State};
use xdp_user::tables::grace::GracePeriod;
use xdp_user::tables::mmap::{FLOW, Memory, SESSION, SlotMemory};

const SPIS: u32 = 40;
const PACKETS_PER_CPU: u32 = 1_000_000;
/// More SPIs than one session may have at a time.
const LEAST_RETIRED: u64 = 1_100;

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    if let Err(error) = cleanup::on_interruption() {
        eprintln!("{error:#}");
        return ExitCode::FAILURE;
    }
    let one_cpu = || thread::available_parallelism().is_ok_and(|cpus| cpus.get() < 2);
    let obstacle = not_root().or_else(|| one_cpu().then(|| "one CPU only".to_owned()));
    let name = "two CPUs count while entries are retired";
    let test = test(name, obstacle, || with_lab(Options::default(), stress));
    libtest_mimic::run(&arguments, vec![test]).exit_code()
}

const FIRST_SPI: u32 = 0x1000;
const FIRST_LENGTH: usize = 8;

/// The server's ESP for an SPI: native, `FIRST_LENGTH` bytes and one more for each SPI. All have the
/// same sequence number, that of the SPI: each after the first one is counted in the cold half too.
fn frame(number: u32) -> Vec<u8> {
    let mut payload = vec![0; FIRST_LENGTH + number as usize];
    for word in payload.chunks_exact_mut(4).take(2) {
        word.copy_from_slice(&(FIRST_SPI + number).to_be_bytes());
    }
    let peer = Ipv4Addr::new(198, 51, 100, 1);
    let packet = Packet::raw(
        SERVER,
        peer,
        ikenat_tests::lab::frames::protocol::ESP,
        payload,
    );
    packet.with_macs(LAN_MAC, SERVER_MAC).build()
}

/// Runs packets on one CPU: how many of each SPI.
fn write(dataplane: &Dataplane, config: &Config, cpu: usize) -> Result<Vec<u64>> {
    let mut set = CpuSet::new();
    set.set(cpu)?;
    sched_setaffinity(Pid::from_raw(0), &set).context("failed to bind to a CPU")?;
    let frames: Vec<Vec<u8>> = (0..SPIS).map(frame).collect();
    let mut sent = vec![0; frames.len()];
    let mut state = 0x9e37_79b9_u32 ^ u32::try_from(cpu)?;
    for _ in 0..PACKETS_PER_CPU {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let number = (state >> 16) as usize % frames.len();
        let run = dataplane.xdp(config.lan_ifindex, &frames[number])?;
        ensure!(
            run.action == 4,
            "a packet was not forwarded: action {}",
            run.action
        );
        sent[number] += 1;
    }
    Ok(sent)
}

/// Packets, bytes and slots, per SPI.
type Book = BTreeMap<u32, (u64, u64, u64)>;

fn enter(book: &mut Book, words: &Contents) -> Result<()> {
    check_halves(words)?;
    let spi = words.spi();
    let (packets, reordered) = (words.hot[flow::PACKETS], words.cold[flow::REORDERED]);
    ensure!(
        packets == reordered + 1,
        "SPI {spi:#x}: {packets} packets in the hot half, {reordered} but the first in the cold one"
    );
    let entry = book.entry(spi).or_default();
    entry.0 += words.hot[flow::PACKETS];
    entry.1 += words.hot[flow::BYTES];
    entry.2 += 1;
    Ok(())
}

/// Both halves are of one life.
fn check_halves(words: &Contents) -> Result<()> {
    let (spi, first) = (words.spi(), words.cold[flow::FIRST] >> 32);
    ensure!(
        first == u64::from(spi),
        "SPI {spi:#x} has the cold half of {first:#x}"
    );
    Ok(())
}

/// Maps both halves of FLOW or SESSION.
fn slots(dataplane: &Dataplane, [hot, cold]: [&str; 2]) -> Result<SlotMemory<AtomicU64>> {
    let memory = |name| anyhow::Ok(Memory::of(dataplane.map_data(name)?, name)?);
    let (hot, cold) = (memory(hot)?, memory(cold)?);
    Ok(SlotMemory { hot, cold })
}

/// Reads all slots again and again. Returns how many snapshots were taken.
fn read(dataplane: &Dataplane, done: &AtomicBool) -> Result<u64> {
    let flows = slots(dataplane, FLOW)?;
    let mut taken = 0;
    while !done.load(Ordering::Acquire) {
        for words in flows.arrays().iter().filter_map(table::snapshot) {
            check_halves(&words)?;
            taken += 1;
        }
        // There may be two CPUs only, and the writers have them.
        thread::sleep(Duration::from_millis(1));
    }
    Ok(taken)
}

fn is_live(slot: &Halves<'_, AtomicU64>) -> bool {
    State::of(Word::load(&slot.hot[STATE])) == State::Live
}

/// Retires every live slot again and again until the writers are done.
fn expire(dataplane: &Dataplane, done: &AtomicBool) -> Result<Book> {
    let (flows, sessions) = (slots(dataplane, FLOW)?, slots(dataplane, SESSION)?);
    let meta = Memory::<AtomicU64>::of(dataplane.map_data("META")?, "META")?;
    let grace = GracePeriod::choose()?;
    let mut book = Book::new();
    while !done.load(Ordering::Acquire) {
        let live: Vec<_> = flows.arrays().iter().filter(is_live).collect();
        for slot in &live {
            ensure!(
                table::retire(slot.hot, Word::load(&slot.hot[STATE])),
                "only this thread retires"
            );
        }
        grace.wait()?;
        for slot in live {
            let words = table::snapshot(slot).context("failed to read a dying slot")?;
            enter(&mut book, &words)?;
            table::free(slot);
            Word::add(&meta.words()[meta::FLOW_ENTRIES], 1_u64.wrapping_neg());
            // Otherwise the session would soon have had as many SPIs as it may have.
            for session in sessions.arrays().iter().filter(is_live) {
                let one = one_spi(Direction::Outbound);
                Word::add(&session.hot[session::SPIS], one.wrapping_neg());
            }
        }
    }
    Ok(book)
}

fn stress(lab: &Lab) -> Result<()> {
    let config = with_sizes(fixture::prepare(lab)?, 64, 64);
    lab.gateway.enter(|| {
        let mut dataplane = Dataplane::load(&config)?;
        dataplane.attach(WAN)?;
        dataplane.attach(LAN)?;
        let done = AtomicBool::new(false);
        let (sent, mut book) = thread::scope(|scope| -> Result<_> {
            let expirer = scope.spawn(|| expire(&dataplane, &done));
            let reader = scope.spawn(|| read(&dataplane, &done));
            let writers = [0, 1].map(|cpu| {
                let (dataplane, config) = (&dataplane, &config);
                scope.spawn(move || write(dataplane, config, cpu))
            });
            let sent: Vec<_> = writers.into_iter().map(|writer| writer.join()).collect();
            done.store(true, Ordering::Release);
            let book = expirer.join();
            let read = reader
                .join()
                .map_err(|_| anyhow::anyhow!("the reader panicked"))??;
            ensure!(
                read > LEAST_RETIRED,
                "only {read} slots were read meanwhile"
            );
            let mut total = vec![0; SPIS as usize];
            for counts in sent {
                let counts = counts.map_err(|_| anyhow::anyhow!("a writer panicked"))??;
                for (sum, count) in total.iter_mut().zip(counts) {
                    *sum += count;
                }
            }
            Ok((
                total,
                book.map_err(|_| anyhow::anyhow!("the expirer panicked"))??,
            ))
        })?;
        let retired: u64 = book.values().map(|entry| entry.2).sum();
        ensure!(
            retired >= LEAST_RETIRED,
            "only {retired} slots were retired: this proves little"
        );
        for words in slots(&dataplane, FLOW)?
            .arrays()
            .iter()
            .filter_map(table::snapshot)
        {
            enter(&mut book, &words)?;
        }
        check(&book, &sent, &dataplane)?;
        println!(
            "{retired} slots were retired under {} packets",
            2 * PACKETS_PER_CPU
        );
        Ok(())
    })
}

fn check(book: &Book, sent: &[u64], dataplane: &Dataplane) -> Result<()> {
    let mut missing = 0;
    for (number, sent) in sent.iter().enumerate() {
        let spi = FIRST_SPI + u32::try_from(number)?;
        let (packets, bytes, _) = book.get(&spi).copied().unwrap_or_default();
        let length = (20 + FIRST_LENGTH + number) as u64;
        ensure!(
            bytes == packets * length,
            "SPI {spi:#x}: {packets} packets of {length} bytes, but {bytes} bytes"
        );
        ensure!(
            packets <= *sent,
            "SPI {spi:#x}: {packets} counted, {sent} sent"
        );
        missing += sent - packets;
    }
    ensure!(book.len() == sent.len(), "{} SPIs were counted", book.len());
    let at = counters::class(Direction::Outbound, Class::Esp);
    let counters = dataplane.counters(Hook::Xdp)?;
    let untracked = counters[at + Quantity::UntrackedPackets as usize];
    ensure!(
        counters[at] == sent.iter().sum::<u64>() && untracked == missing,
        "{} packets, {untracked} untracked, but {missing} are missing from the SPIs",
        counters[at]
    );
    Ok(())
}
