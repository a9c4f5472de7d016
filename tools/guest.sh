#!/usr/bin/env bash
# guest.sh [AURAED [DIRECTORY]]: makes what a microVM boots (vmlinux, system.erofs, scratch.img, manifest.json) and the benchmark's
# hello.initrd in DIRECTORY (default: build/guest) around AURAED (default: build/auraed). The kernel comes out of the cache when it was built
# there before; the rest takes a second. guest/README.md tells what each part is.
#
# AURAE_CRI_GUEST_KERNEL  own (default): built from source once, some minutes; debian: Debian's, downloaded; any: own when it was built
#                         before, else debian
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
# shellcheck source=tools/env.sh
. "$root/tools/env.sh"

system_uuid=6f5a3c1e-8b1d-4c55-9f0e-617572616503
scratch_size=10GiB
scratch_uuid=6f5a3c1e-8b1d-4c55-9f0e-617572616501
scratch_seed=6f5a3c1e-8b1d-4c55-9f0e-617572616502
contract_version=$(sed -n 's/^pub const CONTRACT_VERSION: u32 = \([0-9]*\);$/\1/p' "$root/auraed/src/rpc/mod.rs")

main() {
  local auraed=${1:-$root/build/auraed} output=${2:-$root/build/guest} kernel fresh
  [ "$(uname -m)" = x86_64 ] || die "the guest's kernel is configured for x86_64 only, not for $(uname -m)"
  [ -x "$auraed" ] || die "there is no $auraed: run 'make build', or name the auraed that the guest shall run"
  mkdir -p "$cache/guest" "$output"
  kernel=$(kernel_directory "${AURAE_CRI_GUEST_KERNEL:-own}")
  [ -d "$kernel" ] || build_kernel "$kernel"
  # Beside the output: what is finished moves in by rename, the manifest last.
  fresh=$(mktemp -d "$output/.new.XXXXXX")
  # shellcheck disable=SC2064  # expanded now: the trap outlives the local
  trap "rm -rf '$fresh'" EXIT
  cp --reflink=auto "$kernel/vmlinux" "$fresh"
  make_system "$fresh" "$kernel" "$auraed"
  make_initrd "$fresh" "$kernel" "$auraed"
  make_scratch "$fresh/scratch.img"
  make_hello "$fresh"
  manifest "$fresh" "$kernel" "$auraed" >"$fresh/manifest.json"
  move_in "$fresh" "$output"
  echo "$output"
}

# kernel_directory WHICH. Named by everything that the result depends on, so that checkouts share it.
kernel_directory() {
  local kernels="$root/guest/kernel" own debian
  own="$cache/guest/kernel-$(cat "$kernels"/{config,build.sh} | sha256sum | cut -c 1-12)"
  debian="$cache/guest/kernel-debian-$(cat "$kernels"/{debian.sh,vmlinux.ts} | sha256sum | cut -c 1-12)"
  case $1 in
    own) echo "$own" ;;
    debian) echo "$debian" ;;
    any) if [ -d "$own" ]; then echo "$own"; else echo "$debian"; fi ;;
    *) die "AURAE_CRI_GUEST_KERNEL is '$1': own, debian or any" ;;
  esac
}

build_kernel() {
  local script=build.sh lock temporary
  case $1 in */kernel-debian-*) script=debian.sh ;; esac
  exec {lock}>"$cache/guest/kernel.lock"
  flock -n "$lock" || { echo "waiting for another build of the guest's kernel ..." && flock "$lock"; }
  if [ ! -d "$1" ]; then
    # What an interrupted build left.
    rm -rf "$cache"/guest/.{kernel,tree,download}.??????
    temporary=$(mktemp -d "$cache/guest/.kernel.XXXXXX")
    "$root/guest/kernel/$script" "$temporary" {lock}>&- || { rm -rf "$temporary" && exit 1; }
    chmod 755 "$temporary"
    mv -T "$temporary" "$1"
  fi
  exec {lock}>&-
}

# make_system DIRECTORY KERNEL AURAED: the guest's root, on a file system that nothing can ever write to: auraed as /init and as /sbin/modprobe, the
# kernel's modules, and what pid 1 mounts on.
make_system() {
  local tree="$1/system"
  mkdir -p "$tree"/{dev,proc,sys,run,tmp,scratch,sbin,var,lib/modules}
  install -m 0755 "$3" "$tree/init"
  ln -s ../init "$tree/sbin/modprobe"
  ln -s ../run "$tree/var/run"
  fsck.erofs --extract="$tree/lib/modules" --overwrite "$2/modules.erofs" >/dev/null
  [ ! -e "$2/modules.list" ] || install -D -m 0644 "$2/modules.list" "$tree/etc/modules"
  # Mapped by the guest: every file in whole blocks of its own, the whole of it in pages of 2 MiB.
  mkfs.erofs --quiet -E noinline_data -T 1700000000 -U "$system_uuid" --all-root "$1/system.erofs" "$tree"
  truncate -s %2M "$1/system.erofs"
  rm -r "$tree"
}

