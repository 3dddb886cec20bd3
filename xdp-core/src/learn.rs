//! Learns the peers of the host itself ([`crate::conntrack::host_peer`]) from what the host sends.
//!
//! Invariant: only the egress program of a WAN creates entries, and only for what the host makes, or
//! forwards for a host behind it. A stranger has no part in it: what a WAN has received, and what
//! ikenat has handled, teaches nothing. TCP does not either: who connects by IKE over TCP does so from a
//! port of its own choice (RFC 9329 section 3), and a stranger's segment makes the host send a reset.

use crate::classify::{is_ipv4, refused_by_list};
use crate::conntrack::host_peer::remember;
use crate::env::Env;
use crate::frame::Frame;
use crate::interfaces::{is_lan, is_wan};
use crate::packet::is_no_host;
use crate::vip;
use crate::wire::ipv4::{self, Protocol};
use crate::wire::{ethernet, udp};
use xdp_common::Config;
use xdp_common::limits::{IKE_PORT, NATT_PORT};
use xdp_common::slot::host_peer;

/// True for a frame that may teach a peer: UDP or ESP from the VIP. A first look, for the most of what
/// leaves by a WAN.
#[inline(always)]
pub fn may_teach<F: Frame + ?Sized>(frame: &F, config: &Config) -> bool {
    config.dry_run == 0
        && is_ipv4(frame)
        && ipv4::Header::read_outer(frame).is_some_and(|ip| {
            vip::by_address::<F>(config, ip.source).is_some()
                && (ip.protocol == Protocol::UDP || ip.protocol == Protocol::ESP)
        })
}

/// On egress: remembers the peer of a packet that the host sends from a port of the server, or of ESP.
/// False: the packet is not of this kind, or there is no room for another peer.
#[inline(always)]
pub fn learn<F: Frame + ?Sized, E: Env>(frame: &F, env: &E, config: &Config) -> bool {
    let Some((vip, peer, ports)) = taught(frame, config) else {
        return false;
    };
    if !is_the_hosts_own(env, config)
        || is_no_host(peer)
        || refused_by_list(env, config, (vip, peer)).is_some()
    {
        return false;
    }
    remember(env, config, (vip, peer), ports, env.jiffies())
}

/// The peer and the ports of a packet from the VIP, if it shows them and is of the kind that clients
/// and server exchange.
#[inline(always)]
fn taught<F: Frame + ?Sized>(frame: &F, config: &Config) -> Option<(u16, [u8; 4], u32)> {
    let ip = ipv4::Header::read_outer(frame)?;
    let vip = vip::by_address::<F>(config, ip.source)?.number;
    if ip.is_later_fragment() {
        return None;
    }
    if ip.protocol == Protocol::ESP {
        return Some((vip, ip.destination, 0));
    }
    let header = udp::Header::read(frame, ethernet::LENGTH + ip.header_length()?)?;
    let is_service = header.source == IKE_PORT || header.source == NATT_PORT;
    is_service.then_some((
        vip,
        ip.destination,
        host_peer::ports(header.destination, header.source),
    ))
}

/// True for a packet that the host has made, or forwards for a host behind it. What tc ingress has
/// handled is the server's, and what a WAN, or a macvlan on top of one, has received may be a
/// stranger's.
#[inline(always)]
fn is_the_hosts_own<E: Env>(env: &E, config: &Config) -> bool {
    let from = env.received_on();
    let from_outside = is_wan(config, from) && !is_lan(config, from);
    !env.is_handled() && (from == 0 || !from_outside)
}
