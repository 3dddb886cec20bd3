//! Traffic control: clsact qdiscs and their filters.
//!
//! Requests are built from the types of `netlink-packet-route`. Replies are parsed here, and only as
//! far as needed: that crate rejects a whole dump when it cannot parse one filter, and the filters of
//! other programs may contain anything.

use super::Netlink;
use super::generic::payload;
use super::socket::{change, dump};
use netlink_packet_core::{
    DecodeError, DefaultNla, NLM_F_CREATE, NLM_F_EXCL, NetlinkDeserializable, NetlinkHeader,
    Nla as _, NlasIterator, Parseable as _,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::tc::{
    TcAttribute, TcBpfFlags, TcFilterBpf, TcFilterBpfOption, TcHandle, TcHeader, TcMessage,
    TcOption,
};
use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd};

/// Attributes of `linux/rtnetlink.h`.
const KIND: u16 = 1;
const OPTIONS: u16 = 2;
const CHAIN: u16 = 11;
/// `TCA_BPF_ID` of `linux/pkt_cls.h`.
const BPF_ID: u16 = 11;
/// `ffff:`, the handle of a clsact and of an ingress qdisc.
const CLSACT_HANDLE: TcHandle = TcHandle {
    minor: 0,
    ..TcHandle::CLSACT
};
/// `ETH_P_ALL`, in network order.
const ALL_PROTOCOLS: u16 = 3_u16.to_be();
/// Length of `struct tcmsg`.
const HEADER: usize = 20;

/// A filter block of a clsact.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Block {
    /// Filters for received packets.
    Ingress,
    /// Filters for sent packets.
    Egress,
}

impl Block {
    /// Both blocks.
    pub const ALL: [Self; 2] = [Self::Ingress, Self::Egress];

    /// Its name on the command line of `tc`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ingress => "ingress",
            Self::Egress => "egress",
        }
    }

    const fn parent(self) -> TcHandle {
        let minor = match self {
            Self::Ingress => TcHandle::MIN_INGRESS,
            Self::Egress => TcHandle::MIN_EGRESS,
        };
        TcHandle {
            minor,
            ..TcHandle::CLSACT
        }
    }
}

/// A filter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter {
    /// Its priority.
    pub priority: u16,
    /// True when it applies to packets of all protocols.
    pub all_protocols: bool,
    /// Its chain.
    pub chain: u32,
    /// Its handle; 0 in an entry that stands for a whole priority.
    pub handle: u32,
    /// `bpf`, `u32`, `flower` and so on.
    pub kind: String,
    /// The id of the program of a `bpf` filter.
    pub program: Option<u32>,
}

impl Netlink {
    /// The devices that have a clsact or an ingress qdisc, which occupies the same handle, and the
    /// filter blocks that each has. (For the egress block of an ingress qdisc the kernel returns
    /// the ingress block.)
    pub fn clsacts(&self) -> io::Result<Vec<(u32, &'static [Block])>> {
        let message = TcMessage::default();
        let request = RouteNetlinkMessage::GetQueueDiscipline(message);
        let all: Vec<Reply> = dump(&self.route, request)?;
        let clsact = u32::from(TcHandle::CLSACT);
        let qdiscs = all.iter().filter(|qdisc| qdisc.parent == clsact);
        let blocks = |kind: &str| match kind {
            "clsact" => &Block::ALL[..],
            _ => &[Block::Ingress],
        };
        Ok(qdiscs
            .map(|qdisc| (qdisc.index, blocks(&qdisc.kind())))
            .collect())
    }

    /// The kinds of the qdiscs of a device, with those inside of others.
    pub fn qdiscs(&self, index: u32) -> io::Result<Vec<String>> {
        let request = RouteNetlinkMessage::GetQueueDiscipline(TcMessage::default());
        let all: Vec<Reply> = dump(&self.route, request)?;
        let of_device = all.iter().filter(|qdisc| qdisc.index == index);
        Ok(of_device.map(Reply::kind).collect())
    }

    /// Adds a clsact.
    pub fn add_clsact(&self, index: u32) -> io::Result<()> {
        let mut message = request(index, CLSACT_HANDLE, TcHandle::CLSACT);
        message.attributes = vec![TcAttribute::Kind("clsact".to_owned())];
        let message = RouteNetlinkMessage::NewQueueDiscipline(message);
        change(&self.route, message, NLM_F_CREATE | NLM_F_EXCL)
    }

