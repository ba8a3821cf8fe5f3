# From a bare clone: `make demo` and `make test` install what they need first. `make help` lists all targets.
#   make demo CORPUS=directory TEACHER=teacher.nemo   your own data, your own teacher
#   make install PYTHON=/path/to/python3.11           another Python than the first that works
#   make test NEMO=2.4                                the newer NeMo, in an environment of its own: .venv-2.4 (or VENV=...)

# NeMo 1.23 needs a megatron-core that aarch64 has not.
NEMO := $(if $(filter aarch64,$(shell uname -m 2>/dev/null)),2.4,1.23)
CANDIDATES := $(or $(PYTHON),python3.11 python3.10 python3 python)
VENV := .venv$(if $(filter-out 1.23,$(NEMO)),-$(NEMO))
LOCK := requirements/nemo-$(NEMO).txt
ifeq ($(wildcard $(LOCK)),)
$(error NEMO=$(NEMO): no lock file $(LOCK); give NEMO=1.23 or NEMO=2.4)
endif
DEVELOPMENT := requirements/development.txt
STAMP := $(VENV)/.installed-$(notdir $(LOCK))
DEVELOPMENT_STAMP := $(VENV)/.installed-$(notdir $(DEVELOPMENT))
RUN := $(VENV)/bin/python
# An environment keeps the Python that it was made with.
ifneq ($(and $(PYTHON),$(wildcard $(RUN)),$(filter-out clean help,$(firstword $(MAKECMDGOALS)))),)
ifneq ($(words $(sort $(foreach each,"$(PYTHON)" $(RUN),$(shell $(each) -c 'import sys; print(sys.version_info[:2])' 2>/dev/null | tr -d ' ')))),1)
$(error PYTHON=$(PYTHON): $(VENV) was made with another Python; `make clean` removes it, VENV=... names another)
endif
endif
# PyPI has it for x86_64; elsewhere the one of the system, or a word that there is none.
SHELLCHECK = $(or $(wildcard $(VENV)/bin/shellcheck),$(shell command -v shellcheck 2>/dev/null),@echo "no shellcheck here: not checked:")
# Only errors are shown; the package index and all else come from pip's own configuration.
PIP_INSTALL := $(RUN) -m pip install -qq --disable-pip-version-check --no-input

# The quick suite is many small models: one thread each, nothing from any hub.
THREADS := 1
TEST_ENVIRONMENT := OMP_NUM_THREADS=$(THREADS) MKL_NUM_THREADS=$(THREADS) TOKENIZERS_PARALLELISM=false HF_HUB_OFFLINE=1 WANDB_MODE=disabled MPLBACKEND=Agg

# Files of tests shared by so many processes, of a gigabyte each. In their order: tests/functional, whose files have few
# tests and long ones, comes first, or one process would be left with them at the end.
SHARED := -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

LONG_TESTS := tests/unit tests/functional tests/convergence

COMMA := ,

.DEFAULT_GOAL := help
# make hands what its command line sets to every command; the tests are not to find these, and the job scripts read VENV too.
unexport NEMO VENV PYTHON THREADS PYTEST_ARGS VARIATIONS OTHER_PYTHON SEED MACHINE
.PHONY: help install install-runtime demo test test-all test-portable check-pins lint format bench docs clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(DEVELOPMENT_STAMP) ## make .venv with the locked packages (once; some minutes); NEMO=2.4 makes .venv-2.4

install-runtime: $(STAMP) ## the same without what only tests and style need

demo: $(STAMP) ## teacher, plain twin and distilled student on real text, then the table and the page
	$(RUN) -m nemo_distill.cli run examples/recipes/demo.yaml $(if $(OUT),--output-dir "$$OUT") \
		$(if $(CORPUS),--corpus "$$CORPUS" --set 'overrides=[data.tokens_in_batch=2048$(COMMA)data.max_seq_length=128]') \
		$(if $(TEACHER),--teacher "$$TEACHER") $(if $(TRUST_ARCHIVE),--trust-archive) \
		$(if $(filter command,$(origin SOURCE)),--source "$$SOURCE") $(if $(filter command,$(origin TARGET)),--target "$$TARGET")

test: $(DEVELOPMENT_STAMP) ## the quick test suite
	$(TEST_ENVIRONMENT) $(RUN) -m pytest $(SHARED) $(PYTEST_ARGS)

