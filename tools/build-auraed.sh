#!/usr/bin/env bash
# Builds the static auraed binary and puts it at build/auraed. With arguments: runs `cargo ARGS` in the same environment
# (`tools/build-auraed.sh test --release`), so that tests and lints see the patched crates too.
#
# CARGO            the cargo to use (default: the one on PATH)
# AURAE_CRI_CACHE  where sources and objects are kept (default: ~/.cache/aurae-cri)
# CARGO_TARGET_DIR where objects are kept (default: $AURAE_CRI_CACHE/cargo-target)
set -euo pipefail
cd "$(dirname "$0")/.."

root=$PWD
cargo=${CARGO:-cargo}
cache=${AURAE_CRI_CACHE:-$HOME/.cache/aurae-cri}
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$cache/cargo-target}
target=$(uname -m)-unknown-linux-gnu

fail() { echo "build-auraed: $*" >&2; exit 1; }

command -v "$cargo" >/dev/null || fail "no cargo: set CARGO or put Rust 1.95 or newer on PATH"
libseccomp=$(dirname "$(find /usr/lib /usr/lib64 /usr/local/lib -name libseccomp.a -print -quit 2>/dev/null)")
[ "$libseccomp" != . ] || fail "libseccomp.a is missing: install libseccomp-dev"

# patched CRATE VERSION SHA256 PATCHES: the crate as published with our patches, in a directory named by what went into it: parallel builds of
# different checkouts never clash. `source` is that directory then.
patched() {
  local crate=$1 version=$2 sha256=$3 patches key archive fresh patch
  patches=("$4"/*.patch)
  key=$(cat "${patches[@]}" | sha256sum | cut -c1-12)
  source=$cache/$crate-$version-$key
  if [ ! -d "$source" ]; then
    archive=$(published "$crate" "$version")
    if [ -z "$archive" ]; then
      stub=$(mktemp -d)
      trap 'rm -rf "$stub"' EXIT
      mkdir "$stub/src"
      touch "$stub/src/lib.rs"
      printf '[package]\nname = "stub"\nversion = "0.0.0"\nedition = "2024"\n[dependencies]\n%s = "=%s"\n' "$crate" "$version" >"$stub/Cargo.toml"
      (cd "$stub" && "$cargo" fetch --quiet)
      archive=$(published "$crate" "$version")
    fi
    [ -n "$archive" ] || fail "cargo downloaded no $crate-$version.crate"
    echo "$sha256  $archive" | sha256sum --check --quiet || fail "$archive is not the $crate $version the patches are for"
    mkdir -p "$cache"
    fresh=$(mktemp -d "$cache/.$crate.XXXXXX")
    tar -xzf "$archive" -C "$fresh" --strip-components=1
    for patch in "${patches[@]}"; do
      patch --directory "$fresh" --strip=1 --silent --no-backup-if-mismatch <"$patch" || fail "$patch does not apply"
    done
    mv -T "$fresh" "$source" 2>/dev/null || rm -rf "$fresh"
  fi
}

published() {
  find "${CARGO_HOME:-$HOME/.cargo}/registry/cache" -name "$1-$2.crate" -print -quit 2>/dev/null || true
}

patched libcontainer 0.7.0 2c28770cf8fb3acca0d168a10f5d9f8333d304af0b2ff5654029822d222d19f0 "$root/auraed/patches"
libcontainer=$source
patched libcgroups 0.7.0 d85e8f0bca12f0d04fdd8f14858022018cd1667b4f971d6b09058fe90323e19d "$root/auraed/patches/libcgroups"
libcgroups=$source

export LIBSECCOMP_LINK_TYPE=static LIBSECCOMP_LIB_PATH=$libseccomp
export RUSTFLAGS="-C target-feature=+crt-static -C relocation-model=static${RUSTFLAGS:+ $RUSTFLAGS}"
export CARGO_BUILD_TARGET=$target
config=(--config "patch.crates-io.libcontainer.path=\"$libcontainer\"" --config "patch.crates-io.libcgroups.path=\"$libcgroups\"")
cd auraed

if [ $# -gt 0 ]; then
  # After the subcommand: clippy is a program of its own and does not see what stands before its name.
  exec "$cargo" "$1" "${config[@]}" "${@:2}"
fi

"$cargo" "${config[@]}" build --release --locked
built=$CARGO_TARGET_DIR/$target/release/auraed
if readelf --program-headers "$built" | grep -q INTERP; then
  fail "$built is not static"
fi
mkdir -p "$root/build"
# A new inode each time: a running auraed keeps the old one.
if ! cmp --silent "$built" "$root/build/auraed"; then
  install -m 0755 "$built" "$root/build/auraed.new"
  mv "$root/build/auraed.new" "$root/build/auraed"
fi
echo "$root/build/auraed"
