//! Traffic control: which devices have a `clsact`, which filters are in it, and how one is put there, replaced and
//! taken out. Messages are read as far as that needs; what is in another program's filter is nobody's business here.
//!
//! It may not know which filter is ours, nor why.

use super::{Netlink, ask, order};
use netlink_packet_core::{
    DecodeError, DefaultNla, Emitable as _, NLM_F_CREATE, NLM_F_EXCL, NetlinkDeserializable,
    NetlinkHeader, NetlinkPayload, NetlinkSerializable, Nla as _, NlasIterator, Parseable as _,
};
use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd};

/// Of `linux/rtnetlink.h`.
const NEW_QDISC: u16 = 36;
const DELETE_QDISC: u16 = 37;
const GET_QDISC: u16 = 38;
const NEW_FILTER: u16 = 44;
const DELETE_FILTER: u16 = 45;
const GET_FILTER: u16 = 46;
const KIND: u16 = 1;
const OPTIONS: u16 = 2;
const CHAIN: u16 = 11;
/// Of `linux/pkt_cls.h`.
const BPF_FD: u16 = 6;
const BPF_NAME: u16 = 7;
const BPF_FLAGS: u16 = 8;
const BPF_ID: u16 = 11;
const DIRECT_ACTION: u32 = 1;
/// `ffff:` and `ffff:fff1`, where clsact is.
const CLSACT: u32 = 0xffff_0000;
const CLSACT_PARENT: u32 = 0xffff_fff1;
/// `ETH_P_ALL`, in network order.
const ALL_PROTOCOLS: u16 = 3_u16.to_be();
/// Bytes of `struct tcmsg`.
const HEADER: usize = 20;

/// One of the two blocks of filters in a clsact.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Block {
    /// What comes in.
    Ingress,
    /// What goes out.
    Egress,
}

impl Block {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Ingress, Self::Egress];

    /// The word for it, as `tc` takes it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ingress => "ingress",
            Self::Egress => "egress",
        }
    }

    const fn parent(self) -> u32 {
        match self {
            Self::Ingress => 0xffff_fff2,
            Self::Egress => 0xffff_fff3,
        }
    }
}

/// A filter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter {
    /// Its priority.
    pub priority: u16,
    /// True when it sees packets of all protocols.
    pub all_protocols: bool,
    /// The chain that it is in.
    pub chain: u32,
    /// Its handle; 0 where a whole priority is meant.
    pub handle: u32,
    /// `bpf`, `u32`, `flower` and so on.
    pub kind: String,
    /// The id of its program, of a `bpf` filter.
    pub program: Option<u32>,
}

/// A message about qdiscs or filters.
#[derive(Clone, Debug)]
struct Traffic {
    action: u16,
    index: u32,
    handle: u32,
    parent: u32,
    info: u32,
    attributes: Vec<DefaultNla>,
}

impl Traffic {
    fn new(action: u16, index: u32, handle: u32, parent: u32) -> Self {
        Self {
            action,
            index,
            handle,
            parent,
            info: 0,
            attributes: Vec::new(),
        }
    }

    fn with_kind(mut self, kind: &str) -> Self {
        self.attributes.push(text(KIND, kind));
        self
    }

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
            .filter(|_| kind == "bpf")
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

/// The lower and the upper half of `tcm_info`.
fn halves(info: u32) -> [u16; 2] {
    let [a, b, c, d] = info.to_le_bytes();
    [u16::from_le_bytes([a, b]), u16::from_le_bytes([c, d])]
}

fn text(kind: u16, text: &str) -> DefaultNla {
    DefaultNla::new(kind, [text.as_bytes(), &[0]].concat())
}

fn value(attributes: &[DefaultNla], kind: u16) -> Option<Vec<u8>> {
    let found = attributes.iter().find(|nla| nla.kind() == kind)?;
    let mut bytes = vec![0; found.value_len()];
    found.emit_value(&mut bytes);
    Some(bytes)
}

fn attributes(bytes: &[u8]) -> Result<Vec<DefaultNla>, DecodeError> {
    NlasIterator::new(bytes)
        .map(|nla| DefaultNla::parse(&nla?))
        .collect()
}

impl NetlinkSerializable for Traffic {
    fn message_type(&self) -> u16 {
        self.action
    }
    fn buffer_len(&self) -> usize {
        HEADER + self.attributes.as_slice().buffer_len()
    }
    fn serialize(&self, buffer: &mut [u8]) {
        let (header, rest) = buffer.split_at_mut(HEADER);
        let words = [0, self.index, self.handle, self.parent, self.info];
        for (to, word) in header.as_chunks_mut::<4>().0.iter_mut().zip(words) {
            *to = word.to_ne_bytes();
        }
        self.attributes.as_slice().emit(rest);
    }
}

impl NetlinkDeserializable for Traffic {
    type Error = DecodeError;

