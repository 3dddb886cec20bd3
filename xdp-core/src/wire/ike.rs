//! The IKE header (RFC 7296 section 3.1; ISAKMP, RFC 2408 section 3.1, has the same fields, and
//! calls the SPIs cookies).

use crate::frame::Frame;

/// Length of the header.
pub const LENGTH: usize = 28;
/// Offset of the initiator's SPI.
pub const INITIATOR_SPI: usize = 0;
/// Offset of the responder's SPI.
pub const RESPONDER_SPI: usize = 8;
/// Length of an SPI.
pub const SPI_LENGTH: usize = RESPONDER_SPI - INITIATOR_SPI;
/// Offset of the type of the first payload.
pub const NEXT_PAYLOAD: usize = 16;
/// Offset of the version: major in the upper half, minor in the lower one.
pub const VERSION: usize = 17;
/// Offset of the exchange type.
pub const EXCHANGE_TYPE: usize = 18;
/// Offset of the flags.
pub const FLAGS: usize = 19;
/// Offset of the message ID.
pub const MESSAGE_ID: usize = 20;
/// Offset of the length of the message.
pub const MESSAGE_LENGTH: usize = 24;

/// "Encryption" (ISAKMP): the payloads are encrypted.
const ENCRYPTION: u8 = 0x01;
/// "Initiator" (IKEv2): the sender initiated the IKE SA.
const INITIATOR: u8 = 0x08;
/// "Response" (IKEv2).
const RESPONSE: u8 = 0x20;

/// First payload, version, exchange type and flags as a word of the machine.
const fn word(next_payload: u8, version: u8, exchange_type: u8, flags: u8) -> u32 {
    u32::from_ne_bytes([next_payload, version, exchange_type, flags])
}

/// The bits of such a word that decide: the minor version does not, nor do flags without meaning.
const MASK_V2: u32 = word(0xff, 0xf0, 0xff, RESPONSE | INITIATOR);
const MASK_V1: u32 = word(0xff, 0xf0, 0xff, ENCRYPTION);
/// A response of `IKE_SA_INIT` (34) that begins with an SA payload (33; RFC 7296 sections 3.1 and
/// 3.2) ...
const SA_INIT_RESPONSE: u32 = word(33, 0x20, 34, RESPONSE);
/// ... and of `IKE_SESSION_RESUME` (38), which replaces it when a session is resumed, that begins
/// with a nonce (40; RFC 5723 sections 4.3.2 and 7.2).
const RESUME_RESPONSE: u32 = word(40, 0x20, 38, RESPONSE);
/// A message of main mode (2; "identity protection") or aggressive mode (4) that begins with an SA
/// payload (1; RFC 2408 section 3.1).
const MAIN_MODE_SA: u32 = word(1, 0x10, 2, 0);
const AGGRESSIVE_MODE_SA: u32 = word(1, 0x10, 4, 0);

/// A message of IKEv2 that begins with an Encrypted payload (46; RFC 7296 section 3.14) or an
/// Encrypted Fragment (53; RFC 7383 section 2.5).
const ENCRYPTED_V2: u32 = word(46, 0x20, 0, 0);
const ENCRYPTED_FRAGMENT_V2: u32 = word(53, 0x20, 0, 0);
const ENCRYPTED_MASK_V2: u32 = word(0xff, 0xf0, 0, 0);
/// An encrypted message of ISAKMP.
const ENCRYPTED_V1: u32 = word(0, 0x10, 0, ENCRYPTION);
const ENCRYPTED_MASK_V1: u32 = word(0, 0xf0, 0, ENCRYPTION);
/// The same as a response.
const ENCRYPTED_RESPONSE: u32 = word(46, 0x20, 0, RESPONSE);
const ENCRYPTED_FRAGMENT_RESPONSE: u32 = word(53, 0x20, 0, RESPONSE);
const ENCRYPTED_RESPONSE_MASK: u32 = word(0xff, 0xf0, 0, RESPONSE);
/// A request of the original initiator in IKEv2.
const INITIATORS_REQUEST: u32 = word(0, 0x20, 0, INITIATOR);
const INITIATORS_REQUEST_MASK: u32 = word(0, 0xf0, 0, RESPONSE | INITIATOR);
/// A request in IKEv2.
const REQUEST: u32 = word(0, 0x20, 0, 0);
const REQUEST_MASK: u32 = word(0, 0xf0, 0, RESPONSE);
/// Exchanges by which an IKE SA begins.
const SA_INIT: u32 = word(0, 0x20, 34, 0);
const AUTH: u32 = word(0, 0x20, 35, 0);
const INTERMEDIATE: u32 = word(0, 0x20, 43, 0);
/// A message of main mode and of aggressive mode.
const MAIN_MODE: u32 = word(0, 0x10, 2, 0);
const AGGRESSIVE_MODE: u32 = word(0, 0x10, 4, 0);
const EXCHANGE_MASK: u32 = word(0, 0xf0, 0xff, 0);

