# Every target first calls scripts/bootstrap, which makes the machine and .venv ready and is quick when they are.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.NOTPARALLEL:
MAKEFLAGS += --no-print-directory
BIN := .venv/bin
DEV := .dev
LISTEN ?= 127.0.0.1:8443
ARGS ?=

COMPOSE := docker compose -f docker/compose.yaml
# A file at a time to each worker: each of the two has one compose project for all of its files.
CONTAINERS := -n 2 --dist loadscope --no-loadscope-reorder tests/e2e_docker
# Tests start hundreds of Python processes: none of them should compile our modules again, whatever the caller has set.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: help bootstrap demo run test check test-containers test-e2e image compose-up compose-down lint format bench proto requirements clean

help: ## list the targets
	@sed -nE 's/^([a-z0-9-]+):.*## (.*)$$/\1\t\2/p' $(MAKEFILE_LIST) | while IFS=$$'\t' read -r name text; do printf '  make %-14s %s\n' "$$name" "$$text"; done

bootstrap: ## install what is missing: system packages, .venv, pinned Python packages
	@scripts/bootstrap

demo: bootstrap ## the whole story in one screen, on a throw-away appliance
	@$(BIN)/python -m hsmsigner.cli.demo demo/pacs009.xml

run: bootstrap ## serve on 127.0.0.1:8443 with a persistent dev state folder (.dev); LISTEN=host:port
	@$(BIN)/python -m hsmsigner.cli.run_dev --state $(DEV) --listen $(LISTEN)

test: lint check test-containers ## lint, then the whole test suite

# Many tests wait for processes, so three workers keep two cores busy; in the order of the folders, which begins with the
# long modules and ends with the short ones, so that the workers end together.
check: bootstrap ## the test suite without the container tests; ARGS="-k name"
	@$(BIN)/python -m pytest -q -n 3 --dist loadscope --no-loadscope-reorder -m "not serial" --ignore=tests/e2e_docker $(ARGS) || [ $$? -eq 5 ]
	@$(BIN)/python -m pytest -q -m serial --ignore=tests/e2e_docker $(ARGS) || [ $$? -eq 5 ]

test-containers: bootstrap ## the container tests, on the docker engine that runs; skipped where none does, but not in CI
	@if [ -z "$${CI:-}" ] && ! scripts/engine status; then \
	  echo 'container tests skipped: no docker engine with Compose v2 answers (make test-e2e installs and starts one)'; \
	else $(BIN)/python -m pytest -q $(CONTAINERS) $(ARGS) || [ $$? -eq 5 ]; fi

test-e2e: bootstrap ## the container tests; installs and starts a docker engine where none runs, and stops it after
	@CI=1 scripts/engine run $(BIN)/python -m pytest -q $(CONTAINERS) $(ARGS)

image: ## build the images: the appliance, the throw-away token, the tests
	@scripts/engine up
	@scripts/images

# What a finder of the image can look up, as in scripts/images.
compose-up: export HSMSIGNER_REVISION ?= $(shell git rev-parse HEAD 2>/dev/null || echo unknown)
compose-up: ## the appliance in a container, ready on 127.0.0.1:8443 (HSMSIGNER_PORT=port)
	@scripts/engine up
	@scripts/base-image
	@scripts/readable-mounts
	@# One at a time: two make two networks of one name, and nothing starts with these any more.
	@flock docker/compose.yaml $(COMPOSE) up --wait || { \
	  echo "it did not start; where 127.0.0.1:$${HSMSIGNER_PORT:-8443} is taken: HSMSIGNER_PORT=another make compose-up" >&2; exit 1; }
	@echo "ready on 127.0.0.1:$${HSMSIGNER_PORT:-8443}; certificates: $(COMPOSE) cp hsmsigner:/clients ."

compose-down: ## stop it, and the engine if compose-up started it; the keys stay in its volume
	@if scripts/engine status; then $(COMPOSE) --profile demo down; fi
	@scripts/engine down

lint: bootstrap ## ruff, mypy --strict, import-linter, and whether the generated code is fresh
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@fresh=$$(mktemp -d); trap 'rm -rf "$$fresh"' EXIT; scripts/generate-pb "$$fresh"; \
	  diff -r --exclude=__pycache__ "$$fresh" src/hsmsigner/pb || { echo 'src/hsmsigner/pb is not what proto/ says: run `make proto`'; exit 1; }

format: bootstrap ## let ruff rewrite the code
	@$(BIN)/ruff check --fix
	@$(BIN)/ruff format

bench: bootstrap ## measure rates and latency against the bare token and an empty server; ARGS="--help"
	@$(BIN)/hsmsigner bench $(ARGS)

proto: bootstrap ## write src/hsmsigner/pb anew from proto/
	@scripts/generate-pb

requirements: bootstrap ## pin the newest allowed versions again (see requirements/README.md)
	@scripts/compile-requirements

clean: ## remove .venv and caches; the dev state folder .dev stays
	@rm -rf .venv build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis .torchwood src/*.egg-info
	@find src tests -name __pycache__ -type d -prune -exec rm -rf {} +
