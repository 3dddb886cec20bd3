//! Refuses to start an instance that is attached in another network namespace.

use crate::bpffs::layout::Instance;
use crate::bpffs::owner::Location;
use crate::config::plan::Plan;
use crate::dataplane::clsact::cleanup;
use crate::dataplane::link;
use crate::error::{Error, Result};
use crate::netlink::Netlink;

/// Fails when programs of the instance are attached in a network namespace other than the plan's.
/// When the interfaces of the other namespace are gone, only pins are left, and a start anywhere
/// may adopt them.
pub(crate) fn check(instance: &Instance, plan: &Plan, netlink: &Netlink) -> Result<()> {
    let Some(location) = Location::of(instance).filter(|found| found.namespace != plan.namespace)
    else {
        return Ok(());
    };
    let has_links = link::all_of(instance)?.iter().any(|link| link.ifindex != 0);
    if has_links || has_filters(instance, &location, netlink)? {
        return Err(Error::OtherNamespace {
            instance: instance.name.clone(),
            whose: instance.whose(),
            unload: instance.unload_command(),
        });
    }
    Ok(())
}

fn has_filters(instance: &Instance, location: &Location, netlink: &Netlink) -> Result<bool> {
    if !instance.has_filters()? {
        return Ok(false);
    }
    let found = cleanup::filters(netlink, instance)?;
    let mut places = found.iter().map(|filter| filter.place.0);
    Ok(places.any(|place| location.interfaces.iter().any(|(index, _)| *index == place)))
}
