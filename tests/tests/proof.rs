//! What makes a peer established, and what keeps its session: exactly what the server alone can
//! give. Whoever forges the address of a peer sees none of the server's replies, but makes the
//! server send any of them.
//!
//! The packets go through the packet logic on the host.

#[path = "proof/unmarked.rs"]
mod unmarked;

use ikenat_tests::bpf::gateway::{Gateway, NOW};
use xdp_common::slot::session;

const SPI_I: [u8; 8] = *b"initiato";
const SPI_R: [u8; 8] = *b"responde";

/// The fields of an IKE header after the SPIs.
#[derive(Clone, Copy, Debug)]
struct Fields {
    payload: u8,
    version: u8,
    exchange: u8,
    flags: u8,
    id: u32,
}

impl Fields {
    /// RFC 7296 section 1.2: HDR, SAr1, KEr, Nr.
    const IKE_SA_INIT: Self = Self {
        payload: 33,
        version: 0x20,
        exchange: 34,
        flags: 0x20,
        id: 0,
    };
    /// RFC 5723 section 4.3.2: HDR, Nr.
    const RESUMPTION: Self = Self {
        payload: 40,
        exchange: 38,
        ..Self::IKE_SA_INIT
    };
    /// RFC 2409 section 5: the second message of main mode is HDR, SA.
    const MAIN_MODE: Self = Self {
        payload: 1,
        version: 0x10,
        exchange: 2,
        flags: 0,
        id: 0,
    };
    /// Of aggressive mode it is HDR, SA, KE, Nr, IDir, HASH_R.
    const AGGRESSIVE_MODE: Self = Self {
        exchange: 4,
        ..Self::MAIN_MODE
    };

    /// RFC 7296 section 1.2: the request of IKE_AUTH is HDR, SK.
    const IKE_AUTH: Self = Self {
        payload: 46,
        exchange: 35,
        flags: 0x08,
        id: 1,
        ..Self::IKE_SA_INIT
    };

    fn message(self, responder: [u8; 8]) -> Vec<u8> {
        let mut bytes = [SPI_I, responder].concat();
        bytes.extend([self.payload, self.version, self.exchange, self.flags]);
        bytes.extend(self.id.to_be_bytes());
        bytes.extend(40_u32.to_be_bytes());
        bytes.extend([0x55; 12]);
        bytes
    }
}

/// Whether the request that follows a reply, with its SPIs, makes the peer established.
fn proves(gateway: &mut Gateway, port: u16, reply: Fields) -> bool {
    completes(gateway, port, reply, Fields::IKE_AUTH)
}

/// Whether this message of the peer after this reply of the server does.
fn completes(gateway: &mut Gateway, port: u16, reply: Fields, next: Fields) -> bool {
    let peer = (gateway.next_peer(), port);
    // The server chooses another SPI for each peer.
    let [a, b, c, d] = peer.0.octets();
    let responder = [b'r', b'e', b's', b'p', a, b, c, d];
    let message = |fields: Fields| {
        let marker: &[u8] = if port == 4500 { &[0; 4] } else { &[] };
        [marker, &fields.message(responder)].concat()
    };
    let sent = gateway.outbound(port, peer, &message(reply), NOW);
    assert!(
        sent.starts_with("forward ") && sent.ends_with("untracked"),
        "{sent}"
    );
    let got = gateway.inbound(peer, port, &message(next), NOW);
    assert!(got.starts_with("forward "), "{got}");
    !got.ends_with("untracked")
}

/// The four replies in which the responder chooses its SPI, by the RFCs' figures.
fn is_choice(fields: Fields) -> bool {
    let Fields {
        payload,
        version,
        exchange,
        flags,
        id,
    } = fields;
    let v2 = version >> 4 == 2 && [(34, 33), (38, 40)].contains(&(exchange, payload));
    let v1 = version >> 4 == 1 && [(2, 1), (4, 1)].contains(&(exchange, payload));
    id == 0 && (v2 && flags & 0x28 == 0x20 || v1 && flags & 1 == 0)
}

#[test]
fn a_reply_in_which_the_server_chose_its_spi_is_half_of_a_proof() {
    let mut gateway = Gateway::default();
    for port in [500, 4500] {
        for reply in [
            Fields::IKE_SA_INIT,
            Fields::RESUMPTION,
            Fields::MAIN_MODE,
            Fields::AGGRESSIVE_MODE,
        ] {
            assert!(proves(&mut gateway, port, reply), "{port}: {reply:?}");
        }
    }
}

