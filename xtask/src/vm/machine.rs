//! One run of a virtual machine: starts QEMU, passes on what the command in the guest prints, and
//! returns its exit status.

use std::{
    fs,
    io::{self, Read, Write},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, atomic::AtomicU64, atomic::Ordering::Relaxed},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

use super::tools::Tools;
use crate::shell;

/// How the machine is made.
pub(crate) struct Machine<'a> {
    /// Where QEMU is.
    pub(crate) tools: &'a Tools,
    /// The ELF file of the kernel.
    pub(crate) image: PathBuf,
    /// Files of this run; removed by the caller.
    pub(crate) dir: &'a Path,
    /// In MiB.
    pub(crate) memory: u32,
    /// One CPU, and time that counts instructions.
    pub(crate) deterministic: bool,
    /// More options for the kernel.
    pub(crate) append: &'a str,
    /// After this the guest is taken for dead.
    pub(crate) timeout: Duration,
}

/// How often a guest is booted at most.
const BOOTS: u32 = 3;

/// How a guest has ended.
enum Ended {
    /// With the report of its command.
    WithReport(Report),
    /// By a panic of its kernel, or because a CPU stopped, before anything has run.
    AtBoot,
}

/// How often the guest is looked after, and its console.
const LOOK: Duration = Duration::from_millis(20);
const LOOK_AT_CONSOLE: Duration = Duration::from_secs(1);

/// What of the console an error shows.
const CONSOLE_LINES: usize = 40;

impl Machine<'_> {
    /// The initramfs that it starts with.
    pub(crate) fn initramfs(&self) -> PathBuf {
        self.dir.join("initramfs")
    }

    /// Runs the command of the initramfs. A kernel that panics or stops before it runs anything is booted
    /// again: with two CPUs under emulation, a CPU sometimes runs into the breakpoint of a jump label that the
    /// other one has just patched (`int3` in `sched_clock_cpu`, at 3 s), or gets no interrupt of its timer
    /// any more ("rcu_preempt kthread timer wakeup didn't happen", from 64 s on).
    pub(crate) fn run(&self) -> Result<Report> {
        for boot in 2..=BOOTS {
            match self.boot()? {
                Ended::WithReport(report) => return Ok(report),
                Ended::AtBoot => println!(
                    "vm: the guest's kernel panicked or stopped before it ran anything; boot {boot} of {BOOTS}; the end of its console:\n{}",
                    self.console()
                ),
            }
        }
        match self.boot()? {
            Ended::WithReport(report) => Ok(report),
            Ended::AtBoot => bail!(
                "the guest's kernel panicked or stopped {BOOTS} times before it ran anything; the end of its console:\n{}",
                self.console()
            ),
        }
    }

    fn boot(&self) -> Result<Ended> {
        let mut qemu = self.qemu("")?;
        let files = [
            &*self.dir.join("console"),
            Path::new("/dev/stdout"),
            Path::new("/dev/stderr"),
            &*self.dir.join("report"),
        ];
        for (port, file) in PORTS.iter().zip(files) {
            add_port(&mut qemu, port, file);
        }
        qemu.stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let started = Instant::now();
        let mut child = Guest::start(&mut qemu)?;
        let printed = Arc::new(AtomicU64::new(0));
        let streams = [
            pass_on(child.0.stdout.take(), io::stdout(), &printed),
            pass_on(child.0.stderr.take(), io::stderr(), &printed),
        ];
        let has_stopped = || printed.load(Relaxed) == 0 && self.has_stopped();
        let ended = child.wait(started + self.timeout, has_stopped)?;
        // Kills QEMU if it still runs, which closes its ends of the pipes.
        drop(child);
        for stream in streams {
            let _ = stream.join();
        }
        let is_at_boot = printed.load(Relaxed) == 0;
        let said = fs::read(self.dir.join("report")).unwrap_or_default();
        match (Report::read(&said), ended) {
            (Some(report), _) => Ok(Ended::WithReport(report)),
            (None, Some(_)) if is_at_boot && self.has_panicked() => Ok(Ended::AtBoot),
            (None, None) if is_at_boot && self.has_stopped() => Ok(Ended::AtBoot),
            (None, Some(ended)) => bail!(
                "the guest ended without an exit status (QEMU: {ended}); the end of its console:\n{}",
                self.console()
            ),
            (None, None) => bail!(
                "the guest did not end within {} (--timeout); the end of its console:\n{}",
                shell::seconds(self.timeout),
                self.console()
            ),
        }
    }

    /// Gives a prompt in the guest.
    pub(crate) fn prompt(&self) -> Result<()> {
        let mut qemu = self.qemu(" vm.shell")?;
        // Ctrl-C goes to the guest; Ctrl-A X ends it.
        qemu.args(["-serial", "mon:stdio"]);
        let mut child = Guest::start(&mut qemu)?;
        let status = child.0.wait().context("failed to wait for QEMU")?;
        if !status.success() {
            bail!("QEMU ended with {status}");
        }
        Ok(())
    }

    fn qemu(&self, more: &str) -> Result<Command> {
        let program = self.tools.program("qemu-system-x86_64")?;
        let mut qemu = shell::dying_with_us(&program);
        if self.tools.installed_name(&program) != program {
            self.tools.libraries(&mut qemu);
        }
        for dir in self.tools.firmware() {
            qemu.arg("-L").arg(dir);
        }
        qemu.current_dir(self.dir)
            .args(["-nodefaults", "-no-user-config", "-no-reboot"])
            .args(["-display", "none", "-accel"])
            // icount needs one thread; without it each CPU has its own.
            .arg(if self.deterministic {
                "tcg,thread=single"
            } else {
                "tcg,thread=multi"
            })
            .args(["-cpu", "max", "-m"])
            .arg(format!("{}M", self.memory))
            .arg("-kernel")
            .arg(&self.image)
            .arg("-initrd")
            .arg(self.initramfs());
        let mut line = KERNEL_LINE.to_owned();
        if self.deterministic {
            line.push_str(DETERMINISTIC_LINE);
            qemu.args(DETERMINISTIC);
        } else {
            qemu.args(["-smp", "2"]);
            add_cards(&mut qemu);
            line.push_str(&format!(" vm.modules={}", CARDS.join(",")));
        }
        line.push_str(more);
        line.push_str(&format!(" {}", self.append));
        qemu.arg("-append").arg(line);
        Ok(qemu)
    }

    fn has_panicked(&self) -> bool {
        self.console().contains("Kernel panic")
    }

    fn has_stopped(&self) -> bool {
        self.console()
            .contains("kthread timer wakeup didn't happen")
    }

    fn console(&self) -> String {
        let bytes = fs::read(self.dir.join("console")).unwrap_or_default();
        shell::tail(&String::from_utf8_lossy(&bytes), CONSOLE_LINES)
    }
}

