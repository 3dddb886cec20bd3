//! A control group with a small memory limit, in version 1 or 2.

use std::process::Command;

use anyhow::Result;

use super::netns::{Namespace, execute};
use super::topology::Lab;

/// Mounts the control groups at `$root`, independently of the host's mounts. It must run in a mount
/// namespace of its own.
const MOUNT: &str = "
root=/sys/fs/cgroup/m; mount -t tmpfs none /sys/fs/cgroup; mkdir $root
if mount -t cgroup -o memory none $root 2>/dev/null; then limit=memory.limit_in_bytes
else mount -t cgroup2 none $root; limit=memory.max; fi
cd $root
";
/// `$0` is the name of the group, `$1` the limit; the rest is the command.
const ENTER: &str = r#"
[ $limit = memory.limit_in_bytes ] || echo +memory > cgroup.subtree_control
mkdir -p $0; echo $1 > $0/$limit; echo $$ > $0/cgroup.procs; shift; exec "$@"
"#;
/// A group can be removed a moment after its last process has ended.
const REMOVE: &str = "
[ -d $0 ] || exit 0
for i in 1 2 3 4 5 6 7 8 9 10; do rmdir $0 && exit 0; sleep 0.1; done; exit 1
";

/// A group, removed when dropped.
#[derive(Debug)]
pub struct MemoryGroup {
    name: String,
}

impl MemoryGroup {
    /// The group of a lab; it exists once a command runs in it.
    pub fn of(lab: &Lab) -> Self {
        Self {
            name: format!("ikenat-{}", lab.id()),
        }
    }

    /// A command to which a program and its arguments are added: it runs them in a network
    /// namespace, in a group with a limit of `bytes` of memory.
    pub fn command(&self, namespace: &Namespace, bytes: u64) -> Command {
        let mut command = namespace.command("unshare");
        command.args(["--mount", "sh", "-euc", &format!("{MOUNT}{ENTER}")]);
        command.args([&self.name, &bytes.to_string()]);
        command
    }

    /// Removes it when everything in it has ended.
    pub fn remove(self) -> Result<()> {
        execute(&mut self.removal()).map(drop)
    }

    fn removal(&self) -> Command {
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-euc", &format!("{MOUNT}{REMOVE}")]);
        command.arg(&self.name);
        command
    }
}

impl Drop for MemoryGroup {
    fn drop(&mut self) {
        // A caller that needs the result has called `remove`.
        let _ = self.removal().output();
    }
}
