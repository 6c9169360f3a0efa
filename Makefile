# SPDX-License-Identifier: Apache-2.0
# Every command first sets up this machine: it installs what is missing, or prints how to.

SHELL := bash
export CARGO_TARGET_DIR ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/firstboot/target
# Each clone would leave its own in the shared directory for ever: 11 GB after some dozens of clones.
export CARGO_INCREMENTAL ?= 0
TARGET ?= generic-$(if $(filter aarch64 arm64,$(shell uname -m)),arm64,amd64)
RUNS ?= 10000000
# Builds a program and starts it. `cargo run` would put names and directories of the package into its environment: the cargo
# that it starts would compile ring, which reads them, and everything that uses ring, each time anew.
run = cargo build --quiet --locked --package $(1) --bin $(2) && "$(CARGO_TARGET_DIR)/debug/$(2)"
imagebuild = $(call run,imagebuild,imagebuild)
# After the last build, whatever came of it: the next clone need not compile what this one has.
record = code=$$?; imagebuild/tools/share-build-directory --record "$(CARGO_TARGET_DIR)"; exit $$code

.DEFAULT_GOAL := help
.PHONY: help demo dist test test-long attack torture fuzz fuzz-corpus bench compare audit check image repro clean build-tools

help: ## print this list
	@sed -n 's/^\([a-z-]*\):.*## /make \1\t/p' Makefile | expand -t 20

demo: build-tools ## build an image, start a control plane, boot a device until it is Ready (TARGET=generic-arm64|generic-amd64, CLUSTER=1: a cluster from two cards)
	@$(imagebuild) setup --for demo
	@$(call run,qemu,qemu) demo --target $(TARGET) $(if $(CLUSTER),--cluster); $(record)

image: build-tools ## build a bootable disk image in out/images (TARGET=..., CONTROL_PLANE=1, SIGN_KEY=~/.ssh/company, PACKAGES=T.packages.json)
	@$(imagebuild) setup --for image
	@$(imagebuild) build --target $(TARGET) $(if $(CONTROL_PLANE),--control-plane) $(if $(SIGN_KEY),--sign-key $(SIGN_KEY)) $(if $(PACKAGES),--packages $(PACKAGES)); $(record)

dist: build-tools ## build imagebuild as one static program for other machines, in out/bin (ARCH=arm64|amd64)
	@$(imagebuild) setup --for image
	@$(imagebuild) dist $(if $(ARCH),--arch $(ARCH)); $(record)

repro: build-tools ## build images twice, the second time from nothing but downloads, and compare every byte (REPRO="raspberrypi")
	@$(imagebuild) setup --for test
	@$(call run,e2e,run-repro) $(REPRO)

test: build-tools ## run every test that CI runs (FAST=1: all that need no guest; ONLY="words of a test's name")
	@$(imagebuild) setup --for test
	@$(call run,e2e,run-tests) $(if $(FAST),--fast) $(if $(ONLY),--only "$(ONLY)"); $(record)

test-long: build-tools ## run the tests that take too long for every change (ONLY="words of a test's name")
	@$(imagebuild) setup --for test
	@$(call run,e2e,run-tests) --long $(if $(ONLY),--only "$(ONLY)"); $(record)

attack: build-tools ## run the numbered tests of docs/threat-model.md, which try what attackers would (ONLY="s01")
	@$(imagebuild) setup --for test
	@$(call run,e2e,run-tests) --attacks $(if $(ONLY),--only "$(ONLY)"); $(record)

torture: build-tools ## cut the power at many moments of a first boot; out/torture/report.json (TORTURE="--seed 1")
	@$(imagebuild) setup --for test
	@$(call run,e2e,run-torture) $(TORTURE)

fuzz: build-tools ## fuzz the parsers of external input; out/fuzz/report.json (RUNS=10000000 FUZZ="seed date")
	@$(imagebuild) setup --for test
	@$(call run,e2e,run-fuzz) --runs $(RUNS) $(FUZZ)

fuzz-corpus: build-tools ## add what make fuzz found to fuzz/corpus, minimised (FUZZ="seed date")
	@$(imagebuild) setup --for test
	@$(call run,e2e,run-fuzz) --minimise $(FUZZ)

bench: build-tools ## measure the join and kubeadm's, and how cards are written; out/bench/report.json (TARGET=..., FLASH=1: cards only, BUILD=1: builds only)
	@$(imagebuild) setup --for bench
	@$(call run,qemu,qemu) bench --target $(TARGET) $(if $(FLASH),--flash) $(if $(BUILD),--build)

compare: build-tools ## compare this tree's image with another, from power-on to Ready; out/compare/report.json (WITH=image.img, CARD=1: on a slow SD card)
	@$(imagebuild) setup --for bench
	@$(call run,qemu,qemu) compare --target $(TARGET) --with $(WITH) $(if $(CARD),--card)

audit: build-tools ## run auditors' tools on a device, before firstboot and after; out/audit/report.json
	@$(imagebuild) setup --for test
	@$(call run,e2e,run-audit)

check: build-tools ## check format, lints, dependencies, advisories, documentation and sizes
	@$(imagebuild) setup --for check
	@$(imagebuild) check; $(record)

clean: ## remove what was built in this clone; the cache stays
	rm -rf out

# What build-tools sets up for; test where nothing is said.
check: goal := check
image dist: goal := image
demo: goal := demo
bench compare: goal := bench

# cargo and a linker have to exist before our own tools can be built.
build-tools:
	@imagebuild/tools/bootstrap $(or $(goal),test)
	@imagebuild/tools/share-build-directory "$(CARGO_TARGET_DIR)"
	@[ -e "$(CARGO_TARGET_DIR)/debug/imagebuild" ] || echo "building this repository's own tools first: one to two minutes"