/// An oops ends the guest; a guest that ends without a report has failed.
const KERNEL_LINE: &str =
    "console=ttyS0 quiet panic=-1 oops=panic nokaslr random.trust_cpu=on net.ifnames=0";

/// Nothing of chance in addresses; and the clock is the counter of instructions from the start. The mitigations cost more
/// under emulation than all the rest, and protect nothing there; but the verifier demands less without them, so tests keep
/// them.
const DETERMINISTIC_LINE: &str = " mitigations=off norandmaps tsc=reliable tsc_early_khz=1000000";

/// One CPU whose time is the number of instructions (1 ns each), which jumps when it is idle; and the
/// same random numbers and the same date each time.
const DETERMINISTIC: [&str; 8] = [
    "-smp",
    "1",
    "-icount",
    "shift=0,sleep=off",
    "-seed",
    "1",
    "-rtc",
    "base=2026-01-01,clock=vm",
];

/// Network cards, by their names in QEMU, which are those of their drivers in Linux: what only a real driver does can be
/// tried there. One wire joins them, and nothing else is on it. A deterministic guest has none.
const CARDS: [&str; 2] = ["e1000e", "vmxnet3"];

fn add_cards(qemu: &mut Command) {
    let ends = ["wire0", "wire1"];
    for (card, [here, there]) in CARDS.iter().zip([ends, [ends[1], ends[0]]]) {
        // Relative to QEMU's directory: the name of a socket has to be short.
        let wire = format!(
            "dgram,id={here},local.type=unix,local.path={here},remote.type=unix,remote.path={there}"
        );
        // Without the program to boot from it, whose file comes with another package.
        let device = format!("{card},netdev={here},romfile=");
        qemu.args(["-netdev", &wire, "-device", &device]);
    }
}

/// What the guest reports when the command has ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Report {
    /// The command's exit status.
    pub(crate) status: u8,
    /// What it wrote to the file named by `IKENAT_OUTPUT`.
    pub(crate) output: Vec<u8>,
}

