# Two commands for a fresh machine: `make caption` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
WORKERS ?= 2
TESTS ?= tests
# The lower bounds of pyproject.toml as exact versions; of the newest there is nothing to say.
BOUNDS_lowest = sed -nE 's/^ +"([A-Za-z0-9-]+)>=([0-9.]+).*/\1==\2/p' pyproject.toml | grep -v '^torch=='
BOUNDS_newest = true
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

# transformers' own common tests lie in its source distribution alone; without them those tests are skipped.
COMMON_TESTS = $(BIN)/python -m pip download --quiet --disable-pip-version-check --no-deps --no-binary :all: \
	--dest $(VENV)/sources $$(grep '^transformers==' constraints.txt) && tar -xzf $(VENV)/sources/transformers-*.tar.gz -C $(VENV)

# axe-core looks for faults of accessibility in the page of mac-demo; without npm that test is skipped.
AXE = npm install --silent --no-fund --no-audit --prefix $(VENV) axe-core@4.14.1

.PHONY: caption test test-kernels test-newest test-lowest lint cards clean

caption: $(VENV)/installed
	$(BIN)/mac-caption examples

test: $(VENV)/installed-dev lint
	HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS)

# mamba-ssm's kernels on a CPU, in Triton's interpreter: our calls of them, checked without a GPU. On a machine with a GPU
# and the extra [cuda]: pytest -m gpu
test-kernels: $(VENV)/installed-kernels
	HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 TRITON_INTERPRET=1 PYTHONPATH=$(VENV)/kernels \
		$(BIN)/python -m pytest -n $(WORKERS) tests/kernels

lint: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Do the ranges of pyproject.toml hold at both ends? Run them before a release and when a library has a new version:
# where the newest fails, mend or lower the upper bound; where the lowest fails, raise the lower bound. For a part:
#   make test-lowest TESTS="tests/modeling_mac tests/processing_mac" WORKERS=1
# Their environments are made anew each time. torch alone stays at the version of constraints.txt: others, the oldest above
# all, have no build for a CPU on every package index. CONTRIBUTING.md says when both last ran, and with what.
test-newest test-lowest: test-%:
	rm -rf .venv-$*
	$(PYTHON) -m venv .venv-$*
	grep '^torch==' constraints.txt > .venv-$*/bounds.txt
	$(BOUNDS_$*) >> .venv-$*/bounds.txt
	.venv-$*/bin/python -m pip install --quiet --disable-pip-version-check $$(grep '^torch==' constraints.txt)
	.venv-$*/bin/python -m pip install --quiet --disable-pip-version-check -c .venv-$*/bounds.txt -e .[dev]
	.venv-$*/bin/python -m pip freeze --exclude-editable
	HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 .venv-$*/bin/python -m pytest -n $(WORKERS) $(TESTS)

# The remote-code files of every model card, copied from the packages.
cards: $(VENV)/installed
	$(BIN)/python model_cards/make_cards.py

clean:
	rm -rf $(VENV) .venv-newest .venv-lowest build dist *.egg-info

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

# torch comes first and by its exact version, so that no other package pulls in another build of it.
$(VENV)/installed: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(INSTALL) $$(grep '^torch==' constraints.txt)
	$(INSTALL) -e .
	touch $@

# Apart from the rest, so that nothing else finds them. Their Python alone is built: the CUDA modules need nvcc.
KERNELS = triton einops mamba-ssm causal-conv1d
$(VENV)/installed-kernels: $(VENV)/installed-dev
	rm -rf $(VENV)/kernels
	MAMBA_SKIP_CUDA_BUILD=TRUE MAMBA_FORCE_BUILD=TRUE CAUSAL_CONV1D_SKIP_CUDA_BUILD=TRUE CAUSAL_CONV1D_FORCE_BUILD=TRUE \
		$(INSTALL) --no-deps --no-build-isolation --target $(VENV)/kernels $(KERNELS)
	touch $@

$(VENV)/installed-dev: $(VENV)/installed
	$(INSTALL) -e .[dev]
	-$(COMMON_TESTS)
	-$(AXE)
	touch $@
