# One environment for everything: .venv, made from constraints.txt and reused until that file or pyproject.toml changes.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo test test-slow lint bench clean

$(READY): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[dev]"
	touch $@

demo: $(READY)  ## train, evaluate, generate, plot, save and reload on the embedded corpus
	$(BIN)/python train.py recipes/cldr-demo.yaml

test: $(READY)  ## everything that runs in minutes on two cores
	$(BIN)/python -m pytest -q -n auto --dist loadfile

test-slow: $(READY)  ## slow and GPU tests, and tests on corpora outside the repository
	$(BIN)/python -m pytest -q -m "slow or gpu"

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

bench: $(READY)  ## every benchmark in one run; its pages are in runs/benchmarks
	$(BIN)/python -m benchmarks

clean:
	rm -rf $(VENV) build dist *.egg-info
