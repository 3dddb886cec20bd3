//! Tests of `check` for the privileges of the process, the kernel and the BPF file system. Settings
//! of the whole machine are never changed: `ikenat` sees other values in a mount namespace of its
//! own.

use std::fs;
use std::path::{Path, PathBuf};

use super::*;

use crate::support::{attachments, refused, timed_command};
use ikenat_tests::kernel::{kernel_is_at_least, needs_no_perfmon, release};
use ikenat_tests::lab::ikenat::Ikenat;
use ikenat_tests::lab::netns::execute;
use ikenat_tests::lab::topology::{LAN, WAN};

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario::new("check_names_missing_privileges", privileges)
            .with_programs(&["setpriv", "setcap"]),
        Scenario::new("check_says_what_it_cannot_see_without_privileges", unseen)
            .with_programs(&["setpriv"]),
        Scenario::new("check_names_an_old_kernel", kernel).with_programs(&["setarch"]),
        Scenario::new("check_names_a_jit_that_is_off", jit).with_programs(&["unshare"]),
        Scenario::in_a_guest("check_names_a_kernel_without_clsact", clsact)
            .with_programs(&["tc", "rmmod"])
            .unless(
                kernel_is_at_least((6, 6)).unwrap_or(false),
                "this kernel has tcx, and does without a clsact",
            ),
        Scenario::new("check_names_a_bpffs_that_does_not_serve", bpffs),
        Scenario::new("check_touches_nothing", touches_nothing).with_programs(&["tc", "bpftool"]),
        Scenario::new("check_refuses_half_of_the_arguments", usage),
        Scenario::new("check_names_what_a_start_would_refuse", refused_start),
        Scenario::new("a_fix_of_check_keeps_every_option", fix_keeps_options),
    ]
}

