# The commands of this repository; `make` alone lists them.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

# Queries are checked against .sqlx/; only `make sqlx` asks a database.
export SQLX_OFFLINE := true
# A failing test says what it saw; where in the test it was is in the message.
export RUST_LIB_BACKTRACE ?= 0
# The programs that `make up` runs.
RELEASE := target/release

.PHONY: nextest help up down env status test lab chaos bench fmt sqlx openapi programs cargo

help: ## List the commands
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/; s/[$$][$$]/$$/' | expand -t 10

up: programs ## Start a cloud on this machine, with a running VM; again: bring it up to date
	@tests/guests/cached fast >/dev/null
	@$(RELEASE)/lab up

down: ## Stop what `make up` started; the data stays
	@$(RELEASE)/lab down

env: ## Print shell lines that let curl find the cloud: eval "$$(make -s env)"
	@$(RELEASE)/lab env

status: ## Say what of `make up` runs
	@$(RELEASE)/lab status

programs: cargo
	@deploy/packages host build guests
	@deploy/console
	@[ -e $(RELEASE)/cumulo-api ] || echo 'Building Cumulo, which takes about 10 minutes the first time.'
	@cargo build $$([ -t 2 ] || echo --quiet) --release --package api --package compute-agent --package cli --package tests --bins

cargo:
	@command -v cargo >/dev/null || { \
	  echo "cargo is missing. Install Rust with rustup (https://rustup.rs):" >&2; \
	  echo "  curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh -s -- -y --profile minimal" >&2; \
	  echo "and open a new shell." >&2; exit 1; }

nextest: cargo
	@command -v cargo-nextest >/dev/null || cargo install --locked cargo-nextest

test: nextest ## Run everything that must be true of a change (what CI runs)
	@deploy/packages host foreign build guests console debian
	@deploy/check

lab: nextest ## Run the tests that need several hosts: make lab HOSTS=3
	@deploy/packages host foreign build guests
	@CUMULO_LAB_HOSTS=$(or $(HOSTS),3) cargo nextest run --package tests --test lab

chaos: nextest ## Run every journey and every fault that a cloud has to survive, for some hours
	@deploy/packages host foreign build guests console
	@cargo nextest run --run-ignored all -E 'package(tests) + (package(compute-agent) & binary(libvirt))'

bench: $(if $(filter b5,$(NAME)),cargo,programs) ## Measure one thing beside its peer: make bench NAME=b1
	@deploy/packages bench
	@cargo run --quiet --release $(if $(filter b5,$(NAME)),--manifest-path benches/policy/Cargo.toml,--package benches -- $(NAME))

fmt: cargo ## Format the code
	@cargo fmt --all

sqlx: cargo ## Write .sqlx/ anew after a change of SQL
	@deploy/sqlx-data update

openapi: cargo ## Write the OpenAPI document anew after a change of the API
	@cargo run --quiet --package api -- openapi > openapi/cumulo.json.new
	@mv openapi/cumulo.json.new openapi/cumulo.json
