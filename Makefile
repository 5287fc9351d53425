# Everything a reader needs is one command. `make` alone says what there is.
#
#   PYTHON=python3.12     which Python makes the environment (3.11 or newer)
#   TORCH_INDEX=<url>     take torch from this package index first, e.g. PyTorch's own for CPU builds (docs/INSTALL.md)
#   VENV=.venv            where the environment is made
#   WORKERS=2             processes that share the tests; 0 runs them in one, as `pytest` does by hand
SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help run quick test lab notebooks check notebooks-zh site gpu clean

PYTHON ?= python3
VENV ?= .venv
TORCH_INDEX ?=
WORKERS ?= 2
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
INSTALL := $(PIP) install -c constraints.txt

help: ## this list
	@echo "specdec-ref: speculative decoding, a reference and a course. Targets:"
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-9s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))
	@echo "Minutes are of two CPU cores and a fast network. docs/INSTALL.md has sizes and how to get a CPU-only torch."

run: $(VENV)/.with-run ## install what the demo needs, fetch the model, watch it go faster: 1 to 3 min
	$(BIN)/specdec fetch
	$(BIN)/specdec demo

quick: check ## style, types and the quick part of the tests, which needs no model: 3 min (once installed)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests --quick -q -n $(WORKERS) --dist loadfile --no-loadscope-reorder

test: check ## install the test tools, check style and types, run all tests
	$(BIN)/specdec fetch
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder --junitxml build/junit.xml

check: $(VENV)/.with-test ## style, format and types alone (ruff, mypy --strict)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

lab: $(VENV)/.with-lab ## install JupyterLab and open chapter 00: about 2 min, later at once
	$(BIN)/specdec fetch
	JUPYTER_PREFER_ENV_PATH=1 $(BIN)/jupyter lab notebooks/00_start_here.ipynb

notebooks: $(VENV)/.with-test ## run all chapters and store their outputs: about a minute each on an idle machine
	$(BIN)/specdec fetch
	$(BIN)/python tools/run_notebooks.py

notebooks-zh: $(VENV)/.with-site ## the pages in Chinese, under build/zh, as far as they are translated
	$(BIN)/python tools/translations.py build build/zh

site: $(VENV)/.with-site ## the course and the reference as pages that work without a network, under build/site: half a minute
	$(BIN)/python tools/build_site.py

grade: $(VENV)/.with-test ## grade a class: make grade SUBMISSIONS=folder (docs/INSTRUCTORS.md); 4 s a hand-in
	@[ -n "$(SUBMISSIONS)" ] || { echo "Say where the hand-ins are: make grade SUBMISSIONS=folder" >&2; exit 1; }
	$(BIN)/specdec grade class "$(SUBMISSIONS)" $(if $(ROSTER),--roster "$(ROSTER)")

gpu: $(if $(OFFLINE),,$(VENV)/.with-test) ## a step of docs/GPU.md on a GPU: make gpu STEP=1, to 5 (EAGLE=, TARGET=); DRY=1 tries the way on a CPU
	$(GPU) $(if $(DRY),--dry-run) $(if $(EAGLE),--eagle "$(EAGLE)") $(if $(TARGET),--target "$(TARGET)") $(if $(MINUTES),--minutes $(MINUTES)) $(STEP)

# OFFLINE=1: no environment is made; $(PYTHON) has torch, triton and transformers, and vendor/ holds the rest (docs/GPU.md)
GPU = $(if $(OFFLINE),PYTHONPATH="$(CURDIR):$(CURDIR)/vendor" $(PYTHON),$(BIN)/python) -m benchmarks.gpu
STEP ?= 1

clean: ## remove the environment and everything built; the fetched model stays in your cache
	@[ ! -e $(VENV) ] || $(OURS)
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Nothing is installed into, or removed from, an environment that this Makefile did not make for this checkout: its file
# .created names the checkout. (An empty .created is an older Makefile's, and counts if the environment lies in here.)
define OURS
{ at="$$(cd -P $(VENV) && pwd)"; by="$$(head -n 1 $(VENV)/.created 2>/dev/null)"; \
	  [ "$$by" = "$(CURDIR)" ] || { [ -f $(VENV)/.created ] && [ -z "$$by" ] && [[ "$$at" == "$(CURDIR)"/* ]]; } || { \
	  echo "VENV=$(VENV): this environment was not made by this checkout's Makefile ($$([ -z "$$by" ] && echo "its file .created is missing or empty" || echo "its file .created names $$by")), so nothing was changed in it." >&2; \
	  echo "Choose a folder that does not exist yet, for example: make $(MAKECMDGOALS) VENV=.venv-2; or use that environment by hand: docs/INSTALL.md." >&2; exit 1; }; }
endef

# One environment serves all targets; each adds what it needs, once, and again when these files change.
$(VENV)/.with-run: EXTRAS = models,cli
$(VENV)/.with-test: EXTRAS = models,cli,kernels,notebooks,instructor,llamacpp,site,dev
$(VENV)/.with-lab: EXTRAS = models,cli,notebooks,llamacpp
$(VENV)/.with-site: EXTRAS = site
$(VENV)/.with-%: $(VENV)/.with-torch pyproject.toml constraints.txt
	@$(OURS)
	@echo "Installing specdec-ref[$(EXTRAS)] into $(VENV), versions pinned in constraints.txt: about a minute"
	$(INSTALL) --quiet -e ".[$(EXTRAS)]"
	@touch $@

$(VENV)/.with-torch: $(VENV)/.created constraints.txt
	@$(OURS)
	@echo "Installing torch: 200 MB for the CPU build, 2.7 GB for the CUDA build that Linux gets by default (docs/INSTALL.md says how to choose)"
	$(INSTALL) torch $(if $(TORCH_INDEX),--no-deps --index-url $(TORCH_INDEX))
	@touch $@

$(VENV)/.created:
	@[ -z "$$(ls -A $(VENV) 2>/dev/null)" ] || $(OURS)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "Python 3.11 or newer is needed; '$(PYTHON)' is $$($(PYTHON) --version 2>&1 | tail -n 1)." >&2; \
	  echo "If you have one under another name: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 1; }
	@echo "Making the environment $(VENV) with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
	  echo "Python's venv module does not work; on Debian and Ubuntu: sudo apt-get install python3-venv" >&2; exit 1; }
	@echo "$(CURDIR)" > $@
