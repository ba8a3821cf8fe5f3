# From a bare clone: `make demo` and `make test` install what they need first. `make help` lists all targets.
#   make demo CORPUS=directory TEACHER=teacher.nemo   your own data, your own teacher
#   make install PYTHON=/path/to/python3.11           another Python than the first that works
#   make test NEMO=2.4                                the newer NeMo, in an environment of its own: .venv-2.4 (or VENV=...)

NEMO := 1.23
CANDIDATES := $(or $(PYTHON),python3.11 python3.10 python3 python)
VENV := .venv$(if $(filter-out 1.23,$(NEMO)),-$(NEMO))
LOCK := requirements/nemo-$(NEMO).txt
ifeq ($(wildcard $(LOCK)),)
$(error NEMO=$(NEMO): no lock file $(LOCK); give NEMO=1.23 or NEMO=2.4)
endif
STAMP := $(VENV)/.installed-$(notdir $(LOCK))
RUN := $(VENV)/bin/python
# Only errors are shown; the package index and all else come from pip's own configuration.
PIP_INSTALL := $(RUN) -m pip install -qq --disable-pip-version-check --no-input

# The quick suite is many small models: one thread each, nothing from any hub.
TEST_ENVIRONMENT := OMP_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false HF_HUB_OFFLINE=1 WANDB_MODE=disabled MPLBACKEND=Agg

LONG_TESTS := tests/unit tests/functional tests/convergence

.DEFAULT_GOAL := help
.PHONY: help install demo test test-all lint format bench docs clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-9s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(STAMP) ## make .venv with the locked packages (once; some minutes); NEMO=2.4 makes .venv-2.4

demo: $(STAMP) ## teacher, plain twin and two distilled students on real text, then the table and the plot
	$(RUN) examples/end_to_end/run.py $(if $(OUT),--output-dir "$(OUT)") $(if $(CORPUS),--corpus "$(CORPUS)") $(if $(TEACHER),--teacher "$(TEACHER)") \
		$(if $(filter command,$(origin SOURCE)),--source "$(SOURCE)") $(if $(filter command,$(origin TARGET)),--target "$(TARGET)")

test: $(STAMP) ## the quick test suite
	$(TEST_ENVIRONMENT) $(RUN) -m pytest $(PYTEST_ARGS)

test-all: $(STAMP) ## the quick suite and the long tests; benchmarks apart
	$(TEST_ENVIRONMENT) $(RUN) -m pytest -m "not network" $(LONG_TESTS) $(PYTEST_ARGS)

lint: $(STAMP) ## check style, formatting, job scripts, Dockerfiles and generated docs
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(VENV)/bin/shellcheck --external-sources .ci/run examples/jobs.sh examples/slurm/* examples/ngc/*
	$(VENV)/bin/hadolint Dockerfile*
	$(RUN) docs/generate_configuration.py --check

format: $(STAMP) ## mend style and formatting
	$(RUN) -m ruff check --fix .
	$(RUN) -m ruff format .

bench: $(STAMP) ## what a distillation step costs, how fast decoding is; leave the machine alone meanwhile
	$(RUN) -m pytest -m slow tests/benchmarks

docs: $(STAMP) ## write docs/configuration.md anew from the dataclasses
	$(RUN) docs/generate_configuration.py

clean: ## remove the environment and caches; data/ and runs/ stay
	rm -rf $(VENV) .pytest_cache .ruff_cache build *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The first candidate that can build the environment makes it. An interrupted installation goes on where it stopped,
# since the stamp comes last and pip keeps what is there; a changed lock file starts it again.
$(STAMP): $(LOCK) setup.py
	@fault=; python=; \
	for candidate in $(CANDIDATES); do \
		if said=$$("$$candidate" requirements/check_machine.py 2>/dev/null); then python=$$candidate; break; fi; \
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
	@echo "  torch and what it needs"
	@$(PIP_INSTALL) --constraint $(LOCK) torch
	@echo "  NeMo and the rest (some packages are built)"
	@$(PIP_INSTALL) --no-deps --no-build-isolation --requirement $(LOCK)
	@NEMO=$(NEMO) $(PIP_INSTALL) --no-deps --no-build-isolation --editable .
	@touch $@
	@echo "Installed."
