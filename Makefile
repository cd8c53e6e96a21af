# Everything starts here. `make demo` and `make test` need nothing but Rust: what else is missing they install
# (Debian's packages, as root or through sudo).

# Which tests ran on a Docker Engine, and which could not.
TALLY = $(CURDIR)/target/engine-tests

.PHONY: demo test bench soak lint setup

demo: setup
	cargo build --workspace --bins
	cargo run --quiet --package testbed --bin demo

# Everything that can fail, fastest first. Tests on a Docker Engine run where `docker info` answers; the last line says
# how many did.
test: setup
	cargo build --workspace --bins
	rm -f $(TALLY)
	if docker info >/dev/null 2>&1; then sh testbed/engine/images.sh; fi
	ENGINE_TALLY=$(TALLY) cargo test --workspace
	cargo run --quiet --package testbed --bin demo -- --once
	sh deploy/kubernetes/validate.sh
	@sh testbed/engine/report.sh $(TALLY)

# The better part of an hour; BENCH="--quick" or BENCH="--only-rows cpu-get --only evenkeel,haproxy" makes it shorter.
bench: setup
	cargo build --release --package peers --bins
	target/release/pick
	target/release/peers --svg docs/bench.svg $(BENCH)

# A million requests through ten minutes of churn; SOAK="--requests 100000 --minutes 1" makes it shorter.
soak: setup
	cargo build --release --workspace --bins
	cargo run --release --quiet --package testbed --bin soak -- $(SOAK)

lint:
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- --deny warnings

setup:
	@sh testbed/setup.sh
