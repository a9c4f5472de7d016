#!/usr/bin/env bash
# debian.sh DIRECTORY: Debian's own cloud kernel instead of one that takes minutes to build. Fills DIRECTORY (an existing, empty one) as build.sh
# does (vmlinux, modules.erofs, release, version), and with what a kernel needs whose drivers are modules: initrd-modules/, files to load, in
# the order of their names, before a disk can be read; modules.list, names to load once it is; arguments, for its command line.
#
# AURAE_CRI_CACHE  where the package is kept (default: ~/.cache/aurae-cri)
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
# shellcheck source=tools/env.sh
. "$root/tools/env.sh"

release=6.12.117+deb12-cloud-amd64
package=linux-image-$release
version=6.12.117-1~deb12u1
sha256=5195b288dec79e2981d6b84457f38b7ce7310a2d702930ec7d07209c7f78ce37

# Its buffers for devices that reach low memory alone would be 64 MiB.
arguments=(swiotlb=512)
# To the system disk, and what is mounted there.
disk_modules=(virtio_pmem nd_pmem erofs)
# Devices of our machine, and a file system that is asked for by another name.
boot_modules=(virtio_blk virtio_net virtio-rng virtio_balloon overlay)
# Of devices that our machine cannot have.
no_drivers=(ata comedi hid hv infiniband nvme scsi target xen net/ethernet net/hyperv net/wwan)

modules_uuid=0a6f3c1e-8b1d-4c55-9f0e-617572616502

main() {
  local output=$1 deb="$cache/guest/${package}_$version.deb" tree
  tree=$(mktemp -d "$cache/guest/.tree.XXXXXX")
  # shellcheck disable=SC2064  # expanded now: the trap outlives the local
  trap "rm -rf '$tree'" EXIT
  [ -e "$deb" ] || fetch "$deb"
  step "kernel: unpack $package"
  dpkg-deb --fsys-tarfile "$deb" | tar -x -C "$tree" ./boot ./lib/modules
  node "$root/guest/kernel/vmlinux.ts" "$tree/boot/vmlinuz-$release" "$tree/vmlinux"
  strip -o "$output/vmlinux" "$tree/vmlinux"
  (cd "$tree/lib/modules/$release/kernel/drivers" && rm -r "${no_drivers[@]}")
  unpack_modules "$tree/lib/modules/$release"
  depmod --basedir "$tree" "$release"
  number_disk_modules "$tree/lib/modules/$release" "$output/initrd-modules"
  printf '%s\n' "${boot_modules[@]}" >"$output/modules.list"
  printf '%s\n' "${arguments[@]}" >"$output/arguments"
  rm -f "$tree/lib/modules/$release"/{*.bin,modules.symbols,modules.devname,modules.softdep,modules.weakdep,modules.order,modules.builtin.modinfo}
  mkfs.erofs --quiet -T 1700000000 -U "$modules_uuid" --all-root "$output/modules.erofs" "$tree/lib/modules"
  echo "$release" >"$output/release"
  echo "$version" >"$output/version"
  done_step
}

fetch() {
  local download
  download=$(mktemp -d "$cache/guest/.download.XXXXXX")
  step "kernel: download $package"
  (cd "$download" && { apt-get download -qq "$package=$version" || { apt-get update -qq && apt-get download -qq "$package=$version"; }; }) >"$download/log" 2>&1 || {
    cat "$download/log" >&2
    die "apt finds no $package $version: it is in Debian 12's security suite; without it, 'make guest' builds a kernel of our own"
  }
  echo "$sha256  $(echo "$download"/*.deb)" | sha256sum --check --quiet || die "apt brought another $package $version than the pinned one"
  mv "$download"/*.deb "$1"
  rm -rf "$download"
}

# The guest's kernel is handed open files, and would need a setting to inflate them itself.
unpack_modules() {
  find "$1" -name '*.ko.xz' -print0 | xargs -0 -n 64 -P "$(nproc)" xz --decompress
}

# Each behind what it needs; a line of modules.dep names that in the opposite order.
number_disk_modules() {
  local module file number=0 files
  mkdir "$2"
  for module in "${disk_modules[@]}"; do
    mapfile -t files < <(grep "/$module\.ko:" "$1/modules.dep" | tr -d : | tr ' ' '\n' | sed '/^$/d' | tac)
    [ ${#files[@]} != 0 ] || die "$package has no module $module"
    for file in "${files[@]}"; do
      compgen -G "$2/??-${file##*/}" >/dev/null && continue
      number=$((number + 1))
      cp "$1/$file" "$(printf '%s/%02d-%s' "$2" "$number" "${file##*/}")"
    done
  done
}

main "$@"
