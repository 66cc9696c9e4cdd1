# Two commands do everything on a machine with Python >= 3.12, make and git:
#   make demo   set up .venv if needed and run the main comparison into runs/demo
#   make test   the same set-up with the development tools, then the tests

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
SETUP := pyproject.toml constraints.txt

# Tests of numbers and of files, which hold on the oldest versions that pyproject.toml admits too. What is newer than
# those versions warns of what they do, so that here warnings are no errors.
LOWEST := tests/test_docs.py \
  $(addprefix tests/mixture_models/test_,elementary.py noise.py precision.py mixture_law.py metrics.py) \
  $(addprefix tests/inference/test_,programs.py results.py grid.py stepping.py) \
  $(addprefix tests/inference/test_sweeps,.py _resumed.py _refused.py _cli.py) \
  $(addprefix tests/inference/measurement/test_,separation.py measurement_law.py)

.PHONY: demo test lowest slow browser browser-tools docs bench check format clean
.DELETE_ON_ERROR:

demo: $(VENV)/.installed
	$(BIN)/massdrift compare --out runs/demo --overwrite

test: $(VENV)/.installed-dev
	$(BIN)/python -m pytest

lowest: $(VENV)-lowest/.installed
	$(VENV)-lowest/bin/python -m pytest -W default $(LOWEST)

slow: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -m slow

browser-tools: $(VENV)/.installed-dev
	$(PIP) -e '.[dev,browser]'

browser: browser-tools
	$(BIN)/python -m pytest -n 1 -m browser tests/analyses/test_browser.py

docs: $(VENV)/.installed-dev
	$(PIP) -e '.[dev,docs]'
	$(BIN)/mkdocs build -q
	@echo "To look at: build/site/index.html"

bench: $(VENV)/.installed-dev
	JAX_ENABLE_COMPILATION_CACHE=false $(BIN)/python -m pytest -n 0 -m benchmark -s benchmarks

check: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.installed-dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

$(VENV)/.installed: $(SETUP) | $(BIN)/python
	$(PIP) -e .
	@touch $@

$(VENV)/.installed-dev: $(SETUP) | $(BIN)/python
	$(PIP) -e '.[dev]'
	@touch $@ $(VENV)/.installed

$(VENV)-lowest/.installed: pyproject.toml constraints-lowest.txt | $(BIN)/python
	$(BIN)/python -m venv $(VENV)-lowest
	$(VENV)-lowest/bin/python -m pip install --quiet --disable-pip-version-check -c constraints-lowest.txt -e '.[dev]'
	@touch $@

# A version manager's shim can exist and fail, so every candidate is run, not only looked for.
$(BIN)/python:
	@for python in python3 python3.12 python3.13 python3.14 python; do \
	  if $$python -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 12))' >/dev/null 2>&1; then \
	    echo "Setting up $(VENV) with $$($$python --version)"; \
	    exec $$python -m venv $(VENV); \
	  fi; \
	done; \
	echo 'massdrift needs Python 3.12 or newer with its venv module: install one, from python.org, with "apt install python3.12-venv" or with "pyenv install 3.12", and run make again.' >&2; \
	exit 1

clean:
	rm -rf $(VENV) $(VENV)-lowest .mypy_cache .pytest_cache .ruff_cache .hypothesis *.egg-info
