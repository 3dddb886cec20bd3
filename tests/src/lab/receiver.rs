//! A receiver that records which packets of [`super::sender`] arrived.

use std::io::ErrorKind;
use std::net::{SocketAddrV4, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::background::Background;
use super::udp_pair::receive;

/// This many consecutive packets are a flow; fewer are stragglers.
pub const ENOUGH: u32 = 100;

/// What a receiver has seen so far.
#[derive(Debug, Default)]
struct Seen {
    packets: AtomicU64,
    highest: AtomicU32,
    later: Mutex<Later>,
    /// Why it has ended before it was stopped.
    failure: OnceLock<String>,
}

/// The packets whose sequence number is above `mark`.
#[derive(Debug, Default)]
struct Later {
    mark: u32,
    packets: u32,
}

/// A thread that records which sequence numbers of a flow arrive.
#[derive(Debug)]
pub struct Receiver {
    seen: Arc<Seen>,
    thread: Background<Received>,
}

/// The outcome.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Received {
    /// Sequence numbers that came at least once.
    pub distinct: u32,
    /// Duplicates.
    pub duplicates: u32,
    /// The highest sequence number.
    pub highest: u32,
    /// Ranges that never came below the highest, first and last.
    pub missing: Vec<(u32, u32)>,
    /// Packets with another SPI, or from another address.
    pub foreign: u32,
}

impl Receiver {
    /// Listens on `socket` for `spi` from `from`.
    pub fn start(socket: UdpSocket, from: SocketAddrV4, spi: u32) -> Result<Self> {
        socket
            .set_read_timeout(Some(Duration::from_millis(20)))
            .context("failed to set a timeout")?;
        let seen = Arc::new(Seen::default());
        let shared = Arc::clone(&seen);
        let receive = move |stop: &AtomicBool| receive_until(&socket, (from, spi), &shared, stop);
        let thread = Background::start(receive);
        Ok(Self { seen, thread })
    }

