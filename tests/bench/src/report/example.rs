//! Example runs for the tests: a plausible one with all parts, and extreme ones. None of these
//! figures was measured.

use crate::results::{
    ARow, BAgainst, BLoad, BMemory, BMiss, BRow, BTable, BUser, CRow, Conditions, Contestant,
    Direction, Interval, Latency, LayerA, LayerB, LayerC, Run, Spread, Traffic, Walk,
};

/// Contestants that forward, with a cost in instructions and a share of the no-op redirect's rate.
const FORWARDERS: [(Contestant, f64, f64); 9] = [
    (Contestant::Noop, 427.0, 1.0),
    (Contestant::Ikenat, 521.4, 0.951),
    (Contestant::IkenatTwin, 521.4, 0.953),
    (Contestant::IkenatGeneric, 2_107.0, 0.52),
    (Contestant::Forwarding, 3_187.0, 0.36),
    (Contestant::Iptables, 4_760.0, 0.243),
    (Contestant::Nft, 4_747.0, 0.247),
    (Contestant::NftFlowtable, 3_094.0, 0.37),
    (Contestant::Ipvs, 5_134.0, 0.214),
];

/// A run with all layers and contestants.
pub(super) fn full() -> Run {
    Run {
        conditions: conditions(),
        a: Some(layer_a()),
        b: Some(layer_b()),
        c: Some(layer_c()),
    }
}

/// The pretended conditions of the example.
pub(super) fn conditions() -> Conditions {
    Conditions {
        command: "cargo xtask bench --save example".to_owned(),
        date: "2026-11-24 03:18".to_owned(),
        commit: "0123abc-dirty".to_owned(),
        profile: "debug".to_owned(),
        kernel: "6.18.0".to_owned(),
        cpu: "Example CPU @ 2.50GHz".to_owned(),
        cpus: 2,
        mitigations: vec![
            "spectre_v1: Mitigation: usercopy/swapgs barriers and __user pointer sanitization"
                .to_owned(),
            "spectre_v2: Mitigation: Enhanced / Automatic IBRS; IBPB: conditional; RSB filling"
                .to_owned(),
        ],
        virtualized: true,
        quick: false,
    }
}

fn layer_a() -> LayerA {
    let mut rows = Vec::new();
    let own = [
        Traffic::EspInUdp,
        Traffic::EspInUdpChecksum,
        Traffic::Esp,
        Traffic::Ike,
        Traffic::Keepalive,
    ];
    for (more, traffic) in (0_u8..).zip(own) {
        for way in [Direction::Inbound, Direction::Outbound] {
            rows.push(a_row(Contestant::Cable, traffic, way, None));
            for (contestant, cost, _) in FORWARDERS {
                if contestant != Contestant::IkenatTwin {
                    let more = if contestant == Contestant::Noop {
                        0.0
                    } else {
                        f64::from(more) * 12.0
                    };
                    rows.push(a_row(contestant, traffic, way, Some(cost + more)));
                }
            }
        }
    }
    for traffic in [Traffic::OtherPort, Traffic::NotIpv4] {
        rows.push(a_row(Contestant::Cable, traffic, Direction::Inbound, None));
        rows.push(a_row(
            Contestant::Pass,
            traffic,
            Direction::Inbound,
            Some(2_240.0),
        ));
        rows.push(a_row(
            Contestant::Ikenat,
            traffic,
            Direction::Inbound,
            Some(2_262.0),
        ));
    }
    LayerA {
        kernel: "6.12.41+deb13-amd64".to_owned(),
        rows,
        largest_difference: 0.0041,
        missing: vec![(Contestant::Broken, "only layer C has it".to_owned())],
    }
}

/// A row with all packets arrived.
pub(super) fn a_row(
    contestant: Contestant,
    traffic: Traffic,
    way: Direction,
    marginal: Option<f64>,
) -> ARow {
    let total = 2_653.0 + marginal.unwrap_or(0.0);
    ARow {
        contestant,
        traffic,
        way,
        totals: vec![total - 2.0, total + 2.0],
        marginal,
        sent: 20_000,
        arrived: 20_000,
    }
}

fn spread(median: f64) -> Spread {
    Spread {
        median,
        low: median * 0.96,
        high: median * 1.07,
    }
}

