//! Numbered ESP-in-UDP packets at a steady rate.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::sys::socket::{setsockopt, sockopt};

use super::background::Background;
use super::netns::Namespace;

/// Bytes from the SPI on; with the headers around them a frame of 110 bytes.
const PAYLOAD: usize = 68;
/// The receive buffer for packets that arrive while the receiver does not run.
const BUFFER: usize = 256 << 20;
/// A quarter of what the ring of a veth holds: two senders may share it.
const BURST: u128 = 64;
const TICK: Duration = Duration::from_millis(1);
/// One flow of ESP in UDP.
#[derive(Clone, Copy, Debug)]
pub struct Flow {
    /// Where it comes from.
    pub from: SocketAddrV4,
    /// Where the sender sends it.
    pub to: SocketAddrV4,
    /// Its SPI.
    pub spi: u32,
}

impl Flow {
    /// A flow between two ports 4500.
    pub fn natt(from: Ipv4Addr, to: Ipv4Addr, spi: u32) -> Self {
        Self {
            from: SocketAddrV4::new(from, 4500),
            to: SocketAddrV4::new(to, 4500),
            spi,
        }
    }
}

/// A UDP socket inside a namespace.
pub fn socket_in(namespace: &Namespace, at: SocketAddrV4) -> Result<UdpSocket> {
    namespace.enter(|| {
        let socket = UdpSocket::bind(at).with_context(|| format!("failed to bind {at}"))?;
        setsockopt(&socket, sockopt::RcvBufForce, &BUFFER)
            .context("failed to enlarge a receive buffer")?;
        Ok(socket)
    })
}

/// A thread that sends a flow until it is stopped. Its port is free when it is dropped.
#[derive(Debug)]
pub struct Sender {
    /// The sequence number of the packet that is being sent, or was sent last.
    sequence: Arc<AtomicU32>,
    thread: Background<u32>,
}

impl Sender {
    /// Sends `rate` packets a second from `socket`, with sequence numbers from 1 on.
    pub fn start(socket: UdpSocket, flow: Flow, rate: u32) -> Self {
        let sequence = Arc::new(AtomicU32::new(0));
        let shared = Arc::clone(&sequence);
        let send = move |stop: &AtomicBool| send_until(&socket, flow, rate, (&shared, stop));
        let thread = Background::start(send);
        Self { sequence, thread }
    }

    /// The highest sequence number so far: a packet with a higher one is sent after this call.
    pub fn sequence(&self) -> u32 {
        self.sequence.load(Ordering::SeqCst)
    }

    /// Ends it and returns the number of packets sent.
    pub fn stop(self) -> Result<u32> {
        self.thread.end().context("the sender")
    }
}

fn send_until(
    socket: &UdpSocket,
    flow: Flow,
    rate: u32,
    (sequence, stop): (&AtomicU32, &AtomicBool),
) -> Result<u32> {
    let mut packet = [0xA5; PAYLOAD];
    packet[..4].copy_from_slice(&flow.spi.to_be_bytes());
    let began = Instant::now();
    let mut sent = 0_u32;
    while !stop.load(Ordering::Relaxed) {
        let due = began.elapsed().as_micros() * u128::from(rate) / 1_000_000;
        // After a pause it catches up, but not with everything at once: a burst longer than the
        // ring of a veth would be lost before it reaches the gateway.
        let burst = due.min(u128::from(sent) + BURST);
        while u128::from(sent) < burst {
            sent += 1;
            sequence.store(sent, Ordering::SeqCst);
            packet[4..8].copy_from_slice(&sent.to_be_bytes());
            match socket.send_to(&packet, flow.to) {
                Ok(_) => {}
                // The interface is gone: the packet counts as sent, and its receiver will report it
                // as lost.
                Err(error) if is_without_a_way(&error) => {}
                Err(error) => {
                    return Err(error)
                        .with_context(|| format!("failed to send packet {sent} to {}", flow.to));
                }
            }
        }
        if burst < due {
            std::thread::yield_now();
        } else {
            std::thread::sleep(TICK);
        }
    }
    Ok(sent)
}

fn is_without_a_way(error: &std::io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::NetworkUnreachable | ErrorKind::NetworkDown | ErrorKind::HostUnreachable
    )
}
