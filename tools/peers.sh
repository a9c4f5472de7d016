#!/usr/bin/env bash
# peers.sh [NAME...]: builds the pinned programs that tests and benchmarks drive or compare with, into the cache, and links them
# as build/peers/bin/NAME and build/peers/cni/NAME.
# Names: crictl critest ginkgo containerd runc cni-plugins streaming-client cri-client, which are built without a name given, and kubelet (minutes).
# Each has a module of its own in tools/peers, whose go.sum is the pin; streaming-client and cri-client are ours, in e2e.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
# shellcheck source=tools/env.sh
. "$root/tools/env.sh"
cd "$root"
export GOFLAGS="-mod=readonly -trimpath -buildvcs=false" GOWORK=off

main() {
  local name
  [ $# -gt 0 ] || set -- crictl critest ginkgo containerd runc cni-plugins streaming-client cri-client
  mkdir -p "$cache/peers" build/peers/{bin,cni}
  for name in "$@"; do peer "$name"; done
  done_step
}

peer() {
  local linker="" tags="" cgo=0
  case $1 in
    crictl)
      linker="-X sigs.k8s.io/cri-tools/pkg/version.Version=1.36.0"
      build "$1" cri-tools 1.36.0 sigs.k8s.io/cri-tools/cmd/crictl
      ;;
    critest)
      linker="-X sigs.k8s.io/cri-tools/pkg/version.Version=1.36.0"
      build "$1" cri-tools 1.36.0 sigs.k8s.io/cri-tools/cmd/critest
      ;;
    ginkgo)
      # What critest runs itself by for -parallel; it must be of the version that critest was built with.
      build "$1" cri-tools 2.28.1 github.com/onsi/ginkgo/v2/ginkgo
      ;;
    containerd)
      linker="-X github.com/containerd/containerd/v2/version.Version=v2.4.2"
      tags="no_btrfs no_devmapper no_zfs"
      build "$1" containerd 2.4.2 github.com/containerd/containerd/v2/cmd/{containerd,containerd-shim-runc-v2,ctr}
      ;;
    runc)
      # runc joins namespaces in C before Go starts.
      cgo=1 tags="seccomp"
      build "$1" runc 1.5.2 github.com/opencontainers/runc
      ;;
    cni-plugins)
      build "$1" cni-plugins 1.9.1 github.com/containernetworking/plugins/plugins/{main/bridge,main/loopback,ipam/host-local,meta/portmap}
      ;;
    streaming-client | cri-client)
      # The version is that of the libraries they drive us with.
      build "$1" "e2e/$1" 0.37.2 "aurae-cri/e2e/$1"
      ;;
    kubelet)
      # Its module replaces the staging directories, which the published module lacks, by the modules that are published of them.
      linker="-X k8s.io/component-base/version.gitVersion=v1.37.2"
      build "$1" kubelet 1.37.2 k8s.io/kubernetes/cmd/kubelet
      ;;
    *) die "unknown peer '$1'; known: crictl critest ginkgo containerd runc cni-plugins streaming-client cri-client kubelet" ;;
  esac
}

# build NAME MODULE VERSION PACKAGE...: reads linker, tags and cgo of its caller.
build() {
  local name=$1 module=tools/peers/$2 version=$3 key target temporary package lock
  shift 3
  [ -d "$module" ] || module=${module#tools/peers/}
  key=$({ cat "$module"/* && echo "$go_version $linker $tags $cgo $*"; } | sha256sum | cut -c 1-12)
  target="$cache/peers/$name-$version-$key"
  if [ ! -d "$target" ]; then
    exec {lock}>"$cache/peers/$name.lock"
    flock "$lock"
    if [ ! -d "$target" ]; then
      step "$name $version"
      temporary=$(mktemp -d "$cache/peers/.$name.XXXXXX")
      for package in "$@"; do compile "$module" "$package" "$temporary/${package##*/}" {lock}>&-; done
      chmod 755 "$temporary"
      mv -T "$temporary" "$target"
    fi
    exec {lock}>&-
  fi
  case $name in
    cni-plugins) link "$target" build/peers/cni ;;
    *) link "$target" build/peers/bin ;;
  esac
}

compile() {
  local module=$1 package=$2 output=$3 verb=(build)
  # critest is made of test files only.
  [ "${package##*/}" = critest ] && verb=(test -c)
  (cd "$module" && CGO_ENABLED=$cgo go "${verb[@]}" -tags "$tags" -ldflags "-s -w $linker" -o "$output" "$package") >"$cache/peers/build.log" 2>&1 ||
    { tail -n 30 "$cache/peers/build.log" >&2 && die "cannot build $package"; }
}

link() {
  local file temporary
  for file in "$1"/*; do
    temporary="$2/.${file##*/}.$$"
    ln -s "$file" "$temporary"
    mv -T "$temporary" "$2/${file##*/}"
  done
}

main "$@"
