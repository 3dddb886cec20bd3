//! The kernel's implementation of [`Env`]: which map is which table, and which helper answers which
//! question.

use crate::atomic::Shared;
use crate::maps::PacketPlace;
use crate::{helpers, log, maps, steps};
use aya_ebpf::EbpfContext;
use xdp_common::{Config, Direction, Hook, Reason, cpu};
use xdp_core::neighbour::{Gateway, table as neighbour_table};
use xdp_core::packet::PackedPacket;
use xdp_core::table::recent::{self, Details};
use xdp_core::wire::segment::Segment;
use xdp_core::{Env, FibQuery, FibResult, Frame, Vips, inside};

/// The environment of one packet. `TC`: in a tc program, otherwise in XDP; `OUT`: on egress.
/// `SEVERAL`: in XDP, for several VIPs.
pub struct KernelEnv<'c, C, const TC: bool, const OUT: bool = false, const SEVERAL: bool = false> {
    /// The context, for the helpers that need it.
    pub context: &'c C,
    /// The interface on which the packet arrived.
    pub ingress: u32,
    /// Where the parsed packet is kept between the steps. The fast path keeps none.
    pub packet: Option<PacketPlace>,
}

impl<'c, C, const TC: bool, const OUT: bool, const SEVERAL: bool>
    KernelEnv<'c, C, TC, OUT, SEVERAL>
{
    /// That of a step which needs no more than the stored packet.
    #[inline(always)]
    pub const fn of_packet(context: &'c C, packet: Option<PacketPlace>) -> Self {
        Self {
            context,
            ingress: 0,
            packet,
        }
    }
}

impl<C, const TC: bool, const OUT: bool, const SEVERAL: bool> Vips
    for KernelEnv<'_, C, TC, OUT, SEVERAL>
{
    #[inline(always)]
    fn has_several(config: &Config) -> bool {
        // XDP has programs of its own for several VIPs: those for one are as fast as if there were never
        // more.
        if TC {
            config.several_vips != 0
        } else {
            SEVERAL
        }
    }
}

impl<C: EbpfContext, const TC: bool, const OUT: bool, const SEVERAL: bool> Env
    for KernelEnv<'_, C, TC, OUT, SEVERAL>
{
    type Word = Shared;
    type Flows = maps::Flows;
    type Sessions = maps::Sessions;
    const HOOK: Hook = match (TC, OUT) {
        (false, _) => Hook::Xdp,
        (true, false) => Hook::Tc,
        (true, true) => Hook::Egress,
    };

    #[inline(always)]
    fn flows(&self) -> &maps::Flows {
        &maps::Flows
    }

    #[inline(always)]
    fn sessions(&self) -> &maps::Sessions {
        &maps::Sessions
    }

    #[inline(always)]
    fn half_open(&self, index: u32) -> Option<&recent::Bucket<Shared>> {
        maps::half_open(index)
    }

    #[inline(always)]
    fn pin_bucket(&self, index: u32) -> Option<&recent::Bucket<Shared>> {
        maps::pin_bucket(index)
    }

    #[inline(always)]
    fn fragments(&self, index: u32) -> Option<&recent::Bucket<Shared>> {
        maps::fragments(index)
    }

    #[inline(always)]
    fn host_peer_bucket(&self, index: u32) -> Option<&recent::Bucket<Shared>> {
        maps::host_peer_bucket(index)
    }

    #[inline(always)]
    fn received_on(&self) -> u32 {
        if OUT {
            helpers::received_on(self.context)
        } else {
            0
        }
    }

    #[inline(always)]
    fn is_handled(&self) -> bool {
        OUT && helpers::is_handled(self.context)
    }

    #[inline(always)]
    fn copy_to_host(&self, reason: Reason) {
        if TC && !OUT {
            helpers::copy_to_host(self.context, self.ingress, reason);
        }
    }

    #[inline(always)]
    fn neighbour(&self, index: u32) -> Option<&neighbour_table::Entry<Shared>> {
        maps::neighbour(index)
    }

    #[inline(always)]
    fn peer_list(&self, list: u16, peer: [u8; 4]) -> Option<u32> {
        maps::peer_list(list, peer)
    }

    #[inline(always)]
    fn icmp_bucket(&self, index: u32) -> Option<&Shared> {
        maps::icmp_bucket(index)
    }

    #[inline(always)]
    fn meta(&self, index: usize) -> Option<&Shared> {
        maps::meta(index)
    }

    #[inline(always)]
    fn cpu_block(&self) -> Option<&[Shared; cpu::WORDS]> {
        maps::cpu_block()
    }

    #[inline(always)]
    fn jiffies(&self) -> u64 {
        helpers::jiffies()
    }

    #[inline(always)]
    fn fib_lookup(&self, query: &FibQuery) -> FibResult {
        let ingress = if query.ingress == 0 {
            self.ingress
        } else {
            query.ingress
        };
        helpers::fib_lookup(self.context, ingress, query)
    }

    #[inline(always)]
    fn merged_size(&self) -> u32 {
        if TC {
            helpers::merged_size(self.context)
        } else {
            0
        }
    }

    #[inline(always)]
    fn store_packet(&self, packed: PackedPacket) {
        if let Some(place) = self.packet {
            place.store(packed);
        }
    }

    #[inline(always)]
    fn load_packet(&self) -> Option<PackedPacket> {
        self.packet.map(PacketPlace::load)
    }

    #[inline(always)]
    fn keep_gateway(&self, gateway: &Gateway) {
        if TC && let Some(place) = PacketPlace::of(Self::HOOK) {
            place.keep_gateway(gateway);
        }
    }

    #[inline(always)]
    fn follow_segment<F: Frame + ?Sized>(&self, _: &F, _: &Config, jiffies: u64) -> usize {
        steps::follow::<TC, OUT>(self.context.as_ptr(), jiffies)
    }

    #[inline(always)]
    fn settle_vip<F: Frame + ?Sized>(&self, _: &F, _: &Config, jiffies: u64, segment: usize) {
        steps::settle::<TC, OUT>(self.context.as_ptr(), jiffies, segment);
    }

    #[inline(always)]
    fn note_vip<F: Frame + ?Sized>(&self, _: &F, _: &Config, jiffies: u64) {
        steps::note::<TC, OUT>(self.context.as_ptr(), jiffies);
    }

    #[inline(always)]
    fn decide_segment(&self, word: u64, segment: &Segment, vip: u16) -> usize {
        steps::decide(word, segment, vip)
    }

    #[inline(always)]
    fn follow_connection(&self, before: u64, segment: &Segment, vip: u16) -> u64 {
        steps::after(before, segment, vip)
    }

    #[inline(always)]
    fn put_pin(&self, index: u32, fresh: u64, details: Details) {
        steps::put(index, fresh, details);
    }

    #[inline(always)]
    fn locate(&self, config: &Config, vip: u16, addresses: ([u8; 4], [u8; 4])) -> usize {
        if TC {
            steps::locate(self.context.as_ptr(), vip, addresses)
        } else {
            // In XDP the programs for one VIP ask, too, and they stay as they are.
            inside::locate(self, config, vip, addresses)
        }
    }

    fn established(&self, peer: [u8; 4], by: Direction) {
        if maps::config().log == 0 {
            return;
        }
        log::established::<_, OUT>(self.context, peer, by);
    }
}