    /// Removes a clsact with all its filters.
    pub fn remove_clsact(&self, index: u32) -> io::Result<()> {
        let message = request(index, CLSACT_HANDLE, TcHandle::CLSACT);
        change(
            &self.route,
            RouteNetlinkMessage::DelQueueDiscipline(message),
            0,
        )
    }

    /// The filters of a device; none when it has no clsact or does not exist.
    pub fn filters(&self, index: u32, block: Block) -> io::Result<Vec<Filter>> {
        let message = request(index, TcHandle::UNSPEC, block.parent());
        let request = RouteNetlinkMessage::GetTrafficFilter(message);
        let all: Vec<Reply> = dump(&self.route, request)?;
        Ok(all.iter().map(Reply::filter).collect())
    }

    /// Adds a filter with a program to a block. It fails when a filter has this priority and handle
    /// already. With `replace` it exchanges the program of that filter instead; the kernel replaces
    /// a list entry (`cls_bpf_change` in net/sched/cls_bpf.c), so no packet misses both.
    pub fn put_filter(
        &self,
        at: (u32, Block),
        filter: (u16, u32),
        program: (BorrowedFd<'_>, &str),
        replace: bool,
    ) -> io::Result<()> {
        let message = RouteNetlinkMessage::NewTrafficFilter(bpf_filter(at, filter, program)?);
        let create = NLM_F_CREATE | NLM_F_EXCL;
        change(&self.route, message, if replace { 0 } else { create })
    }

    /// Removes a filter from a block.
    pub fn remove_filter(
        &self,
        (index, block): (u32, Block),
        (priority, handle): (u16, u32),
    ) -> io::Result<()> {
        let mut message = request(index, handle.into(), block.parent());
        message.header.info = info(priority);
        change(
            &self.route,
            RouteNetlinkMessage::DelTrafficFilter(message),
            0,
        )
    }
}

fn request(index: u32, handle: TcHandle, parent: TcHandle) -> TcMessage {
    let header = TcHeader {
        index: index.cast_signed(),
        handle,
        parent,
        ..TcHeader::default()
    };
    TcMessage::from_parts(header, Vec::new())
}

fn bpf_filter(
    (index, block): (u32, Block),
    (priority, handle): (u16, u32),
    (program, name): (BorrowedFd<'_>, &str),
) -> io::Result<TcMessage> {
    let fd = u32::try_from(program.as_raw_fd()).map_err(io::Error::other)?;
    let options = [
        TcFilterBpfOption::ProgFd(fd),
        TcFilterBpfOption::ProgName(name.to_owned()),
        TcFilterBpfOption::Flags(TcBpfFlags::DirectAction),
    ];
    let mut message = request(index, handle.into(), block.parent());
    message.header.info = info(priority);
    message.attributes = vec![
        TcAttribute::Kind(TcFilterBpf::KIND.to_owned()),
        TcAttribute::Options(options.map(TcOption::Bpf).into()),
    ];
    Ok(message)
}

/// `tcm_info` of a filter for all protocols.
fn info(priority: u16) -> u32 {
    u32::from(priority) << 16 | u32::from(ALL_PROTOCOLS)
}

/// The lower and the upper half of `tcm_info`: protocol and priority.
fn halves(info: u32) -> [u16; 2] {
    let [a, b, c, d] = info.to_le_bytes();
    [u16::from_le_bytes([a, b]), u16::from_le_bytes([c, d])]
}

/// A qdisc or a filter, as the kernel describes it.
#[derive(Clone, Debug)]
struct Reply {
    index: u32,
    handle: u32,
    parent: u32,
    info: u32,
    attributes: Vec<DefaultNla>,
}

impl Reply {
    fn value(&self, kind: u16) -> Option<Vec<u8>> {
        value(&self.attributes, kind)
    }

    fn kind(&self) -> String {
        let bytes = self.value(KIND).unwrap_or_default();
        let name = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
        String::from_utf8_lossy(name).into_owned()
    }

    fn filter(&self) -> Filter {
        let number = |bytes: Vec<u8>| bytes.try_into().ok().map(u32::from_ne_bytes);
        let kind = self.kind();
        let program = self
            .value(OPTIONS)
            .filter(|_| kind == TcFilterBpf::KIND)
            .and_then(|bytes| value(&attributes(&bytes).ok()?, BPF_ID))
            .and_then(number);
        let [protocol, priority] = halves(self.info);
        Filter {
            priority,
            all_protocols: protocol == ALL_PROTOCOLS,
            chain: self.value(CHAIN).and_then(number).unwrap_or_default(),
            handle: self.handle,
            kind,
            program,
        }
    }
}

fn value(attributes: &[DefaultNla], kind: u16) -> Option<Vec<u8>> {
    let found = attributes.iter().find(|nla| nla.kind() == kind)?;
    Some(payload(found))
}

fn attributes(bytes: &[u8]) -> Result<Vec<DefaultNla>, DecodeError> {
    NlasIterator::new(bytes)
        .map(|nla| DefaultNla::parse(&nla?))
        .collect()
}

impl NetlinkDeserializable for Reply {
    type Error = DecodeError;

    fn deserialize(_: &NetlinkHeader, payload: &[u8]) -> Result<Self, DecodeError> {
        let (words, rest) = payload
            .split_at_checked(HEADER)
            .ok_or_else(|| DecodeError::buffer_too_small(payload.len(), HEADER))?;
        let (words, _) = words.as_chunks::<4>();
        let word = |at: usize| words.get(at).copied().map_or(0, u32::from_ne_bytes);
        Ok(Self {
            index: word(1),
            handle: word(2),
            parent: word(3),
            info: word(4),
            attributes: attributes(rest)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use netlink_packet_core::NetlinkSerializable as _;
    use std::os::fd::AsFd as _;

    fn header(words: [u32; 5]) -> Vec<u8> {
        words.into_iter().flat_map(u32::to_ne_bytes).collect()
    }

    #[test]
    fn a_filter_is_read_from_the_kernels_bytes() {
        // As 6.18 replies for `tc filter add dev x ingress prio 5 handle 0x1ce bpf da pinned ...`.
        let bytes = [
            &header([0, 3, 0x1ce, 0xffff_fff2, 0x0005_0300])[..],
            &[8, 0, 1, 0, b'b', b'p', b'f', 0],
            &[8, 0, 11, 0, 0, 0, 0, 0],
            &[36, 0, 2, 0],
            &[8, 0, 8, 0, 1, 0, 0, 0],
            &[12, 0, 10, 0, 1, 2, 3, 4, 5, 6, 7, 8],
            &[8, 0, 11, 0, 77, 0, 0, 0],
            &[4, 0, 99, 0],
        ]
        .concat();
        let message = Reply::deserialize(&NetlinkHeader::default(), &bytes).expect("well-formed");
        assert_eq!(message.index, 3);
        let filter = Filter {
            priority: 5,
            all_protocols: true,
            chain: 0,
            handle: 0x1ce,
            kind: "bpf".to_owned(),
            program: Some(77),
        };
        assert_eq!(message.filter(), filter);
        assert_eq!(message.info, info(5));
    }

    #[test]
    fn a_filter_is_sent_in_the_kernels_format() {
        let file = std::fs::File::open("/proc/self/stat").expect("a file");
        let fd = u32::try_from(file.as_raw_fd()).expect("not negative");
        let program = (file.as_fd(), "abcd");
        let message = bpf_filter((3, Block::Egress), (5, 0x1ce), program).expect("an fd");
        let message = RouteNetlinkMessage::NewTrafficFilter(message);
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        let expected = [
            &header([0, 3, 0x1ce, 0xffff_fff3, 0x0005_0300])[..],
            &[8, 0, 1, 0, b'b', b'p', b'f', 0],
            &[32, 0, 2, 0],
            &[8, 0, 6, 0],
            &fd.to_ne_bytes(),
            &[9, 0, 7, 0, b'a', b'b', b'c', b'd', 0, 0, 0, 0],
            &[8, 0, 8, 0, 1, 0, 0, 0],
        ]
        .concat();
        assert_eq!(bytes, expected);
    }

    #[test]
    fn the_handles_of_a_clsact_are_the_kernels() {
        assert_eq!(u32::from(CLSACT_HANDLE), 0xffff_0000);
        assert_eq!(u32::from(TcHandle::CLSACT), 0xffff_fff1);
        let parents = Block::ALL.map(|block| u32::from(block.parent()));
        assert_eq!(parents, [0xffff_fff2, 0xffff_fff3]);
        assert_eq!(u32::from(TcHandle::from(0x1ce)), 0x1ce);
    }

    #[test]
    fn a_message_that_is_too_short_is_refused() {
        assert!(Reply::deserialize(&NetlinkHeader::default(), &[0; HEADER - 1]).is_err());
    }

    #[test]
    fn the_loopback_has_no_filters_of_ikenat() {
        let netlink = Netlink::open().expect("netlink needs no privilege");
        let filters = netlink.filters(1, Block::Ingress).expect("a dump");
        assert!(filters.iter().all(|filter| filter.handle != 0x1ce));
        assert!(netlink.clsacts().is_ok());
    }
}