/// The header's fields. SPIs are in network order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The initiator's SPI (cookie).
    pub initiator: [u8; 8],
    /// The responder's SPI (cookie); zero in the first message.
    pub responder: [u8; 8],
    /// Type of the first payload.
    pub next_payload: u8,
    /// Version.
    pub version: u8,
    /// Exchange type.
    pub exchange_type: u8,
    /// Flags.
    pub flags: u8,
    /// Message ID.
    pub message_id: u32,
    /// Length of the message with this header.
    pub length: u32,
}

impl Header {
    /// Reads the header at `at`; `None` when a whole header does not fit.
    #[inline(always)]
    pub fn read<F: Frame + ?Sized>(frame: &F, at: usize) -> Option<Self> {
        frame.with_bytes::<LENGTH, _>(at, |bytes| {
            let [next_payload, version, exchange_type, flags] =
                F::get32::<NEXT_PAYLOAD, LENGTH>(bytes).to_ne_bytes();
            Self {
                initiator: F::get64::<INITIATOR_SPI, LENGTH>(bytes).to_ne_bytes(),
                responder: F::get64::<RESPONDER_SPI, LENGTH>(bytes).to_ne_bytes(),
                next_payload,
                version,
                exchange_type,
                flags,
                message_id: u32::from_be(F::get32::<MESSAGE_ID, LENGTH>(bytes)),
                length: u32::from_be(F::get32::<MESSAGE_LENGTH, LENGTH>(bytes)),
            }
        })
    }

    /// The header as bytes.
    #[inline(always)]
    #[must_use]
    pub const fn emit(&self) -> [u8; LENGTH] {
        let [a, b, c, d, e, f, g, h] = self.initiator;
        let [i, j, k, l, m, n, o, p] = self.responder;
        let [q, r, s, t] = self.message_id.to_be_bytes();
        let [u, v, w, x] = self.length.to_be_bytes();
        let (payload, version) = (self.next_payload, self.version);
        let (exchange, flags) = (self.exchange_type, self.flags);
        [
            a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p, payload, version, exchange, flags, q,
            r, s, t, u, v, w, x,
        ]
    }

    /// True when both sides have chosen their SPI.
    #[inline(always)]
    pub const fn has_both_spis(&self) -> bool {
        u64::from_ne_bytes(self.initiator) != 0 && u64::from_ne_bytes(self.responder) != 0
    }

    /// True for a reply in which the responder has chosen its SPI: the response of `IKE_SA_INIT`,
    /// or the second message of main or aggressive mode, if it begins with the SA that the responder
    /// accepts; of `IKE_SESSION_RESUME`, if it begins with the responder's nonce. A responder echoes
    /// both SPIs of a message that it does not understand, whatever the version (RFC 7296 sections
    /// 2.5 and 2.21.4): any other reply may hold an SPI that the peer, or who forges its address, has
    /// chosen.
    #[inline(always)]
    pub const fn has_chosen_responder_spi(&self) -> bool {
        self.has_both_spis() && self.message_id == 0 && self.kind().chooses_spi()
    }