    /// Waits until `sent` packets have come, or nothing has come for a second, and ends it.
    pub fn finish(self, sent: u32) -> Result<Received> {
        let mut last = (0, Instant::now());
        loop {
            let packets = self.packets();
            if packets > last.0 {
                last = (packets, Instant::now());
            }
            if packets >= u64::from(sent) || last.1.elapsed() > Duration::from_secs(1) {
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        // One more moment for what should not come: duplicates.
        std::thread::sleep(Duration::from_millis(50));
        self.thread.end().context("the receiver")
    }

    /// From now on [`Self::later`] counts the packets with a higher sequence number.
    pub fn mark(&self, sequence: u32) {
        *self.seen.later.lock().expect("no one panics with the lock") = Later {
            mark: sequence,
            packets: 0,
        };
    }

    /// How many packets with a sequence number above the mark have come since it was set.
    pub fn later(&self) -> u32 {
        self.seen
            .later
            .lock()
            .expect("no one panics with the lock")
            .packets
    }

    /// What it is doing, for a failure.
    pub fn state(&self) -> String {
        let highest = self.seen.highest.load(Ordering::Relaxed);
        let packets = self.packets();
        let failure = self.seen.failure.get();
        let receiver = failure.map_or("runs", String::as_str);
        format!("the receiver {receiver}, {packets} packets have come, {highest} is the highest")
    }

    /// How many packets of the flow have come so far.
    pub fn packets(&self) -> u64 {
        self.seen.packets.load(Ordering::Relaxed)
    }
}

fn receive_until(
    socket: &UdpSocket,
    (from, spi): (SocketAddrV4, u32),
    seen: &Seen,
    stop: &AtomicBool,
) -> Result<Received> {
    let mut came = Bits::default();
    let (mut duplicates, mut foreign) = (0, 0);
    let mut buffer = [0; 2048];
    while !stop.load(Ordering::Relaxed) {
        let (length, source) = match receive(socket, &mut buffer) {
            Ok(packet) => packet,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                continue;
            }
            Err(error) => {
                _ = seen.failure.set(format!("has ended: {error}"));
                return Err(error).context("failed to receive");
            }
        };
        let word = |at: usize| {
            let bytes = buffer.get(at..at + 4).filter(|_| at + 4 <= length)?;
            Some(u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
        };
        match (word(0), word(4)) {
            (Some(its), Some(sequence)) if its == spi && source == from.into() => {
                duplicates += u32::from(!came.insert(sequence));
                seen.highest.fetch_max(sequence, Ordering::Relaxed);
                seen.packets.fetch_add(1, Ordering::Relaxed);
                let mut later = seen.later.lock().expect("no one panics with the lock");
                later.packets += u32::from(sequence > later.mark);
            }
            _ => foreign += 1,
        }
    }
    let highest = seen.highest.load(Ordering::Relaxed);
    let missing = came.missing(highest);
    Ok(Received {
        distinct: came.count,
        duplicates,
        highest,
        missing,
        foreign,
    })
}

impl Received {
    /// The number of packets, of `sent` packets, that the longest outage lost. A few packets that
    /// arrive during it by another path do not end it: only a continuous flow does.
    pub fn longest_outage(&self, sent: u32) -> u32 {
        let tail = (self.highest < sent).then_some((self.highest + 1, sent));
        let mut outage: Option<(u32, u32)> = None;
        let mut longest = 0;
        for (first, last) in self.missing.iter().copied().chain(tail) {
            let begin = match outage {
                Some((begin, end)) if first - end - 1 < ENOUGH => begin,
                _ => first,
            };
            outage = Some((begin, last));
            longest = longest.max(last - begin + 1);
        }
        longest
    }
}

/// A set of sequence numbers.
#[derive(Default)]
struct Bits {
    words: Vec<u64>,
    count: u32,
}

impl Bits {
    /// Whether the number is new.
    fn insert(&mut self, number: u32) -> bool {
        let (word, bit) = ((number / 64) as usize, 1 << (number % 64));
        if self.words.len() <= word {
            self.words.resize(word + 1, 0);
        }
        let new = self.words[word] & bit == 0;
        self.words[word] |= bit;
        self.count += u32::from(new);
        new
    }

    fn has(&self, number: u32) -> bool {
        self.words
            .get((number / 64) as usize)
            .is_some_and(|word| word >> (number % 64) & 1 == 1)
    }

    fn missing(&self, highest: u32) -> Vec<(u32, u32)> {
        let mut ranges: Vec<(u32, u32)> = Vec::new();
        for number in (1..=highest).filter(|&number| !self.has(number)) {
            match ranges.last_mut() {
                Some(range) if range.1 + 1 == number => range.1 = number,
                _ => ranges.push((number, number)),
            }
        }
        ranges
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_in_between_does_not_end_an_outage() {
        let received = |missing: &[(u32, u32)], highest| Received {
            distinct: 0,
            duplicates: 0,
            highest,
            missing: missing.to_vec(),
            foreign: 0,
        };
        assert_eq!(received(&[], 500).longest_outage(500), 0);
        assert_eq!(received(&[(3, 4)], 500).longest_outage(500), 2);
        assert_eq!(
            received(&[(100, 199), (201, 299)], 900).longest_outage(900),
            200
        );
        // So many in a row are a flow, one less are not.
        let flow = [(100, 199), (200 + ENOUGH, 210 + ENOUGH)];
        assert_eq!(received(&flow, 900).longest_outage(900), 100);
        let less = [(100, 199), (199 + ENOUGH, 210 + ENOUGH)];
        assert_eq!(received(&less, 900).longest_outage(900), 111 + ENOUGH);
        // What is lost at the end is lost too.
        assert_eq!(received(&[(100, 199)], 200).longest_outage(400), 301);
        assert_eq!(received(&[], 300).longest_outage(400), 100);
    }

    #[test]
    fn the_set_knows_what_is_missing() {
        let mut bits = Bits::default();
        for number in [1, 2, 5, 6, 64, 66] {
            assert!(bits.insert(number));
        }
        assert!(!bits.insert(64));
        assert_eq!(bits.count, 6);
        assert_eq!(bits.missing(66), [(3, 4), (7, 63), (65, 65)]);
    }
}
