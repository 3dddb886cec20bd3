//! Faults of the BPF file system and of the pins in it: a start reports them and changes nothing,
//! and the attached programs go on.

use std::fs;
use std::os::unix::fs::{chown, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use ikenat_tests::kernel::kernel_is_at_least;
use ikenat_tests::lab::Lab;
use ikenat_tests::lab::cgroup::MemoryGroup;
use ikenat_tests::lab::ikenat::{Ikenat, binary, usual_arguments};
use ikenat_tests::lab::load::Load;
use ikenat_tests::lab::netns::execute;
use ikenat_tests::lab::process::Process;
use ikenat_tests::suite::Scenario;
use xdp_common::{ABI_VERSION, meta};
use xdp_user::tables::mmap::Tables;

use crate::support::{
    PROGRAMS, attachments, everything_crosses, no_loss, patience, pins, refused, tenth_rate,
    timed_command, unload_command,
};

pub(crate) fn scenarios() -> Vec<Scenario> {
    const TOOLS: &[&str] = &["tc", "bpftool"];
    let test = |name, test| Scenario::new(name, test).with_programs(TOOLS);
    vec![
        test(
            "maps_of_another_layout_are_refused_and_traffic_goes_on",
            layouts,
        )
        .alone(),
        test(
            "tables_of_another_version_are_refused_and_traffic_goes_on",
            version,
        )
        .alone(),
        test("pins_of_another_owner_are_refused", owner),
        test("no_link_in_a_bpffs_is_followed", links),
        test("a_bpffs_that_is_read_only_is_named", read_only).alone(),
        test("a_bpffs_that_is_unmounted_loses_no_packet", vanished).alone(),
        test("no_memory_for_the_maps_leaves_nothing", no_memory),
        test(
            "a_start_that_runs_out_of_memory_changes_nothing",
            out_of_memory,
        )
        .alone(),
    ]
}

/// Where the one instance of a lab has its pins.
pub(crate) fn directory(lab: &Lab) -> PathBuf {
    lab.bpffs().join("ikenat/default")
}

/// A start that must be refused with these words.
fn refusal(lab: &Lab, words: &[&str]) -> Result<()> {
    let mut command = timed_command(lab, &usual_arguments())?;
    let output = command.arg("--bpffs").arg(lab.bpffs()).output()?;
    says(&output, words)
}

pub(crate) fn says(output: &Output, words: &[&str]) -> Result<()> {
    let text = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.code() == Some(1) && !text.contains("panicked"),
        "it ended with {}: {text}",
        output.status
    );
    for word in words {
        ensure!(text.contains(word), "{word:?} is not in: {text}");
    }
    Ok(())
}

fn make_map(path: &Path, words: &str) -> Result<()> {
    let mut command = Command::new("bpftool");
    command.args(["map", "create"]).arg(path);
    execute(command.args(words.split_whitespace()))?;
    Ok(())
}

fn layouts(lab: &Lab) -> Result<()> {
    Ikenat::start(lab)?.kill()?;
    let flow = directory(lab).join("FLOW");
    let name = flow.display().to_string();
    let aside = lab.bpffs().join("aside");
    let before = attachments(lab)?;
    let load = Load::start(lab, tenth_rate()?, tenth_rate()?)?;
    let foreign: [(&str, &[&str]); 5] = [
        (
            "type hash key 8 value 256 entries 65536 name x",
            &["of type"],
        ),
        (
            "type array key 4 value 512 entries 65536 flags 0x400 name x",
            &["values of 512 bytes instead of 256"],
        ),
        (
            "type array key 4 value 256 entries 65536 name x",
            &["flags 0 instead of 1024"],
        ),
        (
            "type array key 4 value 256 entries 32768 flags 0x400 name x",
            &["32768 entries instead of the 65536"],
        ),
        ("", &["missing"]),
    ];
    for (words, reasons) in foreign {
        fs::rename(&flow, &aside).context("failed to move a pin")?;
        if !words.is_empty() {
            make_map(&flow, words)?;
        }
        refusal(
            lab,
            &[
                &[
                    name.as_str(),
                    &format!("`{}`", unload_command(lab, "default")),
                ],
                reasons,
            ]
            .concat(),
        )
        .with_context(|| format!("a map `{words}`"))?;
        ensure!(attachments(lab)? == before, "something has changed");
        load.flows().with_context(|| format!("a map `{words}`"))?;
        if !words.is_empty() {
            fs::remove_file(&flow).context("failed to remove a pin")?;
        }
        fs::rename(&aside, &flow).context("failed to move a pin back")?;
    }
    // Not even a map.
    fs::rename(&flow, &aside).context("failed to move a pin")?;
    fs::create_dir(&flow).context("failed to put something else there")?;
    refusal(lab, &[&name, "it is a directory, not a map; remove it"])?;
    fs::remove_dir(&flow).context("failed to remove it")?;
    fs::rename(&aside, &flow).context("failed to move a pin back")?;
    let _ikenat = Ikenat::start(lab).context("with its own maps again")?;
    load.flows()?;
    let transfer = load.finish()?;
    println!("six foreign pins refused: {transfer}");
    transfer.check_counted(&lab.stats()?)
}

