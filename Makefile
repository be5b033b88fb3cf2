# Commands on a fresh machine with Python 3.11+, gcc and make:
#   make demo                 the main job on real images (METHOD=bsq, apot, ... chooses another)
#   make test                 all tests
#   make bench                speed of the kernels and of networks (docs/benchmarks.md)
# All set up what they need in .venv, and skip that the second time.

# The first that runs and is new enough: a name on the PATH may be a shim without a Python behind.
PYTHON ?= $(shell for p in python3 python3.11 python3.12 python3.13; do \
  $$p -c 'import sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; \
  done)
METHOD ?= bitpruning
# Test files that run at once.
JOBS ?= 2
VENV := .venv
BIN := $(VENV)/bin
SOURCES := $(wildcard tflite_export/kernels/*.c tflite_export/kernels/*.h tflite_export/kernels/*.inc)
FASHION_MNIST := /usr/share/datasets/fashion-mnist
TOOLS := gcc-aarch64-linux-gnu gcc-arm-linux-gnueabihf qemu-user cmake flatbuffers-compiler

export TF_CPP_MIN_LOG_LEVEL ?= 2
export KERAS_BACKEND ?= tensorflow

.PHONY: demo test test-long lint check-c bench bench-peers data tools setup clean

demo: setup data
	$(BIN)/python examples/demo.py --method=$(METHOD) $(ARGS)

test: setup data tools lint
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile $(ARGS)

# What takes long: further machines, networks and backends of what `make test` tests.
test-long: setup data tools
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile -m long $(ARGS)

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

check-c:
	$(MAKE) -C tflite_export/kernels check

# ONLY=layers,networks or ONLY=training measures parts; ARGS=--quick fewer rounds. Training by
# itself has options of its own: python -m benchmarks.training --help
bench: setup $(VENV)/.bench
	$(if $(filter training,$(ONLY)),,$(BIN)/python -m benchmarks $(if $(ONLY),--only=$(ONLY)) $(ARGS))
	$(if $(filter-out training,$(ONLY)),,$(BIN)/python -m benchmarks.training $(ARGS))
	$(if $(filter-out training,$(ONLY)),,$(BIN)/python -m benchmarks.training --backend=jax $(ARGS))

# Environments of other projects, for comparison: .peers/.
bench-peers: setup
	$(BIN)/python -m benchmarks.peers

setup: $(VENV)/.installed

$(VENV)/.bench: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --editable '.[bench]'
	touch $@

# Editable, so that edits count at once; the C library is built in place and again when it changes.
$(VENV)/.installed: setup.py $(SOURCES)
	@test -n "$(PYTHON)" || { echo "make: expected Python 3.11 or newer, found none" >&2; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip setuptools wheel
	$(BIN)/python -m pip install --quiet --editable '.[export,tfmot,examples,test]'
	touch $@

# Where the package manager can install the images, it does; otherwise Keras is asked for them.
data:
	@test -d $(FASHION_MNIST) || { command -v apt-get >/dev/null && test "$$(id -u)" = 0 \
	  && apt-get update -qq && apt-get install -y -qq dataset-fashion-mnist >/dev/null; } \
	  || echo "make: no Fashion-MNIST under $(FASHION_MNIST); Keras will look for it" >&2

# Compilers for other machines and what runs their programs. Tests skip what is missing.
tools:
	@dpkg -s $(TOOLS) >/dev/null 2>&1 || { command -v apt-get >/dev/null && test "$$(id -u)" = 0 \
	  && apt-get update -qq && apt-get install -y -qq $(TOOLS) >/dev/null; } \
	  || echo "make: some tests are skipped without $(TOOLS)" >&2

clean:
	rm -rf $(VENV) .runtimes .bench .peers build *.egg-info runs tflite_export/libkerasbits.so
