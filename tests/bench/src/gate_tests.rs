//! Tests of the gate: what passes, what fails, and what its report says.

use super::*;
use crate::results::{ARow, Direction, Traffic};

fn figures_of(rows: &[(&str, f64)]) -> Figures {
    rows.iter()
        .map(|(name, figure)| ((*name).to_owned(), *figure))
        .collect()
}

fn one(now: f64, before: f64) -> Verdict {
    let row = |figure| figures_of(&[("ikenat x", figure)]);
    let mut verdicts = judge(&row(now), &row(before));
    assert_eq!(verdicts.len(), 1);
    verdicts.remove(0)
}

#[test]
fn one_per_cent_is_the_limit() {
    assert!(one(1009.0, 1000.0).passes);
    let risen = one(1011.0, 1000.0);
    assert!(!risen.passes);
    assert!(
        risen.text.contains("1011.0") && risen.text.contains("1000.0"),
        "{risen:?}"
    );
    assert!(risen.text.contains("--record"), "{risen:?}");
}

#[test]
fn the_lower_of_two_boots_counts() {
    let mut figures = figures_of(&[("ikenat esp inbound", 610.0), ("noop esp inbound", 420.0)]);
    let other = figures_of(&[("ikenat esp inbound", 590.0), ("noop esp inbound", 421.0)]);
    keep_lower(&mut figures, &other);
    assert_eq!(
        figures,
        figures_of(&[("ikenat esp inbound", 590.0), ("noop esp inbound", 420.0)])
    );
}

#[test]
fn a_yardstick_never_fails() {
    let rows = |figure| figures_of(&[("ikenat esp inbound", figure), ("noop esp inbound", figure)]);
    let verdicts = judge(&rows(103.0), &rows(100.0));
    let passes: Vec<bool> = verdicts.iter().map(|verdict| verdict.passes).collect();
    assert_eq!(passes, [false, true]);
    assert!(verdicts[1].text.contains("the harness"), "{verdicts:?}");
    // A row that disappears fails even then.
    assert!(!judge(&Figures::new(), &figures_of(&[("noop esp inbound", 1.0)]))[0].passes);
}

#[test]
fn services_that_cost_too_much_fail() {
    for (case, limit) in [("esp-in-udp inbound", 1150.0), ("ike inbound", 1200.0)] {
        let of = |many| {
            figures_of(&[
                (&format!("ikenat {case}"), 1000.0),
                (&format!("ikenat-256-services {case}"), many),
            ])
        };
        for (many, passes) in [(limit - 1.0, true), (limit + 1.0, false)] {
            let verdicts = judge_services(&of(many));
            assert_eq!(verdicts.len(), 1);
            assert_eq!(verdicts[0].passes, passes, "{verdicts:?}");
            let text = report("6.12", "rustc", &of(many), &[], Some(&of(many)));
            assert_eq!(text.failed, !passes, "{}", text.text);
        }
    }
}

#[test]
fn a_fall_is_good_news() {
    let fallen = one(980.0, 1000.0);
    assert!(
        fallen.passes && fallen.text.contains("better"),
        "{fallen:?}"
    );
    assert!(!one(995.0, 1000.0).text.contains("better"));
}

#[test]
fn a_row_on_one_side_only_fails() {
    let new = judge(&figures_of(&[("new", 7.0)]), &Figures::new());
    assert!(
        !new[0].passes && new[0].text.contains("no record of this row"),
        "{new:?}"
    );
    let gone = judge(&Figures::new(), &figures_of(&[("gone", 7.0)]));
    assert!(
        !gone[0].passes && gone[0].text.contains("not measured"),
        "{gone:?}"
    );
}

#[test]
fn the_report_counts_as_tests_do() {
    let measured = figures_of(&[("ikenat x", 100.0), ("ikenat y", 120.0)]);
    let report =
        |recorded, without: &[String]| report("6.12.1", "rustc 1.96", &measured, without, recorded);
    let skipped = report(None, &[]);
    assert!(!skipped.failed);
    assert!(
        skipped
            .text
            .ends_with("test result: ok. 0 passed; 0 failed; 2 ignored\n"),
        "{}",
        skipped.text
    );
    assert!(
        skipped
            .text
            .contains("no record for kernel 6.12.1 and rustc 1.96"),
        "{}",
        skipped.text
    );
    let recorded = figures_of(&[("ikenat x", 100.0), ("ikenat y", 100.0)]);
    let risen = report(Some(&recorded), &[]);
    assert!(risen.failed);
    assert!(
        risen
            .text
            .contains("test ikenat y ... FAILED: 120.0 instructions, recorded 100.0"),
        "{}",
        risen.text
    );
    assert!(
        risen.text.ends_with("1 passed; 1 failed; 0 ignored\n"),
        "{}",
        risen.text
    );
    // A missing figure is not a pass, with or without a record.
    assert!(report(None, &["z: 9 of 10".to_owned()]).failed);
}

#[test]
fn a_row_where_something_was_lost_has_no_figure() {
    let row = |contestant, marginal, arrived| ARow {
        contestant,
        traffic: Traffic::Esp,
        way: Direction::Inbound,
        totals: vec![2000.0],
        marginal,
        sent: 10,
        arrived,
    };
    let layer = LayerA {
        rows: vec![
            row(Contestant::Cable, None, 10),
            row(Contestant::Noop, Some(500.04), 10),
            row(Contestant::Ikenat, None, 9),
        ],
        ..LayerA::default()
    };
    let (figures, without) = figures(&layer);
    assert_eq!(figures, figures_of(&[("noop esp inbound", 500.0)]));
    assert_eq!(
        without,
        ["ikenat esp inbound: 9 of 10 packets arrived as they must"]
    );
}

#[test]
fn the_record_survives_its_file_and_keeps_other_pairs() -> Result<()> {
    let path = std::env::temp_dir().join(format!("ikenat-record-{}", std::process::id()));
    let mut record = Record::read(&path)?;
    record.put("6.12.1", "rustc 1.96", figures_of(&[("x", 718.5)]));
    record.put("6.12.2", "rustc 1.96", figures_of(&[("x", 1.0)]));
    record.put("6.12.2", "rustc 1.96", figures_of(&[("x", 2.0)]));
    record.write(&path)?;
    let read = Record::read(&path);
    fs::remove_file(&path)?;
    let read = read?;
    assert_eq!(read, record);
    assert_eq!(
        read.figures("6.12.2", "rustc 1.96"),
        Some(&figures_of(&[("x", 2.0)]))
    );
    assert_eq!(read.figures("6.12.1", "rustc 1.95"), None);
    Ok(())
}

#[test]
fn the_committed_record_is_one() -> Result<()> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("instructions.json");
    let record = Record::read(&path)?;
    assert!(path.exists() && !record.kernels.is_empty());
    Ok(())
}
