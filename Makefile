# Every target sets .venv up first; that takes a minute or two once and no time afterwards.
.DEFAULT_GOAL := help
.PHONY: help setup book test check run sweep reproduce known figure publish refresh look pdf clean

PROFILE ?= cpu
DEVICE ?= auto
SEED ?= 0
# Candidates in the order of trial. Each is executed, since a name on the path need not run (pyenv's shims).
PYTHONS = $(or $(PYTHON),python3 python3.13 python3.12 python3.11)
VENV := .venv/bin/python

KNOWN := SITE CHAPTER ID PROFILE DEVICE SEED SCHEDULER PYTHON PYTEST_ARGS
ifneq ($(filter reproduce,$(MAKECMDGOALS)),)
# What is published holds for one seed, and for the device of each profile.
KNOWN := CHAPTER PROFILE PYTHON
endif
UNKNOWN := $(filter-out $(KNOWN),$(foreach v,$(filter-out -%,$(MAKEOVERRIDES)),$(if $(findstring =,$v),$(firstword $(subst =, ,$v)))))
ifneq ($(strip $(UNKNOWN)),)
$(error unknown setting $(UNKNOWN); expected one of $(KNOWN))
endif

help: ## list the targets
	@echo "make TARGET, where TARGET is one of"
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  %-9s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo "PYTHON=python3.12 chooses the Python that .venv is made with."

setup: ## make or update .venv with the pinned packages
	@for python in $(PYTHONS); do \
	  if "$$python" -c 'import ensurepip, sys, venv; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' \
	    2>/dev/null; then exec "$$python" .ci/bootstrap.py; fi; \
	done; \
	for python in $(PYTHONS); do \
	  if "$$python" -c '' 2>/dev/null; then exec "$$python" .ci/bootstrap.py; fi; \
	done; \
	echo "error: none of $(PYTHONS) runs; install Python 3.11 or newer, or name it: make PYTHON=... book" >&2; exit 1

book: setup ## run the chapters at the cpu profile and build the HTML
	@$(VENV) -m studies.runs book

test: setup ## unit tests, doctests, and every notebook at the smoke profile
	@OPENBLAS_NUM_THREADS=1 OMP_NUM_THREADS=1 $(VENV) -m pytest -n 2 --dist loadfile --nbval-lax --nbval-current-env \
	  --nbval-cell-timeout=1800 --nbval-kernel-startup-timeout=1800 $(PYTEST_ARGS)

check: setup ## the fast lane: style, and one case of each test that is not slow; PYTEST_ARGS='--cases 9' for more
	@$(VENV) -m ruff check .
	@$(VENV) -m ruff format --check .
	@OPENBLAS_NUM_THREADS=1 OMP_NUM_THREADS=1 $(VENV) -m pytest -n 2 -m "not slow" --cases 1 tests neumatc book/studies $(PYTEST_ARGS)

run: setup ## execute one chapter: CHAPTER=... [PROFILE=smoke|cpu|study|gpu] [DEVICE=auto|cpu|cuda] [SEED=0]
	@$(VENV) -m studies.runs run "$(CHAPTER)" --profile "$(PROFILE)" --device "$(DEVICE)" --seed "$(SEED)"

sweep: setup ## run chapters on the workers of Dask: [CHAPTER="... ..."] [PROFILE=...] [SEED=0] [SCHEDULER=tcp://host:8786]
	@$(VENV) -m studies.sweeps $(CHAPTER) --profile "$(PROFILE)" --device "$(DEVICE)" --seed "$(SEED)" \
	  --scheduler "$(SCHEDULER)"

reproduce: setup ## run chapters and compare with the published numbers: [PROFILE=smoke|cpu|gpu] [CHAPTER=...]
	@$(VENV) -m studies.reproduce run $(CHAPTER) --profile "$(PROFILE)"

# Before set-up, which can take minutes: an unknown ID fails at once, and a known one says what it takes.
known:
	@for python in $(PYTHONS); do \
	  if "$$python" -c '' 2>/dev/null; then exec "$$python" book/studies/ids.py "$(ID)" "$(PROFILE)"; fi; \
	done

figure: known setup ## remake one figure or table from its record: ID=... [PROFILE=smoke|cpu|study|gpu]
	@$(VENV) -m studies.runs figure "$(ID)" --profile "$(PROFILE)"

publish: setup ## keep the record of a run in notebooks/records: CHAPTER=... [PROFILE=cpu|study|gpu]
	@$(VENV) -m studies.runs publish "$(CHAPTER)" --profile "$(PROFILE)"

refresh: setup ## execute the saved notebooks in place at the smoke profile: [CHAPTER=...]
	@$(VENV) -m studies.runs refresh $(CHAPTER)

look: setup ## open every page of the built book in headless Chromium and check it: [SITE=_build/html]
	@$(VENV) -m studies.look $(SITE)

pdf: setup ## print the built book to _build/html/neumatc.pdf with headless Chromium
	@$(VENV) -m studies.pdf

clean: ## remove what was built, not .venv
	rm -rf _build .pytest_cache .ruff_cache .hypothesis neumatc.egg-info book/build book/neumatc_studies.egg-info
	find book neumatc notebooks tests .ci -name __pycache__ -type d -prune -exec rm -rf {} +
