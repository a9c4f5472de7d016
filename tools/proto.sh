#!/usr/bin/env bash
# Generates TypeScript from every contract under api/. The output is committed; `make check` fails when it is stale.
set -euo pipefail
cd "$(dirname "$0")/.."

# Literal objects instead of enums (erasable syntax), bigint for 64-bit, unions for oneofs, `.ts` import suffix.
options="outputServices=grpc-js,env=node,esModuleInterop=true,importSuffix=.ts,enumsAsLiterals=true,unrecognizedEnum=false"
options+=",forceLong=bigint,oneof=unions-value,useOptionals=none,outputJsonMethods=false,outputPartialMethods=true"
options+=",useExactTypes=false,removeEnumPrefix=false,snakeToCamel=true,typePrefix=,outputIndex=false,globalThisPolyfill=false,annotateFilesWithVersion=false,addGrpcMetadata=true,useAbortSignal=false"

rm -rf api/gen
mkdir -p api/gen
find api -name '*.proto' | sort | while read -r file; do
  protoc --plugin=node_modules/.bin/protoc-gen-ts_proto --ts_proto_out=api/gen --ts_proto_opt="$options" -I api "$file"
done
