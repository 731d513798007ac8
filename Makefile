# All targets use .venv, which is created from requirements.lock when it is first needed.
# To use another interpreter: make setup PYTHON=python3.12

PYTHON ?= python3
# Number of test processes, each of which may use 4 GB of memory.
WORKERS ?= 2
BIN := .venv/bin
STAMP := .venv/.installed

.DEFAULT_GOAL := help
.PHONY: help setup test test-all demo docs lint format lock clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-9s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

setup: $(STAMP)  ## create .venv with the locked packages and flowseg

$(STAMP): requirements.lock setup.py
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || \
	  { echo 'FlowSeg needs Python 3.11 to 3.13. Name one: make setup PYTHON=python3.12' >&2; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -r requirements.lock
	$(BIN)/python -m pip install --no-deps --no-build-isolation -e .
	@touch $@

test: setup  ## run the tests
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder

test-all: setup  ## run all tests; installs PyTorch (3 GB), Ray, ONNX, Gradio and Playwright
	$(BIN)/python -m pip install -r requirements-all.lock
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder -m ''

demo: setup  ## run the demo; DATA=folder uses your own data
	$(BIN)/python -m experiments.demo $(if $(DATA),--source "$(DATA)")

docs: setup  ## build the documentation site into docs/_build/html
	$(BIN)/python -m sphinx -W --keep-going -q -b html -d docs/_build/doctrees docs docs/_build/html
	@echo 'open docs/_build/html/index.html'

lint: setup  ## check style and format without changing files
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: setup  ## format the code and apply ruff's fixes
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

lock: setup  ## regenerate the lock files; UPGRADE=--upgrade updates every pin to its newest release
	$(BIN)/uv pip compile setup.py --output-file requirements.lock $(UPGRADE) \
	  --universal --python-version 3.11 --fork-strategy fewest \
	  --extra tflite --extra saved_model --extra jax --extra scenes --extra lite0 --extra test \
	  --extra docs --extra dev \
	  --custom-compile-command 'make lock' --quiet
	$(BIN)/uv pip compile setup.py --output-file requirements-all.lock $(UPGRADE) \
	  --universal --python-version 3.11 --fork-strategy fewest --constraint requirements.lock \
	  --extra torch --extra peers --extra demo --extra browser --extra serve --extra ray --extra onnx \
	  --custom-compile-command 'make lock' --quiet

clean:  ## remove caches and build outputs; data, runs and .venv stay
	rm -rf build dist docs/_build *.egg-info .pytest_cache .ruff_cache
	find . \( -path ./.venv -o -path ./.git -o -path ./data -o -path ./runs \) -prune \
	  -o -name __pycache__ -prune -exec rm -rf {} +