/// A server echoes both SPIs of a message that it does not understand: INVALID_MAJOR_VERSION (RFC
/// 7296 section 2.5), INVALID_IKE_SPI (section 2.21.4). Such a reply begins with a Notify payload,
/// or has another version or exchange type.
#[test]
fn no_other_reply_proves_anything() {
    // None, SA and KE of IKEv1, SA, KE, Nonce and Notify of IKEv2, Notify of IKEv1, SK, SKF.
    const PAYLOADS: [u8; 10] = [0, 1, 4, 33, 34, 40, 41, 11, 46, 53];
    // Each with and without "response" and "initiator", "encryption", "higher version".
    const FLAGS: [u8; 7] = [0, 0x20, 0x28, 0x08, 0x01, 0x21, 0x30];
    let mut gateway = Gateway::default();
    let mut proofs = 0;
    for version in 0..16_u8 {
        for exchange in 0..=u8::MAX {
            for (at, payload) in PAYLOADS.into_iter().enumerate() {
                let flags = FLAGS[(at + usize::from(exchange)) % FLAGS.len()];
                let known = [2, 4, 34, 38].contains(&exchange);
                let flags = if known { FLAGS.to_vec() } else { vec![flags] };
                for flags in flags {
                    let reply = Fields {
                        payload,
                        version: version << 4,
                        exchange,
                        flags,
                        id: 0,
                    };
                    let port = if (exchange ^ payload) & 1 == 0 {
                        500
                    } else {
                        4500
                    };
                    let proves = proves(&mut gateway, port, reply);
                    assert_eq!(proves, is_choice(reply), "{port}: {reply:?}");
                    proofs += u32::from(proves);
                }
            }
        }
    }
    // IKE_SA_INIT with three sets of flags, of which two have bits without meaning; its resumption
    // likewise; main and aggressive mode with the five that are not "encryption".
    assert_eq!(proofs, 3 + 3 + 2 * 5);
    for reply in [
        Fields::IKE_SA_INIT,
        Fields::RESUMPTION,
        Fields::MAIN_MODE,
        Fields::AGGRESSIVE_MODE,
    ] {
        let later = Fields { id: 1, ..reply };
        assert!(!proves(&mut gateway, 500, later), "{later:?}");
    }
}

/// The attack that began this test: 28 bytes with a major version that no server knows, sent twice.
#[test]
fn an_echo_of_invalid_major_version_proves_nothing() {
    let mut gateway = Gateway::default();
    let peer = (gateway.next_peer(), 500);
    let mut forged = [[0x41; 8], [0x42; 8]].concat();
    forged.extend([0x00, 0x30, 0x22, 0x08, 0, 0, 0, 0, 0, 0, 0, 0x1c]);
    // RFC 7296 section 2.5: the reply has the SPIs of the request and a Notify payload.
    let mut reply = forged.clone();
    reply[16..20].copy_from_slice(&[41, 0x20, 0x22, 0x20]);
    for _ in 0..2 {
        let verdict = gateway.inbound(peer, 500, &forged, NOW);
        assert_eq!(verdict, "forward ike in untracked");
        let verdict = gateway.outbound(500, peer, &reply, NOW);
        assert_eq!(verdict, "forward ike out untracked");
    }
    assert!(gateway.tables.sessions().is_empty());
}

/// The peer's own daemon gets the server's reply to what somebody has forged, and may answer with an
/// error that echoes both SPIs: in a response (RFC 7296 section 1.5), or in an informational exchange
/// of ISAKMP (RFC 2408 section 5.2). Only a message by which an initiator goes on is the other half.
#[test]
fn an_echo_of_the_peer_does_not_complete_the_proof() {
    let mut gateway = Gateway::default();
    let mut proofs = 0;
    for version in 0..16_u8 {
        for exchange in [2, 4, 5, 6, 32, 34, 35, 36, 37, 38, 43] {
            for flags in [0, 0x01, 0x08, 0x20, 0x28, 0x30] {
                let next = Fields {
                    version: version << 4,
                    exchange,
                    flags,
                    ..Fields::IKE_AUTH
                };
                let goes_on = match version {
                    1 => exchange == 2 || exchange == 4,
                    2 => flags & 0x28 == 0x08,
                    _ => false,
                };
                let completes = completes(&mut gateway, 500, Fields::IKE_SA_INIT, next);
                assert_eq!(completes, goes_on, "{next:?}");
                proofs += u32::from(completes);
            }
        }
    }
    assert_eq!(proofs, 2 * 6 + 11);
}

