#!/usr/bin/env bash
# Installs what building and testing need: Debian packages, Rust, Go, Node and its packages. A second run finds all of it and ends at once.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
# shellcheck source=tools/env.sh
. "$root/tools/env.sh"
cd "$root"

# Build: the static auraed links libseccomp; protoc makes the contracts.
packages=(ca-certificates gcc git libc6-dev libseccomp-dev make patch pkg-config protobuf-compiler jq shellcheck)
# The microVM: its kernel is built from Debian's source, its disks made, and QEMU runs it.
packages+=(bc bison cpio e2fsprogs erofs-utils flex kmod libelf-dev qemu-system-x86 xz-utils)
# Run and test: a registry and images for it, CNI, mounts.
packages+=(busybox-static containernetworking-plugins docker-registry dpkg-dev iproute2 iptables nftables procps skopeo umoci)
# The benchmark's plain relay.
packages+=(socat)

go_toolchain_sum() {
  case $1 in
    amd64) echo "h1:ZOmGe1OnfREDMIdb1Qi4G9JSuDPBLGExZMQ4nis1RXM=" ;;
    arm64) echo "h1:sYL/O6MqS68ML0kjsQ36WoYIpJqkw60TxizWUYUKQMc=" ;;
    *) die "no Go toolchain is pinned for architecture '$1'; put Go $go_minimum or later on PATH" ;;
  esac
}

main() {
  local start
  start=$(date +%s%3N)
  mkdir -p "$cache"
  # Two runs at once would fight over apt, the caches and node_modules.
  exec 9>"$cache/setup.lock"
  flock -n 9 || { echo "waiting for another setup ..." && flock 9; }
  # What an interrupted run left.
  rm -rf "$root"/.setup.??????
  install_packages 9>&-
  install_go 9>&-
  install_node_packages 9>&-
  fetch_cri_contract 9>&-
  done_step
  echo "setup: $(elapsed "$start") s"
}

