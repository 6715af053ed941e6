# Two commands set everything up on a machine with Python 3.11 or newer: `make demo` and `make test`.

PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
DEV    := $(VENV)/.ready-dev
TESTS  ?= -m "not thorough"
PIP    := $(BIN)/pip install --constraint constraints.txt

.PHONY: help install install-dev demo test check lint types ci clean

help:
	@echo "make demo    install, then the quickstart and its baselines: a few minutes on two cores"
	@echo "make test    install, then the tests; what needs a system package it lacks is skipped by name"
	@echo "make check   format, lint and type checks, then the tests"
	@echo "make ci      install the system packages that tests use, then check, with the thorough tests; a missing one fails"

install: $(READY)

install-dev: $(DEV)

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV): about 2 GB, a minute or two; most of it is torch, Ray and MLflow"
	$(PIP) --editable .
	@touch $(READY)

$(DEV): $(READY)
	$(PIP) --editable ".[dev]"
	@touch $(DEV)

demo: install
	$(BIN)/ratchet demo

# Three at once on two cores: many tests wait for a server, a browser or a process that starts.
test: install-dev
	$(BIN)/pytest --numprocesses 3 $(TESTS)

lint: install-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: install-dev
	$(BIN)/mypy orchestrator workers policies

check: lint types test

ci: install-dev
	.ci/packages
	RATCHET_CI=1 .ci/with-postgres $(MAKE) check TESTS=

clean:
	rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache
