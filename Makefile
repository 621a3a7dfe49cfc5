# make help lists the commands. Everything is built in the release profile, so that the
# dependencies are compiled once.

PYTHON ?= /usr/bin/python3
export VENV := .venv
BIN := $(VENV)/bin
# Test processes run side by side, one per core.
WORKERS ?= auto

# A toolchain from rustup is preferred to the distribution's.
CARGO_BIN ?= $(HOME)/.cargo/bin
export PATH := $(if $(wildcard $(CARGO_BIN)/cargo),$(CARGO_BIN):)$(PATH)

SOURCES := Cargo.toml Cargo.lock pyproject.toml $(wildcard build_backend/*.py) \
	$(shell find rust -type f \( -name '*.rs' -o -name '*.toml' \))

.DEFAULT_GOAL := help
.PHONY: help build test test-boot lint audit coverage bench demo fuzz clean deps lock wheel \
	demo-deps test-deps bench-deps
# Packages can be installed by one command at a time; compilers and tests use the cores themselves.
.NOTPARALLEL:

help:
	@echo 'make build     build; afterwards $(BIN)/cowcloop runs'
	@echo 'make demo      walk through an example, printing each command'
	@echo 'make test      every test, Rust and Python'
	@echo 'make test-boot boots of an emulated machine that take minutes'
	@echo 'make lint      formatting, clippy, ruff, mypy, pyright, the stubs, the licences of crates'
	@echo 'make audit     known faults of the crates, by cargo-deny'
	@echo 'make coverage  the tests again, and which lines they reach'
	@echo 'make bench     the benchmarks, as one table'
	@echo 'make fuzz      a minute of fuzzing for each target'
	@echo 'make wheel     a wheel and an sdist in dist/'
	@echo 'make clean     remove what was built'

deps:
	@scripts/install-deps.sh build

demo-deps test-deps bench-deps: %-deps:
	@scripts/install-deps.sh $*

$(VENV)/.tools: requirements-dev.txt scripts/make-venv.sh | deps
	scripts/make-venv.sh $(PYTHON) $(VENV)
	@touch $@

# An editable installation: Python files are used where they lie, and the next make builds
# changed Rust files.
$(VENV)/.built: $(SOURCES) $(VENV)/.tools | deps
	$(BIN)/python build_backend/cowcloop_build.py
	$(BIN)/pip install --quiet --disable-pip-version-check --no-build-isolation --no-deps --editable .
	@touch $@

build: deps $(VENV)/.built
	@echo 'built: $(BIN)/cowcloop'

test: test-deps build
	cargo test --release --locked --workspace --exclude cowcloop-python
	$(BIN)/pytest -n $(WORKERS)

# Whole boots of an emulated machine.
test-boot: test-deps build
	$(BIN)/pytest -n $(WORKERS) -m boot tests/guest

lint: build
	cargo fmt --check
	cargo clippy --release --locked --workspace --all-targets -- -D warnings
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/basedpyright --pythonpath $(BIN)/python
	$(BIN)/python -m mypy.stubtest cowcloop._core
	$(BIN)/python scripts/check_crates.py

# Needs the network for its database, so it is no part of lint.
audit:
	@command -v cargo-deny >/dev/null || \
		{ echo 'cowcloop: cargo-deny is missing: cargo install --locked cargo-deny' >&2; exit 1; }
	cargo deny check advisories

# For example: make coverage COVERAGE=python
coverage: test-deps build
	scripts/coverage.sh $(COVERAGE)

# It installs what only the benchmark needs.
$(VENV)/.bench: requirements-bench.txt $(VENV)/.tools
	$(BIN)/pip install --quiet --disable-pip-version-check --requirement requirements-bench.txt
	@touch $@

# For example: make bench BENCH="--kernel-lab --runs 5"
bench: bench-deps build $(VENV)/.bench
	scripts/link-libnbd.sh $(VENV)
	$(BIN)/pytest -q benches
	$(BIN)/python -m benches $(BENCH)

demo: demo-deps build
	$(BIN)/python scripts/demo.py

fuzz: build
	scripts/fuzz.sh

wheel: deps $(VENV)/.tools
	scripts/make-wheel.sh dist
	$(BIN)/maturin sdist --out dist

# The newest tools, for review; needs uv.
lock:
	uv pip compile --universal --python-version 3.10 --upgrade --no-header --no-annotate \
		requirements-dev.in --output-file requirements-dev.txt
	uv pip compile --universal --python-version 3.10 --upgrade --no-header --no-annotate \
		--constraint requirements-dev.txt \
		requirements-bench.in --output-file requirements-bench.txt

clean:
	rm -rf target $(VENV) dist build python/cowcloop/*.so python/cowcloop/lib .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
