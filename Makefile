# Two commands set everything up on a machine with Python 3.11 or newer: `make demo` and `make test`.

PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready

.PHONY: help install demo test check lint types ci clean

help:
	@echo "make demo    install, then the quickstart and its baselines: a few minutes on two cores"
	@echo "make test    install, then the test suite; what needs a system package it lacks is skipped by name"
	@echo "make check   format, lint and type checks, then the tests"
	@echo "make ci      install the system packages that tests use, then check; a missing one fails"

install: $(READY)

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable ".[dev]"
	@touch $(READY)

demo: install
	$(BIN)/ratchet demo

test: install
	$(BIN)/pytest --numprocesses 2

lint: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: install
	$(BIN)/mypy orchestrator workers policies

check: lint types test

ci: install
	.ci/packages
	RATCHET_CI=1 .ci/with-postgres $(MAKE) check

clean:
	rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache
