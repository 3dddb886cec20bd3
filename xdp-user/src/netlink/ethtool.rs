//! What a device does with packets by itself: its offloads, its receive queues and the fields that it spreads packets
//! by, from the generic netlink family `ethtool`.
//!
//! It may not know which of that is good or bad.

use super::{Netlink, ask, xdp_features};
use netlink_packet_core::{
    DecodeError, DefaultNla, Emitable, Nla as _, NlasIterator, Parseable as _,
    ParseableParametrized,
};
use netlink_packet_generic::{GenlFamily, GenlHeader, GenlMessage};
use std::collections::BTreeSet;
use std::io;

/// Of `linux/ethtool_netlink.h`: messages.
const FEATURES_GET: u8 = 11;
const CHANNELS_GET: u8 = 17;
const RSS_GET: u8 = 38;
/// The first attribute of every request and answer: which device.
const HEADER: u16 = 1;
const DEVICE_NAME: u16 = 2;
/// Set on an attribute that contains others.
const NESTED: u16 = 1 << 15;
const ACTIVE: u16 = 4;
const BITSET_BITS: u16 = 3;
const BITSET_BIT: u16 = 1;
const BIT_NAME: u16 = 2;
const RX_CHANNELS: u16 = 6;
const COMBINED_CHANNELS: u16 = 9;
/// Linux 6.17 and newer.
const FLOW_HASH: u16 = 8;
const FLOW_UDP4: u16 = 6;
const FLOW_ESP4: u16 = 12;

/// What a device spreads packets over its queues by: the `RXH_` bits of `linux/ethtool.h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HashFields {
    /// For UDP over IPv4, where the driver tells.
    pub udp: Option<u64>,
    /// For ESP over IPv4.
    pub esp: Option<u64>,
}

/// The first two bytes after the IP header: a source port, or the upper half of an SPI.
pub const HASH_FIRST_HALF: u64 = 1 << 6;
/// The two behind them: a destination port, or the lower half of an SPI.
pub const HASH_SECOND_HALF: u64 = 1 << 7;

/// A message of the family: attributes and nothing else.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Message {
    command: u8,
    attributes: Vec<DefaultNla>,
}

impl Message {
    fn about(device: &str, command: u8) -> Self {
        let name = DefaultNla::new(DEVICE_NAME, [device.as_bytes(), &[0]].concat());
        let mut header = vec![0; [name.clone()].as_slice().buffer_len()];
        [name].as_slice().emit(&mut header);
        Self {
            command,
            attributes: vec![DefaultNla::new(HEADER | NESTED, header)],
        }
    }
}

impl GenlFamily for Message {
    fn family_name() -> &'static str {
        "ethtool"
    }
    fn command(&self) -> u8 {
        self.command
    }
    fn version(&self) -> u8 {
        1
    }
}

impl Emitable for Message {
    fn buffer_len(&self) -> usize {
        self.attributes.as_slice().buffer_len()
    }
    fn emit(&self, buffer: &mut [u8]) {
        self.attributes.as_slice().emit(buffer);
    }
}

impl ParseableParametrized<[u8], GenlHeader> for Message {
    fn parse_with_param(bytes: &[u8], header: GenlHeader) -> Result<Self, DecodeError> {
        let attributes = NlasIterator::new(bytes).map(|nla| DefaultNla::parse(&nla?));
        Ok(Self {
            command: header.cmd,
            attributes: attributes.collect::<Result<_, _>>()?,
        })
    }
}

fn bytes(attribute: &DefaultNla) -> Vec<u8> {
    let mut bytes = vec![0; attribute.value_len()];
    attribute.emit_value(&mut bytes);
    bytes
}

/// The attributes of a kind among these.
fn all(attributes: &[DefaultNla], kind: u16) -> impl Iterator<Item = Vec<u8>> {
    let found = attributes
        .iter()
        .filter(move |nla| nla.kind() & !NESTED == kind);
    found.map(bytes)
}

