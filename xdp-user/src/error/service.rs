//! The errors of services that contradict each other or do not exist.

use std::net::IpAddr;

/// What is wrong with the services that were asked for.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServiceError {
    /// There are too many services.
    #[error(
        "{found} services are given with --service, and an instance has at most {limit}: give the others to a second instance, with interfaces and a name (--instance) of its own"
    )]
    TooMany {
        /// As many as there are.
        found: usize,
        /// The limit.
        limit: usize,
    },
    /// There are too many VIPs.
    #[error(
        "{found} VIPs are given, and an instance has at most {limit}: give the others to a second instance, with interfaces and a name (--instance) of its own"
    )]
    TooManyVips {
        /// As many as there are.
        found: usize,
        /// The limit.
        limit: usize,
    },
    /// Two services have one name.
    #[error(
        "two services have the name {name}: give one of them another one, as in `--service NAME:VIP=SERVER`"
    )]
    NameTwice {
        /// The name.
        name: String,
    },
    /// A VIP is given twice.
    #[error(
        "the VIP {vip} is given twice, {}: leave it in one --service, once",
        place(first, second)
    )]
    VipTwice {
        /// The VIP.
        vip: IpAddr,
        /// The first service that has it.
        first: String,
        /// The second one, or the same.
        second: String,
    },
    /// The VIP and the server are the same.
    #[error(
        "the VIP and the server are both {address}, so there is nothing to translate: give the public address with --vip, and the server's own address with --server"
    )]
    OwnServer {
        /// The address.
        address: IpAddr,
    },
    /// A VIP is the server of another service.
    #[error(
        "{address} is a VIP of the service {of_vip} and the server of the service {of_server}: give --service a server's own address behind the gateway after the `=`"
    )]
    VipIsServer {
        /// The address.
        address: IpAddr,
        /// The service whose VIP it is.
        of_vip: String,
        /// The service whose server it is.
        of_server: String,
    },
    /// Two services have one server: its packets would belong to either.
    #[error(
        "the services {first} and {second} have the same server {server}: make them one service, as in `--service {first}:{together}={server}`"
    )]
    ServerTwice {
        /// The server.
        server: IpAddr,
        /// The first service.
        first: String,
        /// The second one.
        second: String,
        /// The VIPs of both.
        together: String,
    },
    /// No instance has a service of this name.
    #[error("there is no service {name}; give --service one of: {known}")]
    Unknown {
        /// The name.
        name: String,
        /// The names that there are.
        known: String,
    },
    /// All numbers are taken.
    #[error(
        "there is no number left for the {what} {key}: of {limit}, {going} are still those of removed ones and {leaving} those of ones that this start would remove, and a running daemon frees such within {seconds} s: first start it with {}, wait so long and try again, or run `{unload}` (all counters start at zero)",
        first_step(*free, what)
    )]
    NoNumber {
        /// `service` or `VIP`.
        what: &'static str,
        /// Its name or address.
        key: String,
        /// How many wait until no entry has them.
        going: usize,
        /// How many more would have to wait after this start.
        leaving: usize,
        /// How many are free.
        free: usize,
        /// How long they wait at most.
        seconds: u64,
        /// The limit.
        limit: u16,
        /// The command that removes the instance.
        unload: String,
    },
}

/// What a start can have as long as no number is free but these.
fn first_step(free: usize, what: &str) -> String {
    match free {
        0 => format!("some of the {what}s of before and no new one"),
        _ => format!("at most {free} new {what}s and none that is to be removed"),
    }
}

fn place(first: &str, second: &str) -> String {
    if first == second {
        format!("for the service {first}")
    } else {
        format!("for the services {first} and {second}")
    }
}
