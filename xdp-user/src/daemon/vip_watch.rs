//! Watches whether the VIPs are addresses of this host. No host answers ARP for one that is not,
//! unless a router sends its packets here.

use crate::config::plan::Plan;
use crate::netlink::{Netlink, Route};
use std::net::Ipv4Addr;

/// What has become of a VIP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum VipChange {
    /// It was an address of this host, and is none any more.
    Lost,
    /// It is one again.
    Back,
}

/// Remembers what was reported.
#[derive(Debug)]
pub(super) struct VipWatch {
    vips: Vec<WatchedVip>,
}

#[derive(Debug)]
struct WatchedVip {
    address: Ipv4Addr,
    was_local: bool,
    is_lost: bool,
}

impl VipWatch {
    /// For an instance that has just started.
    pub(super) fn new(plan: &Plan) -> Self {
        let watched = plan.vips().map(|(address, location)| WatchedVip {
            address,
            was_local: location.is_local,
            is_lost: false,
        });
        Self {
            vips: watched.collect(),
        }
    }

    /// Looks whether the VIPs are addresses of this host.
    pub(super) fn look(&mut self, netlink: &Netlink) -> Vec<(Ipv4Addr, VipChange)> {
        let changes = self.vips.iter_mut().filter_map(|vip| {
            let is_local = matches!(netlink.route(vip.address), Ok(Route::Local));
            Some((vip.address, vip.change(is_local)?))
        });
        changes.collect()
    }
}

impl WatchedVip {
    fn change(&mut self, is_local: bool) -> Option<VipChange> {
        let was_local = std::mem::replace(&mut self.was_local, is_local);
        match (was_local, is_local) {
            (true, false) => {
                self.is_lost = true;
                Some(VipChange::Lost)
            }
            (false, true) if std::mem::take(&mut self.is_lost) => Some(VipChange::Back),
            (true, true) | (false, _) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reported(was_local: bool, looks: &[bool]) -> Vec<Option<VipChange>> {
        let mut watch = WatchedVip {
            address: Ipv4Addr::new(203, 0, 113, 1),
            was_local,
            is_lost: false,
        };
        looks.iter().map(|look| watch.change(*look)).collect()
    }

    #[test]
    fn each_loss_and_each_return_is_reported_once() {
        let (lost, back) = (Some(VipChange::Lost), Some(VipChange::Back));
        assert_eq!(
            reported(true, &[true, false, false, true, true, false]),
            [None, lost, None, back, None, lost]
        );
    }

    #[test]
    fn a_vip_that_was_never_here_is_not_lost() {
        assert_eq!(reported(false, &[false, true]), [None, None]);
    }
}
