//! The answer to one netlink request: which of the messages that arrive belong to it, and when it is
//! complete.

use netlink_packet_core::{
    NLM_F_DUMP_INTR, NLMSG_DONE, NLMSG_ERROR, NLMSG_NOOP, NLMSG_OVERRUN, NetlinkBuffer,
    NetlinkDeserializable, NetlinkHeader, Parseable as _,
};
use std::io;

/// The form of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// One object.
    Object,
    /// All objects of a kind.
    Dump,
    /// A change with these flags, which the kernel acknowledges.
    Change(u16),
}

/// What has been read of an answer.
#[derive(Debug)]
pub(super) struct Answer<R> {
    sequence: u32,
    form: Form,
    /// The objects.
    pub(super) replies: Vec<R>,
    /// Nothing more belongs to it.
    pub(super) is_complete: bool,
    /// What is listed has changed meanwhile, so that objects may be missing or appear twice.
    pub(super) was_interrupted: bool,
}

impl<R: NetlinkDeserializable> Answer<R> {
    /// The answer to the request of this sequence number.
    pub(super) const fn to(sequence: u32, form: Form) -> Self {
        Self {
            sequence,
            form,
            replies: Vec::new(),
            is_complete: false,
            was_interrupted: false,
        }
    }

    /// Reads a datagram. What belongs to another request, or is no message, is skipped.
    ///
    /// # Errors
    /// The kernel refused the request, or the only object of the answer cannot be decoded.
    pub(super) fn read(&mut self, datagram: &[u8]) -> io::Result<()> {
        let mut rest = datagram;
        while !rest.is_empty() && !self.is_complete {
            let Ok(message) = NetlinkBuffer::new_checked(rest) else {
                tracing::debug!("netlink: skipping {} bytes that are no message", rest.len());
                return Ok(());
            };
            let length = (message.length() as usize).next_multiple_of(4);
            let header = NetlinkHeader::parse(&message).map_err(io::Error::other)?;
            if header.sequence_number == self.sequence {
                self.message(&header, message.payload())?;
            } else {
                let (number, expected) = (header.sequence_number, self.sequence);
                tracing::debug!("netlink: skipping message {number}, waiting for {expected}");
            }
            rest = rest.get(length..).unwrap_or_default();
        }
        Ok(())
    }

    fn message(&mut self, header: &NetlinkHeader, payload: &[u8]) -> io::Result<()> {
        self.was_interrupted |= self.form == Form::Dump && header.flags & NLM_F_DUMP_INTR != 0;
        match header.message_type {
            // The end of a dump may have no code.
            NLMSG_DONE if payload.is_empty() => {
                self.is_complete = true;
                Ok(())
            }
            NLMSG_ERROR | NLMSG_DONE => {
                self.is_complete = true;
                outcome(payload)
            }
            NLMSG_NOOP | NLMSG_OVERRUN => Ok(()),
            _ => self.object(header, payload),
        }
    }

    fn object(&mut self, header: &NetlinkHeader, payload: &[u8]) -> io::Result<()> {
        if let Form::Change(_) = self.form {
            return Ok(());
        }
        self.is_complete = self.form == Form::Object;
        match R::deserialize(header, payload) {
            Ok(reply) => self.replies.push(reply),
            Err(error) if self.form == Form::Dump => {
                let kind = header.message_type;
                tracing::debug!("netlink: skipping a message of type {kind}: {error}");
            }
            Err(error) => return Err(io::Error::new(io::ErrorKind::InvalidData, error)),
        }
        Ok(())
    }
}

/// The code at the beginning of an error, an acknowledgement or the end of a dump: 0, or a negative
/// `errno`.
fn outcome(payload: &[u8]) -> io::Result<()> {
    match payload.first_chunk().copied().map(i32::from_ne_bytes) {
        Some(0) => Ok(()),
        Some(code) => Err(io::Error::from_raw_os_error(code.saturating_abs())),
        None => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}
