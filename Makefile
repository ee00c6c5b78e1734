# `make app` and `make test` do all their own set-up; see README.md.
PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
TEST_FLAGS ?= -n 2 --dist loadfile

.PHONY: app lab pages setup test test-slow test-gpu lint browser clean
.DELETE_ON_ERROR:

app: $(STAMP)
	$(BIN)/python app.py $(ARGS)

lab: $(STAMP)
	$(BIN)/jupyter lab notebooks

# The notebooks as HTML that works offline, in build/notebooks.
pages: $(STAMP)
	$(BIN)/python -m workbench.widgets.pages

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(not ((3, 11) <= sys.version_info < (3, 13)))' || \
	  { echo "Python 3.11 or 3.12 is needed, $(PYTHON) is another; run: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)"; exit 2; }
	@echo "Setting up $(VENV): about 0.5 GB to download with a CPU build of torch, 3 GB with the CUDA build (Linux default)."
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(if $(TORCH_INDEX),$(BIN)/python -m pip install --quiet --disable-pip-version-check --index-url $(TORCH_INDEX) torch==2.13.0)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch==2.13.0 -e '.[test]'
	@touch $@

browser: $(STAMP)
	@$(BIN)/python -m tests.browser

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

# Two torch threads on busy cores disturb each other: the tests run one thread a worker.
test: $(STAMP) browser lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(TEST_FLAGS) -m "not slow and not gpu"

test-slow: $(STAMP) browser
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m slow

test-gpu: $(STAMP)
	$(BIN)/python -m pytest -m gpu

clean:
	rm -rf $(VENV) artifacts build *.egg-info .pytest_cache .mypy_cache .ruff_cache
