//! Programs of the benchmark: a generator, a sink that verifies what arrives, a gateway that only
//! redirects, and a broken one.
//!
//! The kernel reuses the pages of live frames without restoring them, so the generator writes the whole
//! header every time.

#![no_std]
#![no_main]
#![expect(
    clippy::cast_possible_truncation,
    reason = "numbers, bytes and ages are meant to wrap; what else is cast is small"
)]

// A single-file crate looks for its modules beside it, where Cargo would treat this file as a
// program.
#[path = "bench/gateways.rs"]
mod gateways;

use aya_ebpf::bindings::xdp_action;
use aya_ebpf::macros::{map, xdp};
use aya_ebpf::maps::{Array, PerCpuArray};
use aya_ebpf::programs::XdpContext;
use core::hint::black_box;
use ikenat_bench_abi::traffic::{self, HEADER, KINDS, Pace, Spec, Tally, Wrong};
use xdp_core::Frame;
use xdp_core::checksum::fold;
use xdp_ebpf::frame::xdp::XdpFrame;
use xdp_ebpf::{helpers, maps};

/// Kinds of packets to send.
#[map]
static SEND: Array<Spec> = Array::with_max_entries(KINDS as u32, 0);

/// The same kinds as they must arrive.
#[map]
static EXPECT: Array<Spec> = Array::with_max_entries(KINDS as u32, 0);

/// What each CPU has sent and received.
#[map]
static TALLY: PerCpuArray<Tally> = PerCpuArray::with_max_entries(1, 0);

/// The schedule of each CPU, if it sends at a pace.
#[map]
static PACE: PerCpuArray<Pace> = PerCpuArray::with_max_entries(1, 0);

/// The most reads of the clock while waiting for a burst to be due: about 100 us.
const TURNS: u32 = 3000;

/// The IPv4 identification stays below this: a multiple of a hundred, so that it determines the
/// kind in a mix.
const PERIOD: u64 = 65_500;

const CHECKSUM_AT: usize = 24;
const IP_AT: usize = 14;
const ID_AT: usize = 18;
const TTL_AT: usize = 22;
const UDP_AT: usize = 34;

/// The kind of the packet with this identification.
#[inline(always)]
fn kind(id: u64, others: u32) -> u32 {
    let place = (id % 100) as u32;
    // Spread over the hundred, not consecutive.
    match place {
        10 if others != 0 => 1,
        40 if others != 0 => 2,
        70 if others != 0 => 3,
        _ => 0,
    }
}

/// The checksum field for a sum and the varying words.
#[inline(always)]
fn finish(sum: u32, varying: u64) -> u16 {
    !fold(u64::from(sum) + varying)
}

#[inline(always)]
fn words(value: u32) -> u64 {
    u64::from(value >> 16) + u64::from(value & 0xffff)
}

/// An offset with bounds that the verifier can follow.
#[inline(always)]
fn place(at: u16) -> usize {
    black_box(usize::from(at) & 63)
}

#[inline(always)]
fn put<const N: usize>(frame: &mut impl Frame, at: usize, bytes: [u8; N]) -> Option<()> {
    *frame.array_mut::<N>(at)? = bytes;
    Some(())
}

/// Copies a header word by word: a plain copy becomes a call that copies byte by byte.
#[inline(always)]
fn put_header<F: Frame>(frame: &mut F, header: &[u8; HEADER]) -> Option<()> {
    let to = frame.array_mut::<HEADER>(0)?;
    F::put64::<0, HEADER>(to, F::get64::<0, HEADER>(header));
    F::put64::<8, HEADER>(to, F::get64::<8, HEADER>(header));
    F::put64::<16, HEADER>(to, F::get64::<16, HEADER>(header));
    F::put64::<24, HEADER>(to, F::get64::<24, HEADER>(header));
    F::put64::<32, HEADER>(to, F::get64::<32, HEADER>(header));
    F::put64::<40, HEADER>(to, F::get64::<40, HEADER>(header));
    F::put64::<48, HEADER>(to, F::get64::<48, HEADER>(header));
    F::put32::<56, HEADER>(to, F::get32::<56, HEADER>(header));
    Some(())
}

