//! A load of one tunnel: ESP in UDP in both directions at once, and the check that no packet is
//! lost.

use std::fmt::{self, Display, Formatter};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::direction::Direction;
use super::json::InstanceStats;
use super::receiver::{ENOUGH, Received, Receiver};
use super::sender::{Flow, Sender, socket_in};
use super::topology::{CLIENT, Lab, SERVER, VIP};

/// SPI from the client to the server.
pub const SPI_IN: u32 = 0xC0DE_0001;
/// SPI from the server to the client.
pub const SPI_OUT: u32 = 0xC0DE_0002;

/// The maximum transit time of a packet without a fault.
const PATIENCE: Duration = Duration::from_secs(3);

/// Running traffic.
#[derive(Debug)]
pub struct Load {
    senders: [Sender; 2],
    receivers: [Receiver; 2],
    rates: [u32; 2],
}

/// The losses in one direction.
#[derive(Clone, Copy, Debug)]
pub struct Loss {
    /// Packets that were sent.
    pub sent: u32,
    /// Of these, the packets that never arrived.
    pub lost: u32,
    /// The longest outage: a single packet that arrives meanwhile does not end it.
    pub outage: Duration,
    /// Duplicates.
    pub duplicates: u32,
    /// Packets of another sender.
    pub foreign: u32,
}

impl Display for Loss {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self {
            sent,
            lost,
            outage,
            foreign,
            ..
        } = self;
        write!(f, "lost {lost} of {sent}")?;
        if *lost > 0 {
            write!(f, " (outage of {:.2} s at most)", outage.as_secs_f64())?;
        }
        if *foreign > 0 {
            write!(f, "; {foreign} came untranslated")?;
        }
        Ok(())
    }
}

/// The transferred packets.
#[derive(Clone, Copy, Debug)]
pub struct Transfer {
    /// Packets from the client to the server.
    pub inbound: u32,
    /// Packets from the server to the client.
    pub outbound: u32,
}

impl Load {
    /// Starts to send this many packets a second in each direction. The server begins, because its
    /// ESP is the proof that the peer has a tunnel: so every packet can be counted for its SPI.
    pub fn start(lab: &Lab, inbound: u32, outbound: u32) -> Result<Self> {
        Self::between(lab, [CLIENT, VIP, SERVER], [inbound, outbound])
    }

    /// The same between another client and server, by another VIP.
    pub fn between(
        lab: &Lab,
        [peer, vip, behind]: [Ipv4Addr; 3],
        [inbound, outbound]: [u32; 2],
    ) -> Result<Self> {
        let client = socket_in(&lab.client, SocketAddrV4::new(peer, 4500))?;
        let server = socket_in(&lab.server, SocketAddrV4::new(behind, 4500))?;
        let to_server = Flow::natt(peer, vip, SPI_IN);
        let to_client = Flow::natt(behind, peer, SPI_OUT);
        // The client sees the VIP as its peer, the server sees the client itself.
        let (seen_by_client, seen_by_server) = (SocketAddrV4::new(vip, 4500), to_server.from);
        let receivers = [
            Receiver::start(server.try_clone()?, seen_by_server, SPI_IN)?,
            Receiver::start(client.try_clone()?, seen_by_client, SPI_OUT)?,
        ];
        let out = Sender::start(server, to_client, outbound);
        let in_time = || Instant::now() + PATIENCE;
        wait_for(|| receivers[1].packets(), 1, in_time())
            .context("no packet of the server reached the client")?;
        let senders = [Sender::start(client, to_server, inbound), out];
        let load = Self {
            senders,
            receivers,
            rates: [inbound, outbound],
        };
        wait_for(|| load.receivers[0].packets(), 1, in_time())
            .context("no packet of the client reached the server")?;
        Ok(load)
    }

    /// Waits until a hundred packets that are sent from now on have come, both ways.
    pub fn flows(&self) -> Result<()> {
        self.flows_within(PATIENCE)
    }