/// A copy of ikenat: an unprivileged user cannot read the target directory, and the copy gets
/// capabilities of its own.
fn as_ordinary_user(lab: &Lab) -> Result<Command> {
    let copy = lab.directory().join("ikenat-unprivileged");
    if !copy.exists() {
        fs::copy(binary()?, &copy).context("failed to copy ikenat")?;
    }
    let mut command = lab.gateway.command("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]);
    command
        .arg(&copy)
        .arg("check")
        .args(&usual_arguments()[1..]);
    command.arg("--bpffs").arg(lab.bpffs());
    Ok(command)
}

fn privileges(lab: &Lab) -> Result<()> {
    let findings = findings_of(as_ordinary_user(lab)?)?;
    let missing = ["CAP_BPF", "CAP_NET_ADMIN", "missing"];
    let found = expect(&findings, ("privileges", None), "error", &missing)?;
    let copy = lab.directory().join("ikenat-unprivileged");
    let grant = format!(
        "setcap cap_bpf,cap_net_admin,cap_perfmon+ep {}",
        copy.display()
    );
    ensure!(found.fix == [grant], "{found:#?}");
    // It does not report "ok" for what it cannot read.
    expect(&findings, ("bpf", None), "warning", &["not checked"])?;
    expect(&findings, ("tc", None), "warning", &["not checked"])?;
    apply_fix(lab, &found)?;
    let findings = findings_of(as_ordinary_user(lab)?)?;
    expect(&findings, ("privileges", None), "ok", &["CAP_PERFMON"])?;
    expect(&findings, ("bpf", None), "ok", &[])?;
    // A bpffs that only root may write is one thing more, with its own command.
    lab.gateway
        .run(&format!("chmod 755 {}", lab.bpffs().display()))?;
    let findings = findings_of(as_ordinary_user(lab)?)?;
    let found = expect(
        &findings,
        ("bpffs", None),
        "error",
        &["not writable for user 65534"],
    )?;
    apply_fix(lab, &found)?;
    expect(
        &findings_of(as_ordinary_user(lab)?)?,
        ("bpffs", None),
        "ok",
        &[],
    )?;
    Ok(())
}

/// Runs it as a service does, with only the two capabilities that it needs.
fn unseen(lab: &Lab) -> Result<()> {
    let mut command = lab.gateway.command("setpriv");
    command.args(["--bounding-set=-all,+bpf,+net_admin", "--inh-caps=-all"]);
    command
        .arg(binary()?)
        .arg("check")
        .args(&usual_arguments()[1..]);
    command.arg("--bpffs").arg(lab.bpffs());
    let findings = findings_of(command)?;
    let found = expect(
        &findings,
        ("privileges", None),
        if needs_no_perfmon()? {
            "warning"
        } else {
            "error"
        },
        &["no CAP_PERFMON"],
    )?;
    ensure!(found.reason.contains("Spectre"), "{found:#?}");
    expect(&findings, ("bpf", None), "ok", &[])?;
    expect(&findings, ("tc", None), "ok", &[])?;
    for name in [WAN, LAN] {
        for code in ["vlan-offload", "peer-checksum"] {
            expect(
                &findings,
                (code, Some(name)),
                "warning",
                &["not checked", "peer"],
            )?;
        }
    }
    expect(
        &findings,
        ("return-route", None),
        "warning",
        &["not checked", "192.168.0.254"],
    )?;
    expect(&findings, ("jit", None), "warning", &["not checked"])?;
    Ok(())
}

fn kernel(lab: &Lab) -> Result<()> {
    expect(&check(lab)?, ("kernel", None), "ok", &["Linux "])?;
    let mut command = lab.gateway.command("setarch");
    command.args(["--uname-2.6", "--"]).arg(binary()?);
    command
        .arg("check")
        .args(&usual_arguments()[1..])
        .arg("--bpffs")
        .arg(lab.bpffs());
    let found = expect(
        &findings_of(command)?,
        ("kernel", None),
        "error",
        &["Linux 2.6"],
    )?;
    ensure!(
        found.fix == ["apt-get install linux-image-amd64"],
        "{found:#?}"
    );
    Ok(())
}

/// Runs `ikenat` in a mount namespace of its own, where another file replaces one; `between` is run
/// there first.
pub(super) fn with_file(
    lab: &Lab,
    path: &str,
    text: &str,
    between: &str,
    more: &[&str],
) -> Result<Vec<Finding>> {
    let fake = lab.directory().join("fake");
    fs::write(&fake, text).context("failed to write a file")?;
    let script = format!(
        "mount --bind {} {path}; {between}; exec nsenter --net={} {} check {} --bpffs {} {} --json",
        fake.display(),
        lab.gateway.path(),
        binary()?.display(),
        usual_arguments()[1..].join(" "),
        lab.bpffs().display(),
        more.join(" ")
    );
    let output = Command::new("unshare")
        .args(["--mount", "sh", "-euc", &script])
        .output()?;
    findings(&output)
}

fn jit(lab: &Lab) -> Result<()> {
    const PATH: &str = "/proc/sys/net/core/bpf_jit_enable";
    // The setting exists in the first network namespace alone.
    if !Path::new(PATH).exists() {
        bail!("this test has to start in the first network namespace");
    }
    let findings = with_file(lab, PATH, "0\n", "true", &[])?;
    let found = expect(
        &findings,
        ("jit", None),
        "warning",
        &["bpf_jit_enable is 0"],
    )?;
    ensure!(
        found.fix == ["sysctl -w net.core.bpf_jit_enable=1"],
        "{found:#?}"
    );
    // The command writes into the file that stands for the setting.
    let fixing = format!("{} >/dev/null", found.fix[0]);
    let findings = with_file(lab, PATH, "0\n", &fixing, &[])?;
    expect(&findings, ("jit", None), "ok", &["bpf_jit_enable is 1"])?;
    Ok(())
}

/// A kernel without one of its modules; it comes back when this is dropped.
struct Without {
    file: PathBuf,
    list: PathBuf,
    names: String,
}

impl Without {
    fn module(name: &str) -> Result<Self> {
        let modules = Path::new("/lib/modules").join(release()?);
        let list = modules.join("modules.dep");
        let names = fs::read_to_string(&list).context("failed to read modules.dep")?;
        let is_it = |line: &&str| line.contains(&format!("/{name}.ko"));
        let line = names.lines().find(is_it).context("it is built in")?;
        let file = modules.join(line.split(':').next().unwrap_or_default());
        let others: Vec<&str> = names.lines().filter(|line| !is_it(line)).collect();
        let others = others.join("\n");
        fs::rename(&file, aside(&file)).context("failed to take a module away")?;
        let without = Self { file, list, names };
        fs::write(&without.list, others).context("failed to write modules.dep")?;
        let loaded = fs::read_to_string("/proc/modules")?;
        if loaded
            .lines()
            .any(|line| line.starts_with(&format!("{name} ")))
        {
            execute(Command::new("rmmod").arg(name))?;
        }
        Ok(without)
    }
}

impl Drop for Without {
    fn drop(&mut self) {
        let _ = fs::rename(aside(&self.file), &self.file);
        let _ = fs::write(&self.list, &self.names);
    }
}

fn aside(file: &Path) -> PathBuf {
    file.with_extension("aside")
}

fn clsact(lab: &Lab) -> Result<()> {
    const TC: (&str, Option<&str>) = ("tc", None);
    for name in ["cls_bpf", "sch_ingress"] {
        let _without = Without::module(name)?;
        let missing = format!("no kernel module {name}");
        let found = expect(&check(lab)?, TC, "error", &["no tcx", &missing])?;
        ensure!(
            found.fix == ["apt-get install linux-image-amd64"],
            "{found:#?}"
        );
        let mut start = timed_command(lab, &usual_arguments())?;
        start.arg("--bpffs").arg(lab.bpffs());
        let words = [WAN, &format!("no module {name}"), "tcx"];
        refused(lab, start, &words)?;
    }
    // The proposed command cannot be run here: the modules return in the same manner as they were
    // removed.
    expect(&check(lab)?, TC, "ok", &["a filter in a clsact"])?;
    Ikenat::start(lab).map(drop)
}

fn bpffs(lab: &Lab) -> Result<()> {
    let plain = lab.directory().join("plain");
    let shown = plain.display().to_string();
    let look = || -> Result<Vec<Finding>> {
        let mut command = lab.gateway.command(binary()?);
        command
            .arg("check")
            .args(&usual_arguments()[1..])
            .args(["--bpffs", &shown]);
        findings_of(command)
    };
    let found = expect(
        &look()?,
        ("bpffs", None),
        "error",
        &[&shown, "not a BPF file system"],
    )?;
    let commands = [
        format!("mkdir -p {shown}"),
        format!("mount -t bpf bpf {shown}"),
    ];
    ensure!(found.fix == commands, "{found:#?}");
    apply_fix(lab, &found)?;
    let mounted = look().and_then(|findings| expect(&findings, ("bpffs", None), "ok", &[&shown]));
    lab.gateway.run(&format!("umount {shown}"))?;
    mounted?;

    let base = lab.bpffs().display().to_string();
    provoked_and_fixed(
        lab,
        &format!("mount -o remount,ro {base}"),
        ("bpffs", None),
        "error",
        &["mounted read-only"],
        &[&format!("mount -o remount,rw {base}")],
    )?;
    provoked_and_fixed(
        lab,
        &format!("mkdir {base}/ikenat; chown 1234 {base}/ikenat"),
        ("bpffs", None),
        "error",
        &["belongs to user 1234"],
        &[&format!("chown 0:0 {base}/ikenat")],
    )
}

fn touches_nothing(lab: &Lab) -> Result<()> {
    let state = || -> Result<String> {
        let more = lab
            .gateway
            .shell("ip -d address; ip neighbour; ip route show table all; nft list ruleset")?;
        Ok(format!("{}{more}", attachments(lab)?))
    };
    lab.gateway.shell(&format!(
        "for name in {WAN} {LAN}; do until ip -br link show $name | grep -q ' UP '; do sleep 0.05; done; done"
    ))?;
    let before = state()?;
    check(lab)?;
    let after = state()?;
    ensure!(before == after, "before\n{before}\nafter\n{after}");
    ensure!(
        crate::support::pins(&lab.bpffs())?.is_empty(),
        "there are pins"
    );
    Ok(())
}

fn usage(lab: &Lab) -> Result<()> {
    let ends = |arguments: &[&str], words: &[&str]| -> Result<()> {
        let mut command = lab.gateway.command(binary()?);
        let output = command
            .arg("check")
            .args(arguments)
            .arg("--bpffs")
            .arg(lab.bpffs())
            .output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(
            output.status.code() == Some(2),
            "{arguments:?} ended with {}: {said}",
            output.status
        );
        for word in words {
            ensure!(said.contains(word), "{word:?} is not in: {said}");
        }
        Ok(())
    };
    ends(&["--wan", WAN], &["--vip", "--server", "none of them"])?;
    ends(&["--vip", "203.0.113.256"], &["203.0.113.256"])?;
    ends(&["--nonsense"], &["--nonsense"])?;
    ends(&[], &["nothing is attached", "ikenat check --wan"])
}

/// Every single condition is met, and still `run` would not start.
fn refused_start(lab: &Lab) -> Result<()> {
    let both = ["--deny", "192.0.2.7", "--except-peer", "192.0.2.7"];
    expect(
        &findings_of(command(lab, &both)?)?,
        ("start", None),
        "error",
        &["192.0.2.7/32", "--except-peer", "--deny"],
    )?;
    ensure!(about(&findings_of(command(lab, &both[..2])?)?, "start", None).is_empty());
    Ok(())
}

/// Who pastes a fix must not lose the list of denied peers by it.
fn fix_keeps_options(lab: &Lab) -> Result<()> {
    let deny = ["--deny", "192.0.2.7", "--idle-timeout", "600"];
    Ikenat::start_with(lab, &deny)?.kill()?;
    let (no_daemon, given) = (("daemon", None), findings_of(command(lab, &deny)?)?);
    let fix = expect(&given, no_daemon, "warning", &["no daemon"])?.fix;
    ensure!(
        fix[0].contains(" --deny 192.0.2.7/32 --idle-timeout 600 "),
        "{fix:?}"
    );
    // The tables of an instance do not hold them.
    let fix = expect(&about_running(lab)?, no_daemon, "warning", &["no daemon"])?.fix;
    ensure!(
        fix[0].ends_with("--log-sessions as at the last start, if it had them"),
        "{fix:?}"
    );
    Ok(())
}
