//! Offloads, receive queues and receive hashing of a device, from the generic netlink family
//! `ethtool`.

use super::Netlink;
use super::generic::{self, Attributes, Family, NESTED};
use super::socket::another;
use netlink_packet_core::{DefaultNla, Emitable as _, Nla as _, NlasIterator, Parseable as _};
use std::collections::BTreeSet;
use std::io;

/// Commands of `linux/ethtool_netlink.h`.
const FEATURES_GET: u8 = 11;
const CHANNELS_GET: u8 = 17;
const RSS_GET: u8 = 38;
/// The first attribute of every request and reply: the device.
const HEADER: u16 = 1;
const DEVICE_NAME: u16 = 2;
const ACTIVE: u16 = 4;
const BITSET_BITS: u16 = 3;
const BITSET_BIT: u16 = 1;
const BIT_NAME: u16 = 2;
const RX_CHANNELS: u16 = 6;
const TX_CHANNELS: u16 = 7;
const COMBINED_CHANNELS: u16 = 9;
/// Linux 6.17 and newer.
const FLOW_HASH: u16 = 8;
const FLOW_UDP4: u16 = 6;
const FLOW_ESP4: u16 = 12;

/// The fields by whose hash a device chooses a receive queue: `RXH_` bits of `linux/ethtool.h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HashFields {
    /// For UDP over IPv4, if the driver reports it.
    pub udp: Option<u64>,
    /// For ESP over IPv4, if the driver reports it.
    pub esp: Option<u64>,
}

/// The first two bytes after the IP header: the source port, or the upper half of the SPI.
pub const HASH_FIRST_HALF: u64 = 1 << 6;
/// The next two bytes: the destination port, or the lower half of the SPI.
pub const HASH_SECOND_HALF: u64 = 1 << 7;

#[derive(Clone, Debug)]
struct Ethtool;

impl Family for Ethtool {
    const NAME: &'static str = "ethtool";
}

fn request(device: &str, command: u8) -> Attributes<Ethtool> {
    let name = DefaultNla::new(DEVICE_NAME, [device.as_bytes(), &[0]].concat());
    let mut header = vec![0; [name.clone()].as_slice().buffer_len()];
    [name].as_slice().emit(&mut header);
    Attributes::new(command, vec![DefaultNla::new(HEADER | NESTED, header)])
}

/// The payloads of the attributes of a kind.
fn all(attributes: &[DefaultNla], kind: u16) -> impl Iterator<Item = Vec<u8>> {
    let found = attributes
        .iter()
        .filter(move |nla| nla.kind() & !NESTED == kind);
    found.map(generic::payload)
}

/// The attributes inside a nested one.
fn inside(bytes: &[u8]) -> Vec<DefaultNla> {
    let attributes = NlasIterator::new(bytes).map_while(Result::ok);
    attributes
        .map_while(|nla| DefaultNla::parse(&nla).ok())
        .collect()
}

fn nested(attributes: &[DefaultNla], kind: u16) -> Vec<DefaultNla> {
    all(attributes, kind)
        .next()
        .map(|bytes| inside(&bytes))
        .unwrap_or_default()
}

fn is_about(attributes: &[DefaultNla], device: &str) -> bool {
    let mut names = all(&nested(attributes, HEADER), DEVICE_NAME)
        .collect::<Vec<_>>()
        .into_iter();
    names.any(|name| name.split(|byte| *byte == 0).next() == Some(device.as_bytes()))
}

/// An integer of four or eight bytes.
fn number(attributes: &[DefaultNla], kind: u16) -> Option<u64> {
    let bytes = all(attributes, kind).next()?;
    let short = bytes.as_slice().try_into().map(u32::from_ne_bytes);
    let long = bytes.as_slice().try_into().map(u64::from_ne_bytes);
    short.map(u64::from).or(long).ok()
}

fn active(attributes: &[DefaultNla]) -> BTreeSet<String> {
    let bits = nested(&nested(attributes, ACTIVE), BITSET_BITS);
    let name = |bit: Vec<u8>| {
        let name = all(&inside(&bit), BIT_NAME).next()?;
        let name = name.split(|byte| *byte == 0).next()?.to_vec();
        String::from_utf8(name).ok()
    };
    all(&bits, BITSET_BIT).filter_map(name).collect()
}

fn hash_fields(attributes: &[DefaultNla]) -> HashFields {
    let flows = nested(attributes, FLOW_HASH);
    HashFields {
        udp: number(&flows, FLOW_UDP4),
        esp: number(&flows, FLOW_ESP4),
    }
}

impl Netlink {
    fn ethtool(&self, device: &str, command: u8) -> io::Result<Vec<DefaultNla>> {
        let family = generic::family_id(&self.generic, Ethtool::NAME)
            .ok_or_else(|| io::Error::from(io::ErrorKind::Unsupported))?;
        let reply = request(device, command).request(&self.generic, family)?;
        if !is_about(&reply, device) {
            return Err(another());
        }
        Ok(reply)
    }

