# The entry point for developers and CI. Each target first creates .venv if it is missing or out of date.
# Another Python, which .venv/stamp then keeps: make setup PYTHON=python3.13

PYTHON ?= $(or $(shell python=$$(head -n 1 .venv/stamp 2>/dev/null) && test -x "$$python" && echo "$$python"),python3)
# Packages come from .venv alone.
unexport PYTHONHOME PYTHONPATH PYTHONUSERBASE
bin := .venv/bin
members = $(shell sed -n 's/^name = "\(.*\)"/\1/p' packages/*/pyproject.toml services/*/pyproject.toml)

.DEFAULT_GOAL := help
.PHONY: help setup run test check fmt lint types stubs migration migrate lock bench bench-accounts doctor release-contract matrix mutations environment

help: ## Say what there is
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-18s%s\n", $$1, $$2 }' Makefile

environment:
	@"$(PYTHON)" -I scripts/setup.py

setup: environment ## Make .venv from requirements.lock, hashes checked
	@echo "The environment in .venv is ready."

run: environment ## Serve on 127.0.0.1:50051, with PostgreSQL embedded unless DATABASE_URL names one; Ctrl-C stops all of it
	@$(bin)/accord serve

test: environment ## Run every test; some of them: make test args='tests/db -k page'
	@$(bin)/pytest $(args)

matrix: environment ## Show who may call what, as a test finds it
	@$(bin)/pytest -q --no-header --matrix tests/api/test_matrix.py

mutations: environment ## Break the guards one by one, and see that tests notice; takes minutes
	@$(bin)/python scripts/mutations.py $(args)

check: environment ## Everything that is demanded of a change: format to tests
	@$(bin)/python scripts/check.py

fmt: environment ## Format, and mend what the linter can mend
	@$(bin)/ruff check --fix-only --quiet
	@$(bin)/ruff format

lint: environment ## Lint Python, import walls and the contract
	@$(bin)/ruff check
	@$(bin)/lint-imports
	@$(bin)/python scripts/contract.py lint

types: environment ## Check the types
	@$(bin)/mypy

stubs: environment ## Generate packages/contract and docs/policies.md from proto/
	@$(bin)/python scripts/stubs.py
	@$(bin)/python scripts/policies.py

migration: environment ## Write a migration from the models and show its SQL: make migration m='add tasks.due_at'
	@test -n "$(m)" || { echo "Say what changes: make migration m='add tasks.due_at'"; exit 2; }
	@$(bin)/python -m accord_db.migrate new "$(m)"

migrate: environment ## Bring the database to the last migration
	@$(bin)/accord migrate

lock: ## Bring requirements.lock up to date with the pyproject files; all to the newest: make lock args=--upgrade
	@command -v uv >/dev/null || { echo "uv resolves the dependencies, and is not here: pipx install uv"; exit 2; }
	@uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
	  --group dev $(members:%=--no-emit-package %) --output-file requirements.lock pyproject.toml $(args)

bench: environment ## Measure speed and memory beside the peers; takes minutes
	@$(bin)/python -m benchmarks $(args)

bench-accounts: environment ## Measure whether the time of an answer tells who has an account; takes two minutes
	@$(bin)/python -m benchmarks.enumeration

doctor: environment ## Say what is wrong with environment, database, migrations, ports and stubs, and what to do
	@$(bin)/accord doctor

release-contract: environment ## Make the present contract the one that later changes must not break
	@$(bin)/python scripts/contract.py release
