#!/usr/bin/busybox sh
# The first process of the guest: mounts, runs /vm/command with its output on the ports of the
# host, and reports the exit status. Without a report the host reports a failure.

/usr/bin/busybox mkdir -p /vm/bin
/usr/bin/busybox --install -s /vm/bin
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/vm/bin HOME=/root TERM="${TERM:-linux}"

mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mkdir -p /dev/pts /dev/shm /dev/net
mount -t devpts devpts /dev/pts
mount -t tmpfs tmpfs /dev/shm
mount -t tmpfs tmpfs /run
mount -t bpf bpf /sys/fs/bpf
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t debugfs debugfs /sys/kernel/debug
mount -t tracefs tracefs /sys/kernel/tracing
# udev would make it; opening it loads the module.
[ -e /dev/net/tun ] || mknod /dev/net/tun c 10 200
ln -sf /proc/self/fd /dev/fd
ln -sf /proc/self/fd/0 /dev/stdin
ln -sf /proc/self/fd/1 /dev/stdout
ln -sf /proc/self/fd/2 /dev/stderr
mkdir -p /run/lock /run/netns
hostname vm
ip link set lo up
# Drivers of cards; udev would load them.
read -r line </proc/cmdline
case $line in *vm.modules=*)
    modules=${line##*vm.modules=}
    modprobe -a $(echo "${modules%% *}" | tr , ' ')
    ;;
esac
ulimit -Hn 1048576
cd /

if grep -qw vm.shell /proc/cmdline; then
    echo "This is $(uname -r). \`exit\` ends the machine; /vm/command is the command, if there is one."
    # A session and a terminal of its own: otherwise Ctrl-C reaches no process.
    cd "$(cat /vm/directory)" || exit
    PS1='vm:\w\$ ' setsid cttyhack /bin/bash </dev/ttyS0 >/dev/ttyS0 2>&1
    poweroff -f
fi

# The ports of the host, which must get every byte as it is.
for port in ttyS1 ttyS2 ttyS3; do
    stty raw -echo </dev/$port
done

# Through pipes: the command's output is not a terminal, and a slow port does not block it.
mkfifo /run/vm.stdout /run/vm.stderr
cat /run/vm.stdout >/dev/ttyS1 &
out=$!
cat /run/vm.stderr >/dev/ttyS2 &
err=$!
export IKENAT_OUTPUT=/run/vm.output
/vm/command </dev/null >/run/vm.stdout 2>/run/vm.stderr
status=$?

# What the command left running would hold the pipes open for ever.
tries=0
while kill -0 $out 2>/dev/null || kill -0 $err 2>/dev/null; do
    [ $tries -lt 50 ] || break
    sleep 0.1
    tries=$((tries + 1))
done
[ -e $IKENAT_OUTPUT ] || : >$IKENAT_OUTPUT
{
    echo "output $(stat -c %s $IKENAT_OUTPUT)"
    cat $IKENAT_OUTPUT
    echo "status $status"
} >/dev/ttyS3
poweroff -f
