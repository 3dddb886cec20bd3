//! A start that has the interfaces of the one before in another order, some of them no more, or on
//! the other side: the programs that are there are exchanged, whatever their pins are called, and no
//! packet is lost, also if it dies.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use ikenat_tests::lab::Lab;
use ikenat_tests::lab::ikenat::{Ikenat, binary};
use ikenat_tests::lab::load::Load;
use ikenat_tests::lab::process::Process;
use ikenat_tests::lab::topology::{LAN, SERVER, VIP, WAN};
use ikenat_tests::suite::Scenario;
use xdp_common::cpu;
use xdp_user::failpoints::Step;
use xdp_user::tables::mmap::{ReadOnlyWord, Tables};

use crate::failpoints::{WISH, died_at, failed, steps_of};
use crate::faults::moves::{OTHER, add, has, nothing_pending};
use crate::faults::older::by_each;
use crate::support::{attachments, everything_crosses, nothing_is_left, tenth_rate};

pub(crate) fn scenarios() -> Vec<Scenario> {
    const TOOLS: &[&str] = &["tc", "bpftool"];
    let test = |name, test| Scenario::new(name, test).with_programs(TOOLS).alone();
    vec![
        test(
            "interfaces_in_another_order_are_exchanged_without_loss",
            in_any_order,
        ),
        test(
            "a_start_with_fewer_wans_that_dies_at_any_step_loses_no_packet",
            fewer_wans_killed,
        ),
        test(
            "a_start_that_fails_leaves_egress_words_that_fit_every_program",
            egress_words_fit,
        ),
    ]
}

/// XDP and tc ingress; a WAN also has tc egress.
const ON_LAN: usize = 2;

/// The interfaces of a start, in their order.
#[derive(Clone, Copy, Debug)]
struct Order {
    wans: &'static [&'static str],
    lans: &'static [&'static str],
}

impl Order {
    const fn of(wans: &'static [&'static str], lans: &'static [&'static str]) -> Self {
        Self { wans, lans }
    }

    fn arguments(self, backend: &str) -> Vec<String> {
        let (vip, server) = (VIP.to_string(), SERVER.to_string());
        let mut words = vec!["run", "--vip", &vip, "--server", &server, "--tc", backend];
        words.extend(self.wans.iter().flat_map(|wan| ["--wan", wan]));
        words.extend(self.lans.iter().flat_map(|lan| ["--lan", lan]));
        words.into_iter().map(str::to_owned).collect()
    }

    /// A start that succeeds: what is attached is what these interfaces need. Leaves it attached.
    fn start(self, lab: &Lab, backend: &str) -> Result<()> {
        let words = self.arguments(backend);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let ikenat = Ikenat::run(lab, &lab.gateway, "ikenat", &words)?;
        self.is_attached(lab)?;
        ikenat.kill()
    }

    fn is_attached(self, lab: &Lab) -> Result<()> {
        let attached = lab.status()?.attached;
        for interface in [WAN, LAN, OTHER] {
            let wanted = match interface {
                wan if self.wans.contains(&wan) => ON_LAN + 1,
                lan if self.lans.contains(&lan) => ON_LAN,
                _ => 0,
            };
            has(lab, interface, wanted)?;
            let on_it = attached.iter().filter(|one| one.interface == interface);
            ensure!(
                on_it.filter(|one| one.alive).count() == wanted,
                "{wanted} on {interface}: {attached:?}"
            );
        }
        nothing_pending(lab)
    }

    fn spawn(self, lab: &Lab, backend: &str, wish: &str) -> Result<Process> {
        let mut command = lab.gateway.command(binary()?);
        command.args(self.arguments(backend));
        command.arg("--bpffs").arg(lab.bpffs()).env(WISH, wish);
        Process::spawn(&mut command, lab.log("ikenat-fault"))
    }
}

const TWO_WANS: Order = Order::of(&[OTHER, WAN], &[LAN]);
const ONE_WAN: Order = Order::of(&[WAN], &[LAN]);

/// Each with the one before: an interface goes, comes, changes its number, and changes its side.
const ORDERS: [Order; 8] = [
    TWO_WANS,
    ONE_WAN,
    TWO_WANS,
    Order::of(&[WAN, OTHER], &[LAN]),
    Order::of(&[WAN], &[OTHER, LAN]),
    Order::of(&[WAN], &[LAN, OTHER]),
    TWO_WANS,
    Order::of(&[WAN], &[LAN, OTHER]),
];