fn version(lab: &Lab) -> Result<()> {
    Ikenat::start(lab)?.kill()?;
    let before = attachments(lab)?;
    let load = Load::start(lab, tenth_rate()?, tenth_rate()?)?;
    let other = ABI_VERSION - 1;
    Tables::<AtomicU64>::open(&directory(lab))?
        .meta(meta::VERSION)
        .store(u64::from(other), Ordering::SeqCst);
    let words = [format!("version {other}"), format!("version {ABI_VERSION}")];
    let unload = format!("`{}`", unload_command(lab, "default"));
    let words = [&words[0], &words[1], &unload].map(|word: &String| word.as_str());
    refusal(lab, &words)?;
    for verb in ["stats", "status"] {
        says(&lab.ikenat(&[verb])?.output()?, &words).with_context(|| verb.to_owned())?;
    }
    ensure!(attachments(lab)? == before, "something has changed");
    load.flows()?;
    no_loss(&load.losses("tables of another version refused")?)?;
    // The remedy that the message names.
    lab.unload()?;
    ensure!(pins(&lab.bpffs())?.is_empty(), "pins are left");
    let _ikenat = Ikenat::start(lab)?;
    everything_crosses(lab)
}

/// `unload` removes no directory of another user, and no counter would be lost.
fn directory_refusal(lab: &Lab, words: &[&str]) -> Result<()> {
    let mut command = timed_command(lab, &usual_arguments())?;
    let output = command.arg("--bpffs").arg(lab.bpffs()).output()?;
    let text = String::from_utf8_lossy(&output.stderr);
    ensure!(
        !text.contains("unload") && !text.contains("counters"),
        "{text}"
    );
    says(&output, words)
}

fn owner(lab: &Lab) -> Result<()> {
    const OTHER: u32 = 65_534;
    let words = ["belongs to user 65534"];
    let base = lab.bpffs().join("ikenat");
    // Another user created it first, which is possible where a bpffs is writable for all.
    fs::create_dir(&base).context("failed to create a directory")?;
    chown(&base, Some(OTHER), None).context("failed to give it away")?;
    let shown = base.display().to_string();
    let fix = format!("`chown 0:0 {shown}`");
    directory_refusal(lab, &[words[0], &shown, &fix]).context("the directory above")?;
    ensure!(
        fs::read_dir(&base)?.next().is_none(),
        "something was made there"
    );
    fs::create_dir(directory(lab)).context("failed to create a directory")?;
    chown(directory(lab), Some(OTHER), None).context("failed to give it away")?;
    chown(&base, Some(0), None).context("failed to take it back")?;
    let shown = directory(lab).display().to_string();
    let fix = format!("`chown 0:0 {shown}`");
    directory_refusal(lab, &[words[0], &shown, &fix]).context("the directory of the instance")?;
    ensure!(pins(&lab.bpffs())?.is_empty(), "something was pinned there");
    fs::remove_dir(directory(lab)).context("failed to remove a directory")?;
    Ikenat::start(lab)?.kill()?;
    let meta = directory(lab).join("META");
    chown(&meta, Some(OTHER), None).context("failed to give it away")?;
    let before = attachments(lab)?;
    refusal(lab, &[words[0], "META"]).context("a map")?;
    ensure!(attachments(lab)? == before, "something has changed");
    everything_crosses(lab)?;
    chown(&meta, Some(0), None).context("failed to take it back")?;
    let _ikenat = Ikenat::start(lab)?;
    everything_crosses(lab)
}

