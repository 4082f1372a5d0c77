# One environment for everything: .venv, made from constraints.txt and reused until that file or pyproject.toml changes.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo explorer test test-slow test-browser test-oldest check lint types imports docs bench multi30k clean

# Python compiles what it imports, once: pip would compile eighteen thousand files, for a quarter of the set-up's time.
# Without files of bytecode every process compiles all of it anew: `import crossmask` takes twice as long.
unexport PYTHONDONTWRITEBYTECODE
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

$(READY): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(INSTALL) --no-compile torch
	$(BIN)/python -m compileall -qq $(VENV)/lib/*/site-packages/torch & $(INSTALL) --no-compile --editable ".[dev]" && wait
	touch $@

demo: $(READY)  ## train, evaluate, generate, plot, save and reload on the embedded corpus
	$(BIN)/python train.py recipes/cldr-demo.yaml --overwrite

test: $(READY)  ## everything that runs in minutes on two cores
	$(BIN)/python -m pytest -q -n auto --dist worksteal

test-slow: $(READY)  ## slow and GPU tests, and tests on corpora outside the repository
	$(BIN)/python -m pytest -q -m "slow or gpu"

$(VENV)/.browser: $(READY)
	$(INSTALL) --editable ".[browser]"
	$(BIN)/python -m playwright install chromium
	touch $@

test-browser: $(VENV)/.browser  ## the explorer's page in Chromium: clicks, keys, axe, bad input; needs npm
	$(BIN)/python -m pytest -q -m browser

OLDEST := .venv-oldest
OLDEST_TORCH ?= torch==2.9.0
# Builds for CPU: those of PyPI bring gigabytes of CUDA.
OLDEST_TORCH_INDEX ?= --torch-backend cpu
OLDEST_TESTS ?= tests

test-oldest:  ## tests with the oldest versions that pyproject.toml allows
	$(PYTHON) -m venv --clear $(OLDEST)
	$(OLDEST)/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt uv
	echo "$(OLDEST_TORCH)" > $(OLDEST)/override.txt
	$(OLDEST)/bin/uv pip install --python $(OLDEST)/bin/python --resolution lowest-direct $(OLDEST_TORCH_INDEX) \
		--override $(OLDEST)/override.txt --editable ".[dev]"
	$(OLDEST)/bin/python -m pytest -q -n auto --dist worksteal $(OLDEST_TESTS)

check: lint types imports  ## all that is checked without running the code

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY)  ## mypy: masks/, attention/ and configuration/ strictly, elsewhere no more errors than there are
	$(BIN)/python .ci/check_types.py

imports: $(READY)  ## which folder may import which
	$(BIN)/lint-imports --no-logo

$(VENV)/.docs: $(READY)
	$(INSTALL) --editable ".[docs]"
	touch $@

docs: $(VENV)/.docs  ## the documentation site, in site/, with the notebook as it ran
	@# The package under its name, without $(VENV): a link to the root would be followed round and round.
	rm -rf $(VENV)/docs && mkdir -p $(VENV)/docs/crossmask
	ln -s $(CURDIR)/__init__.py $(patsubst %/__init__.py,$(CURDIR)/%,$(wildcard */__init__.py)) $(VENV)/docs/crossmask
	NO_MKDOCS_2_WARNING=1 PYTHONPATH=$(VENV)/docs $(BIN)/mkdocs build --strict --quiet
	mkdir -p runs/notebook && cp docs/lessons/demonstration.ipynb runs/notebook
	CROSSMASK_TINY=1 $(BIN)/jupyter-execute --inplace runs/notebook/demonstration.ipynb
	cp runs/notebook/demonstration.ipynb site/lessons

explorer: docs runs/cldr-demo/metrics.json  ## the explorer with the demonstration model, in site/explorer/demo; needs npm
	rm -rf site/explorer/demo
	$(BIN)/crossmask explore runs/cldr-demo --write-static site/explorer/demo

runs/cldr-demo/metrics.json: | $(READY)
	$(BIN)/python train.py recipes/cldr-demo.yaml

bench: $(READY)  ## every benchmark in one run; its pages are in runs/benchmarks
	$(BIN)/python -m benchmarks

multi30k: runs/multi30k-en-de-diversified/metrics.json  ## the best Multi30k model, in five steps (docs/training.md)

TRANSLATED := runs/multi30k-translated
LINES := runs/multi30k-lines

runs/multi30k-en-de-r-drop/metrics.json: | $(READY)
	$(BIN)/python train.py recipes/multi30k-en-de-r-drop.yaml

runs/multi30k-de-en/metrics.json: | $(READY)
	$(BIN)/python train.py recipes/multi30k-en-de-r-drop.yaml --output_dir runs/multi30k-de-en \
		--summary "Translates German image captions into English." --language de en \
		--task_options '{"source_column": "target", "target_column": "source"}'

$(LINES)/source.gz $(LINES)/target.gz: $(LINES)/%.gz: | $(READY)
	$(BIN)/crossmask extract recipes/multi30k-en-de-r-drop.yaml --column $* --output $@

$(TRANSLATED)/de-en.tsv.gz: runs/multi30k-en-de-r-drop/metrics.json $(LINES)/source.gz
	$(BIN)/crossmask translate runs/multi30k-en-de-r-drop $(LINES)/source.gz --output $@ \
		--num-beams 2 --pairs

$(TRANSLATED)/en-de.tsv.gz: runs/multi30k-de-en/metrics.json $(LINES)/target.gz
	$(BIN)/crossmask translate runs/multi30k-de-en $(LINES)/target.gz --output $@ \
		--num-beams 2 --pairs

runs/multi30k-en-de-diversified/metrics.json: $(TRANSLATED)/de-en.tsv.gz $(TRANSLATED)/en-de.tsv.gz
	$(BIN)/python train.py recipes/multi30k-en-de-diversified.yaml

clean:
	rm -rf $(VENV) build dist site *.egg-info
