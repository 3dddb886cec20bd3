//! What a segment makes of the word of a connection, rule by rule (`docs/decisions/pinned-vips.md`).

use proptest::prelude::*;
use std::ops::Range;
use xdp_common::Direction;
use xdp_common::slot::pin;
use xdp_core::conntrack::connection::{after, decide, found, is_refusal};
use xdp_core::wire::segment::{ACK, FIN, RST, SYN, Segment};
use xdp_core::wire::tcp;

/// Numbers of segments: few, so that they meet, also where they wrap.
fn numbers() -> impl Strategy<Value = u32> {
    (0..4_u32).prop_map(|number| number.wrapping_sub(2))
}

/// A word of a connection, or zero.
fn words() -> impl Strategy<Value = u64> {
    let word = (0..3_u16, numbers(), any::<[bool; 4]>(), 0..4_u16).prop_map(
        |(vip, number, [has_sent, is_proven, peer_fin, server_fin], other)| {
            let mut word = if has_sent {
                pin::sent(vip, number)
            } else {
                pin::claimed(vip)
            };
            let is_over = peer_fin && server_fin;
            for (is_set, flag) in [
                (is_proven && !is_over, pin::PROVEN),
                (peer_fin, pin::PEER_FIN),
                (server_fin, pin::SERVER_FIN),
            ] {
                word |= if is_set { flag } else { 0 };
            }
            if other < 3 {
                pin::with_other(word, other)
            } else {
                word
            }
        },
    );
    prop_oneof![1 => Just(0), 9 => word]
}

/// What a segment has.
#[derive(Clone, Copy, Debug)]
struct Fields {
    inbound: bool,
    flags: u8,
    sequence: u32,
    acknowledgment: u32,
    data: u16,
}

impl Fields {
    fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// SYN, and of RST, FIN and ACK only these.
    fn is_syn(&self, others: u8) -> bool {
        self.flags & (FIN | SYN | RST | ACK) == SYN | others
    }

    fn segment(&self) -> Segment {
        let header = tcp::Header {
            source: 0,
            destination: 0,
            sequence: self.sequence,
            acknowledgment: self.acknowledgment,
            data_offset: 0x50,
            flags: self.flags,
            window: 0,
            checksum: 0,
            urgent: 0,
        };
        let direction = if self.inbound {
            Direction::Inbound
        } else {
            Direction::Outbound
        };
        Segment::of(direction, &header, self.data)
    }

    fn next(&self) -> u32 {
        let flags = u32::from(self.has(SYN)) + u32::from(self.has(FIN));
        (self.sequence.wrapping_add(u32::from(self.data))).wrapping_add(flags)
    }

    /// The SYN and ACK that the word is of, once more.
    fn repeats(&self, word: u64) -> bool {
        self.is_syn(ACK) && is_set(word, pin::SENT) && pin::number(word) == u64::from(self.next())
    }
}

fn segments() -> impl Strategy<Value = Fields> {
    let numbers = (numbers(), numbers(), 0..3_u16);
    (any::<bool>(), any::<u8>(), numbers).prop_map(
        |(inbound, flags, (sequence, acknowledgment, data))| Fields {
            inbound,
            flags,
            sequence,
            acknowledgment,
            data,
        },
    )
}

fn is_set(word: u64, flag: u64) -> bool {
    pin::has(word, flag) == 1
}

fn vip_of(word: u64) -> Option<u16> {
    is_set(word, pin::EXISTS).then(|| pin::vip(word))
}

/// Like [`segments`], with a side that has sent it.
fn sent_by(inbound: bool) -> impl Strategy<Value = Fields> {
    segments().prop_map(move |fields| Fields { inbound, ..fields })
}

/// What of the FINs of both sides a proven connection does not have.
fn one_fin(word: u64) -> u64 {
    if pin::vip(word) == 0 {
        pin::PEER_FIN
    } else {
        pin::SERVER_FIN
    }
}

/// Like [`words`], proven or not.
fn proven(is_proven: bool) -> impl Strategy<Value = u64> {
    words().prop_map(move |word| match is_proven {
        true => word & !one_fin(word) | pin::EXISTS | pin::PROVEN,
        false => word & !pin::PROVEN,
    })
}

/// Numbers of VIPs of the service.
fn vips() -> Range<u16> {
    0..3
}

