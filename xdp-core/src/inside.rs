//! Which sources are on the side of the servers, so that packets from outside cannot have them.

use crate::env::{Env, FibQuery, FibResult};
use crate::interfaces::{is_lan, is_wan, position_of};
use crate::neighbour::Gateway;
use crate::vip;
use xdp_common::{Config, Direction};

/// True for this host's address on the server's side, or one that the route of a LAN leads to for the
/// replies of a VIP: the source of no packet that comes from outside to this VIP, whatever `rp_filter`
/// is. On an interface that is both WAN and LAN nothing shows it.
///
/// A rule for the VIP (`ip rule add from VIP`) may select a table that has nothing but the default route
/// of its WAN. So where there are several VIPs or WANs, a host on the link of a LAN is inside also if only
/// the route of what the server itself sends shows it. A router there shows nothing: the default route
/// of the host may lead to it.
///
/// A session of such a peer cannot exist, since what the server sends to it leaves by no WAN. So only
/// packets that no table counts have to be examined.
#[inline(never)]
pub(crate) fn is_inside<E: Env>(env: &E, config: &Config, vip: u16, source: [u8; 4]) -> bool {
    let of_vip = vip::by_number::<E>(config, vip);
    // As the server's reply comes, from this VIP and by the LAN of the server: rules may look at both.
    if env.locate(config, vip, (of_vip.address, source)) != OUTSIDE {
        return true;
    }
    let may_have_rules = E::has_several(config) || config.wans[1] != 0;
    may_have_rules && env.locate(config, vip, (of_vip.server, source)) == ON_LINK
}

/// Not on the side of the servers.
pub const OUTSIDE: usize = 0;
/// Behind a router on a LAN, or an address of this host.
pub const BEHIND: usize = 1;
/// On the link of a LAN.
pub const ON_LINK: usize = 2;

/// Where the second address is, for a packet from the first one that comes from the LAN of a VIP's server:
/// [`OUTSIDE`], [`BEHIND`] or [`ON_LINK`].
// Out of line: the stack that the helper needs is not occupied while other functions run.
#[inline(never)]
pub fn locate<E: Env>(
    env: &E,
    config: &Config,
    vip: u16,
    (from, source): ([u8; 4], [u8; 4]),
) -> usize {
    let query = FibQuery {
        ingress: vip::translation::<E>(config, Direction::Inbound as usize, vip).egress,
        ..FibQuery::without_ports((from, source), (0, 0), FibQuery::ANY_LENGTH)
    };
    let (ifindex, gateway) = match env.fib_lookup(&query) {
        FibResult::Neighbour(neighbour) => (neighbour.ifindex, neighbour.gateway),
        FibResult::Unresolved { ifindex, gateway } => (ifindex, gateway),
        // An address of this host, or no route at all: the kernel's answer is the same.
        FibResult::NotForwarded => return usize::from(is_lan_address(config, source)) * BEHIND,
        FibResult::TooBig(_) | FibResult::NoRoute | FibResult::ForwardingDisabled => {
            return OUTSIDE;
        }
    };
    let inside = !is_wan(config, ifindex) && is_lan(config, ifindex);
    let host = Gateway::v4(source);
    let on_link = gateway.family == host.family && gateway.words[0] == host.words[0];
    usize::from(inside) * (BEHIND + usize::from(on_link))
}

/// True for an address of this host on the side of a server.
#[inline(always)]
fn is_lan_address(config: &Config, address: [u8; 4]) -> bool {
    position_of(&config.lan_addresses, u32::from_ne_bytes(address)) != 0
}
