//! Tests of the terminal report and of the comparison.

use super::{compare, example, svgs, terminal};
use crate::results::{ARow, CRow, Contestant, Direction, Interval, Run, Traffic};

/// The only case of [`one_case`].
const CASE: (Traffic, Direction, u32, u64, u32) =
    (Traffic::EspInUdp, Direction::Inbound, 110, 1_024, 1);

/// A run with layer C alone, of one case.
fn one_case(rows: Vec<CRow>) -> Run {
    let mut run = example::full();
    (run.a, run.b) = (None, None);
    let c = run.c.as_mut().expect("the example has layer C");
    c.rows = rows;
    run
}

/// The first line that begins with a contestant's name, its cells cut at two spaces.
fn cells(report: &str, after: &str, name: &str) -> Vec<String> {
    let after = report.find(after).expect("the report has that part");
    let line = report[after..]
        .lines()
        .find(|line| line.split("  ").next() == Some(name));
    let line = line.expect("the table has that row");
    line.split("  ")
        .map(str::trim)
        .filter(|cell| !cell.is_empty())
        .map(str::to_owned)
        .collect()
}

#[test]
fn a_terminal_is_never_wider_than_120_columns() {
    let mut long = example::full();
    long.conditions.command = "very long ".repeat(50) + &"x".repeat(300);
    for table in &mut long.b.as_mut().expect("has layer B").tables {
        table.table.push_str(&"_and_a_tail".repeat(20));
    }
    let before = example::full();
    for report in [
        terminal(&before),
        terminal(&long),
        compare(&long, &before),
        terminal(&Run::default()),
    ] {
        let widest = report
            .lines()
            .max_by_key(|line| line.chars().count())
            .expect("has lines");
        assert!(widest.chars().count() <= 120, "{widest}");
    }
}

#[test]
fn layer_a_prints_total_marginal_and_ratio_to_the_right_yardstick() {
    let report = terminal(&example::full());
    let row = |group: &str, name: &str| cells(&report, group, name)[..4].to_vec();
    assert_eq!(
        row("[ESP in UDP 4500, inbound", "ikenat"),
        ["ikenat", "3,174", "521", "1.221"]
    );
    assert_eq!(
        row("[another UDP port, inbound", "ikenat"),
        ["ikenat", "4,915", "2,262", "1.010"]
    );
    assert_eq!(
        row("[ESP in UDP 4500, outbound", "cable (no gateway)")[1..],
        ["2,653", "–", "–"]
    );
    assert!(
        report.contains("The marginal cost is the total less the"),
        "the difference is explained"
    );
    assert!(
        report.contains("0.41 %")
            && report.contains("Not measured: broken on purpose (only layer C has it).")
    );
}

#[test]
fn a_row_of_layer_a_that_lost_packets_scores_nothing() {
    let mut run = example::full();
    let rows = &mut run.a.as_mut().expect("has layer A").rows;
    let iptables = |row: &&mut ARow| row.contestant == Contestant::Iptables;
    rows.iter_mut()
        .find(iptables)
        .expect("has iptables")
        .arrived = 19_999;
    let row = cells(&terminal(&run), "[ESP in UDP 4500, inbound", "iptables");
    assert_eq!(row[1..4], ["–", "–", "–"]);
    assert_eq!(
        row.last().expect("has a note"),
        "19,999 arrived as they must: scores nothing"
    );
}

#[test]
fn layer_b_has_a_column_for_each_number_of_flows() {
    let report = terminal(&example::full());
    assert_eq!(
        cells(&report, "[ESP in UDP 4500, inbound]\nhit", "hit"),
        [
            "hit",
            "31.0 (29.8–33.2)",
            "35.0 (33.6–37.5)",
            "181.0 (173.8–193.7)",
            "220.0 (211.2–235.4)"
        ]
    );
    assert_eq!(
        cells(
            &report,
            "as multiples of ikenat's table",
            "BPF_MAP_TYPE_HASH"
        )[4],
        "2.413"
    );
    assert!(
        report.contains("\n    1,024  256.0 KiB      262,144             256\n"),
        "memory"
    );
    assert_eq!(
        cells(&report, "find no slot", "random")[2..],
        ["1,048,576", "0", "0 %"]
    );
    assert_eq!(
        cells(&report, "User space with full tables", "stats --json"),
        ["stats --json", "50,000", "8.0 (7.7–8.6)", "16"]
    );
}