proptest! {
    #[test]
    fn the_peers_side_moves_no_proven_connection(before in proven(true), segment in sent_by(true), vip in vips()) {
        let word = after(before, &segment.segment(), vip);
        prop_assert_eq!(vip_of(word), vip_of(before));
        let is_over = is_set(word, pin::PEER_FIN) && is_set(word, pin::SERVER_FIN);
        prop_assert_eq!(is_set(word, pin::PROVEN), !is_over);
        if vip_of(before) != Some(vip) {
            let other = if segment.is_syn(0) { pin::OTHER } else { 0 };
            prop_assert_eq!(word & !other, before & !other, "only the other VIP is written down");
        }
    }

    #[test]
    fn the_server_moves_it_by_accepting_a_syn(before in words(), segment in sent_by(false), vip in vips()) {
        let word = after(before, &segment.segment(), vip);
        if !is_set(before, pin::EXISTS) {
            prop_assert_eq!(word, 0, "the server creates no entry");
            return Ok(());
        }
        let shown = |word| (is_set(word, pin::SENT), pin::number(word));
        if segment.repeats(before) {
            prop_assert_eq!(word, before, "it accepts nothing");
            return Ok(());
        }
        if segment.is_syn(ACK) {
            prop_assert_eq!(vip_of(word), Some(vip));
            prop_assert_eq!(shown(word), (true, u64::from(segment.next())));
            prop_assert!(!is_set(word, pin::PROVEN), "the peer has not acknowledged it yet");
            return Ok(());
        }
        prop_assert_eq!(vip_of(word), vip_of(before));
        if vip_of(before) != Some(vip) {
            prop_assert_eq!(word, before, "what leaves by another VIP shows nothing of this one");
        } else if segment.has(RST) {
            prop_assert_eq!(word, before & !pin::PROVEN, "its number may be that of a stranger");
        } else if is_set(before, pin::PROVEN) {
            prop_assert_eq!(shown(word), shown(before));
        } else {
            prop_assert_eq!(shown(word), (true, u64::from(segment.next())));
        }
    }

    #[test]
    fn a_claim_is_the_last_vip_that_the_peer_used(before in proven(false), segment in sent_by(true), vip in vips()) {
        let word = after(before, &segment.segment(), vip);
        let exists = is_set(before, pin::EXISTS);
        let expected = if segment.has(RST) || (exists && segment.is_syn(0)) {
            // A RST answers a segment, and a SYN beside a connection waits for the server.
            vip_of(before)
        } else {
            Some(vip)
        };
        prop_assert_eq!(vip_of(word), expected);
        if expected != vip_of(before) {
            prop_assert_eq!(word, pin::claimed(vip), "nothing of the other VIP holds for this one");
        }
    }

    #[test]
    fn what_proves_is_the_number_that_the_server_has_sent(before in words(), segment in segments(), vip in vips()) {
        let word = after(before, &segment.segment(), vip);
        let proves = segment.inbound
            && vip_of(before) == Some(vip)
            && segment.has(ACK)
            && !segment.has(RST)
            && is_set(before, pin::SENT)
            && pin::number(before) == u64::from(segment.acknowledgment);
        let is_over = is_set(word, pin::PEER_FIN) && is_set(word, pin::SERVER_FIN);
        if is_set(word, pin::PROVEN) {
            prop_assert!(is_set(before, pin::PROVEN) || proves);
            prop_assert!(!is_over);
        } else if is_set(before, pin::PROVEN) {
            let is_another = segment.is_syn(ACK) && !segment.repeats(before);
            let is_ended_by_server = !segment.inbound && (segment.has(RST) || is_another);
            prop_assert!(is_over || is_ended_by_server);
        } else {
            prop_assert!(is_over || !proves);
        }
    }

    #[test]
    fn the_other_vip_is_that_of_a_syn_until_it_is_answered(before in words(), segment in segments(), vip in vips()) {
        prop_assume!(is_set(before, pin::EXISTS));
        let word = after(before, &segment.segment(), vip);
        let is_own = vip_of(before) == Some(vip);
        let other = is_set(before, pin::OTHER).then(|| pin::other(before));
        let is_claim = !is_own && !is_set(before, pin::PROVEN) && !segment.has(RST);
        let expected = if segment.inbound && !is_own && segment.is_syn(0) {
            Some(vip)
        } else if segment.inbound {
            // The peer goes on by its own VIP, or claims another one.
            let is_later = is_own && !segment.has(RST);
            if is_later || is_claim { None } else { other }
        } else if segment.is_syn(ACK) && !segment.repeats(before) {
            None
        } else {
            other
        };
        prop_assert_eq!(is_set(word, pin::OTHER).then(|| pin::other(word)), expected);
    }

    #[test]
    fn each_side_ends_it_once(before in words(), segment in segments(), vip in vips()) {
        prop_assume!(vip_of(before) == Some(vip) && !segment.is_syn(ACK));
        let word = after(before, &segment.segment(), vip);
        let ends = segment.has(FIN) && !segment.has(RST);
        let [of_peer, of_server] = [pin::PEER_FIN, pin::SERVER_FIN].map(|fin| is_set(before, fin));
        let goes_on = segment.inbound && !segment.has(RST) && segment.data != 0;
        let has_ended = of_peer && !goes_on;
        prop_assert_eq!(is_set(word, pin::PEER_FIN), has_ended || (ends && segment.inbound));
        prop_assert_eq!(is_set(word, pin::SERVER_FIN), of_server || (ends && !segment.inbound));
    }

    #[test]
    fn the_server_answers_a_syn_where_it_came_from(word in words(), segment in sent_by(false)) {
        let refuses = segment.has(RST) && segment.has(ACK) && segment.sequence == 0;
        let is_bare = segment.data == 0 && segment.flags & (FIN | SYN | RST | ACK) == ACK;
        let accepts = segment.is_syn(ACK) && !segment.repeats(word);
        let is_answer = accepts || refuses || (is_bare && !is_set(word, pin::PROVEN));
        let expected = if is_answer && is_set(word, pin::OTHER) {
            Some(pin::other(word))
        } else {
            vip_of(word)
        };
        prop_assert_eq!(found(decide(word, &segment.segment(), 7)), expected);
    }

    #[test]
    fn only_a_rst_is_refused(word in words(), segment in segments(), vip in vips()) {
        let expected = segment.inbound
            && segment.has(RST)
            && is_set(word, pin::PROVEN)
            && vip_of(word) != Some(vip);
        prop_assert_eq!(is_refusal(decide(word, &segment.segment(), vip)), expected);
    }
}