    fn deserialize(header: &NetlinkHeader, payload: &[u8]) -> Result<Self, DecodeError> {
        let (words, rest) = payload
            .split_at_checked(HEADER)
            .ok_or_else(|| DecodeError::buffer_too_small(payload.len(), HEADER))?;
        let (words, _) = words.as_chunks::<4>();
        let word = |at: usize| words.get(at).copied().map_or(0, u32::from_ne_bytes);
        Ok(Self {
            action: header.message_type,
            index: word(1),
            handle: word(2),
            parent: word(3),
            info: word(4),
            attributes: attributes(rest)?,
        })
    }
}

impl From<Traffic> for NetlinkPayload<Traffic> {
    fn from(message: Traffic) -> Self {
        Self::InnerMessage(message)
    }
}

impl Netlink {
    /// The devices that have a clsact, or an ingress qdisc, which sits in the same place: their indexes and the blocks that
    /// there are. (Asked for the egress block of an ingress qdisc, the kernel gives the ingress block.)
    pub fn clsacts(&self) -> io::Result<Vec<(u32, &'static [Block])>> {
        let all = ask(&self.route, Traffic::new(GET_QDISC, 0, 0, 0), true)?;
        let ours = all.iter().filter(|qdisc| qdisc.parent == CLSACT_PARENT);
        let blocks = |kind: &str| match kind {
            "clsact" => &Block::ALL[..],
            _ => &[Block::Ingress],
        };
        Ok(ours
            .map(|qdisc| (qdisc.index, blocks(&qdisc.kind())))
            .collect())
    }

    /// Adds a clsact.
    pub fn add_clsact(&self, index: u32) -> io::Result<()> {
        let message = Traffic::new(NEW_QDISC, index, CLSACT, CLSACT_PARENT).with_kind("clsact");
        order(&self.route, message, NLM_F_CREATE | NLM_F_EXCL)
    }

    /// Removes a clsact with all that is in it.
    pub fn remove_clsact(&self, index: u32) -> io::Result<()> {
        let message = Traffic::new(DELETE_QDISC, index, CLSACT, CLSACT_PARENT);
        order(&self.route, message, 0)
    }

    /// The filters of a device; none where it has no clsact or does not exist.
    pub fn filters(&self, index: u32, block: Block) -> io::Result<Vec<Filter>> {
        let request = Traffic::new(GET_FILTER, index, 0, block.parent());
        let all = ask(&self.route, request, true)?;
        Ok(all.iter().map(Traffic::filter).collect())
    }

    /// Puts a program into a block, where no filter may have this priority and handle; or, with `replace`,
    /// exchanges the program of the filter that has them, with no packet in between (`cls_bpf_change` in
    /// net/sched/cls_bpf.c exchanges a list entry).
    pub fn put_filter(
        &self,
        (index, block): (u32, Block),
        (priority, handle): (u16, u32),
        (program, name): (BorrowedFd<'_>, &str),
        replace: bool,
    ) -> io::Result<()> {
        let fd = program.as_raw_fd().to_ne_bytes().to_vec();
        let options = [
            DefaultNla::new(BPF_FD, fd),
            text(BPF_NAME, name),
            DefaultNla::new(BPF_FLAGS, DIRECT_ACTION.to_ne_bytes().to_vec()),
        ];
        let mut nested = vec![0; options.as_slice().buffer_len()];
        options.as_slice().emit(&mut nested);
        let mut message = Traffic::new(NEW_FILTER, index, handle, block.parent()).with_kind("bpf");
        message.info = info(priority);
        message.attributes.push(DefaultNla::new(OPTIONS, nested));
        let create = NLM_F_CREATE | NLM_F_EXCL;
        order(&self.route, message, if replace { 0 } else { create })
    }

    /// Takes a filter out of a block.
    pub fn remove_filter(
        &self,
        (index, block): (u32, Block),
        (priority, handle): (u16, u32),
    ) -> io::Result<()> {
        let mut message = Traffic::new(DELETE_FILTER, index, handle, block.parent());
        message.info = info(priority);
        order(&self.route, message, 0)
    }
}

fn info(priority: u16) -> u32 {
    u32::from(priority) << 16 | u32::from(ALL_PROTOCOLS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_is_read_from_the_kernels_bytes() {
        // As 6.18 answers for `tc filter add dev x ingress prio 5 handle 0x1ce bpf da pinned ...`.
        let words = [0, 3, 0x1ce, 0xffff_fff2, 0x0005_0300];
        let header: Vec<u8> = words.into_iter().flat_map(u32::to_ne_bytes).collect();
        let bytes = [
            &header[..],
            &[8, 0, 1, 0, b'b', b'p', b'f', 0],
            &[8, 0, 11, 0, 0, 0, 0, 0],
            &[36, 0, 2, 0],
            &[8, 0, 8, 0, 1, 0, 0, 0],
            &[12, 0, 10, 0, 1, 2, 3, 4, 5, 6, 7, 8],
            &[8, 0, 11, 0, 77, 0, 0, 0],
            &[4, 0, 99, 0],
        ]
        .concat();
        let mut netlink = NetlinkHeader::default();
        netlink.message_type = NEW_FILTER;
        let message = Traffic::deserialize(&netlink, &bytes).expect("well-formed");
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
        let mut again = vec![0; message.buffer_len()];
        message.serialize(&mut again);
        assert_eq!(again, bytes);
    }

    #[test]
    fn a_message_that_is_too_short_is_refused() {
        assert!(Traffic::deserialize(&NetlinkHeader::default(), &[0; HEADER - 1]).is_err());
    }

    #[test]
    fn the_loopback_has_no_filters_of_ours() {
        let netlink = Netlink::open().expect("netlink needs no privilege");
        let filters = netlink.filters(1, Block::Ingress).expect("a dump");
        assert!(filters.iter().all(|filter| filter.handle != 0x1ce));
        assert!(netlink.clsacts().is_ok());
    }
}
