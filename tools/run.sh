#!/usr/bin/env bash
# run.sh FILE [ARGUMENT...]: runs a TypeScript file on the pinned Node with the toolchains of setup on PATH.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
# shellcheck source=tools/env.sh
. "$root/tools/env.sh"
cd "$root"
exec node "$@"
