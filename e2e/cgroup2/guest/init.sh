#!/bin/busybox sh
# shellcheck shell=dash
# /init of the machine: this host's root file system, read-only by virtio-fs, under an overlay in memory; a disk at /tmp; then pid 1 as `init=` says.
set -eu
/bin/busybox mkdir -p /proc /sys /dev /lower /memory /new
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sysfs /sys
/bin/busybox mount -t devtmpfs devtmpfs /dev
# shellcheck disable=SC2013  # names of modules, in the order of need
for module in $(/bin/busybox cat /modules/order); do /bin/busybox insmod "/modules/$module.ko"; done
/bin/busybox mount -t virtiofs -o ro host /lower
/bin/busybox mount -t tmpfs -o size=512m memory /memory
/bin/busybox mkdir /memory/upper /memory/work
/bin/busybox mount -t overlay -o lowerdir=/lower,upperdir=/memory/upper,workdir=/memory/work root /new
# What belongs to the host and not to this machine: what it mounts, and which services it has enabled.
: >/new/etc/fstab
# systemd takes the file for a container's.
/bin/busybox rm -rf /new/etc/systemd/system /new/.dockerenv
/bin/busybox cp -r /overlay/. /new/
# shellcheck source=/dev/null
. /overlay/etc/aurae-cgroup2
/bin/busybox mkdir -p /new/usr/lib/modules
/bin/busybox mount --bind "/new$MODULES" /new/usr/lib/modules
/bin/busybox mount -t ext4 /dev/vda /new/tmp
/bin/busybox chmod 1777 /new/tmp
/bin/busybox mount --move /dev /new/dev
/bin/busybox umount /sys /proc
exec /bin/busybox switch_root /new "$INIT"
