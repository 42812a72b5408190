# Everything runs in an environment of its own, made on first use: make run, make test.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
ENGINES := $(VENV)/engines/bin

.DEFAULT_GOAL := help
.PHONY: help run test test-data test-engines tables lint format bench docs wheel clean

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

$(READY): pyproject.toml constraints.txt
	test -d $(VENV) || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

run: $(READY)  ## the first run: a classifier of embedded digits, and the same with fractals as outliers
	$(BIN)/python -m ood_lab

test: $(READY)  ## the default suite (5 to 15 minutes on two cores)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder -m "not data and not engines"

test-data: $(READY)  ## tests on real images: make test-data DATA=folder
	OOD_LAB_DATA=$(DATA) OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m data

# The Ray launcher wants an older cloudpickle than constraints.txt has, so these have an environment of their own.
$(ENGINES)/.ready: pyproject.toml $(READY)
	test -d $(VENV)/engines || $(PYTHON) -m venv $(VENV)/engines
	$(ENGINES)/python -m pip install --quiet --editable '.[dev,ray,slurm]'
	touch $@

test-engines: $(ENGINES)/.ready  ## tests on Ray and on a Slurm of this node (munge, slurmctld, slurmd installed)
	OMP_NUM_THREADS=1 $(ENGINES)/python -m pytest -m engines

tables: $(READY)  ## three tables of a paper on embedded data, end to end (two minutes)
	OMP_NUM_THREADS=1 $(BIN)/python -m ood_lab table=hamos_t11,hamos_t17,hamos_t20 scale=tiny workers=2 \
		paths.output=outputs/tiny

lint: $(READY)  ## style, types, import direction
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(READY)  ## rewrite to style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(READY)  ## speed of synthesis, training and its input, detectors and metrics; memory of evaluation
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/synthesis.py
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/training.py
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/data.py
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/memory.py
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/scoring.py
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/one_pass.py
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/tables.py
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/generated.py
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/decoded.py
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/images.py
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/outliers.py

docs: $(READY)  ## the pages of docs/ as a site, links checked: outputs/site/index.html
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet

wheel: $(READY)  ## build a wheel into dist/
	$(BIN)/python -m build --wheel

clean:  ## remove the environment and build products (outputs/ stays)
	rm -rf $(VENV) build dist *.egg-info
