# make demo: install, train a network that answers in one timestep, write a report.   make help: the rest.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# The stamp's name carries a checksum of what is installed, so .venv is reused until one of these files changes.
STAMP := $(VENV)/.installed-$(shell cat pyproject.toml constraints.txt | cksum | tr ' ' '-')

.PHONY: help install demo test bench lint clean

help:
	@echo 'make demo    install, run the quickstart, write runs/quickstart/report.html'
	@echo 'make test    install, run the tests'
	@echo 'make lint    ruff and the import contracts'
	@echo 'make bench   all benchmarks, written to examples/benchmarks/RESULTS.md'
	@echo 'make clean   remove .venv and caches; runs/ stays'

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo 'spikedecode needs Python 3.11 or newer, got '"$$($(PYTHON) --version 2>&1)"'. Name another: make PYTHON=python3.11'; exit 1; }
	@echo '== Installing into $(VENV): several GB of wheels the first time, about five minutes.'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'
	@PIP_PROGRESS_BAR=off $(BIN)/python -m pip install --quiet --constraint constraints.txt --group dev --editable .
	@rm -f $(VENV)/.installed-* && touch $@
	@echo '== Installed. $(VENV) is reused until pyproject.toml or constraints.txt changes.'
