# Two commands: `make go` and `make test`. Both make .venv first; README.md has them without make.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin

.PHONY: go test soak lint clean

go: $(VENV)/.run
	$(BIN)/curbcut go

test: $(VENV)/.dev
	$(BIN)/ruff check src tests benchmarks
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/pytest -n 2 --dist worksteal -m "not soak"

soak: $(VENV)/.dev
	$(BIN)/pytest -m soak

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed; name it: make PYTHON=/path/to/python3.11"; exit 2; }
	$(PYTHON) -m venv $$($(PYTHON) -c 'import torch' 2>/dev/null && echo --system-site-packages) $(VENV)

# A torch that is there already, of whatever build, is used and not replaced.
$(VENV)/constraints.txt: constraints.txt | $(BIN)/python
	@if $(BIN)/python -c 'import torch' 2>/dev/null; then grep -v '^torch==' $< > $@; else cp $< $@; fi

$(VENV)/.run: pyproject.toml $(VENV)/constraints.txt
	$(BIN)/python -m pip install -q --disable-pip-version-check -c $(VENV)/constraints.txt -e '.[train,serve]'
	@touch $@

$(VENV)/.dev: pyproject.toml $(VENV)/constraints.txt
	$(BIN)/python -m pip install -q --disable-pip-version-check -c $(VENV)/constraints.txt -e '.[dev]'
	@touch $@ $(VENV)/.run

clean:
	rm -rf $(VENV) build dist
