//! From what was asked for to what can be done: every check that needs no loaded program, before anything is touched.
//!
//! It may not know how a program is loaded or attached.

use crate::clock::tick_shift;
use crate::error::{Error, Result, word};
use crate::netlink::{Link, Netlink, Route};
use crate::pins::Sizes;
use aya::util::KernelVersion;
use rustix::thread::{CapabilitySet, capabilities};
use std::fs;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use xdp_common::{Config, Secret, limits, slot};

/// How the XDP programs run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// In the driver.
    Native,
    /// In the stack, on any device; slower.
    Generic,
}

impl Mode {
    /// The word for people.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Generic => "generic",
        }
    }

    /// The number in META.
    pub const fn number(self) -> u64 {
        match self {
            Self::Native => 0,
            Self::Generic => 1,
        }
    }

    /// The mode of a number in META.
    pub const fn of(number: u64) -> Self {
        if number == 0 {
            Self::Native
        } else {
            Self::Generic
        }
    }
}

/// How the tc programs are attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tc {
    /// As an earlier start did; else by tcx where the kernel has it.
    Auto,
    /// By pinned tcx links.
    Tcx,
    /// As filters in a clsact.
    Clsact,
}

/// What was asked for.
#[derive(Clone, Debug)]
pub struct Request {
    /// Interface towards the clients.
    pub wan: String,
    /// Interface towards the server.
    pub lan: String,
    /// The public address.
    pub vip: Ipv4Addr,
    /// The server behind it.
    pub server: Ipv4Addr,
    /// How the XDP programs run.
    pub mode: Mode,
    /// How the tc programs are attached.
    pub tc: Tc,
    /// Sizes of the tables.
    pub sizes: Sizes,
    /// Seconds of silence after which an entry goes.
    pub idle_secs: u32,
    /// Whether messages about sessions go to the log.
    pub log_sessions: bool,
    /// A BPF file system other than the usual one.
    pub bpffs: Option<PathBuf>,
}

/// What can be done: the request, and the interfaces it names.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The request.
    pub request: Request,
    /// The WAN.
    pub wan: Link,
    /// The LAN.
    pub lan: Link,
    /// The VIP is an address of this host, which then answers ARP for it.
    pub vip_is_local: bool,
}

/// Refuses to go on without the capabilities that loading and attaching need.
pub fn check_privilege() -> Result<()> {
    let has = capabilities(None)
        .map_err(|error| Error::system("read the capabilities of this process")(error.into()))?
        .effective;
    let bpf = has.intersects(CapabilitySet::BPF | CapabilitySet::SYS_ADMIN);
    let net = has.contains(CapabilitySet::NET_ADMIN);
    let missing = match (bpf, net) {
        (true, true) => return Ok(()),
        (true, false) => "CAP_NET_ADMIN is missing",
        (false, true) => "CAP_BPF is missing",
        (false, false) => "both are missing",
    };
    Err(Error::Privilege { missing })
}

fn check_kernel() -> Result<()> {
    const OLDEST: KernelVersion = KernelVersion::new(6, 1, 0);
    match KernelVersion::current() {
        Ok(version) if version >= OLDEST => Ok(()),
        Ok(_) | Err(_) => Err(Error::OldKernel {
            found: rustix::system::uname()
                .release()
                .to_string_lossy()
                .into_owned(),
        }),
    }
}

/// Why an address is not that of a host.
fn not_unicast(address: Ipv4Addr) -> Option<&'static str> {
    let first = address.octets()[0];
    match first {
        0 => Some("it is in 0.0.0.0/8"),
        127 => Some("it is a loopback address"),
        224..=239 => Some("it is a multicast address"),
        240..=255 => Some("it is reserved or broadcast"),
        _ => None,
    }
}

fn check_addresses(vip: Ipv4Addr, server: Ipv4Addr) -> Result<()> {
    for (role, address) in [("the VIP", vip), ("the server", server)] {
        if let Some(why) = not_unicast(address) {
            return Err(Error::NotUnicast { role, address, why });
        }
    }
    if vip == server {
        return Err(Error::VipIsServer { address: vip });
    }
    Ok(())
}

/// The sysctl that lets an interface forward; a name with a dot needs slashes.
fn forwarding_key(interface: &str) -> String {
    if interface.contains('.') {
        format!("net/ipv4/conf/{interface}/forwarding")
    } else {
        format!("net.ipv4.conf.{interface}.forwarding")
    }
}

fn check_link(link: &Link) -> Result<()> {
    if link.mac.is_none() {
        return Err(Error::NotEthernet {
            name: link.name.clone(),
        });
    }
    // /proc/sys/net is that of the network namespace of whoever reads it, also after nsenter.
    let path = format!("/proc/sys/net/ipv4/conf/{}/forwarding", link.name);
    let value = fs::read_to_string(&path).map_err(Error::system(format!("read {path}")))?;
    if value.trim() == "0" {
        return Err(Error::ForwardingOff {
            name: link.name.clone(),
            key: forwarding_key(&link.name),
        });
    }
    Ok(())
}