    /// The offloads that are on, by the kernel's names such as `rx-lro`. `ethtool -k` shows some of
    /// them under other names.
    pub fn features(&self, device: &str) -> io::Result<BTreeSet<String>> {
        Ok(active(&self.ethtool(device, FEATURES_GET)?))
    }

    /// The number of receive queues; an error when the driver does not support the request.
    pub fn receive_queues(&self, device: &str) -> io::Result<u64> {
        self.queues(device, RX_CHANNELS)
    }

    /// The number of transmit queues likewise.
    pub fn transmit_queues(&self, device: &str) -> io::Result<u64> {
        self.queues(device, TX_CHANNELS)
    }

    /// Queues of one kind, and those that are of both.
    fn queues(&self, device: &str, kind: u16) -> io::Result<u64> {
        let channels = self.ethtool(device, CHANNELS_GET)?;
        let of = |kind| number(&channels, kind).unwrap_or_default();
        Ok(of(kind) + of(COMBINED_CHANNELS))
    }

    /// The hash fields of receive side scaling. An error means that the driver has none. Both fields
    /// are `None` when the kernel does not report them over netlink (before 6.17; before 6.3 the
    /// command does not exist).
    pub fn hash_fields(&self, device: &str) -> io::Result<HashFields> {
        if !generic::has_command(&self.generic, Ethtool::NAME, RSS_GET) {
            return Ok(HashFields {
                udp: None,
                esp: None,
            });
        }
        Ok(hash_fields(&self.ethtool(device, RSS_GET)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use netlink_packet_core::ParseableParametrized as _;
    use netlink_packet_generic::GenlHeader;

    fn parsed(bytes: &[u8]) -> Vec<DefaultNla> {
        let header = GenlHeader {
            cmd: FEATURES_GET,
            version: 1,
        };
        let reply = Attributes::<Ethtool>::parse_with_param(bytes, header).expect("well-formed");
        reply.attributes
    }

    #[test]
    fn a_request_names_its_device() {
        let message = request("eth0", RSS_GET);
        let mut bytes = vec![0; message.buffer_len()];
        message.emit(&mut bytes);
        let expected = [
            &[16, 0, 1, 0x80][..],
            &[9, 0, 2, 0, b'e', b't', b'h', b'0', 0, 0, 0, 0],
        ];
        assert_eq!(bytes, expected.concat());
    }

    #[test]
    fn features_are_read_from_the_kernels_bytes() {
        // As 6.18 replies, cut to two features.
        let bit = |index: u8, name: &[u8; 8]| {
            [
                &[24, 0, 1, 0x80, 8, 0, 1, 0, index, 0, 0, 0, 12, 0, 2, 0],
                &name[..],
            ]
            .concat()
        };
        let bits = [bit(15, b"rx-lro\0\0"), bit(0, b"tx-sg\0\0\0")].concat();
        let bytes = [
            &[68, 0, 4, 0x80][..],
            &[4, 0, 1, 0],
            &[52, 0, 3, 0x80],
            &bits,
            &[8, 0, 2, 0, 64, 0, 0, 0],
        ]
        .concat();
        let expected = ["rx-lro", "tx-sg"].map(str::to_owned);
        assert_eq!(active(&parsed(&bytes)), BTreeSet::from(expected));
    }

    #[test]
    fn hash_fields_are_read_from_the_kernels_bytes() {
        // UDP by addresses and ports, ESP by addresses; as 6.18 replies, four or eight bytes each.
        let bytes = [
            &[28, 0, 8, 0x80][..],
            &[8, 0, 6, 0, 0xf0, 0, 0, 0],
            &[12, 0, 12, 0, 0x30, 0, 0, 0, 0, 0, 0, 0],
            &[4, 0, 13, 0],
        ]
        .concat();
        let fields = hash_fields(&parsed(&bytes));
        let expected = HashFields {
            udp: Some(0xf0),
            esp: Some(0x30),
        };
        assert_eq!(fields, expected);
        assert_eq!(fields.udp.map(|bits| bits & HASH_SECOND_HALF), Some(0x80));
        let silent = hash_fields(&parsed(&[8, 0, 3, 0, 1, 0, 0, 0]));
        assert_eq!(silent.udp, None);
    }

    #[test]
    fn the_loopback_has_offloads_and_no_queues_to_choose() {
        let netlink = Netlink::open().expect("netlink needs no privilege");
        let features = netlink.features("lo").expect("the loopback has features");
        assert!(features.contains("loopback") || features.contains("tx-scatter-gather"));
        assert!(netlink.receive_queues("lo").is_err());
        let knows = |command| generic::has_command(&netlink.generic, "ethtool", command);
        assert!(knows(CHANNELS_GET) && !knows(u8::MAX));
        assert!(netlink.features("nosuch0").is_err());
    }
}