#[test]
fn layer_c_prints_rate_ratio_loss_free_rate_and_latency() {
    let report = terminal(&one_case(vec![
        example::c_row(Contestant::Noop, CASE, 1.0),
        example::c_row(Contestant::Ikenat, CASE, 0.95),
    ]));
    assert_eq!(
        cells(&report, "at saturation", "ikenat"),
        [
            "ikenat",
            "1.244 M",
            "1.207 M – 1.294 M",
            "0.950 [0.936, 0.959]",
            "3.88 %"
        ]
    );
    assert_eq!(
        cells(&report, "Highest rate", "ikenat"),
        ["ikenat", "1.008 M", "6.5 µs", "18.3 µs", "64.2 µs"]
    );
    assert!(
        report.contains("ratio to ikenat: 1.001 [0.994,"),
        "the twin's interval"
    );
    assert!(!report.contains("VOID"));
}

#[test]
fn two_cores_are_held_against_one() {
    let mut two = CASE;
    two.4 = 2;
    let rows = vec![
        example::c_row(Contestant::Ikenat, CASE, 0.5),
        example::c_row(Contestant::Ikenat, two, 0.9),
    ];
    let report = terminal(&one_case(rows));
    assert_eq!(
        cells(&report, "Scaling", "ikenat"),
        ["ikenat", "2", "1.179 M", "1.800"]
    );
}

#[test]
fn wrong_packets_score_zero_whatever_the_blocks_say() {
    let mut row = example::c_row(Contestant::Ikenat, CASE, 0.95);
    row.wrong = 1;
    let report = terminal(&one_case(vec![
        example::c_row(Contestant::Noop, CASE, 1.0),
        row,
    ]));
    let cells = cells(&report, "at saturation", "ikenat");
    assert_eq!(
        cells,
        [
            "ikenat",
            "0",
            "–",
            "–",
            "3.88 %",
            "1 packet WRONG: scores zero"
        ]
    );
    assert!(
        report.contains("Layer C: ikenat forwards 0 packets/s"),
        "the summary too"
    );
    assert_eq!(
        report.matches("\nikenat  ").count(),
        1,
        "no latency for wrong packets"
    );
}

#[test]
fn a_void_run_says_so_everywhere() {
    let mut run = example::full();
    let c = run.c.as_mut().expect("has layer C");
    c.void = Some("the machine was busy".to_owned());
    let loud = "!!! VOID: layer C of this run does not count: the machine was busy.";
    let report = terminal(&run);
    assert_eq!(report.matches(loud).count(), 2, "on top and in its section");
    assert!(compare(&example::full(), &run).contains("!!! Before: VOID"));
    assert!(compare(&run, &example::full()).contains("!!! Now: VOID"));
    let plots = svgs(&run)
        .into_iter()
        .filter(|(_, svg)| svg.contains("VOID"))
        .count();
    assert_eq!(plots, 4, "all plots of layer C");
}

#[test]
fn a_twin_out_of_bounds_makes_the_run_void_even_without_a_reason() {
    let mut run = example::full();
    let c = run.c.as_mut().expect("has layer C");
    c.twin = Interval {
        median: 0.991,
        low: 0.979,
        high: 1.004,
    };
    assert!(terminal(&run).contains("the twin's interval 0.991 [0.979, 1.004]"));
    run.c.as_mut().expect("has layer C").twin = Interval {
        median: 1.0,
        low: 0.98,
        high: 1.02,
    };
    assert!(!terminal(&run).contains("VOID"));
}

#[test]
fn a_missing_layer_is_said_to_be_missing() {
    let report = terminal(&Run::default());
    for layer in [
        "Layer A is missing",
        "Layer B is missing",
        "Layer C is missing",
    ] {
        assert!(report.contains(layer), "{layer}");
    }
    assert_eq!(report.matches("This layer is missing").count(), 3);
}

