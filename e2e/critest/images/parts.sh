#!/usr/bin/env bash
# parts.sh: makes what the images of critest consist of and links it as build/critest/parts:
#   busybox   static, upstream's default configuration, every applet run as a program of its own
#   nginx/    the distribution's nginx with the libraries that it needs, as a tree
#   nnp       static; prints the effective user id
#   versions  of the packages
# BusyBox is built because the distribution's own lacks pgrep and ipcs, and its shell runs applets without looking at /bin.
set -euo pipefail
root=$(cd "$(dirname "$0")/../../.." && pwd)
# shellcheck source=tools/env.sh
. "$root/tools/env.sh"

main() {
  local release key target
  release=$(sed -n 's/^VERSION_ID="\?\([^"]*\)"\?$/\1/p' /etc/os-release)
  key=$({ cat "$0" && echo "$release"; } | sha256sum | cut -c 1-12)
  target="$cache/critest-parts-$release-$key"
  mkdir -p "$cache" "$root/build/critest"
  if [ ! -d "$target" ]; then
    exec {lock}>"$cache/critest-parts.lock"
    flock "$lock"
    [ -d "$target" ] || make_parts "$target" {lock}>&-
  fi
  ln -sfn "$target" "$root/build/critest/parts"
}

# make_parts TARGET: all or nothing, in a directory that is renamed at the end.
make_parts() {
  # Read by the functions below, and by the trap when they are done.
  temporary=$(mktemp -d "$cache/.critest-parts.XXXXXX")
  trap 'rm -rf "$temporary"' EXIT
  mkdir -p "$temporary"/{apt/sources,apt/lists/partial,work,parts}
  step "critest images: package lists"
  package_sources "$temporary/apt/sources"
  apt update
  step "critest images: BusyBox"
  (cd "$temporary/work" && build_busybox)
  step "critest images: nginx"
  (cd "$temporary/work" && collect_nginx)
  cc -static -O2 -s -x c -o "$temporary/parts/nnp" - <<<'#include <stdio.h>
#include <unistd.h>
int main(void) { return printf("Effective uid: %d\n", geteuid()) < 0; }'
  chmod 755 "$temporary/parts"
  mv -T "$temporary/parts" "$1"
  done_step
}

# The sources that this machine has, with their source packages, in a place of our own: the machine's configuration stays as it is.
package_sources() {
  local file
  for file in /etc/apt/sources.list /etc/apt/sources.list.d/*; do
    case $file in
      *.sources) sed 's/^Types:.*/Types: deb deb-src/' "$file" >"$1/${file##*/}" ;;
      *.list) [ ! -e "$file" ] || sed -n 'p; s/^deb /deb-src /p' "$file" >"$1/${file##*/}" ;;
    esac
  done
}

apt() {
  nice apt-get -qq -o Dir::Etc::sourcelist=/dev/null -o "Dir::Etc::sourceparts=$temporary/apt/sources" -o "Dir::State::lists=$temporary/apt/lists" \
    -o APT::Sandbox::User=root "$@" >>"$temporary/log" 2>&1 || { tail -n 20 "$temporary/log" >&2 && die "apt-get $* failed"; }
}

build_busybox() {
  local description option
  apt source --download-only busybox
  description=$(ls busybox_*.dsc)
  sed -n 's/^Version: /busybox /p' "$description" >>"$temporary/parts/versions"
  dpkg-source --no-check -x "$description" busybox >>"$temporary/log" 2>&1
  cd busybox
  make defconfig >>"$temporary/log" 2>&1
  sed -i 's/^# CONFIG_STATIC is not set/CONFIG_STATIC=y/' .config
  for option in FEATURE_SH_STANDALONE FEATURE_SH_NOFORK FEATURE_PREFER_APPLETS; do
    sed -i "s/^CONFIG_$option=y/# CONFIG_$option is not set/" .config
  done
  # `yes` ends by SIGPIPE once all questions are answered.
  { yes "" || true; } | make oldconfig >>"$temporary/log" 2>&1
  nice make -j"$(nproc)" KBUILD_BUILD_TIMESTAMP= busybox >>"$temporary/log" 2>&1 || { tail -n 20 "$temporary/log" >&2 && die "cannot build BusyBox"; }
  cp busybox "$temporary/parts/busybox"
}

# nginx with its library closure, resolved by the loader of the same packages.
collect_nginx() {
  local loader line file libraries
  apt download nginx libc6 libcrypt1 libpcre2-8-0 libssl3 zlib1g
  for file in ./*.deb; do
    dpkg-deb -x "$file" root
    # shellcheck disable=SC2016  # dpkg's variables
    dpkg-deb -W --showformat='${Package} ${Version}\n' "$file" >>"$temporary/parts/versions"
  done
  mkdir -p "$temporary/parts/nginx/usr/sbin" "$temporary/parts/nginx/usr/lib"
  cp root/usr/sbin/nginx "$temporary/parts/nginx/usr/sbin/nginx"
  loader=$(readelf -l root/usr/sbin/nginx | sed -n 's/.*program interpreter: \(.*\)\]/\1/p')
  libraries=$(dirname "$(find root -name 'libssl.so.3')")
  libraries="$libraries:$(dirname "$(find root -name 'libc.so.6')")"
  mkdir -p "$temporary/parts/nginx/$(dirname "$loader")"
  cp -L "root/$loader" "$temporary/parts/nginx/$loader"
  "root/$loader" --library-path "$libraries" --list root/usr/sbin/nginx | sed -n 's/^\s*lib.*=> \(root[^ ]*\) .*/\1/p' | while read -r line; do
    cp -L "$line" "$temporary/parts/nginx/usr/lib/"
  done
}

main
