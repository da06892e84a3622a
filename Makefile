# `make` builds, `make help` lists the targets. Every target also installs and builds its requirements on a
# fresh clone. Files that are up to date are not built again.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := build
.DELETE_ON_ERROR:
.SUFFIXES:
MAKEFLAGS += --no-builtin-rules

# Node 24 comes from npm (tools/node): everything below runs on it, not on the Node that started make.
export PATH := $(CURDIR)/node_modules/.bin:$(PATH)
export npm_config_update_notifier := false

PREFIX  ?= /usr/local
DESTDIR ?=
ARGS    ?=
export MINUTES ?= 60

sources := $(shell find src bin -type f 2>/dev/null) package.json tsconfig.json
recipes := $(shell find scripts -type f 2>/dev/null)
packages := node_modules/.installed

.PHONY: help build demo test lint format bench soak fuzz fuzz-erofs races test-boot test-live release install uninstall clean debian-packages

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

build: dist/dlrootfs dist/dlrootfs.1 dist/npm/.built ## dist/dlrootfs, the single binary, its manual and completions, and dist/package for npm (the default)

demo: dist/dlrootfs ## pull an image from a registry of its own and run a command inside (IMAGE=alpine: a real one)
	@node scripts/demo.ts $(if $(IMAGE),--image '$(IMAGE)')

test: debian-packages build dist/dlrootfs-aarch64 ## all tests; as root on Debian or Ubuntu it installs the programs they compare with
	DLROOTFS_BINARY=dist/dlrootfs NODE_COMPILE_CACHE=$(CURDIR)/node_modules/.cache/node bash scripts/test.sh \
	  node --test --test-concurrency=3 --test-timeout=600000 \
	  --test-reporter=spec --test-reporter-destination=stdout --test-reporter=./scripts/skipped-tests.ts --test-reporter-destination=stdout $(or $(ARGS),'test/**/*.test.ts')

lint: $(packages) ## types, type-aware lint, format, unused files and exports
	tsc -p .
	npm run --silent lint

format: $(packages) ## rewrite the sources in the one format
	npm run --silent format

bench: debian-packages dist/dlrootfs ## time dlrootfs, the limit and its peers side by side (ARGS='ROW …')
	node bench/bench.ts $(ARGS)

soak: debian-packages dist/dlrootfs ## many pulls in a row, with faults, watching memory, descriptors and leftovers
	DLROOTFS_BINARY=dist/dlrootfs node test/soak/soak.ts $(ARGS)

races: debian-packages dist/dlrootfs ## as root, pulls below directories that another user renames and links all the time
	DLROOTFS_BINARY=dist/dlrootfs node test/soak/races.ts $(ARGS)

fuzz: debian-packages dist/dlrootfs ## MINUTES (60) of malformed images, answers and files, as root; prints its seed and keeps what fails
	node test/fuzz/fuzz.ts $(ARGS)

fuzz-erofs: debian-packages $(packages) ## 1,000 random images (EROFS_IMAGES) as EROFS, checked by fsck.erofs, mounted and compared, as root
	EROFS_IMAGES=$${EROFS_IMAGES:-1000} node --test --test-reporter=spec test/disk/erofs.test.ts

scale: dist/dlrootfs ## CPU seconds for n and 4n of everything that there can be many of; fails where 4n takes more than 5 times as long
	node bench/scale.ts $(ARGS)

test-boot: debian-packages dist/dlrootfs ## start disk images in QEMU with Debian's kernel, without KVM: a minute or two (needs Debian's mirror)
	DLROOTFS_BINARY=dist/dlrootfs node --test --test-reporter=spec $(or $(ARGS),'test/boot/boot.ts')

test-live: dist/dlrootfs ## the original's integration tests against Docker Hub (needs internet; DLROOTFS_CREDS)
	DLROOTFS_BINARY=dist/dlrootfs node --test --test-reporter=spec $(or $(ARGS),'test/live/*.ts')

release: build ## release/: .tgz and .deb for x86_64 and aarch64, the npm package, an SBOM, SHA256SUMS
	node scripts/release.ts

install: dist/dlrootfs dist/dlrootfs.1 ## install binary, manual, completions, documents and samples under PREFIX (/usr/local), DESTDIR before it
	@bash scripts/install.sh '$(DESTDIR)$(PREFIX)'

uninstall: ## remove what `make install` installed, with the same PREFIX and DESTDIR
	@bash scripts/install.sh --remove '$(DESTDIR)$(PREFIX)'

clean: ## remove what was built
	rm -rf dist release coverage

dist/dlrootfs: $(packages) $(sources) $(recipes)
	node scripts/build.ts binary

dist/dlrootfs.1: $(packages) $(sources) $(recipes)
	node scripts/build.ts documents

dist/dlrootfs-aarch64: $(packages) $(sources) $(recipes)
	node scripts/build.ts aarch64

dist/npm/.built: $(packages) $(sources) $(recipes)
	node scripts/build.ts npm
	@touch $@

$(packages): package.json package-lock.json tools/node/package.json tools/node/package-lock.json
	bash scripts/packages.sh
	@touch $@

debian-packages:
	@bash scripts/debian.sh
