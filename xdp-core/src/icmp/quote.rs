//! Whose packet an ICMP error quotes, as far as the tables decide it.

use crate::conntrack::connection;
use crate::conntrack::fragment::{self, Fate};
use crate::conntrack::host_peer;
use crate::conntrack::pin::{self, Name};
use crate::env::Env;
use crate::frame::Frame;
use crate::icmp::report::{OFFSET_MASK, Report};
use crate::packet::Packet;
use crate::vip;
use crate::wire::ipv4::{self, Protocol};
use crate::wire::{esp, ethernet, ike, udp};
use xdp_common::limits::{IKE_PORT, NATT_PORT};
use xdp_common::slot;
use xdp_common::{Class, Config, Direction, Hook, Reason};

/// A quoted fragment without ports is handled when such a fragment itself would be.
#[inline(always)]
pub(super) fn refuse_fragment<E: Env>(
    env: &E,
    config: &Config,
    report: &Report,
    quoted: &ipv4::Header,
) -> Option<Reason> {
    let packet = Packet::fragment(
        (report.direction.opposite(), report.vip),
        report.peer,
        quoted,
    );
    match fragment::fate(env, config, &packet, env.jiffies()) {
        Fate::Handled | Fate::Undecided => None,
        Fate::Refused(_) => Some(Reason::OtherIcmp),
    }
}

/// True when the quoted packet is one that the host sent to a peer of its own: an answer to it would
/// be the host's as well. A fragment without ports shows nothing.
// The header is read once more: what a function gets through the stack has to be written as a whole.
#[inline(never)]
pub(super) fn is_of_host<F: Frame + ?Sized, E: Env>(
    frame: &F,
    env: &E,
    config: &Config,
    report: &Report,
) -> bool {
    let jiffies = env.jiffies();
    if E::HOOK == Hook::Egress
        || report.direction == Direction::Outbound
        || !host_peer::in_use(env, config, jiffies)
    {
        return false;
    }
    let Some(quoted) = ipv4::Header::read(frame, report.quote() & OFFSET_MASK) else {
        return false;
    };
    // TCP teaches no peer.
    if quoted.protocol == Protocol::TCP || (report.ports == 0 && quoted.protocol != Protocol::ESP) {
        return false;
    }
    let mut packet = Packet::fragment((Direction::Outbound, report.vip), report.peer, &quoted);
    let (port, vip_port) = slot::host_peer::split(report.ports);
    packet.port = port;
    if report.ports != 0 {
        packet.class = match vip_port {
            IKE_PORT => Class::Ike,
            _ => Class::Other,
        };
    } else if let Some(header) =
        esp::Header::read(frame, (report.quote() + report.quote_header) & OFFSET_MASK)
    {
        packet.class = Class::Esp;
        packet.esp = header;
    }
    host_peer::has_sent_quoted(env, config, &packet, jiffies)
}

/// The VIP to which the peer has sent the packet that an error of the server's side quotes: that of the
/// connection or of the IKE SA, or that of the peer.
#[inline(never)]
pub(super) fn vip_of_peer<F: Frame + ?Sized, E: Env>(
    frame: &F,
    env: &E,
    config: &Config,
    report: &Report,
) -> u16 {
    let vip = vip::by_number::<E>(config, report.vip);
    if vip.several == 0 {
        return vip.number;
    }
    let jiffies = env.jiffies();
    // The peer has sent it: its port is the source.
    let (service_port, port) = slot::host_peer::split(report.ports);
    let known = if report.is_tcp == 0 {
        quoted_spi(frame, report, (service_port, port))
            .map(|spi| Name::of_sa(vip, report.peer, spi))
            .and_then(|name| pin::recall(env, config, name, jiffies))
    } else if port == 0 {
        // No connection has port 0.
        None
    } else {
        connection::vip_of(env, config, vip.service, (report.peer, port), jiffies)
    };
    match known {
        Some(number) if vip::belongs::<E>(config, number, vip.service) => number,
        _ => pin::vip_of_peer(env, config, vip, report.peer, jiffies),
    }
}

/// The initiator's SPI in the quoted IKE message, if the quote reaches so far.
#[inline(always)]
fn quoted_spi<F: Frame + ?Sized>(
    frame: &F,
    report: &Report,
    (service_port, port): (u16, u16),
) -> Option<u64> {
    let mut at = report.quote() + report.quote_header + udp::LENGTH;
    if service_port == NATT_PORT {
        // Between port 500 and 4500 IKE has no marker.
        let marker = frame.with_bytes(at & OFFSET_MASK, |bytes| *bytes == esp::NON_ESP_MARKER);
        if port == IKE_PORT || marker != Some(true) {
            return None;
        }
        at += esp::NON_ESP_MARKER.len();
    } else if service_port != IKE_PORT {
        return None;
    }
    // What is behind the packet in the frame is no part of the quote.
    if at + ike::SPI_LENGTH > ethernet::LENGTH + usize::from(report.total_length) {
        return None;
    }
    let spi = pin::read_spi(frame, at & OFFSET_MASK)?;
    (spi != 0).then_some(spi)
}