/// Writes the next packet. `stamp` gives the time stamp, for kinds that carry one.
#[inline(always)]
fn generate<F: Frame>(frame: &mut F, stamp: impl FnOnce() -> u64) -> Option<()> {
    let tally = maps::own(&TALLY, 0)?;
    let number = tally.sent;
    tally.sent += 1;
    let id = number % PERIOD;
    let spec = SEND.get(kind(id, SEND.get(0)?.others))?;
    // Every flow once per period, in an order that no table's hash follows.
    let step = (number as u32).wrapping_mul(0x9e37_79b1);
    let flow = (step << (spec.cpu_shift & 1) | helpers::cpu() & spec.cpu_shift) & spec.flow_mask;
    let peer = spec.peer.wrapping_add(flow);
    let spi = spec.spi.wrapping_add(flow);
    // By one from packet to packet of a flow: numbers far from the last one are rare packets.
    let sequence = number as u32 >> (spec.flow_bits & 31);
    put_header(frame, &spec.header)?;
    put(frame, ID_AT, (id as u16).to_be_bytes())?;
    put(frame, place(spec.peer_at), peer.to_be_bytes())?;
    let ip = finish(spec.ip_sum, words(peer) + id);
    put(frame, CHECKSUM_AT, ip.to_be_bytes())?;
    if spec.esp_at != traffic::NONE {
        put(frame, place(spec.esp_at), spi.to_be_bytes())?;
        put(frame, place(spec.esp_at) + 4, sequence.to_be_bytes())?;
    }
    if spec.checksum_at != traffic::NONE {
        let esp = if spec.esp_at == traffic::NONE {
            0
        } else {
            words(spi) + words(sequence)
        };
        let sum = match finish(spec.udp_sum, words(peer) + esp) {
            0 => 0xffff,
            sum => sum,
        };
        put(frame, place(spec.checksum_at), sum.to_be_bytes())?;
    }
    if spec.stamp_at != traffic::NONE {
        put(frame, place(spec.stamp_at), stamp().to_ne_bytes())?;
    }
    Some(())
}

/// Sends a packet on the interface that the test run names as its ingress.
#[xdp]
fn ikenat_generate(mut context: XdpContext) -> u32 {
    match generate(&mut XdpFrame::plain(&mut context), helpers::nanoseconds) {
        Some(()) => xdp_action::XDP_TX,
        None => xdp_action::XDP_ABORTED,
    }
}

/// Waits until the burst of the next packet is due, and returns the time at which it was due.
#[inline(always)]
fn due() -> Option<u64> {
    let pace = maps::own(&PACE, 0)?;
    if pace.place == 0 {
        let mut now = helpers::nanoseconds();
        if pace.next == 0 {
            pace.next = now;
        }
        let late = now.saturating_sub(pace.next);
        if late > pace.patience {
            let missed = (late - pace.patience).checked_div(pace.gap)? + 1;
            pace.missed += missed;
            pace.next += missed * pace.gap;
        }
        pace.due = pace.next;
        pace.next += pace.gap;
        let mut turns = 0;
        while now < pace.due && turns < TURNS {
            now = helpers::nanoseconds();
            turns += 1;
        }
        pace.early += u64::from(now < pace.due);
    }
    pace.place += 1;
    if pace.place >= pace.burst {
        pace.place = 0;
    }
    Some(pace.due)
}

/// The same at a pace. The time stamp of a packet is when it was due, so its wait counts.
#[xdp]
fn ikenat_pace(mut context: XdpContext) -> u32 {
    let sent = due().and_then(|due| generate(&mut XdpFrame::plain(&mut context), || due));
    match sent {
        Some(()) => xdp_action::XDP_TX,
        None => xdp_action::XDP_ABORTED,
    }
}

