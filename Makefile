# Commands for working on slam-asr. Each one first makes `.venv` with everything it needs, so a fresh
# clone takes one command; later runs reinstall only when pyproject.toml has changed.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
INSTALLED := .venv/.installed
DEMO := runs/demo
DEMO_STUDY := runs/demo-study
MARKS ?= not slow and not browser
BENCH ?= --encoder openai/whisper-base --llm Qwen/Qwen2.5-0.5B --dataset data/digits-en

.DEFAULT_GOAL := help
.PHONY: help install test lint format slow browser bench demo demo-study demo-assets clean

help:  ## Show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | awk -F'\t' '{printf "make %-11s %s\n", $$1, $$2}'

install: $(INSTALLED)  ## Create .venv with the project (editable) and the development tools

# With the optional extras, so that no test is skipped. Python 3.11's own pip is too old for `--group`.
$(INSTALLED): pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"
	$(BIN)/python -m pip install --editable ".[mdc,plots,ray,slurm,study]" --group dev
	@touch $@

# pytest runs last, so that its summary is the last line.
test: lint  ## Everything a change must pass: lint, format, types, fast tests
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "$(MARKS)"

lint: $(INSTALLED)  ## Style, format and type checks
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/ty check

format: $(INSTALLED)  ## Rewrite the code to the project's format
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

slow: $(INSTALLED)  ## Tests on real pretrained models and recorded speech
	$(BIN)/python -m pytest -m slow

browser: $(INSTALLED)  ## The study's HTML pages in a real Chromium; set CHROMIUM if it is not on the path
	$(BIN)/python -m pytest -m browser tests/report/test_browser.py

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

clean:  ## Remove the environment, caches and the demo's files; other runs stay
	rm -rf .venv $(DEMO) .pytest_cache .ruff_cache .hypothesis build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
