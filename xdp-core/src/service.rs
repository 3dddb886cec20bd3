//! Which service a packet belongs to, and who its peer is: its addresses alone show it.

use crate::env::Side;
use crate::vip::{self, Found, Vips};
use crate::wire::ipv4;
use xdp_common::{Config, Direction, Reason};

/// The direction of a packet of a service, and its VIP: outbound the first one, until it is known which
/// of several the peer uses.
#[inline(always)]
pub(crate) fn of_packet<V: Vips + ?Sized>(
    ip: &ipv4::Header,
    config: &Config,
    side: Side,
) -> Result<Found, Reason> {
    if matches!(side, Side::Wan | Side::Both)
        && let Some(vip) = vip::by_address::<V>(config, ip.destination)
    {
        return Ok((Direction::Inbound, vip.number));
    }
    if side != Side::Wan
        && let Some(vip) = vip::by_server::<V>(config, ip.source)
    {
        return Ok((Direction::Outbound, vip.number));
    }
    Err(Reason::OtherAddress)
}

/// The peer's address.
#[inline(always)]
pub(crate) const fn peer_of(ip: &ipv4::Header, (direction, _): Found) -> [u8; 4] {
    match direction {
        Direction::Inbound => ip.source,
        Direction::Outbound => ip.destination,
    }
}
