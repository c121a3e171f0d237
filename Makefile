# Commands for developers and CI. Each target first creates or updates .venv.
# To use another Python, now and for later commands: make setup PYTHON=python3.13

PYTHON ?= $(or $(shell python=$$(head -n 1 .venv/stamp 2>/dev/null) && test -x "$$python" && echo "$$python"),python3)
# Packages come from .venv alone.
unexport PYTHONHOME PYTHONPATH PYTHONUSERBASE
# Without cached bytecode each process compiles Accord again, and pytest rewrites 130 test files: 4 s per process.
unexport PYTHONDONTWRITEBYTECODE
bin := .venv/bin
members = $(shell sed -n 's/^name = "\(.*\)"/\1/p' packages/*/pyproject.toml services/*/pyproject.toml tools/*/pyproject.toml)

.DEFAULT_GOAL := help
.PHONY: help setup run test check fmt lint types stubs migration migrate lock bench bench-overload bench-accounts doctor release-contract matrix mutations environment

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-18s%s\n", $$1, $$2 }' Makefile

environment:
	@"$(PYTHON)" -I tools/setup.py

setup: environment ## Create .venv from requirements.lock
	@echo "The environment in .venv is ready."

run: environment ## Serve on 127.0.0.1:50051, with embedded PostgreSQL unless DATABASE_URL is set
	@$(bin)/accord serve

test: environment ## Run the tests, or some of them: make test args='tests/db -k page'
	@$(bin)/pytest $(args)

matrix: environment ## Show which callers each method accepts
	@$(bin)/pytest -q --no-header --matrix tests/api/test_matrix.py

mutations: environment ## Check that tests detect broken guards; takes minutes
	@$(bin)/python tools/mutations.py $(args)

check: environment ## Run all checks, or those that concern a feature: make check args=tasks
	@$(bin)/python tools/check.py $(args)

fmt: environment ## Format, and fix lint errors
	@$(bin)/ruff check --fix-only --quiet
	@$(bin)/ruff format

lint: environment ## Lint Python, imports and the contract
	@$(bin)/ruff check
	@$(bin)/lint-imports
	@$(bin)/python tools/contract.py lint

types: environment ## Check types
	@$(bin)/mypy

stubs: environment ## Generate packages/contract, its OpenAPI document and docs/policies.md from proto/
	@$(bin)/python tools/stubs.py
	@$(bin)/python tools/policies.py

migration: environment ## Generate a migration from the models and show its SQL: make migration m='add tasks.due_at'
	@test -n "$(m)" || { echo "Describe the change: make migration m='add tasks.due_at'"; exit 2; }
	@$(bin)/python -m accord_db.migrate new "$(m)"

migrate: environment ## Apply all migrations to the database
	@$(bin)/accord migrate

lock: ## Update requirements.lock from the pyproject files, or upgrade all: make lock args=--upgrade
	@command -v uv >/dev/null || { echo "uv, which resolves the dependencies, is not installed: pipx install uv"; exit 2; }
	@uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
	  --group dev $(members:%=--no-emit-package %) --output-file requirements.lock pyproject.toml $(args)

bench: environment ## Measure speed and memory of every protocol, against FastAPI and Go; takes minutes
	@$(bin)/python -m benchmarks $(args)

bench-overload: environment ## Measure what overload, half-sent requests and idle connections cost; takes a minute
	@$(bin)/python -m benchmarks.overload $(args)

bench-accounts: environment ## Measure whether response times reveal accounts; takes two minutes
	@$(bin)/python -m benchmarks.enumeration

doctor: environment ## Report problems of the installation and their remedies
	@$(bin)/accord doctor

release-contract: environment ## Make the current contract the baseline for compatibility
	@$(bin)/python tools/contract.py release