fn layer_b() -> LayerB {
    let flows = [(1, 7.0), (1_024, 11.0), (65_536, 157.0), (1_048_576, 196.0)];
    let mut programs = Vec::new();
    for (traffic, base) in [
        (Traffic::EspInUdp, 24.0),
        (Traffic::EspInUdpChecksum, 25.5),
        (Traffic::Esp, 23.0),
    ] {
        for (way, more) in [(Direction::Inbound, 0.0), (Direction::Outbound, 4.0)] {
            for (hit, fresh, times) in [(true, true, 1.0), (true, false, 1.3), (false, false, 1.6)]
            {
                for (flows, table) in flows {
                    let nanoseconds = spread(base + more + table * times);
                    programs.push(BRow {
                        traffic,
                        way,
                        flows,
                        walk: Walk::Random,
                        hit,
                        fresh,
                        nanoseconds,
                        packets: 1_000_000,
                    });
                }
            }
        }
    }
    let kernel = [36.0, 37.0, 269.0, 473.0];
    let mut tables = Vec::new();
    for (at, (flows, own)) in flows.into_iter().enumerate() {
        let maps = [
            ("ikenat", own),
            ("BPF_MAP_TYPE_HASH", kernel[at]),
            ("BPF_MAP_TYPE_LRU_HASH", kernel[at] * 1.2),
        ];
        let row = |(table, median): (&str, f64)| BTable {
            table: table.to_owned(),
            flows,
            nanoseconds: spread(median),
        };
        tables.extend(maps.map(row));
    }
    let memory = [
        (1_024, 262_144),
        (65_536, 16_777_216),
        (1_048_576, 268_435_456),
    ];
    let loads = [(0.25, 0), (0.5, 12), (0.75, 5_403), (1.0, 81_331)];
    programs.extend([Walk::Trains, Walk::Zipf].map(|walk| BRow {
        traffic: Traffic::EspInUdp,
        way: Direction::Inbound,
        flows: 65_536,
        walk,
        hit: true,
        fresh: true,
        nanoseconds: spread(60.0),
        packets: 1_000_000,
    }));
    LayerB {
        programs,
        against: vec![BAgainst {
            object: "old/ikenat.o".to_owned(),
            traffic: Traffic::EspInUdp,
            way: Direction::Inbound,
            flows: 65_536,
            slots: 131_072,
            older: spread(100.0),
            present: spread(70.0),
            ratio: spread(0.7),
        }],
        misses: [(65_536, 4 << 10), (1_048_576, 2 << 20)]
            .map(|(flows, page)| BMiss {
                flows,
                bytes: 128 * flows,
                page,
                nanoseconds: spread(100.0),
            })
            .into(),
        tables,
        memory: memory.map(|(flows, bytes)| BMemory { flows, bytes }).into(),
        loads: loads
            .map(|(load, without_slot)| BLoad {
                kind: "random".to_owned(),
                load,
                keys: 1_048_576,
                without_slot,
            })
            .into(),
        user: [(50_000, 8.0), (1_000_000, 120.0)]
            .map(|(flows, median)| BUser {
                work: "stats --json".to_owned(),
                flows,
                milliseconds: spread(median),
                longest: median * 2.0,
            })
            .into(),
    }
}

fn layer_c() -> LayerC {
    let mut rows = Vec::new();
    for (flows, slower) in [(1, 1.0), (1_024, 0.99), (65_536, 0.9), (1_048_576, 0.78)] {
        cases(&mut rows, Traffic::EspInUdp, 110, flows, 1, slower);
    }
    for frame in [60, 590, 1_442] {
        cases(&mut rows, Traffic::EspInUdp, frame, 1_024, 1, 0.97);
    }
    cases(&mut rows, Traffic::Mix, 110, 1_024, 1, 0.93);
    cases(&mut rows, Traffic::EspInUdp, 110, 1_024, 2, 1.7);
    let (who, why) = (
        Contestant::NftFlowtable,
        "nft: Operation not supported".to_owned(),
    );
    let twin = Interval {
        median: 1.001,
        low: 0.994,
        high: 1.008,
    };
    LayerC {
        rows,
        missing: vec![(who, why)],
        twin,
        void: None,
        seed: 4500,
    }
}

