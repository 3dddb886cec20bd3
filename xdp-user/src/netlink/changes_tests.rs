use super::*;
use netlink_packet_route::neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourState};
use netlink_packet_route::rule::RuleMessage;

const WAN: u32 = 5;
const OTHER: u32 = 9;
const VIP: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);
const SERVER: Ipv4Addr = Ipv4Addr::new(192, 168, 0, 1);
const ROUTER: IpAddr = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 254));

const NOTHING: Changes = Changes {
    links: false,
    hops: false,
    routes: false,
    vip: false,
};
const ROUTES: Changes = Changes {
    routes: true,
    ..NOTHING
};

/// What a filter says of a message when an instance uses a WAN, an absent interface, and one router.
fn changes(filter: &mut ChangeFilter, message: RouteNetlinkMessage) -> Changes {
    let wan = Link {
        index: WAN,
        name: "wan".to_owned(),
        ..Link::default()
    };
    let absent = Link::absent("up");
    let used = Used {
        links: vec![&wan, &absent],
        vips: vec![Ipv4Addr::new(203, 0, 113, 77), VIP],
        servers: vec![Ipv4Addr::new(172, 16, 0, 1), SERVER],
        neighbour: &|key| key == (WAN, ROUTER),
    };
    filter.changes(&message, &used)
}

fn neighbour(
    (index, address): NeighbourKey,
    state: NeighbourState,
    last: Option<u8>,
) -> RouteNetlinkMessage {
    let mut message = NeighbourMessage::default();
    message.header.ifindex = index;
    message.header.state = state;
    let address = match address {
        IpAddr::V4(address) => NeighbourAddress::Inet(address),
        IpAddr::V6(address) => NeighbourAddress::Inet6(address),
    };
    let destination = NeighbourAttribute::Destination(address);
    let mac = last.map(|last| vec![2, 0, 0, 0, 0, last]);
    message.attributes = vec![destination];
    message
        .attributes
        .extend(mac.map(NeighbourAttribute::LinkLayerAddress));
    RouteNetlinkMessage::NewNeighbour(message)
}

#[test]
fn only_a_new_mac_address_of_a_neighbour_is_a_change() {
    let mut filter = ChangeFilter::default();
    let mut notify = |state, last| {
        let found = changes(&mut filter, neighbour((WAN, ROUTER), state, last));
        assert!(found == Changes::HOPS || found == NOTHING, "{found:?}");
        found.hops
    };
    assert!(notify(NeighbourState::Reachable, Some(1)), "it is new");
    assert!(!notify(NeighbourState::Probe, Some(1)));
    assert!(!notify(NeighbourState::Reachable, Some(1)));
    assert!(notify(NeighbourState::Stale, Some(2)), "another address");
    assert!(notify(NeighbourState::Failed, Some(2)), "no address");
    assert!(!notify(NeighbourState::Incomplete, None), "still none");
    assert!(notify(NeighbourState::Reachable, Some(2)), "it is back");
}

#[test]
fn neighbours_that_are_not_used_do_not_count() {
    let mut filter = ChangeFilter::default();
    let reachable = |key, last| neighbour(key, NeighbourState::Reachable, Some(last));
    for last in 1..4 {
        let elsewhere = reachable((OTHER, ROUTER), last);
        assert_eq!(changes(&mut filter, elsewhere), NOTHING);
        let unused = reachable((WAN, IpAddr::from([203, 0, 113, 7])), last);
        assert_eq!(changes(&mut filter, unused), NOTHING);
    }
    assert_eq!(filter.neighbours.len(), 1, "only that of the WAN is known");
}

fn link(index: u32, name: &str) -> RouteNetlinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message.attributes = vec![LinkAttribute::IfName(name.to_owned())];
    RouteNetlinkMessage::NewLink(message)
}

