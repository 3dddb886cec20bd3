//! Which VIP a packet is for, or comes from. With one VIP all of this is constants, and nothing is
//! looked up.

use xdp_common::vips::{Translation, VIPS};
use xdp_common::{Config, Direction, Vip};

/// Whether there are several VIPs: known to the compiler where the code for one VIP must not know of
/// others, else a load-time constant.
pub trait Vips {
    /// True when there are several.
    #[inline(always)]
    fn has_several(config: &Config) -> bool {
        config.several_vips != 0
    }
}

/// The VIP with this address.
#[inline(always)]
pub fn by_address<V: Vips + ?Sized>(config: &Config, address: [u8; 4]) -> Option<&Vip> {
    let vip = if !V::has_several(config) {
        &config.vip
    } else {
        existing(config, config.vips.by_address.candidate(address))?
    };
    (vip.address == address).then_some(vip)
}

/// The first VIP of the service whose server has this address.
#[inline(always)]
pub fn by_server<V: Vips + ?Sized>(config: &Config, address: [u8; 4]) -> Option<&Vip> {
    let vip = if !V::has_several(config) {
        &config.vip
    } else {
        existing(config, config.vips.by_server.candidate(address))?
    };
    (vip.server == address).then_some(vip)
}

#[inline(always)]
fn existing(config: &Config, number: u16) -> Option<&Vip> {
    // Shown to the verifier as well, to which the compiler would not.
    let number = core::hint::black_box(usize::from(number));
    config.vips.vips.get(number)
}

/// The VIP with this number, which a packet or an entry has.
#[inline(always)]
pub fn by_number<V: Vips + ?Sized>(config: &Config, number: u16) -> &Vip {
    if !V::has_several(config) {
        return &config.vip;
    }
    &config.vips.vips[core::hint::black_box(usize::from(number)) % VIPS]
}

/// Whether a VIP belongs to a service. The number in an entry may be that of an earlier configuration.
#[inline(always)]
pub(crate) fn belongs<V: Vips + ?Sized>(config: &Config, number: u16, service: u16) -> bool {
    let vip = by_number::<V>(config, number);
    vip.number == number && vip.service == service && u32::from_ne_bytes(vip.address) != 0
}

/// The number of a VIP's service, which is known where there are not several VIPs.
#[inline(always)]
pub fn service<V: Vips + ?Sized>(config: &Config, vip: &Vip) -> u16 {
    if V::has_several(config) {
        vip.service
    } else {
        0
    }
}

/// The number of the service of the VIP with this number. Where there are not several VIPs it is 0.
#[inline(always)]
pub fn service_of<V: Vips + ?Sized>(config: &Config, number: u16) -> u16 {
    service::<V>(config, by_number::<V>(config, number))
}

/// The constants of a VIP in one direction.
#[inline(always)]
pub fn translation<V: Vips + ?Sized>(
    config: &Config,
    direction: usize,
    number: u16,
) -> &Translation {
    if !V::has_several(config) {
        return &config.directions[direction & 1].translation;
    }
    translation_of(config, direction, number)
}

/// The same where there are several VIPs.
#[inline(always)]
pub fn translation_of(config: &Config, direction: usize, number: u16) -> &Translation {
    &config.vips.translations[direction & 1][core::hint::black_box(usize::from(number)) % VIPS]
}

/// The translation that an address may have, of several: of a VIP inbound, of the first VIP of a server
/// outbound. The caller compares the address.
#[inline(always)]
pub fn candidate(config: &Config, outbound: bool, address: u32) -> Option<&Translation> {
    let index = if outbound {
        &config.vips.by_server
    } else {
        &config.vips.by_address
    };
    let number = core::hint::black_box(usize::from(index.candidate(address.to_ne_bytes())));
    config.vips.translations[usize::from(outbound)].get(number)
}

/// True for an address of a service, which no packet from outside has as its source.
#[inline(always)]
pub fn is_of_service<V: Vips + ?Sized>(config: &Config, address: [u8; 4]) -> bool {
    by_address::<V>(config, address).is_some() || by_server::<V>(config, address).is_some()
}

/// Direction of a packet and number of its VIP.
pub type Found = (Direction, u16);
