//! What `stats` lists with --peer, --spi, --sort and --top, and which verbs read the entries of FLOW
//! at all.

use anyhow::{Context, Result, ensure};
use ikenat_tests::lab::Lab;
use ikenat_tests::lab::ikenat::{Ikenat, binary};
use ikenat_tests::lab::json::{InstanceStats, Spi, Stats};
use ikenat_tests::lab::netns::execute;
use ikenat_tests::lab::topology::CLIENT;
use ikenat_tests::lab::wire::{Wire, esp, from_client, from_server};
use ikenat_tests::suite::Scenario;

use crate::support::sentence;

pub(crate) fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario::new("stats_lists_what_was_selected", selected),
        Scenario::new("an_invalid_selection_is_named", invalid),
        Scenario::new("only_stats_reads_the_flows", without_flows),
    ]
}

fn stats(lab: &Lab, selection: &[&str]) -> Result<InstanceStats> {
    let words = [&["stats", "--json"], selection].concat();
    let text = execute(&mut lab.ikenat(&words)?)?;
    let mut stats: Stats =
        serde_json::from_str(&text).with_context(|| format!("failed to read {text}"))?;
    ensure!(stats.instances.len() == 1, "{text}");
    stats.instances.pop().context("no instance")
}

/// The numbers of the SPIs that are listed, and how many peers are.
fn listed(lab: &Lab, selection: &[&str]) -> Result<(Vec<u32>, usize)> {
    let stats = stats(lab, selection)?;
    let spis: Result<Vec<u32>> = stats.spis.iter().map(Spi::number).collect();
    // The sums are those of all SPIs, whatever is listed.
    let totals = stats.totals;
    ensure!(
        totals.tracked.inbound.packets == 5,
        "{selection:?}: {totals:?}"
    );
    ensure!(
        totals.tracked.outbound.packets == 1,
        "{selection:?}: {totals:?}"
    );
    Ok((spis?, stats.sessions.len()))
}

fn selected(lab: &Lab) -> Result<()> {
    const OUT: u32 = 0xC000_0020;
    const FEW: u32 = 0xC000_0021;
    const MANY: u32 = 0xC000_0022;
    let _ikenat = Ikenat::start(lab)?;
    let wire = Wire::open(lab)?;
    wire.outbound(&from_server(4500, 4500, esp(OUT, 1, 52)))?;
    wire.inbound(&from_client(4500, 4500, esp(FEW, 1, 52)))?;
    for sequence in 1..5 {
        wire.inbound(&from_client(4500, 4500, esp(MANY, sequence, 52)))?;
    }
    let client = CLIENT.to_string();
    for (selection, expected) in [
        (vec![], (vec![FEW, MANY, OUT], 1)),
        (vec!["--peer", client.as_str()], (vec![FEW, MANY, OUT], 1)),
        (vec!["--peer", "192.0.2.0/24"], (vec![], 0)),
        (
            vec!["--peer", "192.0.2.0/24", "--peer", "0.0.0.0/0"],
            (vec![FEW, MANY, OUT], 1),
        ),
        (vec!["--spi", "0xc0000021"], (vec![FEW], 1)),
        (vec!["--sort", "packets", "--top", "1"], (vec![MANY], 1)),
        (
            vec![
                "--sort",
                "packets",
                "--spi",
                "0xc0000021",
                "--spi",
                "0xC0000022",
            ],
            (vec![MANY, FEW], 1),
        ),
        (vec!["--spi", "0x1"], (vec![], 0)),
    ] {
        let found = listed(lab, &selection)?;
        ensure!(
            found == expected,
            "{selection:?} lists {found:x?}, not {expected:x?}"
        );
    }
    let text = execute(&mut lab.ikenat(&["stats", "--top", "2"])?)?;
    let sums = "2 SPIs are listed; the sums below are those of all 3 entries";
    ensure!(
        text.contains(sums) && !text.contains("0xc0000020"),
        "{text}"
    );
    Ok(())
}

fn invalid(lab: &Lab) -> Result<()> {
    let _ikenat = Ikenat::start(lab)?;
    for (option, value, remedy) in [
        ("--spi", "c0000021", "0x and up to eight hexadecimal digits"),
        ("--peer", "203.0.113.300", "write it as 198.51.100.7"),
        ("--top", "0", "for example 20"),
        ("--sort", "size", "packets"),
    ] {
        let output = lab.ikenat(&["stats", option, value])?.output()?;
        ensure!(
            output.status.code() == Some(2),
            "{option} {value}: {}",
            output.status
        );
        sentence(&output, &[option, value, remedy])?;
    }
    Ok(())
}

/// With less address space than FLOW has bytes, `stats` cannot map it; the other verbs do not need
/// it, though they report its size.
fn without_flows(lab: &Lab) -> Result<()> {
    let _ikenat = Ikenat::start_with(lab, &["--flow-slots", "1048576"])?;
    let limited = |verb: &str| -> Result<std::process::Output> {
        let (ikenat, bpffs) = (binary()?, lab.bpffs());
        let script = format!(
            "ulimit -v 120000; {} {verb} --bpffs {}",
            ikenat.display(),
            bpffs.display()
        );
        Ok(lab.gateway.command("sh").args(["-c", &script]).output()?)
    };
    let stats = limited("stats")?;
    let said = String::from_utf8_lossy(&stats.stderr);
    ensure!(
        !stats.status.success() && said.contains("map into memory the map FLOW"),
        "{said}"
    );
    let status = limited("status")?;
    let (said, shown) = (
        String::from_utf8_lossy(&status.stderr),
        String::from_utf8_lossy(&status.stdout),
    );
    ensure!(
        status.status.success() && shown.contains("128 MiB"),
        "{said}{shown}"
    );
    let check = limited("check")?;
    let shown = String::from_utf8_lossy(&check.stdout);
    ensure!(
        shown.contains("attached") && !shown.contains("not readable"),
        "{shown}"
    );
    Ok(())
}
