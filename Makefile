# Commands for working on slam-asr. Each one first makes `.venv` with everything it needs, so a fresh
# clone takes one command; later runs reinstall only when pyproject.toml or the lock has changed.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
PIP := pip==26.3
BIN := .venv/bin
INSTALLED := .venv/.installed
OLDEST := .venv-oldest
NIGHTLY := .venv-nightly
DEMO := runs/demo
DEMO_STUDY := runs/demo-study
MARKS ?= not e2e and not slow and not nightly and not browser
NIGHTLY_MARKS ?= not slow and not browser
# More for pip to heed in `make nightly`: NIGHTLY_WITH=torch==2.13.0 keeps the torch of the locks.
NIGHTLY_WITH ?=
MINUTES ?= 60
BENCH ?= --encoder openai/whisper-base --llm Qwen/Qwen2.5-0.5B --dataset data/digits-en

.DEFAULT_GOAL := help
.PHONY: help install install-oldest test oldest lint format nightly slow browser locks bench demo demo-study \
        demo-assets docs fuzz clean

help:  ## Show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | awk -F'\t' '{printf "make %-14s %s\n", $$1, $$2}'

install: $(INSTALLED)  ## Create .venv: the releases of locks/newest.txt and the project (editable)

# Python 3.11's own pip is too old. The lock holds the extras, so that no test is skipped, and what builds the project.
$(INSTALLED): pyproject.toml locks/newest.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet $(PIP)
	$(BIN)/python -m pip install --requirement locks/newest.txt
	$(BIN)/python -m pip install --no-deps --no-build-isolation --editable .
	@touch $@

install-oldest: $(OLDEST)/.installed  ## Create .venv-oldest: the releases of locks/oldest.txt

$(OLDEST)/.installed: locks/oldest.txt
	$(PYTHON) -m venv $(OLDEST)
	$(OLDEST)/bin/python -m pip install --quiet $(PIP)
	$(OLDEST)/bin/python -m pip install --requirement locks/oldest.txt
	@touch $@

# pytest runs last, so that its summary is the last line.
test: lint  ## Everything a change must pass: lint, format, types, fast tests
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "$(MARKS)"

# Checkpoints saved by either environment are loaded by both.
oldest: $(INSTALLED) $(OLDEST)/.installed  ## The model's tests, checkpoints and their code among them, on the oldest releases
	SLAM_OTHER_PYTHON=$(CURDIR)/$(BIN)/python $(OLDEST)/bin/python -m pytest -n 2 -m "not slow and not nightly" tests/model

lint: $(INSTALLED)  ## Style, format and type checks
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/ty check

format: $(INSTALLED)  ## Rewrite the code to the project's format
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

nightly:  ## The newest releases within the ranges, without lock, in .venv-nightly; also tests too long for .ci/run
	$(PYTHON) -m venv --clear $(NIGHTLY)
	$(NIGHTLY)/bin/python -m pip install --quiet $(PIP)
	$(NIGHTLY)/bin/python -m pip install --editable ".[all]" --group dev $(NIGHTLY_WITH)
	$(NIGHTLY)/bin/python -m pip freeze --exclude-editable
	$(NIGHTLY)/bin/python -m pytest -n 2 --dist loadfile -m "$(NIGHTLY_MARKS)" --hypothesis-profile nightly

slow: $(INSTALLED)  ## Tests on real pretrained models and recorded speech
	$(BIN)/python -m pytest -m slow

fuzz: $(INSTALLED)  ## Damaged sound files, tables and texts, drawn anew until MINUTES=60 are over
	$(BIN)/python tests/fuzz.py --minutes $(MINUTES)

browser: $(INSTALLED)  ## The pages of a study and of a model in a real Chromium; set CHROMIUM if it is not on the path
	$(BIN)/python -m pytest -m browser tests/report/test_browser.py tests/app/test_app_in_browser.py

locks: $(INSTALLED)  ## Write locks/newest.txt and locks/oldest.txt anew from pyproject.toml
	$(BIN)/python locks/renew.py

docs: $(INSTALLED)  ## The documentation as a site, in build/docs; a link that leads nowhere ends it
	$(BIN)/python -m sphinx -b html -W --keep-going -q -c docs . build/docs
	@echo "build/docs/index.html"

# Other models, speech and settings: make bench BENCH="--encoder DIR --llm DIR --dataset DIR --parts training"
bench: $(INSTALLED)  ## Speed and memory of training, evaluation and loading, against plain ways
	$(BIN)/python -m benchmarks $(BENCH)

# Everything below $(DEMO) is replaced.
demo: $(INSTALLED)  ## Train on the embedded speech and evaluate: the whole path, offline, in four minutes
	$(BIN)/python -m modeling_slam.demo.quickstart --output_dir $(DEMO)

demo-study: $(INSTALLED)  ## WER against kept encoder layers in three languages, with and without LoRA: half an hour
	$(BIN)/python -m modeling_slam.study run studies/demo.yaml --output_dir $(DEMO_STUDY) --workers 2 --threads 1
	$(BIN)/python -m modeling_slam.study report $(DEMO_STUDY) --paper

demo-assets: $(INSTALLED)  ## Make the embedded speech and the tiny pretrained backbones anew: half an hour
	$(BIN)/python -m modeling_slam.demo.build_assets modeling_slam/demo/assets

clean:  ## Remove the environments, caches and the demo's files; other runs stay
	rm -rf .venv $(OLDEST) $(NIGHTLY) $(DEMO) .pytest_cache .ruff_cache .hypothesis build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
