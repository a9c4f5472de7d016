# The front door. CI runs these targets and nothing else.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help setup proto build guest fmt check test unit e2e smoke microvm soak fuzz e2e-kubelet e2e-cgroup2 conformance conformance-full critest full bench demo clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' Makefile

setup: ## Install what is missing: packages, toolchains, Node modules (root; a second run is a no-op)
	@tools/setup.sh

proto: setup ## Generate what is committed: TypeScript from api/, the configuration page
	@tools/proto.sh
	@tools/run.sh node tools/config-reference.ts

build: setup ## Build auraed, the static binary, and the microVM's files around it, into build/
	@tools/run.sh tools/build-auraed.sh
	@tools/guest.sh

guest: setup ## Make the microVM's files anew around the auraed that is built (the kernel once: some minutes, or AURAE_CRI_GUEST_KERNEL=debian)
	@tools/guest.sh

fmt: setup ## Format TypeScript and Rust
	@tools/check.sh --fix

check: setup ## Format, lint, types, structure, generated code: everything that needs no run
	@tools/check.sh

test: build ## All tests: unit (TypeScript, Rust), then end to end against the real binaries
	@tools/peers.sh crictl streaming-client cri-client
	@tools/run.sh node tools/test.ts unit e2e

unit: build ## Unit tests alone
	@tools/run.sh node tools/test.ts unit

e2e: build ## End-to-end tests alone
	@tools/peers.sh crictl streaming-client cri-client
	@tools/run.sh node tools/test.ts e2e

smoke: build ## A session and a storm of kill -9, on microVMs
	@tools/peers.sh crictl
	@AURAE_CRI_E2E_PODS=microvm tools/run.sh node tools/test.ts smoke

microvm: build ## The end-to-end tests with every pod a microVM
	@tools/peers.sh crictl streaming-client cri-client
	@AURAE_CRI_E2E_PODS=microvm tools/run.sh node tools/test.ts e2e

soak: build ## Streaming at its whole amounts, flat and (less of it) in a microVM
	@tools/peers.sh crictl streaming-client
	@AURAE_CRI_E2E_SOAK=1 tools/run.sh node tools/test.ts soak
	@AURAE_CRI_E2E_SOAK=1 AURAE_CRI_E2E_PODS=microvm tools/run.sh node tools/test.ts soak

e2e-kubelet: build ## A real kubelet with static pods on our socket, flat and with microVMs (some minutes; builds it once)
	@tools/peers.sh kubelet
	@tools/run.sh node tools/test.ts kubelet

e2e-cgroup2: build ## Flat pods on a node with cgroup v2, without and with systemd: in an emulated machine (slow)
	@tools/peers.sh crictl
	@tools/run.sh node e2e/cgroup2/run.ts

conformance: build ## critest once each, on the default handler and on aurae-flat
	@tools/peers.sh critest crictl cni-plugins
	@tools/run.sh node e2e/critest/run.ts --runtime aurae-cri

critest: build ## The conformance suite per handler beside containerd; the table goes to build/critest/
	@tools/peers.sh
	@tools/run.sh node e2e/critest/run.ts --runtime aurae-cri --runtime containerd

conformance-full: build ## critest ten times flat, then over WebSocket, in parallel, and with pods as emulated microVMs (an hour)
	@tools/peers.sh critest ginkgo crictl cni-plugins
	@tools/run.sh node e2e/critest/run.ts --handler aurae-flat --repeat 10
	@tools/run.sh node e2e/critest/run.ts --handler aurae-flat --websocket
	@tools/run.sh node e2e/critest/run.ts --handler aurae-flat --parallel 4
	@tools/run.sh node e2e/critest/run.ts --handler aurae-vm --handler "" --pods both
	@tools/run.sh node e2e/critest/run.ts --handler aurae-vm --pods both --parallel 4

full: export AURAE_CRI_E2E_KUBELET_MINUTES = 60
full: check test microvm soak demo e2e-kubelet critest conformance-full fuzz bench ## What must hold before a release

fuzz: setup ## Broken clients against the streaming server, for AURAE_CRI_FUZZ_SECONDS (default: an hour)
	@AURAE_CRI_FUZZ_SECONDS=$${AURAE_CRI_FUZZ_SECONDS:-3600} tools/run.sh node --test src/streaming/fuzz/campaign.test.ts

bench: build ## Compare with containerd and runc on this machine, in one run
	@tools/peers.sh crictl containerd runc cni-plugins critest
	@tools/run.sh node e2e/bench/run.ts
	@tools/run.sh node e2e/bench/microvm.ts
	@tools/run.sh node e2e/critest/benchmark.ts

# Whoever has not built the guest's kernel need not wait for it.
demo: export AURAE_CRI_GUEST_KERNEL = any
demo: build ## From nothing to a running pod, told in text; leaves nothing behind
	@tools/peers.sh crictl
	@tools/run.sh node e2e/demo/run.ts

clean: ## Remove what was built in the checkout (the caches outside it stay)
	@rm -rf build .setup.* auraed/target
