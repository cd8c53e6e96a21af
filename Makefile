# Everything starts here. `make demo` and `make test` need nothing but Rust: what else is missing they install
# (Debian's packages, as root or through sudo).

# A failure within a pipe is a failure.
SHELL = /bin/bash
.SHELLFLAGS = -eo pipefail -c

# Which tests ran on a Docker Engine, and which could not.
TALLY = $(CURDIR)/target/engine-tests

# Each test says how long it took. The test harness does that only for whom it takes to be the compiler's own developers,
# so the variable is set for the tests' processes alone: for cargo it would mean building everything again.
RUNNER = --config "target.'cfg(unix)'.runner = 'env RUSTC_BOOTSTRAP=1'"
TIMED = -Z unstable-options --report-time --test-threads $(TEST_THREADS)

# Tests at once. Most of the end-to-end tests wait rather than compute, so two cores stand more than the two that the test
# harness would take; and a Docker Engine has room for some thirty networks, of which a test makes one or two.
TEST_THREADS ?= 4

# In the second pass of the end-to-end tests the proxy has three threads. Left out are those on an engine, those that ask
# nothing of a proxy, and those of what is shown of it, which is the same from any thread.
ONE_PASS = --skip on_engine --skip dokku --skip swarm --skip images --skip docker_dns --skip manifests --skip manuals --skip dist:: --skip init:: --skip page:: --skip page_day:: --skip top::

.PHONY: demo test fuzz bench soak page-picture dist dist-compare lint deny setup

# Programs are started from here: `cargo run` of one package would build its dependencies again, with fewer features.
BUILT = $(or $(CARGO_TARGET_DIR),target)

demo: setup
	@bash testbed/demo.sh

# Everything that can fail, fastest first, in less than ten minutes on two cores once all is built. Tests on a Docker Engine
# run where `docker info` answers; the last line says how many did.
test: setup
	cargo build --locked --workspace --bins
	rm -f $(TALLY)
	if docker info >/dev/null 2>&1; then sh testbed/engine/images.sh; fi
	ENGINE_TALLY=$(TALLY) cargo test --locked --workspace --lib --bins --tests $(RUNNER) -- $(TIMED) \
	    | tee target/tests.log
	EVENKEEL_TEST_THREADS=3 cargo test --locked --workspace --test e2e $(RUNNER) -- $(TIMED) $(ONE_PASS) | tee -a target/tests.log
	$(BUILT)/debug/demo --once
	sh deploy/kubernetes/validate.sh
	@sh testbed/slowest.sh target/tests.log
	@sh testbed/engine/report.sh $(TALLY)

# libFuzzer on one of fuzz/fuzz_targets, for so many seconds: FUZZ="head 3600". Needs nightly Rust and cargo-fuzz, and says
# so where they are missing. `make test` runs the same functions over fuzz/corpus.
FUZZ ?= head 60
fuzz:
	@sh fuzz/run.sh $(FUZZ)

# Half an hour, and the tables and the picture of it in README.md and docs/. BENCH="--quick" or BENCH="--only-rows cpu-get --only
# evenkeel,haproxy" makes it shorter and leaves them alone. Peers are installed into target/ and nothing of them is started
# but by the bench.
BENCH ?= --values docs/bench.json --svg docs/bench.svg --readme README.md --readme docs/benchmarks.md
bench: setup
	cargo build --locked --release --package peers --bins
	target/release/peers $(BENCH)

# A million requests through ten minutes of churn, and the table of them in docs/benchmarks.md, with a sentence in README.md;
# SOAK="--requests 100000 --minutes 1" makes it shorter and leaves both alone.
SOAK ?= --readme README.md --readme docs/benchmarks.md
soak: setup
	cargo build --locked --release --workspace --bins
	$(BUILT)/release/soak $(SOAK)

# The picture of the operator's page in README.md, by a real browser: Chromium has to be installed.
page-picture: setup
	cargo build --locked --workspace --bins
	$(BUILT)/debug/portrait docs/page.png

# A release, from the commit that is checked out, into target/dist: the static executable, its SBOM, a Debian package, the
# image (where a Docker Engine answers) and their checksums. `dist-compare` makes it once more elsewhere, and fails where
# one byte differs.
dist: setup
	@sh deploy/dist/dist.sh

dist-compare: dist
	@sh deploy/dist/compare.sh

lint:
	@command -v shellcheck >/dev/null || { echo "lint needs shellcheck: apt-get install shellcheck" >&2; exit 1; }
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- --deny warnings
	shellcheck --external-sources --source-path=SCRIPTDIR testbed/dokku/* testbed/setup.sh testbed/demo.sh deploy/dist/*.sh \
	    $(addprefix deploy/dokku-plugin/,install commands internal-functions subcommands/*)

# Known vulnerabilities, licences and origins of all dependencies, by deny.toml.
deny:
	@sh testbed/deny.sh

setup:
	@sh testbed/setup.sh
