#!/bin/bash
# Pid 1 where systemd is not to be: the mounts that a node has, then the tests. A shell waits for everything that is orphaned.
set -eu
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p /dev/pts /dev/shm
mount -t devpts -o mode=620,ptmxmode=666 devpts /dev/pts
mount -t tmpfs tmpfs /dev/shm
ip link set lo up
hostname cgroup2
# As whoever manages a node's cgroups does.
read -ra controllers </sys/fs/cgroup/cgroup.controllers
echo "${controllers[@]/#/+}" >/sys/fs/cgroup/cgroup.subtree_control
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
"$(dirname "$0")/tests.sh" </dev/null >/dev/hvc0 2>&1 || :