/// Keepalives and IKE messages from outside may be forged, and so may be what makes the server
/// answer in the clear: they keep no session that has ended.
#[test]
fn only_the_servers_keepalives_and_encrypted_messages_refresh_a_session() {
    let gateway = &mut Gateway::default();
    let peer = (gateway.next_peer(), 4500);
    let marked = |fields: Fields| [&[0; 4][..], &fields.message(SPI_R)].concat();
    let last_seen = |gateway: &Gateway| {
        let sessions = gateway.tables.sessions();
        assert_eq!(sessions.len(), 1);
        sessions[0].hot[session::LAST_SEEN] & 0xffff_ffff
    };
    gateway.outbound(4500, peer, b"\xee\0\0\x01\0\0\0\x01 encrypted", NOW);
    assert_eq!(last_seen(gateway), NOW);
    let mut seen = NOW;
    let mut later = NOW;
    let mut send = |payload: &[u8], outbound: bool, refreshes: bool| {
        later += 1000;
        let verdict = if outbound {
            gateway.outbound(4500, peer, payload, later)
        } else {
            gateway.inbound(peer, 4500, payload, later)
        };
        assert!(!verdict.ends_with("untracked"), "{verdict}: it is counted");
        seen = if refreshes { later } else { seen };
        assert_eq!(last_seen(gateway), seen, "{payload:x?} {outbound}");
    };
    send(&[0xff], true, true);
    send(&[0xff], false, false);
    // Neither ESP, nor IKE, nor a keepalive.
    send(&[0xff; 5], true, false);
    for version in 0..16_u8 {
        for payload in 0..=u8::MAX {
            for flags in [0x00, 0x01, 0x20, 0x21] {
                let fields = Fields {
                    payload,
                    version: version << 4 | 1,
                    flags,
                    ..Fields::IKE_AUTH
                };
                let encrypted = match version {
                    // RFC 2408 section 3.1: the flag "encryption".
                    1 => flags & 1 != 0,
                    // RFC 7296 section 3.14: SK; RFC 7383 section 2.5: SKF.
                    2 => payload == 46 || payload == 53,
                    _ => false,
                };
                send(&marked(fields), true, encrypted);
                send(&marked(fields), false, false);
            }
        }
    }
}

/// The SPI pair of a reply to one peer proves nothing of another.
#[test]
fn a_reply_to_another_peer_proves_nothing() {
    let mut gateway = Gateway::default();
    let [a, b] = [(); 2].map(|()| (gateway.next_peer(), 500));
    let reply = Fields::IKE_SA_INIT.message(SPI_R);
    gateway.outbound(500, a, &reply, NOW);
    let next = Fields::IKE_AUTH.message(SPI_R);
    let got = gateway.inbound(b, 500, &next, NOW);
    assert_eq!(got, "forward ike in untracked");
    let got = gateway.inbound(a, 500, &next, NOW);
    assert_eq!(got, "forward ike in");
}

/// A server repeats its reply to whoever repeats the first message (RFC 7296 section 2.1), also at another
/// address: then one of the two has forged the other's address and knows the responder's SPI, so neither
/// is established by it, whichever came first and however often.
#[test]
fn a_reply_to_two_addresses_proves_nothing() {
    let reply = Fields::IKE_SA_INIT.message(SPI_R);
    let next = Fields::IKE_AUTH.message(SPI_R);
    let mut gateway = Gateway::default();
    let [a, b, c] = [(); 3].map(|()| (gateway.next_peer(), 500));
    for peer in [a, b, a, b] {
        gateway.outbound(500, peer, &reply, NOW);
    }
    for peer in [a, b] {
        let got = gateway.inbound(peer, 500, &next, NOW);
        assert_eq!(got, "forward ike in untracked");
    }
    assert!(gateway.tables.sessions().is_empty());
    // Also if the first of them has a session.
    gateway.establish_by_ike(c.0);
    let third = *b"thirdone";
    for peer in [c, b] {
        gateway.outbound(500, peer, &Fields::IKE_SA_INIT.message(third), NOW);
    }
    let got = gateway.inbound(b, 500, &Fields::IKE_AUTH.message(third), NOW);
    assert_eq!(got, "forward ike in untracked");
    // The next one that the server sends to one of them alone does.
    let another = *b"anotherr";
    gateway.outbound(500, a, &Fields::IKE_SA_INIT.message(another), NOW);
    let got = gateway.inbound(a, 500, &Fields::IKE_AUTH.message(another), NOW);
    assert_eq!(got, "forward ike in");
}
