#!/usr/bin/env bash
# run.sh COMMAND [ARGUMENT...]: runs a command in the checkout with the toolchains of setup on PATH, the pinned Node among them.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
# shellcheck source=tools/env.sh
. "$root/tools/env.sh"
cd "$root"
exec "$@"