fn cases(rows: &mut Vec<CRow>, traffic: Traffic, frame: u32, flows: u64, cores: u32, slower: f64) {
    for (contestant, _, share) in FORWARDERS {
        if contestant != Contestant::NftFlowtable {
            let share = if contestant == Contestant::Noop {
                slower.max(1.0)
            } else {
                share * slower
            };
            rows.push(c_row(
                contestant,
                (traffic, Direction::Inbound, frame, flows, cores),
                share,
            ));
        }
    }
    let mut broken = c_row(
        Contestant::Broken,
        (traffic, Direction::Inbound, frame, flows, cores),
        0.0,
    );
    broken.wrong = 51_234;
    rows.push(broken);
}

/// A row with a share of 1.31 million packets per second.
pub(super) fn c_row(
    contestant: Contestant,
    case: (Traffic, Direction, u32, u64, u32),
    share: f64,
) -> CRow {
    let (traffic, way, frame, flows, cores) = case;
    let rate = 1_310_000.0 * share;
    let ratio = Interval {
        median: share,
        low: share * 0.985,
        high: share * 1.01,
    };
    CRow {
        contestant,
        traffic,
        way,
        frame,
        flows,
        cores,
        blocks: [0.97, 1.0, 1.02, 0.99, 1.04]
            .map(|noise| rate * noise)
            .into(),
        wrong: 0,
        lost: 1_204_331,
        sent: 31_000_000,
        gaps: 0,
        ratio: (contestant != Contestant::Noop).then_some(ratio),
        lossless: Some(rate * 0.81),
        latency: (share > 0.0).then(|| Latency {
            p50: 6_200.0 / share,
            p99: 17_400.0 / share,
            p999: 61_000.0 / share,
        }),
    }
}

/// Runs that a careless drawing function would draw wrongly.
pub(super) fn extremes() -> Vec<(&'static str, Run)> {
    let mut one = full();
    one.a.as_mut().expect("has layer A").rows.truncate(1);
    let b = one.b.as_mut().expect("has layer B");
    b.programs.truncate(1);
    b.tables.truncate(1);
    one.c.as_mut().expect("has layer C").rows.truncate(1);
    let case = (Traffic::Mix, Direction::Outbound, 1_442, 1_048_576, 16);
    let mut many = full();
    let rows = (0..60_u8).map(|n| c_row(Contestant::NftFlowtable, case, f64::from(n) / 7.0));
    many.c.as_mut().expect("has layer C").rows = rows.collect();
    let mut empty = full();
    empty.a = Some(LayerA::default());
    empty.b = Some(LayerB::default());
    empty.c = Some(LayerC::default());
    let mut void = full();
    void.c.as_mut().expect("has layer C").void =
        Some("the twin's interval left its bounds ".repeat(4));
    let mut runs = vec![
        ("full", full()),
        ("one", one),
        ("many", many),
        ("empty", empty),
        ("void", void),
    ];
    for (name, value) in [
        ("zero", 0.0),
        ("huge", 9.87e14),
        ("odd", f64::NAN),
        ("endless", f64::INFINITY),
    ] {
        runs.push((name, everywhere(value)));
    }
    runs.push(("default", Run::default()));
    runs
}

/// A run in which every figure is the same.
fn everywhere(value: f64) -> Run {
    let mut run = full();
    for row in &mut run.a.as_mut().expect("has layer A").rows {
        row.totals.fill(value);
        row.marginal = row.marginal.map(|_| value);
    }
    let b = run.b.as_mut().expect("has layer B");
    let programs = b.programs.iter_mut().map(|row| &mut row.nanoseconds);
    for spread in programs.chain(b.tables.iter_mut().map(|row| &mut row.nanoseconds)) {
        (spread.low, spread.median, spread.high) = (value, value, value);
    }
    for row in &mut run.c.as_mut().expect("has layer C").rows {
        row.blocks.fill(value);
        row.lossless = Some(value);
        if let Some(ratio) = &mut row.ratio {
            (ratio.low, ratio.median, ratio.high) = (value, value, value);
        }
        if let Some(latency) = &mut row.latency {
            (latency.p50, latency.p99, latency.p999) = (value, value, value);
        }
    }
    run
}