#[inline(always)]
fn word(bytes: &[u8], at: usize) -> u64 {
    u64::from(u16::from_be_bytes([bytes[at], bytes[at + 1]]))
}

#[inline(always)]
fn number(bytes: [u8; 4]) -> u32 {
    u32::from_be_bytes(bytes)
}

/// Checks the addresses: the fixed one must be that of the specification, the varying one that of a
/// flow. Returns the peer and the flow.
#[inline(always)]
fn addresses(frame: &impl Frame, spec: &Spec) -> Result<(u32, u32), Wrong> {
    let fixed_at = if spec.peer_at == traffic::PEER_AS_SOURCE {
        traffic::PEER_AS_DESTINATION
    } else {
        traffic::PEER_AS_SOURCE
    };
    let fixed = frame.array::<4>(place(fixed_at)).ok_or(Wrong::Length)?;
    let at = usize::from(fixed_at) & 63;
    let Some(expected) = spec.header.get(at..at + 4) else {
        return Err(Wrong::Address);
    };
    let peer = number(*frame.array::<4>(place(spec.peer_at)).ok_or(Wrong::Length)?);
    let flow = peer.wrapping_sub(spec.peer);
    if *fixed != [expected[0], expected[1], expected[2], expected[3]] || flow > spec.flow_mask {
        return Err(Wrong::Address);
    }
    Ok((peer, flow))
}

/// Checks the IPv4 header except for its addresses.
#[inline(always)]
fn ip_header(frame: &impl Frame, spec: &Spec) -> Result<(), Wrong> {
    let ip = frame.array::<20>(IP_AT).ok_or(Wrong::Length)?;
    let sum = word(ip, 0) + word(ip, 2) + word(ip, 4) + word(ip, 6) + word(ip, 8);
    let sum = sum + word(ip, 10) + word(ip, 12) + word(ip, 14) + word(ip, 16) + word(ip, 18);
    if fold(sum) != 0xffff {
        return Err(Wrong::IpChecksum);
    }
    let want = &spec.header;
    let ttl = want[TTL_AT].wrapping_sub(spec.hops as u8);
    if ip[0] != want[14]
        || word(ip, 2) != word(want, 16)
        || word(ip, 6) != word(want, 20)
        || ip[8] != ttl
        || ip[9] != want[23]
    {
        return Err(Wrong::IpField);
    }
    Ok(())
}

/// Checks everything after the IPv4 header.
#[inline(always)]
fn beyond(frame: &impl Frame, spec: &Spec, peer: u32, flow: u32, id: u64) -> Result<(), Wrong> {
    let mut varying = words(peer);
    if spec.esp_at != traffic::NONE {
        let at = place(spec.esp_at);
        let spi = number(*frame.array::<4>(at).ok_or(Wrong::Length)?);
        let sequence = number(*frame.array::<4>(at + 4).ok_or(Wrong::Length)?);
        let in_order = spec.flow_mask != 0 || u64::from(sequence) % PERIOD == id;
        if spi != spec.spi.wrapping_add(flow) || !in_order {
            return Err(Wrong::Payload);
        }
        varying += words(spi) + words(sequence);
    }
    if spec.header[23] == 17 {
        let udp = frame.array::<8>(UDP_AT).ok_or(Wrong::Length)?;
        let want = &spec.header;
        if word(udp, 0) != word(want, 34)
            || word(udp, 2) != word(want, 36)
            || word(udp, 4) != word(want, 38)
        {
            return Err(Wrong::Header);
        }
        let sum = if spec.checksum_at == traffic::NONE {
            0
        } else {
            match finish(spec.udp_sum, varying) {
                0 => 0xffff,
                sum => u64::from(sum),
            }
        };
        if word(udp, 6) != sum {
            return Err(Wrong::UdpChecksum);
        }
    }
    if spec.esp_at == traffic::NONE {
        rest(frame, spec)
    } else if id & 0xff == 0 {
        // One packet in 256 is checked to its last byte.
        payload(frame)
    } else {
        Ok(())
    }
}