    /// The same, at most for `patience`. It requires several packets, not one: during an outage a
    /// single packet may arrive by another path. And they have to be sent after the call: on a busy
    /// machine a receiver finds packets from before a fault only after it.
    pub fn flows_within(&self, patience: Duration) -> Result<()> {
        let deadline = Instant::now() + patience;
        let both = || self.senders.iter().zip(&self.receivers);
        for (sender, receiver) in both() {
            receiver.mark(sender.sequence());
        }
        for (to, (sender, receiver)) in ["server", "client"].iter().zip(both()) {
            wait_for(|| receiver.later().into(), ENOUGH.into(), deadline).with_context(|| {
                let sent = sender.sequence();
                format!("to the {to}: {sent} packets are sent; {}", receiver.state())
            })?;
        }
        Ok(())
    }

    /// Ends it and returns the losses: inbound, then outbound. Prints them too, for the record.
    pub fn losses(self, label: &str) -> Result<[Loss; 2]> {
        let [inbound, outbound] = self.senders.map(Sender::stop);
        let (inbound, outbound) = (inbound?, outbound?);
        let [at_server, at_client] = self.receivers;
        let [rate_in, rate_out] = self.rates;
        let losses = [
            Loss::of(&at_server.finish(inbound)?, inbound, rate_in),
            Loss::of(&at_client.finish(outbound)?, outbound, rate_out),
        ];
        for (direction, loss) in ["inbound", "outbound"].into_iter().zip(&losses) {
            println!("{label}: {direction} {loss}");
        }
        Ok(losses)
    }

    /// Ends it and fails unless each packet arrived exactly once.
    pub fn finish(self) -> Result<Transfer> {
        let [inbound, outbound] = self.senders.map(Sender::stop);
        let (inbound, outbound) = (inbound?, outbound?);
        let [at_server, at_client] = self.receivers;
        complete(at_server.finish(inbound)?, inbound).context("from the client to the server")?;
        complete(at_client.finish(outbound)?, outbound).context("from the server to the client")?;
        Ok(Transfer { inbound, outbound })
    }
}

impl Display for Transfer {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        // A `Transfer` exists only if nothing was lost.
        let Self { inbound, outbound } = self;
        write!(
            f,
            "inbound lost 0 of {inbound}, outbound lost 0 of {outbound}"
        )
    }
}

impl Loss {
    fn of(received: &Received, sent: u32, rate: u32) -> Self {
        let outage = received.longest_outage(sent);
        Self {
            sent,
            lost: sent - received.distinct,
            outage: Duration::from_secs_f64(f64::from(outage) / f64::from(rate.max(1))),
            duplicates: received.duplicates,
            foreign: received.foreign,
        }
    }
}

impl Transfer {
    /// Fails unless the SPI counters hold exactly what was sent.
    pub fn check_counted(&self, stats: &InstanceStats) -> Result<()> {
        stats.check_conservation()?;
        for (spi, direction, sent) in [
            (SPI_IN, Direction::Inbound, self.inbound),
            (SPI_OUT, Direction::Outbound, self.outbound),
        ] {
            let entry = stats.spi(CLIENT, spi, direction).with_context(|| {
                format!("no single entry for SPI 0x{spi:08x}: {:?}", stats.spis)
            })?;
            ensure!(
                entry.packets == u64::from(sent)
                    && entry.highest_sequence == sent
                    && entry.estimated_loss == 0,
                "{sent} packets were sent, ikenat shows {entry:?}; totals {:?}",
                stats.totals
            );
        }
        Ok(())
    }
}

fn wait_for(came: impl Fn() -> u64, packets: u64, deadline: Instant) -> Result<()> {
    let began = Instant::now();
    while came() < packets {
        ensure!(
            Instant::now() < deadline,
            "{packets} packets were expected, {} came within {:?}",
            came(),
            began.elapsed()
        );
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

fn complete(received: Received, sent: u32) -> Result<()> {
    let lost = sent - received.distinct;
    ensure!(
        lost == 0 && received.duplicates == 0 && received.foreign == 0,
        "{sent} packets were sent, {lost} are lost: {:?} and all above {}; {} came twice, {} are of somebody else",
        received.missing,
        received.highest,
        received.duplicates,
        received.foreign
    );
    Ok(())
}
