# A handful of words; `make` alone prints them. Every word that needs Python makes .venv first and is quick when it is there.
PYTHON ?= python3
VENV := .venv/bin

.DEFAULT_GOAL := help
.PHONY: help install demo fast test lab bench check

help:  ## print these words
	@awk -F':.*## ' '/^[a-z]+:.*## / {printf "make %-9s%s\n", $$1, $$2}' $(MAKEFILE_LIST)

install:  ## make .venv with quorate, its demo's Postgres and its test tools (PYTHON=/path/to/python3.11 or newer)
	@command -v $(PYTHON) >/dev/null || { echo "install: there is no $(PYTHON); quorate needs Python 3.11 or newer: make PYTHON=/path/to/python3.11 ..." >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "install: $$($(PYTHON) --version 2>&1) is too old; quorate needs 3.11 or newer: make PYTHON=/path/to/python3.11 ..." >&2; exit 1; }
	@$(PYTHON) tests/install/environment.py

demo: install  ## three Postgres on this machine, the primary killed; the timeline (ARGS="--watch", PG_BIN=/usr/lib/postgresql/15/bin)
	@$(VENV)/quorate demo $(if $(PG_BIN),--pg-bin "$(PG_BIN)") $(ARGS)

fast: install  ## tests for while you work: unit, scenarios, contract, tidy; under a minute
	@$(VENV)/python -m tests.run fast

test: install  ## all tests; gets what they need and says what and why; the last line says what was left out
	@$(VENV)/python -m tests.run all

lab: install  ## failures on three hosts with real Consul, with their medians; needs root (N=5 SCENARIOS=tests/lab/scenarios/host_dead.yaml)
	@$(VENV)/python -m tests.lab repeat $(or $(N),1) $(or $(SCENARIOS),$(wildcard tests/lab/scenarios/*.yaml))

bench: install  ## quorate beside Patroni and repmgrd, some hours, as root; the table goes into tests/bench/README.md (ARGS="--runs 3")
	@$(VENV)/python -m tests.bench run --renew-readme $(ARGS)

check: install  ## ruff, mypy, the configuration's schema, house numbers
	@$(VENV)/ruff check .
	@$(VENV)/ruff format --check .
	@$(VENV)/mypy
	@$(VENV)/quorate config schema | diff -u config/schema.json - || { echo "check: config/schema.json is old; renew it: $(VENV)/quorate config schema > config/schema.json" >&2; exit 1; }
	@$(VENV)/python -m tests.tidy.numbers
