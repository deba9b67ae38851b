# What contributors and the workflows run; PYTHON chooses the interpreter of a new environment.
PYTHON ?= python3
CONSTRAINTS ?= -c constraints.txt
BIN = .venv/bin

.PHONY: setup lint test docs bench dist image

setup:
	$(PYTHON) -m venv .venv
	$(BIN)/pip install -q $(CONSTRAINTS) -e '.[weights,dev]'
	$(BIN)/pip install -q --no-deps dictionary-learning==0.1.0

lint:
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/pyright
	$(BIN)/lint-imports

test: lint
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist loadfile

docs:
	$(BIN)/mkdocs build --strict

bench:
	$(BIN)/whisper-sae-steer bench fpr calibration/audio/manifest.tsv --per_class 1 --model tiny.en --compute_type int8 --alphas 0 1 --out out/fpr
	$(BIN)/whisper-sae-steer bench wer calibration/audio/manifest.tsv --per_class 1 --model tiny.en --compute_type int8 --alphas 0 1 --out out/wer

dist:
	rm -rf dist
	$(BIN)/python -m build
	$(BIN)/twine check --strict dist/*

image:
	docker build -t whisper-sae-steer .
