# Two commands for a fresh machine: `make caption` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
WORKERS ?= 2
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: caption test lint cards clean

caption: $(VENV)/installed
	$(BIN)/mac-caption examples

test: $(VENV)/installed-dev lint
	HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS)

lint: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The remote-code files of every model card, copied from the packages.
cards: $(VENV)/installed
	$(BIN)/python model_cards/make_cards.py

clean:
	rm -rf $(VENV) build dist *.egg-info

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

# torch comes first and by its exact version, so that no other package pulls in another build of it.
$(VENV)/installed: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(INSTALL) $$(grep '^torch==' constraints.txt)
	$(INSTALL) -e .
	touch $@

$(VENV)/installed-dev: $(VENV)/installed
	$(INSTALL) -e .[dev]
	touch $@
