//! Tests of tables that fill up: what the daemon logs, and what `check` says.

use std::time::Duration;

use super::*;
use ikenat_tests::lab::ikenat::Ikenat;
use ikenat_tests::lab::wire::{Wire, esp, from_server};

use crate::support::{unload_command, wait_for_log};

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario::new("a_table_that_fills_up_is_named", fills),
        Scenario::new("check_says_what_tunnels_need", tunnels),
    ]
}

const CAPACITY: (&str, Option<&str>) = ("capacity", None);
/// Half of them may be in use.
const SMALL: [&str; 4] = ["--flow-slots", "64", "--session-slots", "64"];

fn look(lab: &Lab, more: &[&str]) -> Result<Vec<Finding>> {
    findings_of(command(lab, more)?)
}

fn fills(lab: &Lab) -> Result<()> {
    let ikenat = Ikenat::start_with(lab, &SMALL)?;
    expect(&look(lab, &SMALL)?, CAPACITY, "ok", &["FLOW: 0 of 32 SPIs"])?;
    let wire = Wire::open(lab)?;
    let mut spis = 0xC000_0000_u32..0xC000_0100;
    let mut fill = |entries: u64| -> Result<()> {
        while flows(lab)? < entries {
            let spi = spis.next().context("no SPI finds room")?;
            wire.outbound(&from_server(4500, 4500, esp(spi, 1, 52)))?;
        }
        Ok(())
    };
    fill(26)?;
    wait_for_log(lab, "FLOW: 26 of 32 SPIs are in use; when it is full")?;
    let found = expect(&look(lab, &SMALL)?, CAPACITY, "warning", &["26 of 32 SPIs"])?;
    ensure!(
        found.fix.len() == 2
            && found.fix[0] == unload_command(lab, "default")
            && found.fix[1].contains("--flow-slots 128 --session-slots 64"),
        "{found:#?}"
    );
    fill(32)?;
    wait_for_log(lab, "FLOW: all 32 SPIs are in use")?;
    std::thread::sleep(Duration::from_secs(3));
    let log = ikenat.log();
    ensure!(
        log.matches("SPIs are in use").count() == 2,
        "not once for each level:\n{log}"
    );
    let said = format!(
        "`{}`, then `ikenat run` with `--flow-slots 128`",
        unload_command(lab, "default")
    );
    ensure!(log.contains(&said), "{log}");
    Ok(())
}

fn flows(lab: &Lab) -> Result<u64> {
    let tables = lab.status()?.tables;
    let flow = tables.iter().find(|table| table.name == "FLOW");
    Ok(flow.context("no FLOW")?.entries)
}

fn tunnels(lab: &Lab) -> Result<()> {
    const NEED: &str =
        "25000 tunnels need --flow-slots 262144 --session-slots 65536: 42 MiB of memory";
    let alone = |tunnels: &str| -> Result<Output> {
        Ok(lab.ikenat(&["check", "--tunnels", tunnels])?.output()?)
    };
    let output = alone("25000")?;
    let text = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success() && text.trim() == NEED, "{text}");
    for (wrong, remedy) in [
        ("0", "for example 25000"),
        ("3000000", "the largest are for 2097152 tunnels"),
    ] {
        let output = alone(wrong)?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(
            !output.status.success() && said.contains(remedy),
            "{wrong}: {said}"
        );
    }
    let wanted = ["--tunnels", "25000"];
    expect(
        &look(lab, &wanted)?,
        CAPACITY,
        "ok",
        &[NEED, "have room for 32768"],
    )?;
    let few = [&wanted[..], &SMALL].concat();
    let found = expect(
        &look(lab, &few)?,
        CAPACITY,
        "warning",
        &[NEED, "have room for 8 only"],
    )?;
    // The sizes are the default ones.
    ensure!(
        found.fix.len() == 1 && !found.fix[0].contains("slots"),
        "{found:#?}"
    );
    Ok(())
}
