//! A service, as an instance records it and as reports show it.

use crate::config::location::{ServerLocation, ServiceLocation};
use crate::config::plan::Plan;
use crate::config::services::{DEFAULT, Service, join};
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt::{self, Display};
use std::net::IpAddr;

/// A current service, as an instance records it. The names of the fields are those of JSON
/// (`docs/json.md`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ServiceRecord {
    /// Its name.
    pub name: String,
    /// Its VIPs, the first one first.
    pub vips: Vec<IpAddr>,
    /// Its server: one address of each family at most.
    pub servers: Vec<IpAddr>,
    /// The server is an address of this host.
    pub server_is_local: bool,
    /// The VIPs are for IPsec alone (`--dedicated`).
    pub dedicated: bool,
    /// Prefixes of `--except-peer`.
    pub except_peers: u16,
    /// Prefixes of `--deny`.
    pub denied: u16,
}

impl ServiceRecord {
    /// That of a service, without what this host says of it.
    pub fn of(service: &Service) -> Self {
        let number = |list: &[_]| u16::try_from(list.len()).unwrap_or(u16::MAX);
        Self {
            name: service.name.clone(),
            vips: service.vips.clone(),
            servers: service.servers.clone(),
            server_is_local: false,
            dedicated: service.dedicated,
            except_peers: number(&service.lists.except),
            denied: number(&service.lists.deny),
        }
    }

    /// Whether it was given without a name: by the short form, or with its first VIP as its name.
    fn is_unnamed(&self) -> bool {
        let mut vips = self.vips.iter().take(1);
        self.name == DEFAULT || vips.any(|vip| vip.to_string() == self.name)
    }

    /// Whether one with a name and one without have a VIP and a server in common.
    fn is_other_name_of(&self, old: &Self) -> bool {
        let mut vips = old.vips.iter();
        (self.is_unnamed() || old.is_unnamed())
            && vips.any(|vip| self.vips.contains(vip))
            && self.has_server_of(old)
    }

    fn has_server_of(&self, old: &Self) -> bool {
        let mut servers = old.servers.iter();
        servers.any(|server| self.servers.contains(server))
    }

    /// Those of the services of a plan.
    pub(crate) fn of_plan(plan: &Plan) -> Vec<Self> {
        let located = plan.settings.services.iter().zip(&plan.locations);
        let of = |(service, location): (&Service, &ServiceLocation)| Self {
            server_is_local: location.server == ServerLocation::Here,
            ..Self::of(service)
        };
        located.map(of).collect()
    }
}

/// The new names, by the old ones, of services that go on under another name: one gets its first name or
/// loses it, with a VIP and the server as before; or one without a name has another first VIP, and is
/// known by its server alone. `is_known`: a name has a number.
pub(super) fn renamed(
    current: &[ServiceRecord],
    next: &[ServiceRecord],
    is_known: impl Fn(&str) -> bool,
) -> BTreeMap<String, String> {
    let is_gone = |old: &&ServiceRecord| next.iter().all(|one| one.name != old.name);
    let mut gone: Vec<&ServiceRecord> = current.iter().filter(is_gone).collect();
    let mut new: Vec<&ServiceRecord> = next.iter().filter(|one| !is_known(&one.name)).collect();
    let mut names = BTreeMap::new();
    let mut pair = |is_same: fn(&ServiceRecord, &ServiceRecord) -> bool| {
        new.retain(|one| {
            let Some(at) = gone.iter().position(|old| is_same(one, old)) else {
                return true;
            };
            names.insert(gone.remove(at).name.clone(), one.name.clone());
            false
        });
    };
    pair(ServiceRecord::is_other_name_of);
    pair(|one, old| one.is_unnamed() && one.has_server_of(old));
    names
}

impl Display for ServiceRecord {
    /// As `service office: VIP 203.0.113.1 -> server 192.168.0.1`; that of the short form without
    /// its name.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.name != DEFAULT {
            write!(f, "service {}: ", self.name)?;
        }
        let (vips, servers) = (join(&self.vips, ", "), join(&self.servers, ", "));
        write!(f, "VIP {vips} -> server {servers}")
    }
}
