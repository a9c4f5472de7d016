# shellcheck shell=bash
# Sourced by every script in tools/: where the caches are, which toolchains are used, how progress is shown.
# Needs `root` (the checkout) to be set.

# Everything that is expensive to make again and does not depend on the checkout.
cache="${AURAE_CRI_CACHE:-${HOME:-/root}/.cache/aurae-cri}"

# shellcheck disable=SC2034  # for setup.sh
node_version=26.9.0
rust_minimum=1.95
go_minimum=1.26.6
go_version=1.26.8

# Where rustup puts its toolchain, also for a shell that did not read the profile.
case ":$PATH:" in
  *":${HOME:-/root}/.cargo/bin:"*) ;;
  *) [ -x "${HOME:-/root}/.cargo/bin/cargo" ] && PATH="${HOME:-/root}/.cargo/bin:$PATH" ;;
esac
[ -x "$cache/go-$go_version/bin/go" ] && PATH="$cache/go-$go_version/bin:$PATH"
PATH="${root:?}/node_modules/.bin:$PATH:/usr/sbin:/sbin"
export PATH
# Compiled dependencies outlive a checkout; cargo itself keeps compilers and checkouts apart in one directory.
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$cache/cargo-target}"

# step TEXT: starts a step and says how long the one before it took.
step() {
  done_step
  step_text=$1 step_start=$(date +%s%3N)
  printf '%s ...\n' "$step_text"
}

done_step() {
  [ -n "${step_text:-}" ] && printf '%s: %s s\n' "$step_text" "$(elapsed "$step_start")"
  step_text=""
}

elapsed() {
  local ms=$(($(date +%s%3N) - $1))
  printf '%d.%d' $((ms / 1000)) $((ms % 1000 / 100))
}

die() {
  printf '%s: %s\n' "${0##*/}" "$*" >&2
  exit 1
}

# version_at_least HAVE WANT
version_at_least() {
  [ "$(printf '%s\n%s\n' "$2" "$1" | sort -V | head -n 1)" = "$2" ]
}

has_rust() {
  command -v rustc >/dev/null && command -v cargo >/dev/null && version_at_least "$(rustc --version | awk '{ print $2 }')" "$rust_minimum"
}

has_go() {
  command -v go >/dev/null && version_at_least "$(go env GOVERSION 2>/dev/null | sed 's/^go//')" "$go_minimum"
}
