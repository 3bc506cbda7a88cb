# `make` alone prints what there is. Everything is set up by need in VENV, from Python alone.

PYTHON  ?= python3
VENV    ?= .venv
WORKDIR ?= runs/quickstart
WITH    ?=
STEPS   ?=
SEEDS   ?=
PYTEST_ARGS ?=

START  := $(shell date +%s)
PY     := $(VENV)/bin/python
# 3.11 of a Python, or nothing if it is missing or older than that.
number  = $(shell $(1) -c '$(SAYS)' 2>/dev/null)
SAYS   := import sys; v = sys.version_info[:2]; print("%d.%d" % v * (v > (3, 10)))
THERE  := $(wildcard $(VENV)/pyvenv.cfg $(PY))
NUMBER := $(call number,$(if $(THERE),$(PY),$(PYTHON)))
TAG    := py$(subst .,,$(NUMBER))
PINS   := $(wildcard constraints/$(TAG).txt)
HASH   := $(shell { echo $(NUMBER); cat requirements*.txt $(PINS); } | cksum | cut -d' ' -f1)
RUNTIME := $(VENV)/.runtime-$(HASH)
DEV    := $(VENV)/.dev-$(HASH)
# Chromium and its driver, for the tests of the explorer, where this user may install them.
BROWSER := command -v chromedriver || { test "$$(id -u)" = 0 && \
apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends \
chromium chromium-driver; }
TPU    := $(VENV)/.tpu-$(HASH)
PIP    := $(PY) -m pip install --quiet --no-compile --disable-pip-version-check $(addprefix -c ,$(PINS))

# The compiler for TPUs that the JAX of the environment asks for, as "libtpu==0.0.42.*".
ASKS   := from importlib.metadata import requires; \
print(*(r.split(";")[0].strip() for r in requires("jax") if r.startswith("libtpu")))

KNOWN  := $(patsubst requirements-%.txt,%,$(sort $(wildcard requirements-*.txt)))

# Where the machine sets it, every process would compile all that it imports anew.
unexport PYTHONDONTWRITEBYTECODE

# An environment that is there is updated and never cleared; one of another Python is refused.
ASKED  := $(if $(filter-out file,$(origin PYTHON)),$(call number,$(PYTHON)),$(NUMBER))
ifeq ($(NUMBER)$(THERE),)
REFUSED := PYTHON=$(PYTHON) is missing or older than 3.11; try PYTHON=python3.12
else ifeq ($(NUMBER),)
REFUSED := the Python of $(VENV) is gone or older than 3.11: make clean, or VENV=ANOTHER_FOLDER
else ifeq ($(ASKED),)
REFUSED := PYTHON=$(PYTHON) is missing or older than 3.11; without PYTHON=, $(VENV) is used as it is
else ifneq ($(ASKED),$(NUMBER))
REFUSED := PYTHON=$(PYTHON) is Python $(ASKED) and $(VENV) holds $(NUMBER): make clean first, \
or VENV=.venv-py$(subst .,,$(ASKED)) beside it, or no PYTHON= to use it
else ifneq ($(filter-out $(KNOWN),$(WITH)),)
REFUSED := WITH=$(WITH): must be some of $(KNOWN)
endif

# From 3.12 on Python itself says which lines ran, for little; before, it takes half as long again.
COV     = $(if $(filter 3.11,$(NUMBER)),,--cov)
export COVERAGE_CORE := $(if $(filter 3.11,$(NUMBER)),ctrace,sysmon)

# Modules stay together; a crash is told at once, where a new worker would wait for ever.
WORKERS := --dist=loadscope --no-loadscope-reorder --max-worker-restart=0
FAST := $(PY) -m pytest -m "not slow and not tpu" $(COV) -n auto --maxprocesses=4 $(WORKERS) $(PYTEST_ARGS)
SLOW := $(PY) -m pytest -m slow -n auto --maxprocesses=2 $(WORKERS) $(PYTEST_ARGS)

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help environment browser install quickstart test test-fast test-slow test-tpu lint format clean