fn check_route(netlink: &Netlink, server: Ipv4Addr, lan: &Link) -> Result<()> {
    match netlink.route(server) {
        Ok(Route::By(index)) if index == lan.index => Ok(()),
        Ok(Route::By(index)) => {
            let links = netlink.links()?;
            let found = links.into_iter().find(|link| link.index == index);
            Err(Error::OtherLan {
                server,
                found: found.map_or_else(|| format!("interface {index}"), |link| link.name),
                lan: lan.name.clone(),
            })
        }
        Ok(Route::Local) => Err(Error::ServerIsLocal { server }),
        Err(error) => Err(Error::NotRoutable {
            server,
            why: word(&error),
            lan: lan.name.clone(),
        }),
    }
}

impl Plan {
    /// Checks a request against this host.
    pub fn check(request: Request, netlink: &Netlink) -> Result<Self> {
        check_privilege()?;
        check_kernel()?;
        check_addresses(request.vip, request.server)?;
        let wan = netlink.link(&request.wan)?;
        let lan = netlink.link(&request.lan)?;
        for link in [&wan, &lan] {
            check_link(link)?;
        }
        check_route(netlink, request.server, &lan)?;
        let vip_is_local = matches!(netlink.route(request.vip), Ok(Route::Local));
        Ok(Self {
            request,
            wan,
            lan,
            vip_is_local,
        })
    }

    /// True when one interface is both.
    pub fn is_one_armed(&self) -> bool {
        self.wan.index == self.lan.index
    }

    /// The load-time constants.
    pub fn constants(&self, secret: Secret, rate: u64) -> Config {
        let buckets = |slots: u32| slots / u32::try_from(slot::WAYS).unwrap_or(1);
        let Sizes {
            flow_slots,
            session_slots,
        } = self.request.sizes;
        // Packets of other namespaces of this host come with partial checksums, and generic XDP sees those of any.
        let partial =
            |link: &Link| u8::from(link.kind.is_some() || self.request.mode == Mode::Generic);
        Config {
            secret,
            vip: self.request.vip.octets(),
            server: self.request.server.octets(),
            lan_address: [0; 4],
            wans: [self.wan.index, 0, 0, 0],
            lans: [self.lan.index, 0, 0, 0],
            wan_ifindex: self.wan.index,
            lan_ifindex: self.lan.index,
            flow_mask: buckets(flow_slots) - 1,
            session_mask: buckets(session_slots) - 1,
            half_mask: limits::HALF_BUCKETS - 1,
            fragment_mask: limits::FRAGMENT_BUCKETS - 1,
            flow_limit: flow_slots / 2,
            session_limit: session_slots / 2,
            spis_per_session: limits::SPIS_PER_SESSION,
            tick_shift: tick_shift(rate),
            confirm_ticks: limits::NEIGHBOUR_CONFIRM_TICKS,
            wan_mac: self.wan.mac.unwrap_or_default(),
            lan_mac: self.lan.mac.unwrap_or_default(),
            wan_partial: partial(&self.wan),
            lan_partial: partial(&self.lan),
            log: u8::from(self.request.log_sessions),
            dry_run: 0,
            dedicated: 0,
            server_is_local: 0,
            lists: 0,
            reserved: [0; 5],
            legs: Default::default(),
        }
        .seal()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_of_hosts_are_taken() {
        let server = Ipv4Addr::new(192, 168, 0, 1);
        for bad in ["0.0.0.1", "127.0.0.1", "224.0.0.1", "255.255.255.255"] {
            let address = bad.parse().expect("an address");
            let error = check_addresses(address, server).expect_err(bad).to_string();
            assert!(error.contains("the VIP") && error.contains(bad), "{error}");
            let error = check_addresses(server, address).expect_err(bad).to_string();
            assert!(
                error.contains("the server") && error.contains(bad),
                "{error}"
            );
        }
        assert!(check_addresses(Ipv4Addr::new(203, 0, 113, 1), server).is_ok());
        assert!(check_addresses(server, server).is_err());
    }

    #[test]
    fn the_way_out_of_missing_forwarding_can_be_pasted() {
        assert_eq!(forwarding_key("eth0"), "net.ipv4.conf.eth0.forwarding");
        assert_eq!(forwarding_key("eth0.5"), "net/ipv4/conf/eth0.5/forwarding");
    }

    #[test]
    fn the_constants_fit_the_tables() {
        let link = |index, kind: Option<&str>| Link {
            index,
            name: "x".to_owned(),
            mac: Some([2, 0, 0, 0, 0, 1]),
            kind: kind.map(ToOwned::to_owned),
            ..Link::default()
        };
        let plan = Plan {
            request: Request {
                wan: "x".to_owned(),
                lan: "x".to_owned(),
                vip: Ipv4Addr::new(203, 0, 113, 1),
                server: Ipv4Addr::new(192, 168, 0, 1),
                mode: Mode::Native,
                tc: Tc::Auto,
                sizes: Sizes {
                    flow_slots: 1024,
                    session_slots: 256,
                },
                idle_secs: 300,
                log_sessions: false,
                bpffs: None,
            },
            wan: link(5, None),
            lan: link(6, Some("veth")),
            vip_is_local: true,
        };
        let constants = plan.constants([7; 16], 250);
        assert_eq!((constants.flow_mask, constants.flow_limit), (255, 512));
        assert_eq!((constants.session_mask, constants.session_limit), (63, 128));
        assert_eq!((constants.wan_partial, constants.lan_partial), (0, 1));
        assert_eq!(constants.tick_shift, 8);
        assert_eq!(constants.vip, [203, 0, 113, 1]);
    }
}
