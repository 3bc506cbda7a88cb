# `make quickstart` and `make test` set everything up by themselves in .venv, from Python alone.
# PYTHON=python3.12 picks another interpreter; STEPS=, SEEDS= and WORKDIR= shorten the quick start.

PYTHON  ?= python3
WORKDIR ?= runs/quickstart
STEPS   ?=
SEEDS   ?=
PYTEST_ARGS ?=

START  := $(shell date +%s)
VENV   := .venv
PY     := $(VENV)/bin/python
TAG    := $(shell $(PYTHON) -c 'import sys; print("py%d%d" % sys.version_info[:2])')
PINS   := $(wildcard constraints/$(TAG).txt)
HASH   := $(shell { $(PYTHON) --version; cat requirements*.txt $(PINS); } | cksum | cut -d' ' -f1)
RUNTIME := $(VENV)/.runtime-$(HASH)
DEV    := $(VENV)/.dev-$(HASH)
TPU    := $(VENV)/.tpu-$(HASH)
PIP    := $(PY) -m pip install --quiet --no-compile --disable-pip-version-check $(addprefix -c ,$(PINS))

# Modules stay together; a crash is told at once, where a new worker would wait for ever.
WORKERS := --dist=loadscope --max-worker-restart=0

.NOTPARALLEL:
.PHONY: quickstart test test-fast test-slow test-tpu lint format clean

quickstart: $(RUNTIME)  ## train, compare and explain the tiny study
	@began=$$(date +%s); \
	$(PY) -m experiments run dense_topk_hash --size=tiny --workdir=$(WORKDIR) \
	    $(if $(STEPS),--set=train.steps=$(STEPS)) $(if $(SEEDS),--seeds=$(SEEDS)) && \
	echo "set-up $$((began - $(START))) s, run $$(($$(date +%s) - began)) s"

test: test-fast test-slow  ## the fast tier with coverage, then the slow one

test-fast: $(DEV)
	$(PY) -m pytest -m "not slow and not tpu" --cov -n auto --maxprocesses=4 $(WORKERS) $(PYTEST_ARGS)

test-slow: $(DEV)
	$(PY) -m pytest -m slow -n auto --maxprocesses=2 $(WORKERS) $(PYTEST_ARGS)

test-tpu: $(TPU)  ## compiles for TPU slices, without a TPU
	PYTHONPATH=$(CURDIR)/$(VENV)/tpu $(PY) -m pytest -m tpu $(PYTEST_ARGS)

lint: $(DEV)
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .

format: $(DEV)
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

clean:  ## removes the environment and caches; runs/ and the data stay
	rm -rf $(VENV) .pytest_cache .ruff_cache .coverage htmlcov
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(RUNTIME):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	    { echo "error: $(PYTHON) is missing or older than 3.11; try PYTHON=python3.12 make ..." >&2; exit 2; }
	@echo "set-up: $(VENV) with $(TAG)$(if $(PINS),, (no pinned versions for it: newest))"
	@$(PYTHON) -m venv --clear $(VENV)
	@$(PIP) -r requirements.txt
	@touch $@

$(DEV): $(RUNTIME)
	@echo "set-up: what tests and lint need"
	@$(PIP) -r requirements-dev.txt
	@touch $@

$(TPU): $(DEV)
	@echo "set-up: the TPU compiler"
	@$(PIP) --no-deps --upgrade --target $(VENV)/tpu -r requirements-tpu.txt
	@touch $@
