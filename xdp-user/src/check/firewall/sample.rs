//! Sample packets, and the conditions of rules evaluated on them.
//!
//! Only what all handled packets have in common is known of a sample, so a condition may match some
//! of the packets that it stands for.

use std::net::Ipv4Addr;

/// A hook of netfilter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum NetfilterHook {
    Prerouting,
    Input,
    Forward,
    Output,
    Postrouting,
}

impl NetfilterHook {
    /// By its name in either syntax: `PREROUTING` or `prerouting`.
    pub(super) fn of(name: &str) -> Option<Self> {
        match name.to_ascii_lowercase().as_str() {
            "prerouting" => Some(Self::Prerouting),
            "input" => Some(Self::Input),
            "forward" => Some(Self::Forward),
            "output" => Some(Self::Output),
            "postrouting" => Some(Self::Postrouting),
            _ => None,
        }
    }
}

/// The source or the destination of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Endpoint {
    /// This address; the flag is true for an address of this host.
    Host(Ipv4Addr, bool),
    /// Any client: an outside address other than these two.
    Client([Ipv4Addr; 2]),
}

/// A handled packet. A port that is `None` is a client's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SamplePacket {
    pub(super) input: Option<String>,
    pub(super) output: Option<String>,
    pub(super) source: Endpoint,
    pub(super) destination: Endpoint,
    pub(super) protocol: u8,
    pub(super) source_port: Option<u16>,
    pub(super) destination_port: Option<u16>,
}

/// Protocol number of TCP.
pub(super) const TCP: u8 = 6;
/// Protocol number of UDP.
pub(super) const UDP: u8 = 17;
/// Protocol number of ESP.
pub(super) const ESP: u8 = 50;

/// Whether a condition matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Match {
    No,
    Yes,
    /// It matches some of the packets that the sample stands for.
    Some,
    /// The condition is not understood.
    Unknown,
}

impl Match {
    pub(super) fn of(yes: bool) -> Self {
        if yes { Self::Yes } else { Self::No }
    }

    pub(super) fn not(self) -> Self {
        match self {
            Self::Yes => Self::No,
            Self::No => Self::Yes,
            Self::Some | Self::Unknown => self,
        }
    }

    /// Both of two conditions.
    pub(super) fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::No, _) | (_, Self::No) => Self::No,
            (Self::Unknown, _) | (_, Self::Unknown) => Self::Unknown,
            (Self::Some, _) | (_, Self::Some) => Self::Some,
            (Self::Yes, Self::Yes) => Self::Yes,
        }
    }

    /// Either of two conditions.
    pub(super) fn or(self, other: Self) -> Self {
        self.not().and(other.not()).not()
    }
}

/// A range of addresses, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct AddressRange {
    pub(super) first: u32,
    pub(super) last: u32,
}

impl AddressRange {
    pub(super) fn between(first: Ipv4Addr, last: Ipv4Addr) -> Self {
        Self {
            first: first.into(),
            last: last.into(),
        }
    }

    pub(super) fn prefix(address: Ipv4Addr, length: u8) -> Self {
        let host = u32::MAX.checked_shr(length.into()).unwrap_or(0);
        let first = u32::from(address) & !host;
        Self {
            first,
            last: first | host,
        }
    }

    /// `10.0.0.0/8`, `10.0.0.1`, `10.0.0.0/255.0.0.0`, `10.0.0.1-10.0.0.9`.
    pub(super) fn parse(text: &str) -> Option<Self> {
        if let Some((first, last)) = text.split_once('-') {
            return Some(Self::between(first.parse().ok()?, last.parse().ok()?));
        }
        let Some((address, length)) = text.split_once('/') else {
            let address = text.parse().ok()?;
            return Some(Self::between(address, address));
        };
        let length = match length.parse::<u8>() {
            Ok(length) => length,
            Err(_) => {
                let mask = u32::from(length.parse::<Ipv4Addr>().ok()?);
                let ones = mask.leading_ones();
                // A mask with holes is not supported.
                (mask.count_ones() == ones).then_some(u8::try_from(ones).ok()?)?
            }
        };
        let address = address.parse().ok()?;
        (length <= 32).then(|| Self::prefix(address, length))
    }

    /// Whether no client can have an address in it, because clients have public addresses.
    fn is_inside(&self) -> bool {
        const INSIDE: [(Ipv4Addr, u8); 6] = [
            (Ipv4Addr::new(10, 0, 0, 0), 8),
            (Ipv4Addr::new(172, 16, 0, 0), 12),
            (Ipv4Addr::new(192, 168, 0, 0), 16),
            (Ipv4Addr::new(169, 254, 0, 0), 16),
            (Ipv4Addr::new(127, 0, 0, 0), 8),
            (Ipv4Addr::new(224, 0, 0, 0), 3),
        ];
        INSIDE.iter().any(|(address, length)| {
            let inside = Self::prefix(*address, *length);
            inside.first <= self.first && self.last <= inside.last
        })
    }

    fn is_only(&self, address: Ipv4Addr) -> bool {
        self.first == self.last && self.first == u32::from(address)
    }

