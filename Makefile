# One environment for everything: .venv, made from constraints.txt and reused until that file or pyproject.toml changes.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo explorer test test-slow test-browser test-oldest check lint types imports docs bench multi30k news clean

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
	$(BIN)/python train.py recipes/cldr-demo.yaml $(call begin,$(@D))

bench: $(READY)  ## every benchmark in one run; its pages are in runs/benchmarks
	$(BIN)/python -m benchmarks

# How a run begins where there was one: from its last checkpoint if it was interrupted, in its place if its input is newer.
begin = $(if $(wildcard $(1)/checkpoint-*/trainer_state.json),--resume_from_checkpoint last,$(if $(wildcard $(1)/metrics.json),--overwrite))

# Data diversification (docs/optimization.md): a model of each direction, both sides of the training data as lines, their translations by
# them, and a third model. diversified(NAME, recipe of the first model, options of the reverse one, what is extracted, of translate)
define diversified
runs/$(2)/metrics.json: | $$(READY)
	$$(BIN)/python train.py recipes/$(2).yaml $$(call begin,$$(@D))

runs/$(1)-de-en/metrics.json: | $$(READY)
	$$(BIN)/python train.py recipes/$(2).yaml --output_dir $$(@D) $$(call begin,$$(@D)) $(3) \
		--language de en --task_options '{"source_column": "target", "target_column": "source"}'

runs/$(1)-lines/source.gz runs/$(1)-lines/target.gz: runs/$(1)-lines/%.gz: | $$(READY)
	$$(BIN)/crossmask extract recipes/$(2).yaml --column $$* --output $$@ $(4)

runs/$(1)-translated/de-en.tsv.gz: runs/$(2)/metrics.json runs/$(1)-lines/source.gz
	rm -f $$@
	$$(BIN)/crossmask translate runs/$(2) runs/$(1)-lines/source.gz --output $$@ --num-beams 2 --pairs $(5)

runs/$(1)-translated/en-de.tsv.gz: runs/$(1)-de-en/metrics.json runs/$(1)-lines/target.gz
	rm -f $$@
	$$(BIN)/crossmask translate runs/$(1)-de-en runs/$(1)-lines/target.gz --output $$@ --num-beams 2 --pairs $(5)

runs/$(1)-en-de-diversified/metrics.json: runs/$(1)-translated/de-en.tsv.gz runs/$(1)-translated/en-de.tsv.gz
	$$(BIN)/python train.py recipes/$(1)-en-de-diversified.yaml $$(call begin,$$(@D))
endef

multi30k: runs/multi30k-en-de-diversified/metrics.json  ## the best Multi30k model, in five steps (docs/optimization.md)
$(eval $(call diversified,multi30k,multi30k-en-de-r-drop,--summary "Translates German image captions into English."))

news: runs/news-en-de-diversified/metrics.json  ## the best news model, likewise
$(eval $(call diversified,news,news-en-de,--summary "Translates German news into English.",\
	--part 'train[1]' --part 'train[2]',--overlong drop))

clean:
	rm -rf $(VENV) build dist site *.egg-info