impl Report {
    /// The report's form: `output` and a length, so many bytes, `status` and a number. A guest that died on
    /// the way has not said all of it.
    fn read(said: &[u8]) -> Option<Self> {
        let end = said.iter().position(|&byte| byte == b'\n')?;
        let length = number_after(&said[..end], "output ")?;
        let rest = said.get(end + 1..)?;
        let (output, tail) = rest.split_at_checked(length)?;
        let status = number_after(tail.strip_suffix(b"\n")?, "status ")?;
        Some(Self {
            status: u8::try_from(status).ok()?,
            output: output.to_vec(),
        })
    }
}

fn number_after(line: &[u8], word: &str) -> Option<usize> {
    str::from_utf8(line).ok()?.strip_prefix(word)?.parse().ok()
}

/// A serial port of the guest.
struct Port {
    name: &'static str,
    base: u16,
    irq: u8,
}

/// ttyS0 to ttyS3. Each has an interrupt of its own: two on one line, as once on the PC, lose some of theirs.
/// They are slower than virtio's ports, but QEMU answers within the instruction that writes, so
/// that a deterministic guest stays so.
const PORTS: [Port; 4] = [
    Port {
        name: "console",
        base: 0x3f8,
        irq: 4,
    },
    Port {
        name: "stdout",
        base: 0x2f8,
        irq: 3,
    },
    Port {
        name: "stderr",
        base: 0x3e8,
        irq: 5,
    },
    Port {
        name: "report",
        base: 0x2e8,
        irq: 7,
    },
];

fn add_port(qemu: &mut Command, port: &Port, file: &Path) {
    let Port { name, base, irq } = port;
    qemu.arg("-chardev")
        .arg(file_of(name, file))
        .arg("-device")
        .arg(format!(
            "isa-serial,chardev={name},iobase={base:#x},irq={irq}"
        ));
}

/// A character device that writes to a file. QEMU takes a doubled comma for one of the name.
fn file_of(id: &str, path: &Path) -> String {
    let path = path.to_string_lossy().replace(',', ",,");
    format!("file,id={id},path={path}")
}

/// QEMU, killed when dropped.
struct Guest(Child);

impl Guest {
    fn start(qemu: &mut Command) -> Result<Self> {
        let text = shell::line(qemu);
        let child = qemu
            .spawn()
            .with_context(|| format!("failed to start `{text}`"))?;
        Ok(Self(child))
    }

    /// Waits for the end, or returns nothing at the deadline or when the guest has stopped.
    fn wait(
        &mut self,
        deadline: Instant,
        has_stopped: impl Fn() -> bool,
    ) -> Result<Option<ExitStatus>> {
        let mut looked = Instant::now();
        loop {
            let ended = self.0.try_wait().context("failed to wait for QEMU")?;
            if ended.is_some() || Instant::now() > deadline {
                return Ok(ended);
            }
            if looked.elapsed() > LOOK_AT_CONSOLE {
                looked = Instant::now();
                if has_stopped() {
                    return Ok(None);
                }
            }
            thread::sleep(LOOK);
        }
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        // Both fail only when it has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Copies a stream of the guest to one of this process as it comes, and adds up the bytes.
fn pass_on(
    from: Option<impl Read + Send + 'static>,
    mut to: impl Write + Send + 'static,
    copied: &Arc<AtomicU64>,
) -> JoinHandle<()> {
    let copied = Arc::clone(copied);
    thread::spawn(move || {
        let Some(mut from) = from else { return };
        let mut chunk = [0; 1 << 16];
        while let Ok(size) = from.read(&mut chunk)
            && size > 0
        {
            copied.fetch_add(size as u64, Relaxed);
            // A reader that has gone does not end the guest.
            let _ = to.write_all(&chunk[..size]).and_then(|()| to.flush());
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_a_report_is_none() {
        let whole = b"output 3\n\0\n\xffstatus 77\n";
        let expected = Report {
            status: 77,
            output: b"\0\n\xff".to_vec(),
        };
        assert_eq!(Report::read(whole), Some(expected));
        for end in 0..whole.len() {
            assert_eq!(Report::read(&whole[..end]), None, "{end} bytes");
        }
        assert_eq!(Report::read(b"output 9\nstatus 0\n"), None);
        assert_eq!(Report::read(b"output 0\nstatus 256\n"), None);
    }

    #[test]
    fn a_comma_is_doubled_for_qemu() {
        assert_eq!(file_of("a", Path::new("/x,y")), "file,id=a,path=/x,,y");
    }
}