    fn evaluate(&self, end: Endpoint) -> Match {
        match end {
            Endpoint::Host(address, _) => {
                Match::of((self.first..=self.last).contains(&u32::from(address)))
            }
            Endpoint::Client(_) if (self.first, self.last) == (0, u32::MAX) => Match::Yes,
            Endpoint::Client(_) if self.is_inside() => Match::No,
            Endpoint::Client(others) if others.iter().any(|other| self.is_only(*other)) => {
                Match::No
            }
            Endpoint::Client(_) => Match::Some,
        }
    }
}

/// What a rule compares.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Condition {
    Source(Vec<AddressRange>),
    Destination(Vec<AddressRange>),
    /// Interface names; one that ends in `+` or `*` is a prefix.
    Input(Vec<String>),
    Output(Vec<String>),
    Protocol(Vec<u8>),
    SourcePort(Vec<(u16, u16)>),
    DestinationPort(Vec<(u16, u16)>),
    SourceIsLocal,
    DestinationIsLocal,
    /// The same result for every sample.
    Constant(Match),
    Not(Box<Condition>),
    Any(Vec<Condition>),
    All(Vec<Condition>),
}

fn any(results: impl Iterator<Item = Match>) -> Match {
    results.fold(Match::No, Match::or)
}

fn names(patterns: &[String], name: Option<&str>) -> Match {
    let Some(name) = name else {
        // Before the route is known no packet has an output interface.
        return Match::No;
    };
    let matches = |pattern: &String| match pattern.strip_suffix(['+', '*']) {
        Some(begin) => name.starts_with(begin),
        None => name == pattern,
    };
    Match::of(patterns.iter().any(matches))
}

/// Whether a client can have a port of this range: 500, 4500 or, behind a NAT, any unprivileged port.
fn is_a_clients((first, last): (u16, u16)) -> bool {
    last >= 1024 || [500, 4500].iter().any(|port| (first..=last).contains(port))
}

fn ports(ranges: &[(u16, u16)], packet: &SamplePacket, port: Option<u16>) -> Match {
    let within = |port| {
        let mut ranges = ranges.iter();
        ranges.any(|(first, last)| (*first..=*last).contains(&port))
    };
    match port {
        // ESP has none.
        _ if ![UDP, TCP].contains(&packet.protocol) => Match::No,
        Some(port) => Match::of(within(port)),
        None if ranges.iter().any(|range| is_a_clients(*range)) => Match::Some,
        None => Match::No,
    }
}

impl Condition {
    pub(super) fn negated(self, yes: bool) -> Self {
        if yes { Self::Not(Box::new(self)) } else { self }
    }

    pub(super) fn evaluate(&self, packet: &SamplePacket) -> Match {
        let local = |end: Endpoint| match end {
            Endpoint::Host(_, local) => Match::of(local),
            Endpoint::Client(_) => Match::No,
        };
        match self {
            Self::Source(ranges) => any(ranges.iter().map(|one| one.evaluate(packet.source))),
            Self::Destination(ranges) => {
                any(ranges.iter().map(|one| one.evaluate(packet.destination)))
            }
            Self::Input(patterns) => names(patterns, packet.input.as_deref()),
            Self::Output(patterns) => names(patterns, packet.output.as_deref()),
            Self::Protocol(numbers) => Match::of(numbers.contains(&packet.protocol)),
            Self::SourcePort(ranges) => ports(ranges, packet, packet.source_port),
            Self::DestinationPort(ranges) => ports(ranges, packet, packet.destination_port),
            Self::SourceIsLocal => local(packet.source),
            Self::DestinationIsLocal => local(packet.destination),
            Self::Constant(truth) => *truth,
            Self::Not(test) => test.evaluate(packet).not(),
            Self::Any(conditions) => any(conditions.iter().map(|test| test.evaluate(packet))),
            Self::All(conditions) => {
                let all = conditions.iter().map(|test| test.evaluate(packet));
                all.fold(Match::Yes, Match::and)
            }
        }
    }

    /// Whether it selects packets by a port or by ESP.
    pub(super) fn is_about_a_service(&self) -> bool {
        match self {
            Self::SourcePort(_) | Self::DestinationPort(_) => true,
            Self::Protocol(numbers) => numbers == &[ESP],
            Self::Any(conditions) | Self::All(conditions) => {
                conditions.iter().any(Self::is_about_a_service)
            }
            Self::Source(_)
            | Self::Destination(_)
            | Self::Input(_)
            | Self::Output(_)
            | Self::SourceIsLocal
            | Self::DestinationIsLocal
            | Self::Constant(_)
            | Self::Not(_) => false,
        }
    }
}

#[cfg(test)]
pub(super) mod fixtures {
    use super::*;

    pub(in super::super) const SERVER: Ipv4Addr = Ipv4Addr::new(192, 168, 0, 1);

    /// A reply of the server to a client, when it leaves.
    pub(in super::super) fn outbound() -> SamplePacket {
        SamplePacket {
            input: Some("lan0".to_owned()),
            output: Some("wan0".to_owned()),
            source: Endpoint::Host(SERVER, false),
            destination: Endpoint::Client([Ipv4Addr::new(203, 0, 113, 1), SERVER]),
            protocol: UDP,
            source_port: Some(4500),
            destination_port: None,
        }
    }
}