fn in_any_order(lab: &Lab) -> Result<()> {
    add(lab, OTHER)?;
    let before = attachments(lab)?;
    by_each(lab, |lab, backend| {
        TWO_WANS.start(lab, backend)?;
        let load = Load::start(lab, tenth_rate()?, tenth_rate()?)?;
        load.flows()?;
        for pair in ORDERS.windows(2) {
            let context = || format!("{:?} became {:?}", pair[0], pair[1]);
            pair[1].start(lab, backend).with_context(context)?;
            load.flows().with_context(context)?;
        }
        let transfer = load.finish()?;
        println!("{backend}, {} orders: {transfer}", ORDERS.len());
        transfer.check_counted(&lab.stats()?)?;
        everything_crosses(lab)?;
        lab.unload()?;
        nothing_is_left(lab, &before)
    })
}

/// Killed once at each step that exchanges something. The next start has both WANs, or one.
fn fewer_wans_killed(lab: &Lab) -> Result<()> {
    add(lab, OTHER)?;
    let before = attachments(lab)?;
    by_each(lab, |lab, backend| {
        TWO_WANS.start(lab, backend)?;
        let steps = steps_of(ONE_WAN.spawn(lab, backend, "list")?)?;
        let prepared = steps.iter().position(|step| step == Step::Prepared.name());
        let load = Load::start(lab, tenth_rate()?, tenth_rate()?)?;
        let mut seen = BTreeSet::new();
        for step in &steps[prepared.context("nothing is prepared")?..] {
            if !seen.insert(step) {
                continue;
            }
            let next = [ONE_WAN, TWO_WANS][seen.len() % 2];
            let context = || format!("killed at {step}; then {next:?}");
            TWO_WANS.start(lab, backend).with_context(context)?;
            let dying = ONE_WAN.spawn(lab, backend, &format!("kill:{step}"))?;
            died_at(dying, step).with_context(context)?;
            load.flows().with_context(context)?;
            next.start(lab, backend).with_context(context)?;
            load.flows().with_context(context)?;
        }
        ensure!(
            seen.iter().any(|step| *step == Step::SetAside.name()),
            "{seen:?}"
        );
        let transfer = load.finish()?;
        println!("{backend}, {} steps: {transfer}", seen.len());
        transfer.check_counted(&lab.stats()?)?;
        lab.unload()?;
        nothing_is_left(lab, &before)
    })
}

/// The egress words of both WANs and of the LAN.
fn egress_words(lab: &Lab) -> Result<[u64; 3]> {
    let tables = Tables::<ReadOnlyWord>::open(&lab.pins())?;
    Ok([cpu::EGRESS_WAN, cpu::EGRESS_WAN + 1, cpu::EGRESS_LAN].map(|at| tables.egress(at)))
}

/// A start that fails before it has exchanged a program leaves the words of before. One that fails
/// after that leaves programs for which the first WAN is another interface than for the others: it is
/// usable for none.
fn egress_words_fit(lab: &Lab) -> Result<()> {
    add(lab, OTHER)?;
    by_each(lab, |lab, backend| {
        let fail = |at: Step| -> Result<()> {
            let wish = format!("error:{}", at.name());
            failed(ONE_WAN.spawn(lab, backend, &wish)?).context(at.name())
        };
        TWO_WANS.start(lab, backend)?;
        let load = Load::start(lab, tenth_rate()?, tenth_rate()?)?;
        load.flows()?;
        let before = egress_words(lab)?;
        ensure!(
            before[0] == 0 && before[1] != 0 && before[2] != 0,
            "{OTHER} transmits, or another one does not: {before:x?}"
        );
        for at in [Step::EgressesSet, Step::Prepared] {
            fail(at)?;
            let now = egress_words(lab)?;
            ensure!(now == before, "{at:?}: {now:x?} instead of {before:x?}");
        }
        let exchanged = match backend {
            "tcx" => Step::LinkUpdated,
            _ => Step::FilterExchanged,
        };
        fail(exchanged)?;
        let now = egress_words(lab)?;
        let fit = [0, 0, cpu::egress(0, 0)];
        ensure!(now == fit, "{now:x?} instead of {fit:x?}");
        load.flows()?;
        // Back to what the tables describe, beside programs that they do not describe.
        let wish = format!("error:{}", exchanged.name());
        failed(TWO_WANS.spawn(lab, backend, &wish)?).context("back")?;
        let now = egress_words(lab)?;
        ensure!(now == fit, "back: {now:x?} instead of {fit:x?}");
        load.flows()?;
        ONE_WAN.start(lab, backend)?;
        let now = egress_words(lab)?;
        ensure!(now[0] != 0 && now[1] == 0 && now[2] != 0, "{now:x?}");
        load.flows()?;
        let transfer = load.finish()?;
        transfer.check_counted(&lab.stats()?)?;
        lab.unload()
    })
}