# make_initrd DIRECTORY KERNEL AURAED: for a kernel that cannot read a disk by itself.
make_initrd() {
  [ ! -d "$2/initrd-modules" ] || node "$root/guest/initrd.ts" "$3" "$1/initrd" "$2"/initrd-modules/*
}

# An empty file system with all its metadata in one place, a hundred kilobytes of it written: no journal (the disk dies with its pod), no spare
# superblocks, and inode tables that count as zeroed because a new sparse file is.
make_scratch() {
  local features=none,dir_index,dir_nlink,ext_attr,extent,extra_isize,filetype,flex_bg,huge_file,large_file,sparse_super2,uninit_bg
  local extended=nodiscard,lazy_itable_init=1,assume_storage_prezeroed=1,packed_meta_blocks=1,num_backup_sb=0,root_owner=0:0
  truncate -s "$scratch_size" "$1"
  E2FSPROGS_FAKE_TIME=1700000000 mke2fs -q -F -t ext4 -b 4096 -I 256 -i 32768 -m 0 -G 128 -L scratch -U "$scratch_uuid" \
    -O "$features" -E "$extended,hash_seed=$scratch_seed" "$1"
}

make_hello() {
  gcc -O2 -static -nostdlib -nostartfiles -ffreestanding -fno-stack-protector -fno-pie -no-pie -fno-asynchronous-unwind-tables \
    -Wl,--build-id=none -s -o "$1/hello" "$root/guest/hello/init.c"
  node "$root/guest/initrd.ts" "$1/hello" "$1/hello.initrd"
  rm "$1/hello"
}

# manifest DIRECTORY KERNEL AURAED
manifest() {
  local release version auraed initrd=null arguments=()
  release=$(cat "$2/release")
  version=$(cat "$2/version")
  auraed=$("$3" --version | awk '{ print $2 }')
  [ ! -e "$2/arguments" ] || mapfile -t arguments <"$2/arguments"
  [ ! -e "$1/initrd" ] || initrd=$(part "$1/initrd" "$auraed $version")
  jq -n --arg arch "$(uname -m)" --arg release "$release" --arg auraed "$auraed" --argjson contract "$contract_version" \
    --argjson kernel "$(part "$1/vmlinux" "$version")" --argjson system "$(part "$1/system.erofs" "$auraed $version")" \
    --argjson scratch "$(part "$1/scratch.img" 1)" --argjson initrd "$initrd" \
    '{formatVersion: 2, architecture: $arch, kernelRelease: $release, auraedVersion: $auraed, contractVersion: $contract,
      kernelArguments: {always: (["quiet", "fb_tunnels=none"] + $ARGS.positional), tcg: ["mitigations=off"]},
      parts: ({kernel: $kernel, system: $system, scratch: $scratch} + if $initrd then {initrd: $initrd} else {} end)}' --args "${arguments[@]}"
}

# part FILE VERSION: what the manifest says of a file. Behind dataBytes there is nothing but a hole, and the checksum is of what is before.
part() {
  local size data
  size=$(stat -c %s "$1")
  data=$(data_end "$1")
  jq -n --arg file "${1##*/}" --arg version "$2" --argjson size "$size" --argjson data "$data" \
    --arg sha256 "$(head -c "$data" "$1" | sha256sum | cut -d ' ' -f 1)" \
    '{file: $file, version: $version, sizeBytes: $size, dataBytes: $data, sha256: $sha256}'
}

# An empty file system whose metadata is packed has used its first blocks and no other.
data_end() {
  case $1 in
    *.img) dumpe2fs -h "$1" 2>/dev/null | awk -F ': *' '/^Block count/ { all = $2 } /^Free blocks/ { free = $2 } /^Block size/ { size = $2 } END { print (all - free) * size }' ;;
    *) stat -c %s "$1" ;;
  esac
}

# A new inode for what changed, nothing for what did not: a machine that runs keeps its files.
move_in() {
  local name
  # Of another kernel than this one's.
  [ "$(jq '.parts | has("initrd")' "$1/manifest.json")" = true ] || rm -f "$2/initrd"
  for name in vmlinux system.erofs initrd scratch.img hello.initrd manifest.json; do
    [ "$name" = initrd ] && [ ! -e "$1/initrd" ] && continue
    [ "$name" != scratch.img ] && cmp --silent "$1/$name" "$2/$name" && continue
    mv -T "$1/$name" "$2/$name"
  done
}

main "$@"
