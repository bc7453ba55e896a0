# `make html` and `make test` do all set-up on a fresh machine. `make help` lists the rest.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.ONESHELL:

PYTHON ?= python3
# Tests the recipes with another PyTorch, in an environment of its own: make test TORCH=2.11
ifdef TORCH
VENV := .venv-torch-$(TORCH)
PYTEST_ARGS ?= tests/test_recipes.py
endif
VENV ?= .venv
VENV_PYTHON := $(VENV)/bin/python
RUNNER := $(VENV_PYTHON) -m recipe_runner
# A stamp holds the lock files' checksum: a changed lock installs again, an unchanged one costs nothing.
ALL_STAMP := $(VENV)/.installed-all-$(shell cksum requirements.txt 2>/dev/null | cut -d' ' -f1)$(TORCH)
SITE_STAMP := $(VENV)/.installed-site-$(shell cksum requirements-site.txt 2>/dev/null | cut -d' ' -f1)

RUN_OPTIONS := $(if $(ONLY),--only '$(ONLY)') $(if $(RERUN),--rerun) $(if $(TIMEOUT),--timeout '$(TIMEOUT)')
CLUSTER_OPTIONS := $(if $(CLUSTER),--cluster '$(CLUSTER)') $(if $(MACHINES),--machines '$(MACHINES)')

# An environment named by the user is used as it is.
ifeq ($(origin VENV),command line)
READY := check-venv
READY_SITE := check-venv
else
READY := $(ALL_STAMP)
READY_SITE := $(if $(wildcard $(ALL_STAMP)),$(ALL_STAMP),$(SITE_STAMP))
endif

# Given by name, or from the environment: see `make help`.
export SITE_URL REPOSITORY

.PHONY: help html run worker test replay record verify compare new status why serve bench bench-cluster soak lint lock clean distclean check-venv check-here

help:  ## Show this list
	@grep -hE '^[a-z-]+:.*## ' Makefile | sed -E 's/:.*## /|/' | while IFS='|' read -r name text; do printf '  make %-13s %s\n' "$$name" "$$text"; done
	echo
	echo "  Options:  ONLY=name   html, run, record, soak: only this  RERUN=1    html, run: also what is current"
	echo "            TIMEOUT=s   html, run: time limit a recipe     DEVICE=cpu|cuda  test: hide or demand a GPU"
	echo "            VENV=path   use this environment as it is      PYTHON=exe the Python that makes .venv"
	echo "            MACHINE=name  name of this machine in runs; replay: whose runs to show"
	echo "            TIMES=n     soak: how often (3)                RECIPE_SEED=n  test: order of the recipes"
	echo "            CLUSTER=tcp://host:8786  html, run: on the workers of this dask scheduler; worker: whose worker"
	echo "            MACHINES=all|name,…  with CLUSTER: each recipe on every kind of machine; or only on these kinds"
	echo "            TORCH=2.11  test: the recipes with another PyTorch, in an environment of its own"
	echo "            SITE_URL=address, REPOSITORY=address  html, replay: for publishing, see CONTRIBUTING.md"

html: $(READY)  ## Run what is stale, build the site in _build/html
	@$(RUNNER) build $(RUN_OPTIONS) $(CLUSTER_OPTIONS)

run: $(READY)  ## Run what is stale, build nothing
	@$(RUNNER) run $(RUN_OPTIONS) $(CLUSTER_OPTIONS)

worker: $(READY)  ## Let this machine run recipes for a cluster: make worker CLUSTER=tcp://scheduler:8786
	@[ -n '$(CLUSTER)' ] || { echo "error: make worker: which cluster? Name its scheduler: CLUSTER=tcp://scheduler:8786" >&2; exit 1; }
	PYTHONPATH="$$PWD$${PYTHONPATH:+:$$PYTHONPATH}" exec $(VENV_PYTHON) -m distributed.cli.dask_worker '$(CLUSTER)' \
		--nworkers 1 --nthreads 1 --no-dashboard --memory-limit 0 --local-directory "$${TMPDIR:-/tmp}"

test: $(READY)  ## Run all tests: the runner, the gallery, every recipe as a script, the site
	@DEVICE='$(DEVICE)' $(VENV_PYTHON) -m pytest $(PYTEST_ARGS)

replay: $(READY_SITE)  ## Build the site from results/, run nothing, need no torch
	@$(RUNNER) replay $(if $(MACHINE),--machine '$(MACHINE)')

record: $(READY)  ## Put this machine's good runs of committed recipes into results/
	@$(RUNNER) record $(if $(ONLY),--only '$(ONLY)')

