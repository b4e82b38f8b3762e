# Every action of a developer or a user, one line of help each. All targets are idempotent.

VENV   := .venv
PYTHON := $(VENV)/bin/python

.DEFAULT_GOAL := help
.PHONY: help install demo test check unit lint types doors bench clean

help:           ## list the targets
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install:        ## install what is missing: Debian packages, a guest kernel, .venv/bin/bothy
	@scripts/install

demo: install   ## make a Debian image, run it as a container and as a machine, compare
	@scripts/demo

test:           ## run all tests (real kernel, real QEMU; needs root)
	@scripts/test

check:          ## what each commit must pass: ruff, mypy --strict, import contracts, unit tests
	@scripts/install --with dev
	@$(MAKE) --no-print-directory lint types doors unit

lint:           ## ruff, check and format
	@$(VENV)/bin/ruff check bothy tests bench
	@$(VENV)/bin/ruff format --check bothy tests bench

types:          ## mypy --strict
	@$(VENV)/bin/mypy

doors:          ## the import contracts: which room may import which
	@$(VENV)/bin/lint-imports --no-cache

unit:           ## the tests that need neither root nor a kernel feature
	@$(PYTHON) -m pytest -q tests/unit

bench:          ## measure bothy beside docker, podman and runc; writes bench-out/
	@scripts/bench

clean:          ## remove what make made in this folder (not /var/lib/bothy)
	rm -rf $(VENV) bench-out .mypy_cache .ruff_cache .pytest_cache