    /// True for a message by which an initiator goes on after the responder has chosen its SPI: a
    /// request of the initiator, or one of main or aggressive mode. A host that knows nothing of the
    /// SPIs echoes them in a response (RFC 7296 section 1.5), or in an informational exchange of
    /// ISAKMP (RFC 2408 section 5.2).
    #[inline(always)]
    pub const fn continues_handshake(&self) -> bool {
        let Kind(word) = self.kind();
        let exchange = word & EXCHANGE_MASK;
        self.has_both_spis()
            && (word & INITIATORS_REQUEST_MASK == INITIATORS_REQUEST
                || exchange == MAIN_MODE
                || exchange == AGGRESSIVE_MODE)
    }

    /// True for a message that shows that its sender has accepted one of the other side: an encrypted
    /// response, or an encrypted message of ISAKMP, which has no responses.
    #[inline(always)]
    pub const fn is_encrypted_reply(&self) -> bool {
        let Kind(word) = self.kind();
        let version_2 = word & ENCRYPTED_RESPONSE_MASK;
        word & ENCRYPTED_MASK_V1 == ENCRYPTED_V1
            || version_2 == ENCRYPTED_RESPONSE
            || version_2 == ENCRYPTED_FRAGMENT_RESPONSE
    }

    /// True for an exchange that comes after the initiator has authenticated: `CREATE_CHILD_SA` (36) and
    /// `INFORMATIONAL` (37; RFC 7296 section 3.1), `IKE_FOLLOWUP_KE` (44; RFC 9370 section 2.2.4), and of
    /// ISAKMP quick mode (32; RFC 2409 section 5.5) and informational (5), by which a peer shows that it is
    /// alive (RFC 3706). A server may answer either informational exchange before, too.
    #[inline(always)]
    pub const fn follows_authentication(&self) -> bool {
        let number = self.exchange_type;
        if self.version >> 4 == 2 {
            number == 36 || number == 37 || number == 44
        } else {
            number == 32 || number == 5
        }
    }

    #[inline(always)]
    const fn kind(&self) -> Kind {
        Kind(word(
            self.next_payload,
            self.version,
            self.exchange_type,
            self.flags,
        ))
    }
}

/// First payload, version, exchange type and flags of a message. One word instead of four bytes: fewer
/// branches for the verifier.
#[derive(Clone, Copy, Debug)]
pub struct Kind(u32);

impl Kind {
    /// That of no message.
    pub const NONE: Self = Self(0);

    /// That of the message at `at`. Reads no more than it needs.
    #[inline(always)]
    pub fn read<F: Frame + ?Sized>(frame: &F, at: usize) -> Option<Self> {
        frame.with_bytes::<4, _>(at + NEXT_PAYLOAD, |bytes| Self(F::get32::<0, 4>(bytes)))
    }

    /// True for a request of IKEv2 in an IKE SA that exists, whoever has begun it: after a side has rekeyed
    /// it, that side is the initiator of the new one (RFC 7296 section 2.18). Not for the exchanges by which
    /// a host begins an IKE SA: `IKE_SA_INIT` (34), `IKE_AUTH` (35) and `IKE_INTERMEDIATE` (43).
    #[inline(always)]
    pub const fn is_request_in_sa(self) -> bool {
        let exchange = self.0 & EXCHANGE_MASK;
        let begins = exchange == SA_INIT || exchange == AUTH || exchange == INTERMEDIATE;
        self.0 & REQUEST_MASK == REQUEST && !begins
    }

    /// True when the payloads are encrypted.
    #[inline(always)]
    pub const fn is_encrypted(self) -> bool {
        let version_2 = self.0 & ENCRYPTED_MASK_V2;
        self.0 & ENCRYPTED_MASK_V1 == ENCRYPTED_V1
            || version_2 == ENCRYPTED_V2
            || version_2 == ENCRYPTED_FRAGMENT_V2
    }

    /// True for a reply of a kind in which the responder chooses its SPI
    /// ([`Header::has_chosen_responder_spi`]).
    #[inline(always)]
    pub const fn chooses_spi(self) -> bool {
        let version_2 = self.0 & MASK_V2;
        let version_1 = self.0 & MASK_V1;
        version_2 == SA_INIT_RESPONSE
            || version_2 == RESUME_RESPONSE
            || version_1 == MAIN_MODE_SA
            || version_1 == AGGRESSIVE_MODE_SA
    }
}
