#!/usr/bin/env bash
# kernel.sh: downloads Debian's cloud kernel, unpacks it without installing it, and links it as build/cgroup2/kernel: vmlinuz, release, and
# modules/, what /lib/modules is in the machine.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
# shellcheck source=tools/env.sh
. "$root/tools/env.sh"

release=6.1.0-56-cloud-amd64
package=linux-image-$release
version=6.1.192-2
sha256=e7d02b943971edcb8790e256c02cfab3bca6c3d37c1bf25392a57c71300615ee

main() {
  local target="$cache/cgroup2/kernel-$version-${sha256:0:12}" lock
  mkdir -p "$cache/cgroup2" "$root/build/cgroup2"
  if [ ! -d "$target" ]; then
    exec {lock}>"$cache/cgroup2/kernel.lock"
    flock "$lock"
    [ -d "$target" ] || target=$(fetch "$target" {lock}>&-)
  fi
  ln -sfn "$target" "$root/build/cgroup2/kernel"
}

# fetch TARGET: the pinned package when the archive still has it, else what apt offers, which apt has verified. Prints where the kernel is.
fetch() {
  local target=$1 temporary newest
  # Read by the trap when this function is done.
  temporary=$(mktemp -d "$cache/cgroup2/.kernel.XXXXXX")
  # shellcheck disable=SC2064  # expanded now: the trap outlives the local
  trap "rm -rf '$temporary'" EXIT
  echo "cgroup2: download $package" >&2
  if download "$temporary" "$package=$version"; then
    echo "$sha256  $(echo "$temporary"/*.deb)" | sha256sum --check --quiet >&2 || die "apt brought another $package $version than the pinned one"
  else
    newest=$(apt-cache depends linux-image-cloud-amd64 | awk '/Depends: linux-image/ { print $2; exit }')
    download "$temporary" "${newest:-none}" || { cat "$temporary/log" >&2 && die "apt has no linux-image-cloud-amd64: enable Debian 12's main and security suites"; }
    release=${newest#linux-image-}
    target="$cache/cgroup2/kernel-$(dpkg-deb -f "$temporary"/*.deb Version)"
    echo "NOTICE: the archive has no $package $version any more; using $newest" >&2
    if [ -d "$target" ]; then echo "$target" && return; fi
  fi
  mkdir "$temporary/tree" "$temporary/kernel"
  dpkg-deb -x "$temporary"/*.deb "$temporary/tree"
  # What the package's own script does when it is installed.
  depmod --basedir "$temporary/tree" "$release"
  mv "$temporary/tree/boot/vmlinuz-$release" "$temporary/kernel/vmlinuz"
  mv "$temporary/tree/lib/modules" "$temporary/kernel/modules"
  echo "$release" >"$temporary/kernel/release"
  mv -T "$temporary/kernel" "$target"
  echo "$target"
}

download() {
  (cd "$1" && { apt-get download -qq "$2" || { apt-get update -qq && apt-get download -qq "$2"; }; }) >"$1/log" 2>&1
}

main