#[test]
fn a_run_against_itself_shows_no_difference() {
    let run = example::full();
    let report = compare(&run, &run);
    let words: Vec<&str> = report
        .lines()
        .filter_map(|line| line.rsplit("  ").next())
        .collect();
    assert!(words.contains(&"no difference shown"));
    assert!(!words.contains(&"better") && !words.contains(&"worse"));
    assert!(!report.contains("only in the run") && !report.contains("differ in"));
}

#[test]
fn differences_beyond_the_noise_have_a_sign() {
    let (before, mut now) = (example::full(), example::full());
    for row in &mut now.a.as_mut().expect("has layer A").rows {
        row.totals.iter_mut().for_each(|total| *total += 20.0);
        row.marginal = row.marginal.map(|marginal| marginal + 20.0);
    }
    for row in &mut now.b.as_mut().expect("has layer B").programs {
        let spread = &mut row.nanoseconds;
        (spread.low, spread.median, spread.high) =
            (spread.low / 2.0, spread.median / 2.0, spread.high / 2.0);
    }
    for row in &mut now.c.as_mut().expect("has layer C").rows {
        row.ratio = row.ratio.map(|ratio| Interval {
            median: ratio.median * 1.02,
            ..ratio
        });
    }
    let report = compare(&now, &before);
    let a = cells(&report, "Layer A, instr", "ikenat");
    assert_eq!(
        a,
        [
            "ikenat", "3,174", "3,194", "1.006", "521", "541", "1.038", "worse"
        ]
    );
    let iptables = cells(&report, "Layer A, instr", "iptables");
    assert_eq!(
        iptables.last().expect("has a verdict"),
        "no difference shown",
        "20 in 7,413 is noise"
    );
    let b = cells(&report, "the dataplane.", "ESP in UDP 4500, inbound, hit");
    assert_eq!((b[4].as_str(), b[5].as_str()), ("0.500", "better"));
    let c = cells(&report, "Layer C, packets", "ikenat");
    assert_eq!(
        c.last().expect("has a verdict"),
        "no difference shown",
        "the intervals overlap"
    );
}

#[test]
fn end_to_end_the_ratio_to_the_no_op_decides_not_the_rate() {
    let rows = |share| {
        vec![
            example::c_row(Contestant::Noop, CASE, 1.0),
            example::c_row(Contestant::Ikenat, CASE, share),
        ]
    };
    let (before, mut now) = (one_case(rows(0.8)), one_case(rows(0.9)));
    let verdict = |now: &Run| cells(&compare(now, &before), "Layer C, packets", "ikenat").pop();
    assert_eq!(verdict(&now).as_deref(), Some("better"));
    for row in &mut now.c.as_mut().expect("has layer C").rows {
        row.blocks.iter_mut().for_each(|rate| *rate /= 3.0);
    }
    assert_eq!(
        verdict(&now).as_deref(),
        Some("better"),
        "a slower machine is no slower gateway"
    );
    now.c.as_mut().expect("has layer C").rows[1].wrong = 3;
    assert_eq!(verdict(&now).as_deref(), Some("WRONG: zero now"));
}

#[test]
fn rows_and_layers_of_one_side_are_named() {
    let (mut now, mut before) = (example::full(), example::full());
    now.b = None;
    before
        .a
        .as_mut()
        .expect("has layer A")
        .rows
        .retain(|row| row.contestant != Contestant::Ipvs);
    now.c.as_mut().expect("has layer C").rows.truncate(1);
    before.conditions.kernel = "5.10".to_owned();
    let report = compare(&now, &before)
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ");
    assert!(report.contains("Layer B is only in the run before."));
    assert!(
        report.contains("Rows of layer A, only in the run now: IPVS (ESP in UDP 4500, inbound);")
    );
    assert!(report.contains(
        "Rows of layer C, only in the run before: no-op redirect (ESP in UDP 4500, inbound · 60"
    ));
    assert!(report.contains("The two runs differ in: kernel."));
}
