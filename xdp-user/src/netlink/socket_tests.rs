//! Requests to a scripted peer in the place of the kernel: a pair of sockets that keep datagrams
//! apart, as netlink does.

use super::super::Link;
use super::*;
use netlink_packet_core::{NLM_F_DUMP_INTR, NLMSG_DONE, NLMSG_ERROR};
use netlink_packet_route::link::LinkMessage;
use rustix::net::socketpair;
use std::thread::{JoinHandle, spawn};

const NEW_LINK: u16 = 16;
const LENGTH: usize = 16;

/// A message of one datagram: what netlink's header says, and the payload.
fn message(kind: u16, flags: u16, sequence: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(LENGTH + payload.len()).expect("short");
    let mut bytes = length.to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(flags.to_ne_bytes());
    bytes.extend(sequence.to_ne_bytes());
    bytes.extend(0_u32.to_ne_bytes());
    bytes.extend(payload);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// An interface of this index, with a name and nothing else.
fn link(sequence: u32, index: u32, name: &str) -> Vec<u8> {
    let mut payload = vec![0, 0, 1, 0];
    for word in [index, 0, 0] {
        payload.extend(word.to_ne_bytes());
    }
    let name = [name.as_bytes(), &[0]].concat();
    let length = u16::try_from(4 + name.len()).expect("short");
    payload.extend(length.to_ne_bytes());
    payload.extend(3_u16.to_ne_bytes());
    payload.extend(name);
    message(NEW_LINK, 0, sequence, &payload)
}

/// An interface whose message ends within its header.
fn damaged_link(sequence: u32) -> Vec<u8> {
    message(NEW_LINK, 0, sequence, &[0; 7])
}

fn done(sequence: u32, code: i32) -> Vec<u8> {
    message(NLMSG_DONE, 0, sequence, &code.to_ne_bytes())
}

fn error(sequence: u32, code: i32) -> Vec<u8> {
    message(NLMSG_ERROR, 0, sequence, &code.to_ne_bytes())
}

/// The datagrams with which the peer answers a request of this sequence number.
type Script = Box<dyn FnOnce(u32) -> Vec<Vec<u8>> + Send>;

/// A connection to a peer that answers each request by the datagrams of one script, which is given
/// the request's sequence number. The peer ends with its last script.
fn scripted(scripts: Vec<Script>) -> (Connection, JoinHandle<OwnedFd>) {
    let flags = SocketFlags::CLOEXEC;
    let (own, peers) =
        socketpair(AddressFamily::UNIX, SocketType::DGRAM, flags, None).expect("a pair of sockets");
    let peer = spawn(move || {
        for script in scripts {
            let mut request = [0; 1024];
            recv(&peers, &mut request[..], RecvFlags::empty()).expect("a request");
            let sequence = request[8..12].try_into().map(u32::from_ne_bytes);
            for datagram in script(sequence.expect("four bytes")) {
                send(&peers, &datagram, SendFlags::empty()).expect("room");
            }
        }
        peers
    });
    let connection = Connection::over(own, Duration::from_millis(200)).expect("a timeout");
    (connection, peer)
}

macro_rules! scripts {
    ($($script:expr),* $(,)?) => { scripted(vec![$(Box::new($script)),*]) };
}

fn links(connection: &Connection) -> io::Result<Vec<String>> {
    let request = RouteNetlinkMessage::GetLink(LinkMessage::default());
    let links: Vec<Link> = dump(connection, request)?;
    Ok(links.into_iter().map(|link| link.name).collect())
}

fn one(connection: &Connection) -> io::Result<Link> {
    get(
        connection,
        RouteNetlinkMessage::GetLink(LinkMessage::default()),
    )
}

fn change_one(connection: &Connection) -> io::Result<()> {
    change(
        connection,
        RouteNetlinkMessage::NewLink(LinkMessage::default()),
        0,
    )
}

#[test]
fn an_answer_to_another_request_is_skipped() {
    let (connection, peer) = scripts![
        |number| vec![link(number - 1, 1, "older"), link(number, 2, "right")],
        |number| vec![
            error(number - 1, -1),
            error(number + 1, -1),
            error(number, 0)
        ],
        |number| vec![
            done(number - 1, 0),
            [link(0, 3, "notified"), link(number, 4, "a")].concat(),
            done(number, 0),
        ],
    ];
    assert_eq!(one(&connection).expect("an answer").name, "right");
    change_one(&connection).expect("acknowledged");
    assert_eq!(links(&connection).expect("a list"), ["a"]);
    peer.join().expect("the peer");
}

#[test]
fn no_two_requests_have_the_same_number() {
    let (connection, peer) = scripts![|number| vec![link(number, number, "first")], |number| vec![
        link(number, number, "second")
    ],];
    let numbers = [&connection; 2].map(|connection| one(connection).expect("an answer").index);
    assert_ne!(numbers[0], numbers[1]);
    assert!(!numbers.contains(&0), "notifications have the number 0");
    peer.join().expect("the peer");
}

#[test]
fn a_link_that_cannot_be_decoded_is_left_out_of_a_list() {
    let (connection, peer) = scripts![|number| vec![
        [
            link(number, 1, "a"),
            damaged_link(number),
            link(number, 2, "b")
        ]
        .concat(),
        b"no message".to_vec(),
        [link(number, 3, "c"), vec![9; 20]].concat(),
        done(number, 0),
    ]];
    assert_eq!(links(&connection).expect("a list"), ["a", "b", "c"]);
    peer.join().expect("the peer");
}

#[test]
fn an_object_that_cannot_be_decoded_is_an_error_and_leaves_nothing_behind() {
    let (connection, peer) = scripts![
        |number| vec![damaged_link(number), link(number, 1, "late")],
        |number| vec![link(number, 2, "right")],
    ];
    let error = one(&connection).expect_err("it cannot be decoded");
    assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    assert_eq!(one(&connection).expect("an answer").name, "right");
    peer.join().expect("the peer");
}

#[test]
fn a_list_that_changed_meanwhile_is_read_again() {
    let interrupted = |number| {
        let mut first = link(number, 1, "gone");
        first[6..8].copy_from_slice(&NLM_F_DUMP_INTR.to_ne_bytes());
        vec![first, done(number, 0)]
    };
    let (connection, peer) = scripts![interrupted, interrupted, |number| vec![
        link(number, 2, "b"),
        done(number, 0)
    ]];
    assert_eq!(links(&connection).expect("a list"), ["b"]);
    peer.join().expect("the peer");

    // One that changes without end is read nevertheless.
    let scripts = (0..ATTEMPTS).map(|_| Box::new(interrupted) as Script);
    let (connection, peer) = scripted(scripts.collect());
    assert_eq!(links(&connection).expect("a list"), ["gone"]);
    peer.join().expect("the peer");
}

#[test]
fn a_dump_that_the_kernel_gave_up_is_an_error() {
    let (connection, peer) = scripts![
        |number| vec![
            link(number, 1, "a"),
            done(number, -(Errno::NOMEM.raw_os_error()))
        ],
        |number| vec![error(number, -(Errno::BUSY.raw_os_error()))],
        // The kernel may send an end without a code.
        |number| vec![link(number, 1, "a"), message(NLMSG_DONE, 0, number, &[])],
    ];
    let failed = |connection| links(connection).expect_err("a code").raw_os_error();
    assert_eq!(failed(&connection), Some(Errno::NOMEM.raw_os_error()));
    assert_eq!(failed(&connection), Some(Errno::BUSY.raw_os_error()));
    assert_eq!(links(&connection).expect("a list"), ["a"]);
    peer.join().expect("the peer");
}

#[test]
fn an_answer_that_does_not_come_is_an_error_and_is_not_taken_for_the_next() {
    let (connection, peer) = scripts![|number| vec![link(number, 1, "a")], |_| Vec::new()];
    assert_eq!(one(&connection).expect("an answer").name, "a");
    let error = one(&connection).expect_err("no answer");
    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    let peers = peer.join().expect("the peer");
    send(&peers, &link(2, 1, "late"), SendFlags::empty()).expect("room");
    let later = spawn(move || {
        let mut request = [0; 1024];
        recv(&peers, &mut request[..], RecvFlags::empty()).expect("a request");
        send(&peers, &link(3, 2, "right"), SendFlags::empty()).expect("room");
    });
    assert_eq!(one(&connection).expect("an answer").name, "right");
    later.join().expect("the peer");
}

#[test]
fn an_answer_about_another_interface_is_refused() {
    let (route, peer) = scripts![|number| vec![link(number, 7, "other")], |number| vec![
        link(number, 5, "right")
    ],];
    let generic = Connection::open(Some(netlink::GENERIC)).expect("a socket");
    let netlink = Netlink {
        route,
        generic,
        netdev: None,
    };
    let error = netlink.link_by_index(5).expect_err("another interface");
    assert!(error.to_string().contains("another object"), "{error}");
    assert_eq!(netlink.link_by_index(5).expect("an answer").name, "right");
    peer.join().expect("the peer");
}
