//! Services: which VIPs are translated to which server, as the administrator gives them.

use crate::config::names::{LONGEST, is_name};
use crate::config::peer_lists::Lists;
use crate::config::vip_constants::distinct;
use crate::error::{Error, Result, ServiceError};
use std::net::{IpAddr, Ipv4Addr};
use std::str::FromStr;
use xdp_common::limits;
use xdp_common::vips::VIPS;

/// The name of the service of `--vip` and `--server`.
pub const DEFAULT: &str = "default";

const FORM: &str = "write it as 203.0.113.1=192.168.0.1, or with a name and several VIPs as office:203.0.113.1,203.0.113.2=192.168.0.1";

/// Some VIPs and the server behind them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Its name, which no other service of the instance has.
    pub name: String,
    /// Its public addresses, one at least. A peer whose VIP is not known is answered from the first
    /// one of its family.
    pub vips: Vec<IpAddr>,
    /// The server: one address of each family at most.
    pub servers: Vec<IpAddr>,
    /// Peers that are not translated.
    pub lists: Lists,
    /// Whether the VIPs are for IPsec alone.
    pub dedicated: bool,
}

impl Service {
    /// A service of one VIP that translates all peers.
    pub fn new(name: &str, vip: Ipv4Addr, server: Ipv4Addr) -> Self {
        Self {
            name: name.to_owned(),
            vips: vec![vip.into()],
            servers: vec![server.into()],
            lists: Lists::default(),
            dedicated: false,
        }
    }

    /// Its IPv4 VIPs.
    pub fn vips_v4(&self) -> impl Iterator<Item = Ipv4Addr> {
        self.vips.iter().filter_map(v4)
    }

    /// The IPv4 address of its server.
    pub fn server_v4(&self) -> Option<Ipv4Addr> {
        self.servers.iter().find_map(v4)
    }

    /// As `--service` takes it.
    pub fn option(&self) -> String {
        let name = if self.name == self.vips[0].to_string() {
            String::new()
        } else {
            format!("{}:", self.name)
        };
        format!(
            "{name}{}={}",
            join(&self.vips, ","),
            join(&self.servers, ",")
        )
    }

    /// The arguments that give it: the short form if that is possible.
    pub(crate) fn arguments(&self) -> String {
        match (self.name.as_str(), &*self.vips, &*self.servers) {
            (DEFAULT, [vip], [server]) => format!("--vip {vip} --server {server}"),
            _ => format!("--service {}", self.option()),
        }
    }
}

const fn v4(address: &IpAddr) -> Option<Ipv4Addr> {
    match address {
        IpAddr::V4(address) => Some(*address),
        IpAddr::V6(_) => None,
    }
}

/// The addresses with something in between.
pub(crate) fn join(addresses: &[IpAddr], between: &str) -> String {
    let texts: Vec<String> = addresses.iter().map(IpAddr::to_string).collect();
    texts.join(between)
}

/// The first ones of many things by their names, as `a, b and 7 more VIPs`.
pub(crate) fn named(names: Vec<String>, most: usize, what: &str) -> String {
    listed(names, (most, ", "), what)
}

/// The first ones of many texts, with something in between.
pub(crate) fn listed(mut texts: Vec<String>, (most, between): (usize, &str), what: &str) -> String {
    let more = texts.len().saturating_sub(most);
    texts.truncate(most);
    let names = texts.join(between);
    match more {
        0 => names,
        1 => format!("{names} and 1 more {what}"),
        _ => format!("{names} and {more} more {what}s"),
    }
}

/// Reads an address of an option; the error is a sentence.
pub fn address(text: &str) -> Result<Ipv4Addr, String> {
    match text.parse() {
        Ok(IpAddr::V4(address)) => Ok(address),
        Ok(IpAddr::V6(_)) => Err("IPv6 is not supported yet; give an IPv4 address".to_owned()),
        Err(_) => Err(
            "it is not an IPv4 address; write it as four numbers, for example 203.0.113.1"
                .to_owned(),
        ),
    }
}

impl FromStr for Service {
    type Err = String;