/// Every verb over a directory in which another one stands for ikenat's: all refuse, and the instance
/// to which the link leads stays.
fn links(lab: &Lab) -> Result<()> {
    Ikenat::start(lab)?.kill()?;
    let state = || anyhow::Ok((attachments(lab)?, pins(&lab.bpffs().join("ikenat"))?));
    let before = state()?;
    let theirs = lab.bpffs().join("theirs");
    let base = theirs.join("ikenat");
    fs::create_dir(&theirs).context("failed to create a directory")?;
    let refused = |link: &Path| -> Result<()> {
        let fix = format!("`rm {}`", link.display());
        let verbs = ["unload", "stats", "status", "run"];
        for words in verbs.map(|verb| vec![verb.to_owned()]) {
            let words = if words == ["run"] {
                usual_arguments()
            } else {
                words
            };
            let mut command = timed_command(lab, &words)?;
            let output = command.arg("--bpffs").arg(&theirs).output()?;
            says(&output, &["is a symbolic link to", &fix]).with_context(|| words.join(" "))?;
        }
        ensure!(state()? == before, "something has changed");
        everything_crosses(lab)
    };
    symlink("../ikenat", &base).context("failed to link")?;
    refused(&base)?;
    fs::remove_file(&base).context("failed to remove a link")?;
    fs::create_dir(&base).context("failed to create a directory")?;
    let own = base.join("default");
    symlink("../../ikenat/default", &own).context("failed to link")?;
    refused(&own)?;
    fs::remove_file(&own).context("failed to remove a link")?;
    fs::remove_dir(&base).context("failed to remove a directory")?;
    fs::remove_dir(&theirs).context("failed to remove a directory")
}

fn remount(lab: &Lab, how: &str) -> Result<()> {
    execute(
        Command::new("mount")
            .args(["-o", &format!("remount,{how}")])
            .arg(lab.bpffs()),
    )?;
    Ok(())
}

fn read_only(lab: &Lab) -> Result<()> {
    let path = lab.bpffs().display().to_string();
    remount(lab, "ro")?;
    let mut command = timed_command(lab, &usual_arguments())?;
    command.arg("--bpffs").arg(lab.bpffs());
    refused(lab, command, &[&path, "Read-only file system"])?;
    remount(lab, "rw")?;
    let ikenat = Ikenat::start(lab)?;
    let load = Load::start(lab, tenth_rate()?, tenth_rate()?)?;
    remount(lab, "ro")?;
    load.flows().context("it is read-only now")?;
    ikenat.kill()?;
    let before = attachments(lab)?;
    refusal(lab, &["Read-only file system"])?;
    ensure!(attachments(lab)? == before, "something has changed");
    let output = lab.ikenat(&["unload"])?.output()?;
    says(&output, &["Read-only file system"]).context("unload")?;
    ensure!(attachments(lab)? == before, "something has changed");
    load.flows().context("after refusals")?;
    remount(lab, "rw")?;
    let _ikenat = Ikenat::start(lab)?;
    load.flows()?;
    let transfer = load.finish()?;
    println!("bpffs read-only: {transfer}");
    transfer.check_counted(&lab.stats()?)
}

