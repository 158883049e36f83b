# Everything runs in .venv, which the first target that needs it makes: `make demo` and `make test` work on a fresh machine.

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
OFFLINE := HF_HUB_DISABLE_TELEMETRY=1 GRADIO_ANALYTICS_ENABLED=False

.PHONY: setup demo timeline timeline-sequences test test-integration test-all coverage lint bench bench-gpu docs

setup: $(READY)  ## make .venv and install Graft into it, with the versions of constraints.txt

$(READY): pyproject.toml constraints.txt
	@sh -c 'test -x $(BIN)/python && exit 0; \
	for python in python3 python3.13 python3.12 python3.11 python; do \
	  if $$python -c "import sys; sys.exit(sys.version_info < (3, 11))" 2>/dev/null; then \
	    echo "$$($$python --version) -> $(VENV)"; \
	    $$python -m venv $(VENV) && exit 0; \
	    rm -rf $(VENV); \
	    echo "$$python cannot make a virtual environment (on Debian and Ubuntu: apt-get install python3-venv)" >&2; \
	  fi; \
	done; \
	echo "Graft needs Python 3.11 or newer with venv; none was found on PATH" >&2; exit 1'
	@echo "Graft and its libraries are installed into $(VENV): this takes some minutes and some GB"
	@$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@# Graft reads the weights in Resemblyzer's package; what the package itself imports (librosa, numba) is not needed
	@$(BIN)/python -m pip install --quiet --constraint constraints.txt --no-deps resemblyzer
	@# libreyolo asks for opencv-python, which needs libGL: a machine without a screen may have none
	@$(BIN)/python -c "import cv2" 2>/dev/null || { \
	  $(BIN)/python -m pip uninstall --quiet --yes opencv-python; \
	  $(BIN)/python -m pip install --quiet --constraint constraints.txt opencv-python-headless; }
	@touch $@

# One thread: as fast for a model this small, and many times faster than two when something else uses the machine.
demo: $(READY)  ## pretrain on the digits 0-4, transfer to 5-9, report: no hub, no GPU, no account
	$(OFFLINE) HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 $(BIN)/python examples/digits_transfer.py

timeline: $(READY)  ## networks from 1958 to 2020 on one set of images; DATA=photos/ for your own, ARGS="--model ID" for a pretrained one
	$(OFFLINE) OMP_NUM_THREADS=1 $(BIN)/python examples/timeline.py $(if $(DATA),--data "$(DATA)") $(ARGS)

timeline-sequences: $(READY)  ## LSTM, GRU and Transformer of equal size on a text: bits per byte, one table and one picture; DATA=texts/
	$(OFFLINE) HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 $(BIN)/python examples/timeline_sequences.py $(if $(DATA),--data "$(DATA)")

# Three workers on two cores: one of them mostly waits, for a browser or for a process that starts.
# Python may keep what it compiles: every worker and every process that a test starts reads the same files.
PYTEST := PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest
WORKERS := --numprocesses 3 --dist loadfile

test: $(READY)  ## the quick suite: every kind of check, in minutes
	$(PYTEST) --timeout 300 $(WORKERS) -m "not slow and not integration"

test-integration: $(READY)  ## what is long: whole runs, several processes, kills, browsers
	$(PYTEST) --timeout 900 $(WORKERS) -m "integration and not slow and not gpu"

test-all: $(READY)  ## everything: both suites, and what needs real data
	$(PYTEST) --timeout 900 $(WORKERS) -m "not gpu"

coverage: $(READY)  ## both suites with the lines and branches that they reach; fails under 92 %
	$(PYTEST) --timeout 1800 $(WORKERS) -m "not slow and not gpu" --cov --cov-report=term

lint: $(READY)  ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(READY)  ## speed against transformers.Trainer on this machine, one table per task
	@set -e; for file in pipelines/tasks/[a-z]*.py; do \
	  task=$$(basename $$file .py); test -f tests/benchmarks/$$task.py || continue; \
	  $(OFFLINE) $(BIN)/python -m tests.benchmarks.$$task; \
	done

bench-gpu: $(READY)  ## the tests of a GPU, and speed on it: at most 8 minutes, no network; ARGS="--tiny --device cpu" tries the command without one
	$(OFFLINE) HF_HUB_OFFLINE=1 $(BIN)/python -m tests.benchmarks.gpu $(ARGS)

docs: $(READY)  ## write README's generated table and build the site into site/: strictly, and without asking another host
	$(BIN)/python -m tests.support.generated_docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet
