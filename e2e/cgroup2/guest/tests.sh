#!/bin/bash
# Runs the chosen scenarios in the machine, and switches it off.
set -u
# shellcheck source=/dev/null
. /etc/aurae-cgroup2
export HOME=/root NO_COLOR=1 AURAE_CRI_E2E_EXCLUSIVE_HOST=1 AURAE_CRI_E2E_SLOWNESS="$SLOWNESS" AURAE_CRI_CACHE="$CACHE"
# Emulated, compiling is most of a start.
export NODE_COMPILE_CACHE=/tmp/node-compile-cache
cd "$REPOSITORY" || echo "no $REPOSITORY in the machine"
echo "Linux $(uname -r), $(stat -f -c %T /sys/fs/cgroup) at /sys/fs/cgroup, pid 1 is $(cat /proc/1/comm)"
# shellcheck disable=SC2086  # a list
tools/run.sh node tools/test.ts ${NAME:+--name "$NAME"} $FILES
sync
echo o >/proc/sysrq-trigger
sleep 60