/// What an attribute contains.
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

/// A number of four or eight bytes.
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
    fn ask_ethtool(&self, device: &str, command: u8) -> io::Result<Vec<DefaultNla>> {
        let family = xdp_features::family(&self.generic, Message::family_name())
            .ok_or_else(|| io::Error::from(io::ErrorKind::Unsupported))?;
        let header = GenlHeader {
            cmd: command,
            version: 1,
        };
        let request = GenlMessage::new(header, Message::about(device, command), family);
        let answers = ask(&self.generic, request, false)?;
        let first = answers.into_iter().next();
        Ok(first.map_or_else(Vec::new, |answer| answer.payload.attributes))
    }

    /// The offloads that are on, by the kernel's names (`rx-lro`), which `ethtool -k` shows in part under others.
    pub fn features(&self, device: &str) -> io::Result<BTreeSet<String>> {
        Ok(active(&self.ask_ethtool(device, FEATURES_GET)?))
    }

    /// The number of receive queues; an error where the driver has no say in it.
    pub fn receive_queues(&self, device: &str) -> io::Result<u64> {
        let channels = self.ask_ethtool(device, CHANNELS_GET)?;
        let of = |kind| number(&channels, kind).unwrap_or_default();
        Ok(of(RX_CHANNELS) + of(COMBINED_CHANNELS))
    }

    /// What packets are spread by. An error where the driver does not spread; nothing in it where the kernel does not
    /// tell over netlink (before 6.17; before 6.3 it cannot even be asked).
    pub fn hash_fields(&self, device: &str) -> io::Result<HashFields> {
        if !xdp_features::has_command(&self.generic, Message::family_name(), RSS_GET) {
            return Ok(HashFields {
                udp: None,
                esp: None,
            });
        }
        Ok(hash_fields(&self.ask_ethtool(device, RSS_GET)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(bytes: &[u8]) -> Message {
        let header = GenlHeader {
            cmd: FEATURES_GET,
            version: 1,
        };
        Message::parse_with_param(bytes, header).expect("well-formed")
    }

    #[test]
    fn a_request_names_its_device() {
        let message = Message::about("eth0", RSS_GET);
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
        // As 6.18 answers, cut to two features.
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
        assert_eq!(active(&parsed(&bytes).attributes), BTreeSet::from(expected));
    }

    #[test]
    fn hash_fields_are_read_from_the_kernels_bytes() {
        // UDP by addresses and ports, ESP by addresses; as 6.18 answers, four or eight bytes each.
        let bytes = [
            &[28, 0, 8, 0x80][..],
            &[8, 0, 6, 0, 0xf0, 0, 0, 0],
            &[12, 0, 12, 0, 0x30, 0, 0, 0, 0, 0, 0, 0],
            &[4, 0, 13, 0],
        ]
        .concat();
        let fields = hash_fields(&parsed(&bytes).attributes);
        let expected = HashFields {
            udp: Some(0xf0),
            esp: Some(0x30),
        };
        assert_eq!(fields, expected);
        assert_eq!(fields.udp.map(|bits| bits & HASH_SECOND_HALF), Some(0x80));
        let silent = hash_fields(&parsed(&[8, 0, 3, 0, 1, 0, 0, 0]).attributes);
        assert_eq!(silent.udp, None);
    }

    #[test]
    fn the_loopback_has_offloads_and_no_queues_to_choose() {
        let netlink = Netlink::open().expect("netlink needs no privilege");
        let features = netlink.features("lo").expect("the loopback has features");
        assert!(features.contains("loopback") || features.contains("tx-scatter-gather"));
        assert!(netlink.receive_queues("lo").is_err());
        let knows = |command| xdp_features::has_command(&netlink.generic, "ethtool", command);
        assert!(knows(CHANNELS_GET) && !knows(u8::MAX));
        assert!(netlink.features("nosuch0").is_err());
    }
}
