# SPDX-License-Identifier: Apache-2.0
# The front door. Each command sets up this machine first: installs what is missing, or says how.

SHELL := bash
export CARGO_TARGET_DIR ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/firstboot/target
# Every clone would leave its own there, and nobody would remove it: 11 GB after some dozens of clones.
export CARGO_INCREMENTAL ?= 0
TARGET ?= generic-$(if $(filter aarch64 arm64,$(shell uname -m)),arm64,amd64)
RUNS ?= 10000000
imagebuild := cargo run --quiet --locked --package imagebuild --

.DEFAULT_GOAL := help
.PHONY: help demo test test-long torture fuzz fuzz-corpus bench compare audit check image clean build-tools

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /make \1\t/p' Makefile | expand -t 20

demo: build-tools ## the whole way once: image, control plane, device, Ready (TARGET=generic-arm64|generic-amd64)
	@$(imagebuild) setup --for demo
	@cargo run --quiet --locked --package qemu -- demo --target $(TARGET)

image: build-tools ## a bootable disk image in out/images (TARGET=...)
	@$(imagebuild) setup --for image
	@$(imagebuild) build --target $(TARGET)

test: build-tools ## every test that CI runs
	@$(imagebuild) setup --for test
	@cargo run --quiet --locked --package e2e --bin run-tests

test-long: build-tools ## tests that take too long for every change
	@$(imagebuild) setup --for test
	@cargo run --quiet --locked --package e2e --bin run-tests -- --long

torture: build-tools ## power cuts at very many moments of a first boot; out/torture/report.json (TORTURE="--seed 1")
	@$(imagebuild) setup --for test
	@cargo run --quiet --locked --package e2e --bin run-torture -- $(TORTURE)

fuzz: build-tools ## what is read from outside, with made-up input; out/fuzz/report.json (RUNS=10000000 FUZZ="seed date")
	@$(imagebuild) setup --for test
	@cargo run --quiet --locked --package e2e --bin run-fuzz -- --runs $(RUNS) $(FUZZ)

fuzz-corpus: build-tools ## what make fuzz found into fuzz/corpus, minimised (FUZZ="seed date")
	@$(imagebuild) setup --for test
	@cargo run --quiet --locked --package e2e --bin run-fuzz -- --minimise $(FUZZ)

bench: build-tools ## the join beside kubeadm's; out/bench/report.json (TARGET=...)
	@$(imagebuild) setup --for bench
	@cargo run --quiet --locked --package qemu -- bench --target $(TARGET)

compare: build-tools ## this tree's image beside another, from power-on to Ready; out/compare/report.json (WITH=image.img)
	@$(imagebuild) setup --for bench
	@cargo run --quiet --locked --package qemu -- compare --target $(TARGET) --with $(WITH)

audit: build-tools ## auditors' tools on one device, before firstboot and after; out/audit/report.json
	@$(imagebuild) setup --for test
	@cargo run --quiet --locked --package e2e --bin run-audit

check: build-tools ## formatting, lints, dependencies, documentation, sizes
	@$(imagebuild) setup --for check
	@$(imagebuild) check

clean: ## remove what was built here; the cache outside the clone stays
	rm -rf out

# cargo and a linker come before anything of ours can run. The build folder serves every clone, but cargo trusts
# time stamps: another clone's older sources would pass for built.
build-tools:
	@command -v cargo >/dev/null || { echo "install Rust 1.90 or newer (rustup), then try again"; exit 1; }
	@command -v cc >/dev/null || { [ "$$(id -u)" = 0 ] && { apt-get update; apt-get install -y gcc libc6-dev; } || \
	  { echo "run this once, then try again: sudo apt-get install -y gcc libc6-dev"; exit 1; } }
	@mkdir -p "$(CARGO_TARGET_DIR)"; [ "$$(cat "$(CARGO_TARGET_DIR)/clone" 2>/dev/null)" = "$(CURDIR)" ] || { \
	  rm -rf "$(CARGO_TARGET_DIR)"/{,*/}*/.fingerprint/{firstboot,imagebuild,qemu,e2e,fuzz}-*; echo "$(CURDIR)" >"$(CARGO_TARGET_DIR)/clone"; }
	@[ -e "$(CARGO_TARGET_DIR)/debug/imagebuild" ] || echo "building this repository's own tools first: one to two minutes"