test-all: $(DEVELOPMENT_STAMP) ## the quick suite and the long tests; benchmarks apart
	$(TEST_ENVIRONMENT) $(RUN) -m pytest -m "not network" $(LONG_TESTS) $(PYTEST_ARGS)

test-portable: $(DEVELOPMENT_STAMP) ## the quick suite with other kernels, threads, order and Python; an hour or more; VARIATIONS="avx2 shuffled"
	$(RUN) tests/portable.py --nemo $(NEMO) --venv $(VENV) $(addprefix --python ,$(OTHER_PYTHON)) \
		$(addprefix --seed ,$(SEED)) $(if $(PYTEST_ARGS),--pytest-args="$(PYTEST_ARGS)") $(VARIATIONS)

check-pins: $(STAMP) ## ask the package index whether every pin can be had for every Python; MACHINE=aarch64
	$(RUN) requirements/check_pins.py $(addprefix --machine ,$(MACHINE))

lint: $(DEVELOPMENT_STAMP) ## check style, formatting, job scripts, Dockerfiles and generated docs
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(SHELLCHECK) --external-sources .ci/run examples/jobs.sh examples/slurm/* examples/ngc/* nemo_distill/jobs/*.sh
	$(VENV)/bin/hadolint Dockerfile*
	$(RUN) docs/generate_configuration.py --check

format: $(DEVELOPMENT_STAMP) ## mend style and formatting
	$(RUN) -m ruff check --fix .
	$(RUN) -m ruff format .

bench: $(DEVELOPMENT_STAMP) ## what a distillation step costs, how fast decoding is; leave the machine alone meanwhile
	$(RUN) -m pytest -m slow tests/benchmarks

docs: $(STAMP) ## write docs/configuration.md and docs/job-keys.md anew from the dataclasses
	$(RUN) docs/generate_configuration.py

clean: ## remove the environment and caches; data/ and runs/ stay
	rm -rf $(VENV) .pytest_cache .ruff_cache build *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The first candidate that can build the environment makes it. An interrupted installation goes on where it stopped,
# since the stamp comes last and pip keeps what is there; a changed lock file starts it again. What is built from source
# comes early, so that what a machine or an index lacks shows before the gigabytes. All cores compile byte code, where pip takes
# one; files that are for other Pythons do not compile, which pip passes over too.
$(STAMP): $(LOCK) setup.py
	@fault=; python=; \
	for candidate in $(CANDIDATES); do \
		if said=$$("$$candidate" requirements/check_machine.py $(NEMO) 2>/dev/null); then python=$$candidate; break; fi; \
		fault=$${fault:-$$said}; \
	done; \
	if [ -z "$$python" ]; then \
		echo "make: $${fault:-no working Python 3.10 or 3.11 among: $(CANDIDATES); install one, or name one with \`make PYTHON=/path/to/python3.11\`}" >&2; \
		exit 2; \
	fi; \
	if ! $(RUN) -m pip --version >/dev/null 2>&1; then \
		echo "Making $(VENV) with $$python"; \
		"$$python" -m venv --clear $(VENV); \
	fi
	@echo "Installing the packages of $(LOCK) into $(VENV): a few minutes, 2 GB (6 GB where torch comes with CUDA)"
	@$(PIP_INSTALL) --constraint $(LOCK) pip setuptools wheel cython
	@echo "  what is built from source"
	@built=$$(sed -n 's/ *# built from source$$//p' $(LOCK) | tr '\n' ' '); \
	if ! $(PIP_INSTALL) --no-deps --no-build-isolation $$built; then \
		echo "make: some of these could not be got or built; they are source packages, so let pip take such, or give it wheels (PIP_FIND_LINKS): $$built" >&2; \
		exit 2; \
	fi
	@echo "  torch and what it needs"
	@$(PIP_INSTALL) --no-compile --constraint $(LOCK) torch
	@echo "  NeMo and the rest"
	@$(PIP_INSTALL) --no-compile --no-deps --no-build-isolation --requirement $(LOCK)
	@echo "  their byte code"
	@$(RUN) -m compileall -q -j 0 $(VENV)/lib >/dev/null 2>&1 || true
	@NEMO=$(NEMO) $(PIP_INSTALL) --no-deps --no-build-isolation --editable .
	@touch $@
	@echo "Installed."

$(DEVELOPMENT_STAMP): $(STAMP) $(DEVELOPMENT)
	@echo "Installing the packages of $(DEVELOPMENT) into $(VENV)"
	@$(PIP_INSTALL) --no-deps --requirement $(DEVELOPMENT)
	@touch $@
