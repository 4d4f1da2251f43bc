# Needs Python 3.11 or later with its venv module, and make. Fetches Python packages and nothing else.
PYTHON ?= python3
# Test processes at once. Each loads TensorFlow (about 1 GB).
TEST_WORKERS ?= 2

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
DEMO_RUN := runs/demo

.PHONY: demo docs test lint constraints clean
.DELETE_ON_ERROR:

# Cells are synthetic, so nothing is downloaded. The run's folder is the demo's own and made anew every time.
demo: $(VENV)/.installed
	rm -rf $(DEMO_RUN)
	$(BIN)/bloodauto search --space tiny --budget 6cpu-min --run $(DEMO_RUN)
	$(BIN)/bloodauto report --run $(DEMO_RUN)

# Pages of the reference are generated from the code; tests/docs compares them with the files.
docs: $(VENV)/.installed-dev
	$(BIN)/python docs/generate.py
	$(BIN)/mkdocs build --strict

test: lint
	$(BIN)/python -m pytest -n $(TEST_WORKERS) --dist loadfile --no-loadscope-reorder --durations 40

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Writes down what the environment has; the comment at the head of the file stays.
constraints: $(VENV)/.installed-dev
	{ grep '^#' constraints.txt; $(PIP) freeze --exclude-editable | sort -f; } > $(VENV)/constraints.new
	mv $(VENV)/constraints.new constraints.txt

clean:
	rm -rf $(VENV) $(DEMO_RUN) dist build site

# The stamps say what is installed; they go with the environment, and a failed install leaves none.
$(VENV)/.installed: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) install --quiet --constraint constraints.txt --editable .
	touch $@

$(VENV)/.installed-dev: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) install --quiet --constraint constraints.txt --editable '.[dev,docs]'
	touch $@ $(VENV)/.installed

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)
