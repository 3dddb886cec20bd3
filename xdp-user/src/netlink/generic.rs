//! Generic netlink: ids and commands of families, and messages that consist of attributes.

use super::socket::{Connection, get};
use netlink_packet_core::{
    DecodeError, DefaultNla, Emitable, Nla as _, NlasIterator, Parseable as _,
    ParseableParametrized,
};
use netlink_packet_generic::ctrl::nlas::{GenlCtrlAttrs, OpAttrs};
use netlink_packet_generic::ctrl::{GenlCtrl, GenlCtrlCmd};
use netlink_packet_generic::{GenlFamily, GenlHeader, GenlMessage};
use std::io;
use std::marker::PhantomData;

/// The flag of an attribute that contains others.
pub(super) const NESTED: u16 = 1 << 15;

/// A generic netlink family.
pub(super) trait Family: Clone + std::fmt::Debug {
    const NAME: &'static str;
}

/// A message of a family: attributes and nothing else.
#[derive(Clone, Debug)]
pub(super) struct Attributes<F> {
    command: u8,
    pub(super) attributes: Vec<DefaultNla>,
    family: PhantomData<F>,
}

impl<F: Family> Attributes<F> {
    pub(super) fn new(command: u8, attributes: Vec<DefaultNla>) -> Self {
        Self {
            command,
            attributes,
            family: PhantomData,
        }
    }

    /// Sends this as a request to a family and returns the attributes of the reply.
    pub(super) fn request(
        self,
        connection: &Connection,
        family: u16,
    ) -> io::Result<Vec<DefaultNla>> {
        let header = GenlHeader {
            cmd: self.command,
            version: 1,
        };
        let reply: GenlMessage<Self> = get(connection, GenlMessage::new(header, self, family))?;
        Ok(reply.payload.attributes)
    }
}

impl<F: Family> GenlFamily for Attributes<F> {
    fn family_name() -> &'static str {
        F::NAME
    }
    fn command(&self) -> u8 {
        self.command
    }
    fn version(&self) -> u8 {
        1
    }
}

impl<F> Emitable for Attributes<F> {
    fn buffer_len(&self) -> usize {
        self.attributes.as_slice().buffer_len()
    }
    fn emit(&self, buffer: &mut [u8]) {
        self.attributes.as_slice().emit(buffer);
    }
}

impl<F: Family> ParseableParametrized<[u8], GenlHeader> for Attributes<F> {
    fn parse_with_param(bytes: &[u8], header: GenlHeader) -> Result<Self, DecodeError> {
        let attributes = NlasIterator::new(bytes).map(|nla| DefaultNla::parse(&nla?));
        Ok(Self::new(header.cmd, attributes.collect::<Result<_, _>>()?))
    }
}

/// The payload of an attribute.
pub(super) fn payload(attribute: &DefaultNla) -> Vec<u8> {
    let mut bytes = vec![0; attribute.value_len()];
    attribute.emit_value(&mut bytes);
    bytes
}

fn family(connection: &Connection, name: &str) -> io::Result<Vec<GenlCtrlAttrs>> {
    let request = GenlMessage::from_payload(GenlCtrl {
        cmd: GenlCtrlCmd::GetFamily,
        nlas: vec![GenlCtrlAttrs::FamilyName(name.to_owned())],
    });
    let reply: GenlMessage<GenlCtrl> = get(connection, request)?;
    Ok(reply.payload.nlas)
}

/// The id of a family; `None` when the kernel does not have it.
pub(super) fn family_id(connection: &Connection, name: &str) -> Option<u16> {
    let attributes = family(connection, name).ok()?;
    attributes.iter().find_map(|attribute| {
        if let GenlCtrlAttrs::FamilyId(id) = attribute {
            Some(*id)
        } else {
            None
        }
    })
}

/// Whether this kernel's family has a command. An unknown command fails with the same error as a
/// known one that the driver does not support.
pub(super) fn has_command(connection: &Connection, name: &str, command: u8) -> bool {
    let attributes = family(connection, name).unwrap_or_default();
    attributes.iter().any(|attribute| {
        if let GenlCtrlAttrs::Ops(commands) = attribute {
            let id = OpAttrs::Id(command.into());
            commands.iter().any(|ids| ids.contains(&id))
        } else {
            false
        }
    })
}
