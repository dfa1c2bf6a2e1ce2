# make demo: the tool on a small simulated study, offline, in some six minutes after installation.
# make test: everything that must hold before a commit.
# make docs: the documentation as web pages, docs/_build/html; runs the demo and the examples, some minutes.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test slow docs clean

demo: .stamp/installed
	$(BIN)/synapse-diffusion demo

test: .stamp/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/pytest -n 2 --dist loadfile -m "not slow"

slow: .stamp/dev
	$(BIN)/pytest -n 2 --dist loadfile -m slow

docs: .stamp/dev
	$(BIN)/python -m sphinx -W --keep-going docs docs/_build/html

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed, this is " + sys.version.split()[0]) if sys.version_info < (3, 11) else None'
	@$(PYTHON) -m venv $(VENV) || (rm -rf $(VENV); echo "python3 -m venv failed; on Debian: apt-get install python3-venv"; exit 1)

.stamp/installed: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet -c constraints.txt -e .
	@mkdir -p .stamp && touch $@

.stamp/dev: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[dev]"
	@mkdir -p .stamp && touch $@ .stamp/installed

clean:
	rm -rf $(VENV) .stamp demo docs/_build docs/_demo docs/gallery docs/reference/generated
