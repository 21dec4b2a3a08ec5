# make demo               run the demo and write its report; BROKER=amqp://… runs it on RabbitMQ
# make test               run all tests; ARGS=… goes to pytest
# make test ROOM=breaker  run the tests of one room
# make check              check lint, format, types, import layers, and what tests see by reading the files
# make help               list all targets

# The first interpreter that can make a virtual environment. PYTHON=… names another.
PYTHON ?= $(shell for python in python3.11 python3.12 python3.13 python3; do \
	"$$python" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' \
	2>/dev/null && echo "$$python" && break; done)
PYTHONS ?= python3.11 python3.12 python3.13

BIN := .venv/bin
PIP_INSTALL := -m pip install --quiet --disable-pip-version-check

EXTRAS := asyncpg,config,demo,encryption,opentelemetry,prometheus,psycopg,sqlalchemy

TIMES ?= 1
OPERATIONS ?= 20000
ORDERS ?= 72
PAYMENTS ?= 20000
SEED ?= 1
SEEDS ?= 20

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo queue-payments browser test test-all-pythons test-lowest test-long faults recovery check coverage bench
.PHONY: chaos circle settle truth-table format prometheus dashboard recovery-run nightly mutation protos constraints clean

help: ## List the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1 /p' Makefile | awk '{name = $$1; $$1 = ""; printf "make %-18s%s\n", name, $$0}'

REPORT ?= build/outage.html

demo: .venv/.demo ## Run the demo and write its report to REPORT=…; BROKER=amqp://… runs it on RabbitMQ
	@mkdir -p "$(dir $(REPORT))"
	@$(BIN)/fusewire demo --report "$(REPORT)" $(if $(BROKER),--broker $(BROKER))

queue-payments: .venv/.dev ## Run examples/queue_payments, a shop, through an outage; BROKER=amqp://… runs it on RabbitMQ
	@$(BIN)/python examples/queue_payments/run.py $(if $(BROKER),--broker $(BROKER))

ROOMS := $(sort $(filter-out support __pycache__,$(patsubst tests/%/,%,$(wildcard tests/*/))))

# pytest-xdist may wait without an end for what a worker that it replaces had to do
# (pytest-dev/pytest-xdist#1378). So none is replaced: the run ends and names the test.
# A test of tests/project needs the generator of the protobuf code. The other rooms do without it.
test: .venv/.dev $(if $(filter-out project,$(ROOM)),,.venv-protos/.made) ## Run the tests; ROOM=breaker runs those of one room, ARGS=… goes to pytest
	$(if $(filter-out $(ROOMS),$(ROOM)),$(error ROOM must be one of: $(ROOMS); got $(ROOM)))
	$(BIN)/python -m pytest $(if $(ROOM),tests/$(ROOM) $(ARGS),$(or $(ARGS),-n 4 --dist loadfile --no-loadscope-reorder --max-worker-restart 0))

prometheus: .venv/.dev ## Scrape an outage by a real Prometheus, and check rules and dashboard
	$(BIN)/python -m pytest -m prometheus tests/telemetry $(ARGS)

dashboard: .venv/.dev ## Make the Grafana dashboard of monitoring/
	$(BIN)/python -m monitoring.dashboard

schema: .venv/.dev ## Make docs/fusewire.schema.json, for editors of files of settings
	$(BIN)/fusewire config schema > docs/fusewire.schema.json

# Of the tests, those that take seconds, so that a line too long is not found after ten minutes.
STATIC := tests/project/test_file_lengths.py tests/project/test_rooms.py \
	tests/docs/test_contributing.py tests/docs/test_decisions.py

check: .venv/.dev ## Check lint, format, types, import layers, and what tests see by reading the files
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest --quiet $(STATIC)

format: .venv/.dev ## Format the code and fix what the linter can fix
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

test-long: .venv/.dev .venv-protos/.made ## Run the tests that take minutes: kills, leaks, outages
	$(BIN)/python -m pytest -m long $(ARGS)

browser: .venv-browser/.made ## Open the demo's report in Chromium; PICTURES=docs/images takes README's pictures
	.venv-browser/bin/python -m tests.support.chromium
	FUSEWIRE_TEST_PICTURES="$(PICTURES)" .venv-browser/bin/python -m pytest --noconftest \
		-m browser tests/demo/test_report_in_chromium.py $(ARGS)

coverage: .venv/.dev ## Check that the breaker's tests cover every branch of it
	$(BIN)/python -m coverage run -m pytest --quiet tests/breaker
	$(BIN)/python -m coverage report

faults: export FUSEWIRE_TEST_FAULTS = long
faults: export FUSEWIRE_TEST_FAULTS_TABLE = build/faults.md
faults: export FUSEWIRE_TEST_FAULTS_TIMES = $(TIMES)
faults: .venv/.dev .venv-protos/.made ## Break everything around a consumer; TIMES=50 ARGS="-k …" repeats one fault
	$(BIN)/python -m pytest -m long tests/faults $(ARGS)

recovery: .venv/.dev ## Simulate recoveries at scale; SEEDS=1 runs each once, ARGS="--only …" some of them
	$(BIN)/python -m tests.parking.recovery --seeds $(SEEDS) $(ARGS)

truth-table: export FUSEWIRE_TEST_TRUTH_TABLE = build/truth-table.md
truth-table: .venv/.dev ## Run every row of exactly once on every store, with all kills, and count them
	$(BIN)/python -m pytest -p tests.support.truth_table -m "long or not long" tests/idempotency tests/inbox --deselect tests/idempotency/test_chaos.py $(ARGS)

chaos: export FUSEWIRE_TEST_CHAOS = $(OPERATIONS)
chaos: .venv/.dev ## Kill servers and their database while OPERATIONS=20000 calls are made once
	$(BIN)/python -m pytest -m long tests/idempotency/test_chaos.py $(ARGS)

circle: export FUSEWIRE_TEST_CIRCLE = $(ORDERS)
circle: .venv/.dev ## Kill shop, forwarder and server while ORDERS=72 orders are charged once, on each broker
	$(BIN)/python -m pytest -m long tests/forwarding/test_full_circle.py $(ARGS)

settle: export FUSEWIRE_TEST_PAYMENTS = $(PAYMENTS)
settle: export FUSEWIRE_TEST_SEED = $(SEED)
settle: .venv/.dev ## Break everything around PAYMENTS=20000, each settled once; SEED=1 ARGS="-k sqlite" for one broker
	$(BIN)/python -m pytest -m long tests/forwarding/test_every_payment_is_settled.py $(ARGS)

bench: .venv/.dev ## Compare parking and receipts with plain code on RabbitMQ and SQLite; takes twenty minutes
	$(BIN)/python -m benchmarks.parking
	$(BIN)/python -m benchmarks.parking_outage
	$(BIN)/python -m benchmarks.store_and_forward

recovery-run: .venv/.dev ## Replay a backlog into a server of limited capacity, on RabbitMQ; ARGS="--runs 1 --replicas 8"
	$(BIN)/python -m benchmarks.recovery $(ARGS)

nightly: .venv/.dev ## Compare the breaker with its model in 200,000 random steps
	HYPOTHESIS_PROFILE=nightly $(BIN)/python -m pytest -s tests/breaker/test_against_the_naive_model.py

mutation: .venv-mutation/.made ## Check that the breaker's tests notice every mutation of it
	rm -f mutants/mutmut-stats.json # which tests reach what: stale where functions were renamed
	HYPOTHESIS_PROFILE=mutation .venv-mutation/bin/mutmut run --max-children 2
	.venv-mutation/bin/mutmut results

protos: .venv-protos/.made ## Generate the code of protos/
	.venv-protos/bin/python protos/generate.py

# The environments. The stamp of each is newer than the files that it was made from.

.venv/.made:
	$(call make_venv,.venv,$(PYTHON))
	@touch $@

# Not quiet: it is the first that a newcomer sees, and takes a while.
.venv/.demo: .venv/.made pyproject.toml constraints.txt
	@echo "Installing Fusewire and what its demo needs into .venv; once, for about half a minute:"
	@$(BIN)/python -m pip install --disable-pip-version-check -e '.[demo]' -c constraints.txt
	@touch $@

.venv/.dev: .venv/.made pyproject.toml constraints.txt
	$(BIN)/python $(PIP_INSTALL) -e '.[$(EXTRAS)]' --group dev -c constraints.txt
	@touch $@ .venv/.demo

.venv-protos/.made: constraints-protos.txt
	$(call make_venv,.venv-protos,$(PYTHON))
	.venv-protos/bin/python $(PIP_INSTALL) grpcio-tools mypy-protobuf -c constraints-protos.txt
	@touch $@

.venv-browser/.made: pyproject.toml constraints.txt constraints-browser.txt
	$(call make_venv,.venv-browser,$(PYTHON))
	.venv-browser/bin/python $(PIP_INSTALL) -e '.[demo]' --group browser \
		-c constraints.txt -c constraints-browser.txt
	@touch $@

.venv-mutation/.made: pyproject.toml constraints.txt
	$(call make_venv,.venv-mutation,$(PYTHON))
	.venv-mutation/bin/python $(PIP_INSTALL) -e '.[$(EXTRAS)]' --group dev 'mutmut==3.8.1' -c constraints.txt
	@touch $@

# --group needs pip 25.1.
define make_venv
@test -n "$(2)" || { echo "Python 3.11 or later with its venv module is needed" \
	"(Debian: apt-get install python3-venv); PYTHON=… names one" >&2; exit 1; }
@echo "Making the virtual environment $(1) with $(2)"
$(2) -m venv $(1)
$(1)/bin/python $(PIP_INSTALL) 'pip>=25.1'
endef

# Other interpreters and other versions of the dependencies.

# With pyenv, a python3.x works only if its version is selected. So all are.
test-all-pythons: export PYENV_VERSION = $(shell pyenv versions --bare 2>/dev/null | paste -sd: -)
test-all-pythons: .venv-protos/.made ## Run the tests on each Python of PYTHONS that is installed
	@set -e; for python in $(PYTHONS); do \
		"$$python" -c '' 2>/dev/null || { echo "$$python: not installed"; continue; }; \
		$(MAKE) --no-print-directory ".venv-$$python/.dev"; \
		echo "$$python:"; ".venv-$$python/bin/python" -m pytest $(ARGS); \
	done

.venv-python%/.dev: pyproject.toml constraints.txt
	$(call make_venv,$(@D),python$*)
	$(@D)/bin/python $(PIP_INSTALL) -e '.[$(EXTRAS)]' --group dev -c constraints.txt
	@touch $@

test-lowest: .venv-lowest/.dev .venv-protos/.made ## Run the tests on the lowest supported dependencies
	.venv-lowest/bin/python -m pytest $(ARGS)

.venv-lowest/.dev: pyproject.toml constraints-lowest.txt
	$(call make_venv,.venv-lowest,$(PYTHON))
	.venv-lowest/bin/python $(PIP_INSTALL) -e '.[$(EXTRAS)]' --group dev -c constraints-lowest.txt
	@touch $@

constraints: ## Pin the newest versions of all dependencies in constraints.txt
	$(call make_venv,.venv-newest,$(PYTHON))
	.venv-newest/bin/python $(PIP_INSTALL) -e '.[$(EXTRAS)]' --group dev
	.venv-newest/bin/python -m pip freeze --exclude-editable > constraints.txt
	rm -rf .venv-newest

clean: ## Remove the environments and all build output
	rm -rf .venv .venv-* build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
