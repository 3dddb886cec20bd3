//! A packet of ours, as far as it is known, and what a rule can test of it.
//!
//! It may not know in whose language a test was written, nor what follows from it.

use std::net::Ipv4Addr;

/// Where a packet meets rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Hook {
    Prerouting,
    Input,
    Forward,
    Output,
    Postrouting,
}

impl Hook {
    /// From either language: `PREROUTING`, `prerouting`.
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

/// Who is at one end of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// This one; and whether it is an address of this host.
    Is(Ipv4Addr, bool),
    /// Any client: somebody outside, and so neither of these.
    Client([Ipv4Addr; 2]),
}

/// A packet of ours, as far as it is known. A port that is `None` is a client's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Packet {
    pub(super) input: Option<String>,
    pub(super) output: Option<String>,
    pub(super) source: End,
    pub(super) destination: End,
    pub(super) protocol: u8,
    pub(super) source_port: Option<u16>,
    pub(super) destination_port: Option<u16>,
}

/// UDP's number.
pub(super) const UDP: u8 = 17;
/// ESP's number.
pub(super) const ESP: u8 = 50;

/// Whether a test lets a packet through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Truth {
    No,
    Yes,
    /// Some of the packets that we mean.
    Some,
    /// We do not understand the test.
    Unknown,
}

impl Truth {
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

    /// Both of two tests.
    pub(super) fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::No, _) | (_, Self::No) => Self::No,
            (Self::Unknown, _) | (_, Self::Unknown) => Self::Unknown,
            (Self::Some, _) | (_, Self::Some) => Self::Some,
            (Self::Yes, Self::Yes) => Self::Yes,
        }
    }

    /// Either of two tests.
    pub(super) fn or(self, other: Self) -> Self {
        self.not().and(other.not()).not()
    }
}

/// Addresses from the first to the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Range {
    pub(super) first: u32,
    pub(super) last: u32,
}

impl Range {
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
                // A mask with holes is nothing that we understand.
                (mask.count_ones() == ones).then_some(u8::try_from(ones).ok()?)?
            }
        };
        let address = address.parse().ok()?;
        (length <= 32).then(|| Self::prefix(address, length))
    }

    /// Whether no client can have an address in it: clients come from outside, with addresses of their own.
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

    fn truth(&self, end: End) -> Truth {
        match end {
            End::Is(address, _) => {
                Truth::of((self.first..=self.last).contains(&u32::from(address)))
            }
            End::Client(_) if (self.first, self.last) == (0, u32::MAX) => Truth::Yes,
            End::Client(_) if self.is_inside() => Truth::No,
            End::Client(others) if others.iter().any(|other| self.is_only(*other)) => Truth::No,
            End::Client(_) => Truth::Some,
        }
    }
}

/// What is tested.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Test {
    Source(Vec<Range>),
    Destination(Vec<Range>),
    /// Names; one that ends in `+` or `*` stands for all that begin so.
    Input(Vec<String>),
    Output(Vec<String>),
    Protocol(Vec<u8>),
    SourcePort(Vec<(u16, u16)>),
    DestinationPort(Vec<(u16, u16)>),
    SourceIsLocal,
    DestinationIsLocal,
    /// The same for every packet that we mean.
    Always(Truth),
    Not(Box<Test>),
    Any(Vec<Test>),
    All(Vec<Test>),
}

fn any(truths: impl Iterator<Item = Truth>) -> Truth {
    truths.fold(Truth::No, Truth::or)
}

fn names(patterns: &[String], name: Option<&str>) -> Truth {
    let Some(name) = name else {
        // `-o` before the route is known: no packet has one.
        return Truth::No;
    };
    let matches = |pattern: &String| match pattern.strip_suffix(['+', '*']) {
        Some(begin) => name.starts_with(begin),
        None => name == pattern,
    };
    Truth::of(patterns.iter().any(matches))
}

/// A client's port is one of ours or, behind a NAT, one that nobody needs privileges for.
fn is_a_clients((first, last): (u16, u16)) -> bool {
    last >= 1024 || [500, 4500].iter().any(|port| (first..=last).contains(port))
}

fn ports(ranges: &[(u16, u16)], packet: &Packet, port: Option<u16>) -> Truth {
    let within = |port| {
        let mut ranges = ranges.iter();
        ranges.any(|(first, last)| (*first..=*last).contains(&port))
    };
    match port {
        // ESP has none.
        _ if packet.protocol != UDP => Truth::No,
        Some(port) => Truth::of(within(port)),
        None if ranges.iter().any(|range| is_a_clients(*range)) => Truth::Some,
        None => Truth::No,
    }
}

impl Test {
    pub(super) fn negated(self, yes: bool) -> Self {
        if yes { Self::Not(Box::new(self)) } else { self }
    }

    pub(super) fn truth(&self, packet: &Packet) -> Truth {
        let local = |end: End| match end {
            End::Is(_, local) => Truth::of(local),
            End::Client(_) => Truth::No,
        };
        match self {
            Self::Source(ranges) => any(ranges.iter().map(|one| one.truth(packet.source))),
            Self::Destination(ranges) => {
                any(ranges.iter().map(|one| one.truth(packet.destination)))
            }
            Self::Input(patterns) => names(patterns, packet.input.as_deref()),
            Self::Output(patterns) => names(patterns, packet.output.as_deref()),
            Self::Protocol(numbers) => Truth::of(numbers.contains(&packet.protocol)),
            Self::SourcePort(ranges) => ports(ranges, packet, packet.source_port),
            Self::DestinationPort(ranges) => ports(ranges, packet, packet.destination_port),
            Self::SourceIsLocal => local(packet.source),
            Self::DestinationIsLocal => local(packet.destination),
            Self::Always(truth) => *truth,
            Self::Not(test) => test.truth(packet).not(),
            Self::Any(tests) => any(tests.iter().map(|test| test.truth(packet))),
            Self::All(tests) => {
                let truths = tests.iter().map(|test| test.truth(packet));
                truths.fold(Truth::Yes, Truth::and)
            }
        }
    }

    /// Whether it picks packets by a port or by ESP, so that the rule can only be about IPsec or something like it.
    pub(super) fn is_about_a_service(&self) -> bool {
        match self {
            Self::SourcePort(_) | Self::DestinationPort(_) => true,
            Self::Protocol(numbers) => numbers == &[ESP],
            Self::Any(tests) | Self::All(tests) => tests.iter().any(Self::is_about_a_service),
            Self::Source(_)
            | Self::Destination(_)
            | Self::Input(_)
            | Self::Output(_)
            | Self::SourceIsLocal
            | Self::DestinationIsLocal
            | Self::Always(_)
            | Self::Not(_) => false,
        }
    }
}

#[cfg(test)]
pub(super) mod fixtures {
    use super::*;

    pub(in super::super) const SERVER: Ipv4Addr = Ipv4Addr::new(192, 168, 0, 1);

    /// The server's answer to a client, on its way out.
    pub(in super::super) fn outbound() -> Packet {
        Packet {
            input: Some("lan0".to_owned()),
            output: Some("wan0".to_owned()),
            source: End::Is(SERVER, false),
            destination: End::Client([Ipv4Addr::new(203, 0, 113, 1), SERVER]),
            protocol: UDP,
            source_port: Some(4500),
            destination_port: None,
        }
    }
}
