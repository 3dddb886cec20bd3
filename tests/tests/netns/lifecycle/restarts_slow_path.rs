//! Restarts while every packet takes the slow path: its program is replaced without the loss of a
//! packet, by each of the two mechanisms that kernels have for it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ikenat_tests::kernel::kernel_is_at_least;
use ikenat_tests::lab::Lab;
use ikenat_tests::lab::ikenat::Ikenat;
use ikenat_tests::lab::load::Load;
use ikenat_tests::lab::topology::WAN;
use ikenat_tests::suite::Scenario;

use crate::support::{count, force_slow_path, log_of, one_filter_each, tenth_rate};

pub(crate) fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario::new(
            "restarts_of_a_clsact_slow_path_lose_no_packet",
            clsact_restarts,
        )
        .alone()
        .with_programs(&["tc"]),
        Scenario::new("restarts_of_a_tcx_slow_path_lose_no_packet", tcx_restarts).alone(),
    ]
}

fn clsact_restarts(lab: &Lab) -> Result<()> {
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        // There is always exactly one filter of ikenat.
        let watch = || -> Result<u32> {
            let mut looks = 0;
            while !stop.load(Ordering::Relaxed) {
                one_filter_each(lab)?;
                looks += 1;
            }
            Ok(looks)
        };
        let mut ikenat = start_slow(lab, "clsact")?;
        let watcher = scope.spawn(watch);
        let done = restarts(lab, &mut ikenat, "clsact");
        stop.store(true, Ordering::Relaxed);
        let looks = watcher
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        done?;
        ensure!(looks > 20, "the watcher looked {looks} times only");
        Ok(())
    })
}

fn tcx_restarts(lab: &Lab) -> Result<()> {
    if !kernel_is_at_least((6, 6))? {
        let log = log_of(lab, WAN, &["--tc", "tcx"])?;
        ensure!(log.contains("6.6") && !log.contains("ready"), "{log}");
        return Ok(());
    }
    let mut ikenat = start_slow(lab, "tcx")?;
    restarts(lab, &mut ikenat, "tcx")
}

fn start_slow(lab: &Lab, backend: &str) -> Result<Option<Ikenat>> {
    force_slow_path(lab)?;
    Ikenat::start_with(lab, &["--tc", backend]).map(Some)
}

/// Kills and starts it again under load, of which every packet takes the slow path.
fn restarts(lab: &Lab, ikenat: &mut Option<Ikenat>, backend: &str) -> Result<()> {
    let load = Load::start(lab, tenth_rate()?, tenth_rate()?)?;
    for restart in 1..=10 {
        thread::sleep(Duration::from_millis(200));
        if let Some(running) = ikenat.take() {
            running.kill()?;
        }
        load.flows()
            .with_context(|| format!("the daemon is dead for the {restart}. time"))?;
        *ikenat = Some(Ikenat::start_with(lab, &["--tc", backend])?);
    }
    load.finish()?.check_counted(&lab.stats()?)?;
    ensure!(
        count(lab, "xdp", "esp-in-udp-in")? == 0,
        "XDP sent some of it"
    );
    Ok(())
}