/// The bpffs is unmounted, or another one is mounted over it. The links live as long as the daemon,
/// which holds their directory open: so it must not end, and must report the fault.
fn vanished(lab: &Lab) -> Result<()> {
    let before = attachments(lab)?;
    let mut command = lab.gateway.command(binary()?);
    command
        .args(usual_arguments())
        .arg("--bpffs")
        .arg(lab.bpffs());
    let mut process = Process::spawn(&mut command, lab.log("ikenat"))?;
    process.wait_for_log("ready: translating", Duration::from_secs(30))?;
    let load = Load::start(lab, tenth_rate()?, tenth_rate()?)?;
    execute(Command::new("umount").arg("--lazy").arg(lab.bpffs()))?;
    process.wait_for_log("is not reachable any more", Duration::from_secs(10))?;
    execute(
        Command::new("mount")
            .args(["-t", "bpf", "bpf"])
            .arg(lab.bpffs()),
    )?;
    load.flows()?;
    // A second start does not replace the instance that works.
    refusal(lab, &["already has an XDP program"])?;
    no_loss(&load.losses("bpffs unmounted")?)?;
    process.kill()?;
    // The kernel now releases the links, in the background. A filter in a clsact needs no pin: the
    // next start finds it.
    let old = !kernel_is_at_least((6, 6))?;
    let is_gone = || -> Result<bool> {
        let links = lab.gateway.run("ip -details link show")?;
        Ok(!links.contains("xdp") && (old || attachments(lab)? == before))
    };
    let began = Instant::now();
    while !is_gone()? && began.elapsed() < patience(Duration::from_secs(5)) {
        std::thread::sleep(Duration::from_millis(20));
    }
    ensure!(is_gone()?, "{}", attachments(lab)?);
    let _ikenat = Ikenat::start(lab)?;
    everything_crosses(lab)
}

/// A start with so many bytes of memory.
fn limited(lab: &Lab, bytes: u64, more: &[&str]) -> Result<Output> {
    let group = MemoryGroup::of(lab);
    let mut command = group.command(&lab.gateway, bytes);
    command
        .args(["timeout", "--signal=KILL", "20"])
        .arg(binary()?);
    command
        .args(usual_arguments())
        .args(more)
        .arg("--bpffs")
        .arg(lab.bpffs());
    let output = command.output().context("failed to start ikenat")?;
    group.remove()?;
    Ok(output)
}

/// The largest tables that can be asked for take 2 GiB, and there are 128 MiB. With half of that the kernel kills
/// the start before it asks for a table: aya 0.14 copies the source lines of a section for each function in it,
/// which takes 47 MB for a moment.
fn no_memory(lab: &Lab) -> Result<()> {
    const ROOM: u64 = 128 << 20;
    let before = attachments(lab)?;
    let output = limited(lab, ROOM, &["--flow-slots", "16777216"])?;
    says(&output, &["failed to load", "Cannot allocate memory"])?;
    ensure!(attachments(lab)? == before, "something stays attached");
    ensure!(pins(&lab.bpffs())?.is_empty(), "pins are left");
    ensure!(!lab.bpffs().join("ikenat").exists(), "a directory is left");
    let output = limited(lab, ROOM, &["--session-slots", "16777216"])?;
    says(&output, &["failed to load", "Cannot allocate memory"])?;
    ensure!(pins(&lab.bpffs())?.is_empty(), "pins are left");
    let _ikenat = Ikenat::start(lab)?;
    everything_crosses(lab)
}

/// The kernel kills it or refuses its requests: with memory limits from the smallest at which it
/// starts up to a sufficient one.
fn out_of_memory(lab: &Lab) -> Result<()> {
    Ikenat::start(lab)?.kill()?;
    let load = Load::start(lab, tenth_rate()?, tenth_rate()?)?;
    let mut ends = Vec::new();
    for mebibytes in [1, 2, 4, 6, 8, 10, 12] {
        let output = limited(lab, mebibytes << 20, &["--idle-timeout", "300"])?;
        let text = String::from_utf8_lossy(&output.stderr);
        ensure!(!text.contains("panicked"), "{mebibytes} MiB: {text}");
        ends.push(format!("{mebibytes} MiB: {}", output.status));
        if text.contains("ready: translating") {
            break;
        }
        load.flows().with_context(|| format!("{mebibytes} MiB"))?;
        let attached = lab.status()?.attached;
        ensure!(attached.len() == PROGRAMS && attached.iter().all(|one| one.alive));
    }
    ensure!(ends.len() > 1, "it never ran out of memory: {ends:?}");
    println!("starts in little memory: {}", ends.join(", "));
    let _ikenat = Ikenat::start(lab)?;
    load.flows()?;
    let transfer = load.finish()?;
    println!("starts in little memory: {transfer}");
    transfer.check_counted(&lab.stats()?)
}
