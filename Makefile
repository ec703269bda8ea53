# Everything a contributor types. `make` alone lists the targets.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
# Tests and the platform start hundreds of processes, each two to three times as slow without compiled bytecode.
export PYTHONDONTWRITEBYTECODE :=
.PHONY: help setup demo up test test-fast lint types proto bench fmt

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
SOURCES := audiofoundation services tests benchmarks proto
# torch 2.11 has wheels for both; the first interpreter found that is one of them.
PYTHON ?= $(shell for p in python3 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info[:2] not in ((3, 11), (3, 12)))' 2>/dev/null && echo $$p && break; \
	done)

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  %-10s %s\n", $$1, $$2}'

setup: $(STAMP) ## make .venv with everything in it; quick when nothing changed

# Compiled, or every start of the platform would take twice as long where the environment forbids to write bytecode.
# One resolution for all extras: torch and torchaudio are pinned to the same version and must move together.
$(STAMP): pyproject.toml $(wildcard audiofoundation/native/*.[ch])
	@[ -n "$(PYTHON)" ] || { echo "Python 3.11 or 3.12 is needed" >&2; exit 1; }
	@[ -x $(BIN)/python ] || { echo "installing into $(VENV): some minutes the first time" >&2; $(PYTHON) -m venv $(VENV); }
	@rm -f audiofoundation/native/*.so
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv || echo "no uv: pip takes longer" >&2
	@if [ -x $(BIN)/uv ] && UV_HTTP_TIMEOUT=300 $(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python -e '.[all,dev]'; \
		then :; else $(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[all,dev]'; fi
	@$(BIN)/python -m compileall -q audiofoundation services
	@touch $@

demo: setup ## the whole path: ingest, preprocess, train a little, hear a continuation (demo/continuation.wav)
	@$(BIN)/audiofoundation demo

up: setup ## run the platform on this machine until Ctrl-C
	@$(BIN)/audiofoundation up

# Many tests wait for servers, kills and leases: two at a time fill two cores. A file's tests stay together, and files
# run in order: end-to-end files, the longest, have few tests and would otherwise come last.
test: lint types ## lint, types and every test
	@$(BIN)/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

test-fast: setup ## the unit tier, under a minute
	@$(BIN)/python -m pytest -q -m "not slow" tests/unit tests/architecture

lint: setup ## ruff and the import contracts
	@$(BIN)/ruff check --quiet $(SOURCES)
	@$(BIN)/ruff format --quiet --check $(SOURCES)
	@$(BIN)/lint-imports --no-cache > $(VENV)/imports.txt || { cat $(VENV)/imports.txt; exit 1; }

types: setup ## mypy, strict
	@$(BIN)/mypy --no-error-summary

fmt: setup ## format and fix what ruff can
	@$(BIN)/ruff check --quiet --fix $(SOURCES) || true
	@$(BIN)/ruff format --quiet $(SOURCES)

proto: setup ## generate audiofoundation/api from proto/
	@$(BIN)/python proto/generate.py

bench: setup ## our figures and the peers', measured in one run
	@for name in preprocess vocoder continue; do $(BIN)/audiofoundation bench $$name; done
