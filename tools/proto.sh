#!/usr/bin/env bash
# Generates TypeScript from every contract under api/. The output is committed. `--check` writes nothing and fails when it is stale.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
# shellcheck source=tools/env.sh
. "$root/tools/env.sh"
cd "$root"

# Literal objects instead of enums (erasable syntax), bigint for 64-bit, unions for oneofs, `.ts` import suffix.
options="outputServices=grpc-js,env=node,esModuleInterop=true,importSuffix=.ts,enumsAsLiterals=true,unrecognizedEnum=false"
options+=",forceLong=bigint,oneof=unions-value,useOptionals=none,outputJsonMethods=false,outputPartialMethods=true"
options+=",useExactTypes=false,removeEnumPrefix=false,snakeToCamel=true,typePrefix=,outputIndex=false,globalThisPolyfill=false,annotateFilesWithVersion=false,addGrpcMetadata=true,useAbortSignal=false"

fresh=$(mktemp -d "$root/.proto.XXXXXX")
trap 'rm -rf "$fresh"' EXIT
mkdir "$fresh/gen"
while read -r file; do
  protoc --plugin=node_modules/.bin/protoc-gen-ts_proto --ts_proto_out="$fresh/gen" --ts_proto_opt="$options" -I api "$file"
done < <(find api -name '*.proto' -not -path 'api/gen/*' | sort)

if [ "${1:-}" = --check ]; then
  diff -rq "$fresh/gen" api/gen || die "api/gen is stale: run 'make proto' and commit the result"
elif ! diff -rq "$fresh/gen" api/gen >/dev/null 2>&1; then
  [ -e api/gen ] && mv -T api/gen "$fresh/old"
  mv -T "$fresh/gen" api/gen
  echo "proto: api/gen written"
fi
