//! By which WAN a packet with a VIP as its source leaves.

use crate::env::{Env, FibQuery, FibResult};
use crate::interfaces::is_uplink;
use xdp_common::{Config, Vip};

/// The WAN that has a VIP, where its provider expects this source, if the FIB leads from there to the
/// destination of the query. 0: the FIB decides, as it does for what the host itself forwards.
///
/// That is so for a route that leaves by no uplink. What lies behind a WAN that has no VIP (a guest network, a
/// branch), or behind a LAN, is not on the Internet; asked with an egress the FIB ignores such a route, however
/// specific it is, and answers with the default route of the VIP's WAN.
#[inline(always)]
pub(crate) fn owning_wan<E: Env>(env: &E, config: &Config, vip: &Vip, query: FibQuery) -> u32 {
    if vip.wan == 0 {
        return 0;
    }
    let plain = egress_of(env, &query);
    if plain == vip.wan || (plain != 0 && !is_uplink(config, plain)) {
        return 0;
    }
    let query = FibQuery {
        egress: vip.wan,
        ..query
    };
    // No route leads out of this WAN, or a rule for the VIP forbids it (unreachable, prohibit, blackhole),
    // and then the next question has the same answer. Or this WAN does not forward: the kernel lets nothing
    // in there for the VIP either.
    if egress_of(env, &query) == 0 {
        0
    } else {
        vip.wan
    }
}

/// The interface by which a route leaves; 0: there is none. The length is not asked about
/// ([`FibQuery::ANY_LENGTH`], for which no link is too small): a packet that is too long for this route is
/// fragmented or answered for it, and takes no other one.
// Out of line: two look-ups of one function would have their structures on the stack at once.
#[inline(never)]
fn egress_of<E: Env>(env: &E, query: &FibQuery) -> u32 {
    match env.fib_lookup(query) {
        FibResult::Neighbour(neighbour) => neighbour.ifindex,
        FibResult::Unresolved { ifindex, .. } => ifindex,
        FibResult::TooBig(_) => query.egress,
        FibResult::NotForwarded | FibResult::NoRoute | FibResult::ForwardingDisabled => 0,
    }
}
