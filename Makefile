# Needs Python 3.11 or later and make. "make run" for a look, "make test" before a commit.

PORT ?= 8080
RUNNER_PORT ?= 8081
DATA ?= data
PYTEST_ARGS ?=
# Each worker has servers of its own, one file of tests at a time; those that are given are shared by all tests.
TEST_WORKERS ?= $(if $(FN_TEST_POSTGRES_URL)$(FN_TEST_MARIADB_URL)$(FN_TEST_DOCKER_HOST),0,3)
MINUTES ?= 30
REGISTRY ?=
TAG ?= $(shell sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
CODE := api_node deploy hybrid_client runner_node services shared_models

.PHONY: help install run test lint types imports bench bench-stores simulate faults lock docs dashboards site images compose compose-env clean

help:
	@echo "make run       an API node and a runner node with an example function (PORT, RUNNER_PORT, DATA)"
	@echo "make test      everything that must pass: lint, types, import rules, tests (PYTEST_ARGS, TEST_WORKERS)"
	@echo "make install   $(VENV) with $(BIN)/fn-node and the tools of developers"
	@echo "make lint types imports bench-stores    one of them"
	@echo "make bench     docs/benchmarks anew, in some ten minutes (BENCH_ARGS=\"sync cold --seconds 5\", or --quick)"
	@echo "make simulate  the scheduler's decision in virtual time, against Fn's; docs/benchmarks/simulation.md"
	@echo "make faults    breaks nodes, servers and networks for MINUTES=30 by the schedule of SEED; docs/faults-report.md"
	@echo "make images    images of the nodes, by docker (REGISTRY, TAG, BASE_IMAGE, PIP_ARGS)"
	@echo "make compose   both tiers twice with all that they stand on, by docker compose; make compose-env: its passwords"
	@echo "make site      the documentation as a site, in build/site"
	@echo "make docs      the pages that are made from the code anew: settings, metrics, API, errors"
	@echo "make dashboards    deploy/grafana/dashboards anew, from deploy/panels.py and panels_below.py"
	@echo "make lock      constraints.txt anew, from what pyproject.toml allows today"
	@echo "make clean     removes $(VENV) and caches, not the data"

install: $(VENV)/.dev

run: $(VENV)/.runtime
	@$(BIN)/python -m deploy.run --port $(PORT) --runner-port $(RUNNER_PORT) --data "$(DATA)"

test: lint types imports
	$(BIN)/python -m pytest -n $(TEST_WORKERS) --dist loadfile --no-loadscope-reorder $(PYTEST_ARGS)

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: install
	$(BIN)/mypy

imports: install
	$(BIN)/lint-imports

bench: install
	$(BIN)/python -m benchmarks --into docs/benchmarks $(BENCH_ARGS)

simulate: install
	$(BIN)/python -m benchmarks.simulate --into docs/benchmarks

bench-stores: install
	$(BIN)/python -m benchmarks.stores --into docs/benchmarks $(BENCH_ARGS)

faults: install
	$(BIN)/python -m tests.system.faults --minutes $(MINUTES) $(if $(SEED),--seed $(SEED)) --into docs/faults-report.md

docs: install
	$(BIN)/fn-node config --markdown > docs/configuration.md
	$(BIN)/fn-node metrics --markdown > docs/metrics.md
	$(BIN)/python -m deploy.api_page > docs/api.md
	$(BIN)/python -m deploy.errors_page > docs/errors.md

dashboards: install
	$(BIN)/python -m deploy.dashboards

site: install
	$(BIN)/sphinx-build -q -W --keep-going -b html docs build/site
	@echo "build/site/index.html"

images:
	@for type in api runner full; do \
	  docker build --target $$type -f deploy/images/Dockerfile $(if $(BASE_IMAGE),--build-arg BASE_IMAGE=$(BASE_IMAGE)) \
	    $(if $(PIP_ARGS),--build-arg PIP_ARGS="$(PIP_ARGS)") --build-arg VERSION=$(TAG) \
	    --build-arg REVISION=$$(git rev-parse HEAD 2>/dev/null || echo unknown) \
	    -t $(REGISTRY)fn-hybrid$$(test $$type = full || echo -$$type):$(TAG) . || exit 1; \
	done

compose-env: $(VENV)/.runtime
	@deploy/compose/env.sh $(BIN)/fn-node

compose: compose-env
	docker compose up --build --detach
	@echo "http://localhost:8080 serves both tiers once docker compose ps says that they are healthy; Grafana is at http://localhost:3000 (admin, GRAFANA_PASSWORD in .env)"

# In an environment of its own, so that what a developer tried out does not get in.
lock: $(BIN)/pip
	@folder=$$(mktemp -d) && trap 'rm -rf "$$folder"' EXIT && $(BIN)/python -m venv "$$folder" && \
	"$$folder/bin/python" -m pip --disable-pip-version-check -qq install -e '.[dev]' && \
	"$$folder/bin/python" -m pip --disable-pip-version-check freeze --exclude-editable > "$$folder/found" && \
	LC_ALL=C sort -f "$$folder/found" > constraints.txt && echo "constraints.txt: $$(wc -l < constraints.txt) packages"

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis *.egg-info build dist

# -- the virtual environment; its stamps are older than pyproject.toml when something changed ----------

# pip is what venv makes last: an environment without it was never finished.
$(BIN)/pip:
	@found=; for python in $(or $(PYTHON),python3 python3.13 python3.12 python3.11); do \
	  if "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then found=$$python; break; fi; \
	done; \
	if [ -z "$$found" ]; then \
	  echo "fn-hybrid needs Python 3.11 or later, and $(firstword $(PYTHON) python3) is $$($(firstword $(PYTHON) python3) -V 2>/dev/null || echo missing): install one, or say where it is with PYTHON=/path/to/python" >&2; exit 1; \
	fi; \
	if ! "$$found" -c 'import ensurepip, venv' >/dev/null 2>&1; then \
	  echo "$$found cannot make virtual environments; install its venv package (Debian: apt-get install python3-venv)" >&2; exit 1; \
	fi; \
	if ! mkdir -p $(VENV) 2>/dev/null || ! [ -w $(VENV) ]; then \
	  echo "$(VENV) cannot be made here: make this folder writable, or choose another: make VENV=/path/to/venv" >&2; exit 1; \
	fi; \
	echo "Making $(VENV) with $$("$$found" -V) ..."; "$$found" -m venv --clear $(VENV)

# What pip says is kept; of a failure its last error is told, in CI all of it.
installed = $(PIP) install -c constraints.txt $(1) >$(VENV)/pip.log 2>&1 || { \
	  [ -z "$$CI" ] || cat $(VENV)/pip.log >&2; \
	  echo "pip failed: $$(grep ERROR: $(VENV)/pip.log | tail -n 1 | sed 's/.*ERROR: //'). Can this machine reach a package index (PIP_INDEX_URL, PIP_PROXY)? $(VENV)/pip.log has all that pip said" >&2; \
	  exit 1; }

$(VENV)/.runtime: pyproject.toml constraints.txt | $(BIN)/pip
	@echo "Installing fn-hybrid into $(VENV) ..."
	@$(call installed,-e .)
	@touch $@

$(VENV)/.dev: pyproject.toml constraints.txt $(VENV)/.runtime
	@echo "Installing the tools of developers into $(VENV) ..."
	@$(call installed,-e '.[dev]')
	@touch $@