help:  ## this list
	@echo "make TARGET [NAME=VALUE]..."
	@sed -n 's/^\([a-z-]*\):.*##  *\(.*\)/\1	\2/p' Makefile | \
	    while IFS='	' read -r name does; do printf '  %-12s %s\n' "$$name" "$$does"; done
	@echo "WITH= takes some of: $(KNOWN)."
	@echo "PYTHON=python3.12 makes the environment with another Python, VENV=FOLDER elsewhere."
	@echo "STEPS=, SEEDS= and WORKDIR= shorten the quick start; PYTEST_ARGS= goes to pytest."

install: $(RUNTIME)  ## the environment alone; WITH="cuda12 gs" adds those requirements-NAME.txt
	@$(PIP) -r requirements.txt $(WITH:%=-r requirements-%.txt)

quickstart: $(RUNTIME)  ## train, compare and explain the tiny study (10 minutes on two cores)
	@began=$$(date +%s); \
	$(PY) -m experiments run dense_topk_hash --size=tiny --workdir=$(WORKDIR) \
	    $(if $(STEPS),--set=train.steps=$(STEPS)) $(if $(SEEDS),--seeds=$(SEEDS)) && \
	echo "set-up $$((began - $(START))) s, run $$(($$(date +%s) - began)) s" && \
	echo "to use the environment of $(VENV) in this shell: source $(VENV)/bin/activate" && \
	echo "then, for one: python -m experiments list"

test: $(DEV) browser  ## the fast tests, then the slow ones whatever the fast ones said
	trap 'exit 130' INT; fast=passed; slow=passed; \
	$(FAST) || fast=failed; $(SLOW) || slow=failed; \
	echo "fast tests $$fast, slow tests $$slow"; [ $$fast = passed ] && [ $$slow = passed ]

test-fast: $(DEV)  ## the fast tests alone, from Python 3.12 on with coverage
	$(FAST)

test-slow: $(DEV) browser  ## the slow tests alone
	$(SLOW)

test-tpu: $(TPU)  ## compile for TPU slices, without a TPU (downloads a compiler of 214 MB)
	PYTHONPATH=$(CURDIR)/$(VENV)/tpu $(PY) -m pytest -m tpu $(PYTEST_ARGS)

lint: $(DEV)  ## check style, formatting and types
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m basedpyright

format: $(DEV)  ## repair style and formatting
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

clean:  ## remove the environment and caches; runs/ and the data stay
	rm -rf $(VENV) .pytest_cache .ruff_cache .coverage htmlcov
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

environment:
	$(if $(REFUSED),$(error $(REFUSED)))
	@$(PY) -m pip --version >/dev/null 2>&1 || $(if $(THERE),$(PY),$(PYTHON)) -m venv $(VENV)

$(RUNTIME): | environment
	@echo "set-up: $(VENV) with $(TAG)$(if $(PINS),, (no pinned versions for it: newest))"
	@rm -f $(VENV)/.runtime-* $(VENV)/.dev-* $(VENV)/.tpu-*
	@$(PIP) -r requirements.txt
	@touch $@

$(DEV): $(RUNTIME)
	@echo "set-up: what tests and lint need"
	@$(PIP) -r requirements.txt -r requirements-gs.txt -r requirements-dev.txt
	@touch $@

browser:  ## chromium and its driver by apt-get, if root, for the tests of the explorer
	@{ $(BROWSER); } >/dev/null 2>&1 || \
	    echo "set-up: no chromium and chromedriver here; the tests that need them skip, and fail in CI"

$(TPU): $(DEV)
	@echo "set-up: the TPU compiler"
	@$(PIP) --no-deps --upgrade --target $(VENV)/tpu "$$($(PY) -c '$(ASKS)')"
	@touch $@
