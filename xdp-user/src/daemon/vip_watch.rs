//! Watches whether the VIP is an address of this host. Without it no host answers ARP for the VIP,
//! unless a router sends its packets here.

use crate::config::plan::Plan;
use crate::netlink::{Netlink, Route};

/// What has become of the VIP.
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
    was_local: bool,
    is_lost: bool,
}

impl VipWatch {
    /// For an instance that has just started.
    pub(super) const fn new(plan: &Plan) -> Self {
        Self {
            was_local: plan.vip_is_local,
            is_lost: false,
        }
    }

    /// Looks whether the VIP is an address of this host.
    pub(super) fn look(&mut self, plan: &Plan, netlink: &Netlink) -> Option<VipChange> {
        self.change(matches!(
            netlink.route(plan.settings.vip()),
            Ok(Route::Local)
        ))
    }

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
        let mut watch = VipWatch {
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
