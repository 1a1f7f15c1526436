# Worldshim: build, test, demo, bench, install. `make help` lists the targets.
# Everything but `build` and `lint` needs root: tests and demo run real
# containers in the lab, a Debian root that `make lab` builds once and caches.

PREFIX ?= /usr/local
CONFDIR ?= /etc
BINARIES = world containerd-shim-world-v1
# Every test binary runs in a lab of its own.
IN_LAB = --config 'target."cfg(unix)".runner = "$(CURDIR)/tests/lab/run"'

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: deps
deps: ## install what the build needs (Debian packages)
	@.ci/build-deps

.PHONY: build
build: deps ## build the release binaries
	cargo build --release --locked

.PHONY: lab
lab: ## build the lab, or take it from the cache
	tests/lab/build

.PHONY: test
test: build lab test-lab test-vm ## run all tests

.PHONY: test-lab
test-lab: build lab ## run the tests that need no virtual machine
	cargo test --locked --no-fail-fast $(IN_LAB)

.PHONY: test-vm
test-vm: build lab ## run the smoke and cgroup tests on a stock kernel with cgroup v2
	tests=$$(cargo test --locked --no-run --test cgroup 2>&1 | sed -n 's/.*Executable.*(\(.*\))/\1/p') && \
		test -n "$$tests" && WORLDSHIM_VM_TESTS=$$tests tests/lab/vm

.PHONY: fuzz
fuzz: deps ## fuzz every parser for minutes, with coverage (FUZZ_SECONDS each)
	.ci/fuzz $(or $(FUZZ_SECONDS),60)

.PHONY: demo
demo: build lab ## watch a container be frozen, killed and brought back
	examples/demo/demo

.PHONY: bench
bench: build lab ## measure against the stock runc shim
	benches/bench

.PHONY: lint
lint: deps ## check formatting and lints
	cargo fmt --check
	cargo clippy --locked --all-targets -- -D warnings

.PHONY: install
install: build ## install on this node; see README for what to configure
	install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(CONFDIR)/worldshim $(DESTDIR)$(CONFDIR)/containerd/conf.d
	install -m 755 $(BINARIES:%=target/release/%) $(DESTDIR)$(PREFIX)/bin
	test -e $(DESTDIR)$(CONFDIR)/worldshim/config.toml || \
		install -m 644 config/config.toml $(DESTDIR)$(CONFDIR)/worldshim/config.toml
	install -m 644 config/containerd-worldshim.toml $(DESTDIR)$(CONFDIR)/containerd/conf.d/worldshim.toml

.PHONY: clean
clean: ## remove what the build made; the lab's cache stays
	cargo clean