#[test]
fn links_count_by_index_and_by_name() {
    let mut filter = ChangeFilter::default();
    let both = Changes {
        links: true,
        ..Changes::HOPS
    };
    assert_eq!(changes(&mut filter, link(OTHER, "veth1234")), NOTHING);
    assert_eq!(changes(&mut filter, link(WAN, "renamed")), both);
    assert_eq!(
        changes(&mut filter, link(OTHER, "wan")),
        both,
        "created again"
    );
    assert_eq!(
        changes(&mut filter, link(OTHER, "up")),
        both,
        "it was absent"
    );
    let on_top = |kind, lower| {
        let mut message = LinkMessage::default();
        message.header.index = OTHER;
        let kind = LinkAttribute::LinkInfo(vec![LinkInfo::Kind(kind)]);
        message.attributes = vec![LinkAttribute::Link(lower), kind];
        RouteNetlinkMessage::DelLink(message)
    };
    let of_vrrp = on_top(InfoKind::MacVlan, WAN);
    assert_eq!(changes(&mut filter, of_vrrp), both);
    for (kind, lower) in [(InfoKind::MacVlan, OTHER), (InfoKind::Veth, WAN)] {
        assert_eq!(changes(&mut filter, on_top(kind, lower)), NOTHING);
    }
}

fn route(prefix: &str) -> RouteNetlinkMessage {
    let mut message = RouteMessage::default();
    let prefix: Ipv4Net = prefix.parse().expect("a prefix");
    message.header.destination_prefix_length = prefix.prefix_len();
    if prefix.prefix_len() != 0 {
        let address = RouteAddress::Inet(prefix.addr());
        message.attributes = vec![RouteAttribute::Destination(address)];
    }
    RouteNetlinkMessage::DelRoute(message)
}

#[test]
fn routes_count_at_once_or_are_kept_for_the_peers() {
    let mut filter = ChangeFilter::default();
    let to_server = Changes {
        links: true,
        ..Changes::HOPS
    };
    for (used, wanted) in [
        ("0.0.0.0/0", to_server),
        ("192.168.0.0/24", to_server),
        ("192.168.0.1/32", to_server),
        ("203.0.113.0/24", Changes::HOPS),
    ] {
        assert_eq!(changes(&mut filter, route(used)), wanted, "{used}");
    }
    assert!(filter.take_prefixes().is_empty());
    for other in ["198.51.100.0/24", "172.17.0.0/16", "198.51.100.0/24"] {
        assert_eq!(changes(&mut filter, route(other)), ROUTES, "{other}");
    }
    assert_eq!(filter.take_prefixes().len(), 2);
    assert!(filter.take_prefixes().is_empty());
}

#[test]
fn too_many_routes_are_a_change_of_all() {
    let mut filter = ChangeFilter::default();
    let mut number = 0_u32;
    let mut next = || {
        number += 1;
        let address = Ipv4Addr::from(0x0a00_0000 + number);
        changes(&mut filter, route(&format!("{address}/32")))
    };
    for _ in 0..PREFIXES {
        assert_eq!(next(), ROUTES);
    }
    assert_eq!(next(), Changes::HOPS);
    assert_eq!(next(), ROUTES);
}

fn address(index: u32, address: Ipv4Addr) -> RouteNetlinkMessage {
    let mut message = AddressMessage::default();
    message.header.index = index;
    message.attributes = vec![AddressAttribute::Local(address.into())];
    RouteNetlinkMessage::DelAddress(message)
}

#[test]
fn addresses_count_on_interfaces_of_the_instance_and_the_vip_everywhere() {
    let mut filter = ChangeFilter::default();
    let vip = Changes {
        vip: true,
        ..Changes::HOPS
    };
    let container = Ipv4Addr::new(172, 17, 0, 1);
    assert_eq!(changes(&mut filter, address(OTHER, container)), NOTHING);
    let own = Changes {
        links: true,
        ..Changes::HOPS
    };
    assert_eq!(changes(&mut filter, address(WAN, container)), own);
    assert_eq!(changes(&mut filter, address(OTHER, VIP)), vip);
    assert_eq!(changes(&mut filter, address(OTHER, SERVER)), Changes::HOPS);
}

#[test]
fn every_rule_counts() {
    let rule = RouteNetlinkMessage::NewRule(RuleMessage::default());
    assert_eq!(changes(&mut ChangeFilter::default(), rule), Changes::HOPS);
}
