# Everything starts here. `make demo` and `make test` need nothing but Rust: what else is missing they install
# (Debian's packages, as root or through sudo).

.PHONY: demo test bench lint setup

demo: setup
	cargo build --workspace --bins
	cargo run --quiet --package testbed --bin demo

# Everything that can fail, fastest first. Tests on a Docker Engine run where `docker info` answers and say so where not.
test: setup
	cargo build --workspace --bins
	cargo test --workspace
	cargo run --quiet --package testbed --bin demo -- --once

bench: setup
	cargo run --release --package peers --bin peers

lint:
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- --deny warnings

setup:
	@sh testbed/setup.sh