/// Checks what follows the UDP header in a packet without ESP: in a keepalive its last byte and the
/// bytes before it (the kernel removes the padding of the frame), otherwise up to the end of the
/// header.
#[inline(always)]
fn rest(frame: &impl Frame, spec: &Spec) -> Result<(), Wrong> {
    let same = if word(&spec.header, 16) == 29 {
        let bytes = frame.array::<4>(39).ok_or(Wrong::Length)?;
        // Word by word: a comparison of the whole becomes a call of `bcmp`, where the verifier
        // loses track of the pointers.
        word(bytes, 0) == word(&spec.header, 39) && word(bytes, 2) == word(&spec.header, 41)
    } else {
        let bytes = frame.array::<18>(42).ok_or(Wrong::Length)?;
        let mut at = 0;
        while at < 18 && word(bytes, at) == word(&spec.header, 42 + at) {
            at += 2;
        }
        at == 18
    };
    if same { Ok(()) } else { Err(Wrong::Header) }
}

/// Checks the payload after the header: each byte is its offset in the frame.
#[inline(always)]
fn payload(frame: &impl Frame) -> Result<(), Wrong> {
    let mut at = HEADER;
    while at < 1518 {
        let Some(bytes) = frame.array::<2>(black_box(at)) else {
            break;
        };
        if *bytes != [at as u8, (at + 1) as u8] {
            return Err(Wrong::Payload);
        }
        at += 2;
    }
    Ok(())
}

#[inline(always)]
fn check(frame: &impl Frame, spec: &Spec, id: u64) -> Result<(), Wrong> {
    let length = frame.length();
    // With or without the padding.
    if length != spec.length as usize && length != 14 + word(&spec.header, 16) as usize {
        return Err(Wrong::Length);
    }
    ip_header(frame, spec)?;
    let (peer, flow) = addresses(frame, spec)?;
    beyond(frame, spec, peer, flow, id)
}

/// Checks a packet and counts it. `None`: it is not the generator's, being ICMP or not IPv4.
#[inline(always)]
fn sink(frame: &impl Frame) -> Option<()> {
    let start = frame.array::<24>(0)?;
    if start[12..14] != [8, 0] || start[23] == 1 {
        return None;
    }
    let id = u64::from(u16::from_be_bytes([start[ID_AT], start[ID_AT + 1]]));
    let tally = maps::own(&TALLY, 0)?;
    let spec = EXPECT.get(kind(id, EXPECT.get(0)?.others))?;
    if let Err(wrong) = check(frame, spec, id) {
        let count = tally.wrong.get_mut(wrong as usize)?;
        *count += 1;
        return Some(());
    }
    tally.arrived += 1;
    let next = if tally.last + 1 == PERIOD {
        0
    } else {
        tally.last + 1
    };
    if id != next {
        tally.gaps += 1;
    }
    tally.last = id;
    if spec.stamp_at != traffic::NONE {
        let sent = u64::from_ne_bytes(*frame.array::<8>(place(spec.stamp_at))?);
        let age = helpers::nanoseconds().wrapping_sub(sent);
        let age = age.min(0xffff_ffff) as u32;
        let count = tally.ages.get_mut(black_box(traffic::bucket(age)))?;
        *count += 1;
    }
    Some(())
}

/// Verifies, counts and drops the generator's packets; passes all others to the stack.
#[xdp]
fn ikenat_sink(mut context: XdpContext) -> u32 {
    match sink(&XdpFrame::plain(&mut context)) {
        Some(()) => xdp_action::XDP_DROP,
        None => xdp_action::XDP_PASS,
    }
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // The verifier rejects a program that can reach this.
    loop {}
}
