#!/usr/bin/env bash
# build.sh DIRECTORY: builds the guest's kernel and modules into DIRECTORY (an existing, empty one): vmlinux, modules.erofs, release (what
# uname -r says there) and version (the Debian source it was made from). Minutes of work: tools/guest.sh keeps the result.
#
# AURAE_CRI_CACHE  where the source's package is kept (default: ~/.cache/aurae-cri)
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
# shellcheck source=tools/env.sh
. "$root/tools/env.sh"

package=linux-source-6.12
version=6.12.117-1~deb12u1
sha256=e849faf31ca3555757f3a8877cb01af92122f744f75d1f3102734651c4e14703

# Nothing of this machine and hour gets into the files: the same source, configuration and compiler give the same bytes.
export LC_ALL=C TZ=UTC SOURCE_DATE_EPOCH=1700000000
export KBUILD_BUILD_TIMESTAMP="Tue Nov 14 22:13:20 UTC 2023" KBUILD_BUILD_USER=aurae KBUILD_BUILD_HOST=aurae-cri KBUILD_BUILD_VERSION=1
modules_uuid=0a6f3c1e-8b1d-4c55-9f0e-617572616501

main() {
  local output=$1 tree
  tree=$(mktemp -d "$cache/guest/.tree.XXXXXX")
  # shellcheck disable=SC2064  # expanded now: the trap outlives the local
  trap "rm -rf '$tree'" EXIT
  mkdir "$tree/linux" "$tree/modules"
  unpack "$tree/linux" "$output/version"
  step "kernel: configuration"
  configure "$tree/linux"
  step "kernel: vmlinux and modules, some minutes"
  build "$tree/linux" "$tree/build.log"
  step "kernel: module disk"
  collect "$tree/linux" "$tree/modules" "$output"
  done_step
}

# The pinned package when the archive still has it, else what apt offers, which apt has verified.
unpack() {
  local deb="$cache/guest/${package}_$version.deb" built=$version download
  if [ ! -e "$deb" ]; then
    step "kernel: download $package"
    download=$(mktemp -d "$cache/guest/.download.XXXXXX")
    if download "$download" "$package=$version"; then
      echo "$sha256  $(echo "$download"/*.deb)" | sha256sum --check --quiet || die "apt brought another $package $version than the pinned one"
    elif download "$download" "$package"; then
      built=$(dpkg-deb -f "$download"/*.deb Version)
      deb="$cache/guest/${package}_$built.deb"
      echo "NOTICE: the archive has no $package $version any more; building $built, as the manifest will say" >&2
    else
      cat "$download/log" >&2
      die "apt finds no $package: it is in Debian 12's security suite; enable that suite, or put the package at $deb"
    fi
    mv "$download"/*.deb "$deb"
    rm -rf "$download"
  fi
  step "kernel: unpack $package $built"
  dpkg-deb --fsys-tarfile "$deb" | tar -xO "./usr/src/$package.tar.xz" | tar -xJ -C "$1" --strip-components=1
  echo "$built" >"$2"
}

download() {
  (cd "$1" && { apt-get download -qq "$2" || { apt-get update -qq && apt-get download -qq "$2"; }; }) >"$1/log" 2>&1
}

# A line of the fragment that the kernel's own rules undo is an error here, not a surprise in a pod.
configure() {
  local tree=$1 line name wrong=()
  make -s -C "$tree" KCONFIG_ALLCONFIG="$root/guest/kernel/config" allnoconfig
  while read -r line; do
    name=${line%%=*}
    case $line in
      CONFIG_*=n) ! grep -q "^$name=" "$tree/.config" || wrong+=("$line") ;;
      CONFIG_*) grep -Fxq "$line" "$tree/.config" || wrong+=("$line") ;;
    esac
  done <"$root/guest/kernel/config"
  [ ${#wrong[@]} = 0 ] || die "guest/kernel/config: without effect: ${wrong[*]}"
}

build() {
  local word count=0 start=$SECONDS last=$SECONDS
  make -C "$1" -j"$(nproc)" vmlinux modules 2>&1 | tee "$2" | while read -r word _; do
    [ "$word" != CC ] || count=$((count + 1))
    if ((SECONDS - last >= 30)); then
      last=$SECONDS
      printf '  %d s: %d of about 2800 files compiled\n' $((SECONDS - start)) "$count"
    fi
  done || { tail -n 30 "$2" >&2 && die "the kernel does not build"; }
}

collect() {
  local tree=$1 stage=$2 output=$3 release
  release=$(make -s -C "$tree" kernelrelease)
  strip -o "$output/vmlinux" "$tree/vmlinux"
  make -s -C "$tree" modules_install INSTALL_MOD_PATH="$stage" INSTALL_MOD_STRIP=1 >/dev/null
  # Text indices are enough for the reader; the links lead to this machine's trees.
  rm -f "$stage/lib/modules/$release"/{build,source,*.bin,modules.symbols,modules.devname,modules.softdep,modules.weakdep,modules.order,modules.builtin.modinfo}
  mkfs.erofs --quiet -T "$SOURCE_DATE_EPOCH" -U "$modules_uuid" --all-root "$output/modules.erofs" "$stage/lib/modules"
  echo "$release" >"$output/release"
}

main "$@"