verify: $(READY_SITE)  ## Check that the built site shows what ran, and only that
	@$(RUNNER) verify

compare: $(READY)  ## Show what changed between two sets of runs: make compare OLD=folder-or-machine NEW=…
	@$(RUNNER) compare '$(OLD)' '$(NEW)'

new: $(READY_SITE)  ## Write the file of a new recipe, which already runs: make new NAME=my_question
	@$(RUNNER) new '$(NAME)'

status: $(READY)  ## Show the state of every run
	@$(RUNNER) status

why: $(READY)  ## Say why a recipe would run: make why ONLY=name
	@$(RUNNER) why '$(ONLY)'

serve: check-here html  ## Serve the site on this machine; an edit runs what it must and reloads the page
	@$(VENV)/bin/sphinx-autobuild --pre-build "$(RUNNER) build $(RUN_OPTIONS)" --watch recipes_source --watch intermediate_source \
		--re-ignore '/_build/' --re-ignore '/\.git/' -c . -d _build/doctrees -q _build/source _build/html

bench: $(READY)  ## Time the build against bare scripts and plain Sphinx-Gallery (about half an hour)
	@$(VENV_PYTHON) benchmarks/build_speed.py

bench-cluster: $(READY)  ## Time what a cluster costs and saves, with workers on this machine (about four minutes)
	@$(VENV_PYTHON) benchmarks/cluster_speed.py

soak: $(READY)  ## Run the whole site 3 times (TIMES=n): fail where counts differ, show how far timings are apart
	@$(RUNNER) soak $(if $(TIMES),--times '$(TIMES)') $(if $(ONLY),--only '$(ONLY)')

lint: $(READY)  ## Check style and spelling
	@$(VENV)/bin/ruff check .
	$(VENV)/bin/codespell
	$(VENV)/bin/sphinx-lint --enable all --disable line-too-long $$(git ls-files --cached --others --exclude-standard '*.rst' '*_source/*.py')
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff format --check --isolated --line-length 88 recipes_source intermediate_source

lock: $(READY)  ## Write the lock files anew from requirements*.in
	@compile="$(VENV)/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate --no-emit-index-url --upgrade"
	$$compile requirements.in --output-file requirements.txt
	$$compile requirements-site.in --constraint requirements.txt --output-file requirements-site.txt

clean:  ## Remove the site, keep the runs
	@rm -rf _build/html _build/source _build/doctrees

distclean: clean  ## Remove the runs and the environment too
	@rm -rf _build .venv .pytest_cache .ruff_cache

check-here:
	@[ -z '$(CLUSTER)' ] || { echo "error: make serve: it shows the runs of this machine only. Leave CLUSTER out, or build with: make html CLUSTER=$(CLUSTER)" >&2; exit 1; }

check-venv:
	@[ -x $(VENV_PYTHON) ] || { echo "error: VENV=$(VENV): no bin/python there. Name an environment, or leave VENV out" >&2; exit 1; }

# The compiler is checked before the download of some gigabytes, not after it.
$(ALL_STAMP):
	@$(PYTHON) recipe_runner/preflight.py
	echo "Installing $(if $(TORCH),torch $(TORCH),requirements.txt) into $(VENV): some minutes, once"
	$(MAKE) --no-print-directory $(if $(TORCH),.install-torch,.install) LOCK=requirements.txt
	touch $@

$(SITE_STAMP):
	@$(PYTHON) recipe_runner/preflight.py python venv
	echo "Installing requirements-site.txt into $(VENV)"
	$(MAKE) --no-print-directory .install LOCK=requirements-site.txt
	touch $@

# pip fetches uv, checked against the lock; uv installs the rest in a tenth of pip's time.
define fetch_uv
	$(PYTHON) -m venv --clear $(VENV)
	$(VENV_PYTHON) -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r <(sed -n '/^uv==/,/[^\\]$$/p' requirements.txt)
endef

.PHONY: .install .install-torch
.install:
	@$(fetch_uv)
	$(VENV)/bin/uv pip install --quiet --python $(VENV_PYTHON) --require-hashes --compile-bytecode -r $(LOCK)

# Not from the lock: torchvision must follow torch, so its version is resolved first.
.install-torch:
	@$(fetch_uv)
	printf 'torch==$(TORCH).*\ntorchvision\n' | $(VENV)/bin/uv pip compile --quiet --no-header --no-annotate - | grep -E '^torch(vision)?==' > $(VENV)/torch.txt
	$(VENV)/bin/uv pip install --quiet --python $(VENV_PYTHON) --compile-bytecode -r requirements.in --override $(VENV)/torch.txt
