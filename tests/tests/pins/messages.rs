//! What peers and server send.

/// A message of IKEv2, but for [`Self::Isakmp`]; some with their message ID.
#[derive(Clone, Copy)]
pub(crate) enum Message {
    InitRequest,
    InitResponse,
    /// The peer shows who it is.
    AuthRequest,
    AuthResponse,
    Request(u32),
    Response(u32),
    /// A request of the server, who has not begun the SA.
    ServerRequest,
    /// The same after the server has rekeyed the SA, so that it is the initiator (RFC 7296 section 2.18).
    RekeyedRequest,
    /// Of IKEv1: exchange type, first payload and flags.
    Isakmp(u8, u8, u8),
}

/// An IKE message of the SA of this initiator (RFC 7296 section 3.1).
pub(crate) fn ike(initiator: u8, message: Message) -> Vec<u8> {
    let responder = match message {
        Message::InitRequest => [0; 8],
        Message::InitResponse
        | Message::AuthRequest
        | Message::AuthResponse
        | Message::Request(_)
        | Message::Response(_)
        | Message::ServerRequest
        | Message::RekeyedRequest
        | Message::Isakmp(..) => [!initiator; 8],
    };
    let (kind, id) = match message {
        Message::InitRequest => ([33, 0x20, 34, 0x08], 0_u32),
        Message::InitResponse => ([33, 0x20, 34, 0x20], 0),
        Message::AuthRequest => ([46, 0x20, 35, 0x08], 1),
        Message::AuthResponse => ([46, 0x20, 35, 0x20], 1),
        Message::Request(id) => ([46, 0x20, 37, 0x08], id),
        Message::Response(id) => ([46, 0x20, 37, 0x20], id),
        Message::ServerRequest => ([46, 0x20, 37, 0x00], 0),
        Message::RekeyedRequest => ([46, 0x20, 37, 0x08], 0),
        Message::Isakmp(exchange, payload, flags) => ([payload, 0x10, exchange, flags], 0),
    };
    [
        &[initiator; 8][..],
        &responder,
        &kind,
        &id.to_be_bytes(),
        &60_u32.to_be_bytes(),
        &[0x55; 32],
    ]
    .concat()
}

/// The same on port 4500 (RFC 3948 section 2.2).
pub(crate) fn natt(initiator: u8, message: Message) -> Vec<u8> {
    [&[0; 4][..], &ike(initiator, message)].concat()
}

/// ESP of this SPI (RFC 4303 section 2).
pub(crate) fn esp(spi: u32, sequence: u32) -> Vec<u8> {
    let [spi, sequence] = [spi, sequence].map(u32::to_be_bytes);
    [&spi[..], &sequence, &[0xee; 48]].concat()
}

pub(crate) const KEEPALIVE: [u8; 1] = [0xff];