install_packages() {
  local missing
  has_rust || packages+=(rustc-web cargo-web rustfmt-web rust-web-clippy)
  has_go || packages+=(golang-go)
  command -v npm >/dev/null || packages+=(nodejs npm)
  mapfile -t missing < <(missing_packages "${packages[@]}")
  if [ ${#missing[@]} -gt 0 ]; then
    command -v apt-get >/dev/null || die "this machine has no apt-get; install by hand what these Debian packages hold: ${missing[*]}"
    [ "$(id -u)" = 0 ] || die "run 'make setup' as root once; missing packages: ${missing[*]}"
    step "apt: package lists"
    apt-get update -qq
    step "apt: ${#missing[@]} packages (${missing[*]})"
    apt_install "${missing[@]}"
  fi
  has_rust || die "rustc on PATH is $(rustc --version 2>&1), and $rust_minimum or later is needed: Debian 12 has it in bookworm-security (is that suite in /etc/apt/sources.list?); update one of your own, or take it off PATH"
}

missing_packages() {
  local installed
  installed=$(dpkg-query -W -f '${db:Status-Status} ${Package}\n' 2>/dev/null | sed -n 's/^installed //p' || true)
  printf '%s\n' "$@" | sort -u | grep -Fxv -f <(printf '%s\n' "$installed") || true
}

# Nothing that is installed here may start as a service of this machine: tests start their own.
apt_install() {
  local policy=/usr/sbin/policy-rc.d made=""
  if [ ! -e $policy ]; then
    made=$policy
    printf '#!/bin/sh\nexit 101\n' >$policy
    chmod 755 $policy
  fi
  # shellcheck disable=SC2064  # expanded now: the trap outlives the locals
  trap "rm -f ${made:-}" EXIT
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends -o Dpkg::Use-Pty=0 "$@" >"$cache/apt.log" 2>&1 </dev/null ||
    { tail -n 30 "$cache/apt.log" >&2 && die "apt-get install failed; the whole log is $cache/apt.log"; }
  rm -f ${made:+"$made"}
  trap - EXIT
  case " $* " in *" docker-registry "*) deb-systemd-helper disable docker-registry.service >/dev/null 2>&1 || true ;; esac
}

# An old Go cannot build the peers, but it can fetch and verify the module that a new Go is.
install_go() {
  has_go && return
  step "go $go_version"
  local arch module dir sum want temporary
  arch=$(go env GOARCH)
  module="golang.org/toolchain@v0.0.1-go$go_version.linux-$arch"
  want=$(go_toolchain_sum "$arch")
  temporary=$(mktemp -d "$cache/go-$go_version.XXXXXX")
  (cd "$temporary" && GOFLAGS=-mod=mod go mod download -json "$module") >"$temporary/module.json" || die "cannot download $module: $(cat "$temporary/module.json")"
  sum=$(jq -r .Sum "$temporary/module.json")
  [ "$sum" = "$want" ] || die "$module has checksum $sum, want $want"
  dir=$(jq -r .Dir "$temporary/module.json")
  cp -r --no-preserve=mode "$dir/." "$temporary/"
  chmod 755 "$temporary"/bin/* "$temporary"/pkg/tool/*/*
  # A module cannot contain another module's go.mod, so they are packed under another name.
  find "$temporary/src" -name _go.mod -execdir cp _go.mod go.mod \;
  chmod 755 "$temporary"
  rm -rf "$cache/go-$go_version"
  mv -T "$temporary" "$cache/go-$go_version"
  PATH="$cache/go-$go_version/bin:$PATH"
  hash -r
  has_go || die "go $go_version does not run: $(go version 2>&1)"
}

# Installed beside and swapped in, so that an interrupted run leaves the old tree or the new one.
install_node_packages() {
  local key temporary node tool
  key=$(cat package.json package-lock.json .npmrc | sha256sum | cut -d ' ' -f 1)
  if [ "$(cat node_modules/.setup-key 2>/dev/null)" = "$key" ]; then return; fi
  step "npm: packages of package-lock.json"
  temporary=$(mktemp -d "$root/.setup.XXXXXX")
  mkdir "$temporary/first"
  cp -t "$temporary" package.json package-lock.json .npmrc
  cp -t "$temporary/first" package.json package-lock.json .npmrc
  node=$(command -v node)
  if [ "$("$node" --version)" != "v$node_version" ]; then
    # npm leaves out optional packages, which the native tools are, when they do not admit the Node that runs it. So an old Node fetches the new one.
    npm_ci "$node" "$temporary/first" --omit=dev
    node=$(echo "$temporary"/first/node_modules/node-linux-*/bin/node)
  fi
  npm_ci "$node" "$temporary"
  # npm 9 does not link a program of this name.
  (cd "$temporary/node_modules/.bin" && ln -sf ../node-linux-*/bin/node node)
  for tool in node biome oxlint tsc; do
    PATH="$temporary/node_modules/.bin:$PATH" "$temporary/node_modules/.bin/$tool" --version >/dev/null || die "npm installed a $tool that does not run"
  done
  [ "$("$temporary/node_modules/.bin/node" --version)" = "v$node_version" ] || die "node_modules/.bin/node is not Node $node_version"
  echo "$key" >"$temporary/node_modules/.setup-key"
  [ -e node_modules ] && mv -T node_modules "$temporary/old"
  mv -T "$temporary/node_modules" node_modules
  rm -rf "$temporary"
}

# npm_ci NODE DIRECTORY [OPTION...]
npm_ci() {
  local node=$1 directory=$2 npm
  shift 2
  npm=$(readlink -f "$(command -v npm)")
  local run=("$node" --no-deprecation "$npm")
  # A wrapper instead of npm's own program chooses its Node itself.
  [ "${npm##*.}" = js ] || run=("$npm")
  (cd "$directory" && "${run[@]}" ci --no-audit --no-fund --loglevel=error "$@" </dev/null >"$cache/npm.log" 2>&1) ||
    { tail -n 30 "$cache/npm.log" >&2 && die "npm ci failed"; }
}

# The test of api/cri compares it with the descriptor that upstream publishes in this module.
fetch_cri_contract() {
  local mark
  mark="$cache/cri-api-$(sha256sum tools/peers/cri-api/go.sum | cut -c 1-12)"
  if [ -e "$mark" ] && [ -d "$(cat "$mark")" ]; then return; fi
  step "go: the CRI contract's module"
  (cd tools/peers/cri-api && go mod download k8s.io/cri-api && go list -m -f '{{.Dir}}' k8s.io/cri-api) >"$mark.$$"
  mv "$mark.$$" "$mark"
}

main
