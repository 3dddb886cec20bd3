//! Checks of what a host with several networks may expect, and ikenat does not do by itself: rules
//! of policy routing, and clients in a network of the host's that use the public address.

use super::context::Context;
use super::{Finding, run_command};
use crate::config::routing_rules;
use crate::config::services::named;
use crate::error::word;
use crate::netlink::Link;
use crate::report::wanted_services::WantedServices;

pub(super) fn all(context: &Context<'_>, wanted: &WantedServices) -> Vec<Finding> {
    let mut findings = rules(context, wanted);
    findings.extend(guests(context));
    findings
}

fn rules(context: &Context<'_>, wanted: &WantedServices) -> Vec<Finding> {
    const CODE: &str = "routing-rules";
    const REASON: &str = "ikenat asks the kernel for the route of each packet as it leaves, before the firewall has marked it; rules by source, protocol, port and type of service are followed, with the VIP as the source of what the server sends";
    let mut settings = context.settings.clone();
    settings.services = wanted.of(&settings.services);
    let leaves_by_own_wan = |vip| matches!(context.wan_from(vip), Ok(Some(_)));
    let unfollowed = match routing_rules::unfollowed(context.netlink, &settings, leaves_by_own_wan)
    {
        Ok(unfollowed) => unfollowed,
        Err(error) => return vec![Finding::not_checked(CODE, word(&error), REASON)],
    };
    if unfollowed.is_empty() {
        let message = "no rule by a server's address or a mark misses packets that it is meant for";
        return vec![Finding::ok(CODE, message, REASON)];
    }
    let finding = |rule: routing_rules::Unfollowed| {
        Finding::warning(CODE, rule.message, REASON).fix(rule.fix)
    };
    unfollowed.into_iter().map(finding).collect()
}

/// Interfaces with a network behind them that are neither WAN nor LAN. What their clients send to
/// the VIP comes by them.
fn guests(context: &Context<'_>) -> Vec<Finding> {
    const CODE: &str = "other-networks";
    const REASON: &str = "ikenat translates what comes by a WAN; clients in another network of this host that use the public address reach this host instead of the server";
    let vips = context.settings.vips().map(|vip| vip.to_string());
    let vips = named(vips.collect(), 1, "VIP");
    let is_known = |link: &Link| context.interfaces().any(|known| known.index == link.index);
    let has_network = |link: &Link| {
        let mut addresses = context.addresses.iter();
        addresses.any(|one| one.index == link.index && (1..=30).contains(&one.prefix))
    };
    let others = context
        .links
        .iter()
        .filter(|link| link.up && link.mac.is_some());
    let others = others.filter(|link| !is_known(link) && has_network(link));
    let finding = |link: &Link| {
        let message = format!(
            "clients behind {} that connect to {vips} are not served; if there are any, make it another WAN",
            link.name
        );
        let mut wider = context.settings.clone();
        wider.wans.push(link.name.clone());
        Finding::warning(CODE, message, REASON)
            .on(&link.name)
            .fix(run_command(&wider))
    };
    others.map(finding).collect()
}
