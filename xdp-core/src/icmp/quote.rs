//! Whose packet an ICMP error quotes, as far as the tables decide it.

use crate::conntrack::fragment::{self, Fate};
use crate::conntrack::host_peer;
use crate::conntrack::pin::{self, Name};
use crate::env::Env;
use crate::frame::Frame;
use crate::icmp::report::{OFFSET_MASK, Report};
use crate::packet::Packet;
use crate::vip;
use crate::wire::esp;
use crate::wire::ipv4::{self, Protocol};
use xdp_common::limits::IKE_PORT;
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
/// connection, or that of the peer.
#[inline(never)]
pub(super) fn vip_of_peer<E: Env>(env: &E, config: &Config, report: &Report) -> u16 {
    let vip = vip::by_number::<E>(config, report.vip);
    if vip.several == 0 {
        return vip.number;
    }
    let jiffies = env.jiffies();
    // The peer has sent it: its port is the source.
    let (_, port) = slot::host_peer::split(report.ports);
    let connection = if report.is_tcp == 0 {
        None
    } else {
        let name = Name::of_connection(vip, report.peer, port);
        pin::recall(env, config, name, jiffies)
    };
    match connection {
        Some(number) if pin::belongs::<E>(config, number, vip.service) => number,
        _ => pin::vip_of_peer(env, config, vip, report.peer, jiffies),
    }
}
