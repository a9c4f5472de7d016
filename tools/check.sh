#!/usr/bin/env bash
# Everything that can be said of the code without running the product. Runs every check, then fails if one did. `--fix` formats instead.
set -uo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
# shellcheck source=tools/env.sh
. "$root/tools/env.sh"
cd "$root" || exit 1

export NO_COLOR=1
failed=()

check() {
  local name=$1 start output
  shift
  start=$(date +%s%3N)
  if output=$("$@" 2>&1 </dev/null); then
    printf 'ok      %-22s %s s\n' "$name" "$(elapsed "$start")"
  else
    printf 'FAILED  %-22s %s s\n%s\n' "$name" "$(elapsed "$start")" "$output"
    failed+=("$name")
  fi
}

# no_output COMMAND...: what it prints is what is wrong.
no_output() {
  local output
  output=$("$@" 2>&1) && [ -z "$output" ] && return
  printf '%s\n' "$output"
  return 1
}

rust() {
  (cd auraed && cargo "$@")
}

if [ "${1:-}" = --fix ]; then
  check "biome" biome check --write --error-on-warnings
  check "gofmt" gofmt -w e2e/streaming-client e2e/cri-client
  check "rustfmt" rust fmt
else
  check "biome" biome ci --error-on-warnings
  check "tsc" tsc -p .
  check "oxlint, type-aware" oxlint --type-aware --deny-warnings
  check "structure" node --test --test-reporter=dot "tools/*.test.ts"
  check "generated code" tools/proto.sh --check
  check "gofmt" no_output gofmt -l e2e/streaming-client e2e/cri-client
  check "shellcheck" shellcheck -x tools/*.sh guest/kernel/*.sh e2e/critest/images/*.sh e2e/cgroup2/*.sh e2e/cgroup2/guest/*.sh .ci/run
  check "rustfmt" rust fmt --check -- --color never
  check "clippy" tools/build-auraed.sh clippy --locked --all-targets --quiet --color never -- -D warnings -D clippy::too_many_lines
fi

if [ ${#failed[@]} -gt 0 ]; then
  printf 'check: failed: %s\n' "${failed[*]}"
  exit 1
fi