    /// Reads `[NAME:]VIP[,VIP...]=SERVER`. Without a name, the text of the first VIP is the name.
    fn from_str(text: &str) -> Result<Self, String> {
        let (left, server) = text
            .split_once('=')
            .ok_or_else(|| format!("it has no `=` before the server; {FORM}"))?;
        // A colon may also be one of an IPv6 address.
        let is_address = |text: &str| text.parse::<IpAddr>().is_ok();
        let (name, vips) = match left.split_once(':') {
            Some((name, vips)) if !left.split(',').all(is_address) => (Some(name), vips),
            Some(_) | None => (None, left),
        };
        let read = |text: &str| address(text).map_err(|why| format!("`{text}`: {why}; {FORM}"));
        let vips: Vec<Ipv4Addr> = vips.split(',').map(read).collect::<Result<_, String>>()?;
        let server = read(server)?;
        let name = match name {
            Some(name) => checked_name(name)?,
            None => vips[0].to_string(),
        };
        Ok(Self {
            vips: vips.into_iter().map(IpAddr::from).collect(),
            ..Self::new(&name, server, server)
        })
    }
}

/// Whether a text can be the name of a service.
pub fn is_service_name(text: &str) -> bool {
    is_name(text, b"-_.")
}

fn checked_name(name: &str) -> Result<String, String> {
    if !is_service_name(name) {
        return Err(format!(
            "the name `{name}` does not have 1 to {LONGEST} letters (a to z, A to Z), digits, `-`, `_` and `.`; {FORM}"
        ));
    }
    Ok(name.to_owned())
}

/// Refuses services that contradict each other, or more than there can be. `services` is not empty.
pub(crate) fn check(services: &[Service]) -> Result<()> {
    if services.len() > limits::SERVICES {
        return Err(ServiceError::TooMany {
            found: services.len(),
            limit: limits::SERVICES,
        }
        .into());
    }
    for (at, service) in services.iter().enumerate() {
        let earlier = &services[..at];
        check_name_and_server(service, earlier)?;
        check_vips(service, earlier, services)?;
        service.lists.check()?;
    }
    // Together, as they share a map.
    let found = distinct(services).into_iter().flat_map(Lists::all).count();
    let limit = limits::PREFIXES as usize;
    if found > limit {
        return Err(Error::TooManyPrefixes { found, limit });
    }
    let found = services.iter().map(|service| service.vips.len()).sum();
    if found > VIPS {
        return Err(ServiceError::TooManyVips { found, limit: VIPS }.into());
    }
    Ok(())
}

fn check_name_and_server(service: &Service, earlier: &[Service]) -> Result<()> {
    for other in earlier {
        if other.name == service.name {
            return Err(ServiceError::NameTwice {
                name: service.name.clone(),
            }
            .into());
        }
        let is_shared = |server: &&IpAddr| other.servers.contains(server);
        if let Some(server) = service.servers.iter().find(is_shared) {
            return Err(ServiceError::ServerTwice {
                server: *server,
                first: other.name.clone(),
                second: service.name.clone(),
                together: join(&[&*other.vips, &service.vips].concat(), ","),
            }
            .into());
        }
    }
    Ok(())
}

fn check_vips(service: &Service, earlier: &[Service], all: &[Service]) -> Result<()> {
    for (at, vip) in service.vips.iter().enumerate() {
        let twice = |first: &Service| ServiceError::VipTwice {
            vip: *vip,
            first: first.name.clone(),
            second: service.name.clone(),
        };
        if service.vips[..at].contains(vip) {
            return Err(twice(service).into());
        }
        if let Some(first) = earlier.iter().find(|other| other.vips.contains(vip)) {
            return Err(twice(first).into());
        }
        match all.iter().find(|other| other.servers.contains(vip)) {
            Some(own) if own.name == service.name => {
                return Err(ServiceError::OwnServer { address: *vip }.into());
            }
            Some(other) => {
                return Err(ServiceError::VipIsServer {
                    address: *vip,
                    of_vip: service.name.clone(),
                    of_server: other.name.clone(),
                }
                .into());
            }
            None => {}
        }
    }
    Ok(())
}

#[cfg(test)]
#[path = "services_tests.rs"]
mod tests;
