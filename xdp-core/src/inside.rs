//! Which sources are on the side of the servers, so that packets from outside cannot have them.

use crate::env::{Env, FibQuery, FibResult};
use crate::interfaces::{is_lan, is_wan, position_of};
use crate::vip;
use xdp_common::{Config, Direction};

/// True for this host's address on the server's side, or one that the route of a LAN leads to for the
/// replies of a VIP: the source of no packet that comes from outside to this VIP, whatever `rp_filter`
/// is. On an interface that is both WAN and LAN nothing shows it.
///
/// A session of such a peer cannot exist, since what the server sends to it leaves by no WAN. So only
/// packets that no table counts have to be examined.
// Out of line: the stack that the helper needs is not occupied while other functions run.
#[inline(never)]
pub(crate) fn is_inside<E: Env>(env: &E, config: &Config, vip: u16, source: [u8; 4]) -> bool {
    // As the server's reply comes, from this VIP and by the LAN of the server: rules may look at both.
    let address = vip::by_number::<E>(config, vip).address;
    let query = FibQuery {
        ingress: vip::translation::<E>(config, Direction::Inbound as usize, vip).egress,
        ..FibQuery::without_ports((address, source), (0, 0), FibQuery::ANY_LENGTH)
    };
    let ifindex = match env.fib_lookup(&query) {
        FibResult::Neighbour(neighbour) => neighbour.ifindex,
        FibResult::Unresolved { ifindex, .. } => ifindex,
        // An address of this host, or no route at all: the kernel's answer is the same.
        FibResult::NotForwarded => return is_lan_address(config, source),
        FibResult::TooBig(_) | FibResult::NoRoute | FibResult::ForwardingDisabled => return false,
    };
    !is_wan(config, ifindex) && is_lan(config, ifindex)
}

/// True for an address of this host on the side of a server.
#[inline(always)]
fn is_lan_address(config: &Config, address: [u8; 4]) -> bool {
    position_of(&config.lan_addresses, u32::from_ne_bytes(address)) != 0
}
