# make demo: install, train a network that answers in one timestep, write a report.   make help: the rest.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# What the scripts get, for example: make test ARGS='-k lif'
ARGS :=
# The stamp's name carries a checksum of what is installed, so .venv is reused until one of these files changes.
STAMP := $(VENV)/.installed-$(shell cat pyproject.toml constraints.txt | cksum | tr ' ' '-')
# pip writes into a log, whose last lines are shown if it fails.
export PIP_PROGRESS_BAR := off
CACHES := .pytest_cache .ruff_cache .import_linter_cache .hypothesis build dist
SOURCES := datasets snn reservoir neurodecode spikedecode examples tests

.PHONY: help install demo test bench notebooks lint clean

help:
	@echo 'make demo      run the quickstart, write runs/quickstart/report.html'
	@echo 'make test      run the tests;                             ARGS="-k lif" runs some of them'
	@echo 'make bench     all benchmarks, one after the other, into examples/benchmarks/RESULTS.md'
	@echo 'make notebooks run the notebooks of examples/notebooks, from their scripts'
	@echo 'make lint      ruff and the import contracts'
	@echo 'make install   only make .venv, which the others do first and then reuse; PYTHON=python3.12 names another Python'
	@echo 'make clean     remove .venv and caches; runs/ stays'

install: $(STAMP)

$(STAMP):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo 'spikedecode needs Python 3.11 or newer, got '"$$($(PYTHON) --version 2>&1)"'. Name another: make PYTHON=python3.11'; exit 1; }
	@echo '== Installing into $(VENV): about 6 GB of packages and five minutes the first time.'
	@test -x $(BIN)/python || $(PYTHON) -m venv --clear $(VENV)
	@echo '== To watch it: tail -f $(VENV)/pip.log'
	@rm -f $(VENV)/.installed-*
	@{ $(BIN)/python -m pip install 'pip>=25.1' && $(BIN)/python -m pip install --constraint constraints.txt --group dev --editable .; } >$(VENV)/pip.log 2>&1 || { tail -n 20 $(VENV)/pip.log; echo '== Not installed: $(VENV)/pip.log says more. The next make goes on from here.'; exit 1; }
	@touch $@
	@echo '== Installed. $(VENV) is reused until pyproject.toml or constraints.txt changes.'

demo: $(STAMP)
	@echo '== Training a spiking network on handwritten digits, from five timesteps down to one: half a minute.'
	@$(BIN)/python examples/quickstart.py $(ARGS)

test: $(STAMP)
	@echo '== Running the tests: some minutes.'
	@$(BIN)/python -m pytest $(ARGS)

bench: $(STAMP)
	@echo '== Running the benchmarks one after the other: keep the machine idle meanwhile.'
	@$(BIN)/python examples/benchmarks/run_all.py $(ARGS)

notebooks: $(STAMP)
	@echo '== Running the notebooks and keeping their pictures.'
	@$(BIN)/python examples/notebooks/_run_all.py

lint: $(STAMP)
	@echo '== Checking style (ruff check), format (ruff format) and who imports whom (lint-imports, setup.cfg).'
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/lint-imports

clean:
	@echo '== Removing $(VENV) and caches; runs/ stays.'
	@rm -rf $(VENV) $(CACHES)
	@find $(SOURCES) -name __pycache__ -type d -prune -exec rm -rf {} +
