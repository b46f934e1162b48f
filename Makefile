# mxdeconv: everything that can be made. `make help` lists it.
#
# Everything happens in .venv, which is made from PYTHON= on first use. A step is done once and
# remembered by a file .venv/.done-*; `make clean` forgets all of them.

PYTHON ?= python3
# What is installed where PYTHON has no torch. TORCH_INDEX= names another package index for it.
TORCH ?= torch==2.13.0
TORCH_INDEX ?=
# Handed on to the program that a target runs: make test ARGS='-k gluon -x'
ARGS ?=

SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory

VENV := .venv
ifeq ($(origin PYTHON),command line)
ifeq ($(filter clean help,$(MAKECMDGOALS)),)
MADE_FROM := $(shell cat $(VENV)/.done-venv 2>/dev/null)
ifneq ($(MADE_FROM),$(if $(MADE_FROM),$(PYTHON)))
$(error .venv was made from PYTHON=$(MADE_FROM): run `make clean` before using $(PYTHON))
endif
endif
endif
PY := $(VENV)/bin/python
PIP := $(PY) -m pip --disable-pip-version-check
CXX_NAME := $(if $(filter default undefined,$(origin CXX)),c++,$(CXX))
NATIVE := $(shell find csrc -type f 2>/dev/null) setup.py pyproject.toml
# setup.py starts every line of its own with "mxdeconv: "; the rest goes to the log only.
SHOW := tee $(VENV)/build.log | sed -un 's/^ *\(mxdeconv: .*\)/\1/p'
FAILED := { tail -n 30 $(VENV)/build.log; echo "building failed: the whole log is $(VENV)/build.log"; exit 1; } >&2

# The torch-free part and its tests need a C++ compiler and a Python without packages only.
NATIVE_TEST = CXX='$(CXX_NAME)' $(PYTHON) tests/native/build.py

.PHONY: help demo test lint format fuzz verify-models test-native sanitize test-aarch64 bench cuda-check test-cuda bench-cuda sdist clean

help: ## this list
	@echo "make TARGET [PYTHON=python3.12] [ARGS='...']"
	@sed -nE 's/^([a-z0-9-]+):.*## (.*)/  \1\t\2/p' Makefile | expand -t 18

demo: $(VENV)/.done-build ## train a super-resolution network on real photographs, draw the result
	@$(PY) examples/super_resolution.py --out pictures $(ARGS)

test: $(VENV)/.done-build ## all tests of the default tier (ARGS goes to pytest)
	@$(PY) -m pytest $(ARGS)

lint: $(VENV)/.done-lint ## ruff, mypy --strict, clang-format: nothing is changed
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .
	@$(PY) -m mypy --strict mxdeconv
	@find csrc tests -name '*.h' -o -name '*.cpp' -o -name '*.inl' -o -name '*.cu' | sort | xargs $(VENV)/bin/clang-format --dry-run -Werror
	@echo "lint: all clean"

format: $(VENV)/.done-lint ## rewrite Python and C++ as lint wants them
	@$(PY) -m ruff check --fix --quiet . || true
	@$(PY) -m ruff format .
	@find csrc tests -name '*.h' -o -name '*.cpp' -o -name '*.inl' -o -name '*.cu' | sort | xargs $(VENV)/bin/clang-format -i

fuzz: $(VENV)/.done-build ## 10,000 seeded hostile calls, raw operators included (ARGS: see the file)
	@$(PY) tests/hostile.py --calls 10000 --seed 0 $(ARGS)

# MXNet's own Python packages, which want an old numpy: MXNET_PYTHON= names a Python that has them.
MXNET_PYTHON ?= $(VENV)-mxnet/bin/python
FULL_MODELS := build/models

verify-models: $(VENV)/.done-build ## models of others at full size: made by MXNet, ported, compared (ARGS: names)
	@if ! [ -x "$$(command -v $(MXNET_PYTHON))" ]; then \
	  echo "installing MXNet 1.9.1 and GluonCV 0.10.5 into $(VENV)-mxnet"; \
	  $(PYTHON) -m venv $(VENV)-mxnet; \
	  $(MXNET_PYTHON) -m pip install -q mxnet==1.9.1 numpy==1.23.5 gluoncv==0.10.5; \
	fi
	@$(MXNET_PYTHON) tests/recorded/make_models.py --full $(FULL_MODELS) $(ARGS)
	@status=0; for name in $(or $(ARGS),$$(cd $(FULL_MODELS) && ls *-recorded.npz)); do \
	  prefix=$(FULL_MODELS)/$${name%-recorded.npz}; echo "== $$prefix"; \
	  $(PY) -m mxdeconv verify $$prefix --against $$prefix-recorded.npz || status=1; \
	done; exit $$status

test-native: ## the torch-free part: engine and plan against scalar loops (ARGS: --count, --problem, ...)
	@$(NATIVE_TEST) plain $(ARGS)

sanitize: ## the same under ASan and UBSan, and its threads under TSan
	@$(NATIVE_TEST) sanitize $(ARGS)
	@$(NATIVE_TEST) thread $(ARGS)

test-aarch64: ## the same, cross-compiled for aarch64, under qemu-user
	@$(NATIVE_TEST) aarch64 $(ARGS)

bench: $(VENV)/.done-build ## mxdeconv and torch on layers that people run (ARGS goes to bench.py)
	@$(PY) benchmarks/bench.py $(ARGS)

# The CUDA engine. CUDA_PYTHON= names a Python with a CUDA build of torch, ninja, setuptools, pytest
# and hypothesis: nothing is installed and nothing is downloaded. By default it is PYTHON, where that
# has such a torch; `make cuda-check` makes an environment of its own where it has not.
CUDA_LIB := build/cuda/lib
CUDA_TORCH := torch==2.11.0
HAS_CUDA := -c 'import sys, torch; sys.exit(torch.version.cuda is None)' 2>/dev/null
CUDA_PYTHON ?= $(shell if $(PYTHON) $(HAS_CUDA); then echo $(PYTHON); else echo $(VENV)-cuda/bin/python; fi)
# Of the GPU that is there, so that the build takes a minute or two.
THIS_ARCH = $$($(CUDA_PYTHON) -c 'import torch; print("%d.%d" % torch.cuda.get_device_capability() if torch.cuda.is_available() else "9.0")')
CUDA_RUN = PYTHONSAFEPATH=1 PYTHONPATH='$(CURDIR)/$(1):$(CURDIR)/tests' $(CUDA_PYTHON)
# $(1): the folder for the package; $(2): variables of the build.
define BUILD_CUDA
@mkdir -p build/cuda
@echo 'building mxdeconv with CUDA (a few minutes the first time)'
@export TORCH_CUDA_ARCH_LIST=$${TORCH_CUDA_ARCH_LIST:-$(THIS_ARCH)}; \
  PATH="$$(dirname $$($(CUDA_PYTHON) -c 'import sys; print(sys.executable)')):$$PATH" \
  $(2) $(CUDA_PYTHON) setup.py build --force --build-base build/cuda --build-lib $(1) > build/cuda/build.log 2>&1 \
  || { tail -n 30 build/cuda/build.log; echo "building failed: the whole log is build/cuda/build.log"; exit 1; } >&2
@grep -o 'mxdeconv: building.*' build/cuda/build.log
endef

$(VENV)-cuda/bin/python:
	@echo "installing $(CUDA_TORCH) with CUDA into $(VENV)-cuda: a download of about 3 GB, 6 GB on disk"
	@$(PYTHON) -m venv --clear $(VENV)-cuda
	@$@ -m pip install -q '$(CUDA_TORCH)' numpy pytest hypothesis ninja 'setuptools>=77' wheel || { rm -rf $(VENV)-cuda; exit 1; }

cuda-check: ## without a GPU: every .cu for every architecture, then build, import, trace, refuse; again without cuDNN
	@$(if $(filter $(VENV)-cuda/%,$(CUDA_PYTHON)),$(MAKE) $(VENV)-cuda/bin/python,:)
	@$(CUDA_PYTHON) tests/cuda_check.py $(ARGS)
	$(call BUILD_CUDA,$(CUDA_LIB))
	@$(call CUDA_RUN,$(CUDA_LIB)) -m pytest tests/test_cuda_build.py tests/test_import.py tests/test_bad_calls.py
	$(call BUILD_CUDA,$(CUDA_LIB)-without-cudnn,MXDECONV_CUDNN=0)
	@$(call CUDA_RUN,$(CUDA_LIB)-without-cudnn) -m pytest tests/test_cuda_build.py tests/test_import.py

test-cuda: ## on a GPU: build for it, then all tests of the CUDA engine (ARGS goes to pytest)
	$(call BUILD_CUDA,$(CUDA_LIB))
	@$(call CUDA_RUN,$(CUDA_LIB)) -m pytest tests/test_cuda.py tests/test_cuda_build.py tests/test_cuda_sanitizer.py --durations 10 $(ARGS)

bench-cuda: ## on a GPU: mxdeconv and torch's cuDNN on layers that people run (ARGS goes to bench_cuda.py)
	$(call BUILD_CUDA,$(CUDA_LIB))
	@$(call CUDA_RUN,$(CUDA_LIB)) benchmarks/bench_cuda.py $(ARGS)

sdist: $(VENV)/.done-build ## dist/mxdeconv-*.tar.gz
	@$(PIP) install -q build
	@$(PY) -m build --sdist --no-isolation --outdir dist . > $(VENV)/sdist.log 2>&1 || { tail -n 20 $(VENV)/sdist.log; exit 1; } >&2
	@echo "wrote $$(ls -t dist/*.tar.gz | head -n 1)"

clean: ## remove .venv and everything that was built; pictures stay
	rm -rf $(VENV) $(VENV)-mxnet $(VENV)-cuda build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis mxdeconv/*.so
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# --- set-up, each step once -----------------------------------------------------------------------

$(VENV)/.done-venv:
	@command -v $(PYTHON) >/dev/null \
	  || { echo "PYTHON=$(PYTHON) is not there: name a Python 3.10 or newer, e.g. PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' \
	  || { echo "PYTHON=$(PYTHON) is $$($(PYTHON) -V 2>&1): mxdeconv needs Python 3.10 or newer, name one with PYTHON=" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null \
	  || { echo "PYTHON=$(PYTHON) cannot make a virtual environment (Debian, Ubuntu: apt install python3-venv)" >&2; exit 1; }
	@$(PYTHON) -c 'import os, sys, sysconfig; sys.exit(not os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h")))' \
	  || { echo "PYTHON=$(PYTHON) has no Python.h to build with (Debian, Ubuntu: apt install python3-dev)" >&2; exit 1; }
	@echo 'int main() {}' | $(CXX_NAME) -std=c++20 -fsyntax-only -x c++ - 2>/dev/null \
	  || { echo "$(CXX_NAME) does not compile C++20: install a compiler (Debian, Ubuntu: apt install g++) or name one with CXX=" >&2; exit 1; }
	@if $(PYTHON) -c 'import torch' 2>/dev/null; then \
	  echo "making $(VENV) from $(PYTHON), with its packages"; \
	  $(PYTHON) -m venv --clear --system-site-packages $(VENV); \
	  : "where PYTHON is itself of a virtual environment, its packages are not the system's"; \
	  $(PY) -c 'import torch' 2>/dev/null \
	    || $(PYTHON) -c 'import pathlib, torch; print(pathlib.Path(torch.__file__).parents[1])' \
	       > "$$($(PY) -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/packages-of-PYTHON.pth"; \
	else \
	  echo "making $(VENV) from $(PYTHON)"; \
	  $(PYTHON) -m venv --clear $(VENV); \
	fi
	@echo "$(PYTHON)" > $@

$(VENV)/.done-torch: $(VENV)/.done-venv
	@if ! $(PY) -c 'import torch' 2>/dev/null; then \
	  echo "installing $(TORCH): a download of 0.2 GB (CPU build, 0.8 GB on disk) or, where the package index has only the CUDA build, of about 3 GB; PYTHON= takes the torch of another Python, TORCH_INDEX= another index"; \
	  $(PIP) install -q $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) '$(TORCH)' \
	    || { echo "$(TORCH) could not be installed: name a Python that has torch with PYTHON=, or another version with TORCH=" >&2; exit 1; }; \
	fi
	@$(PY) -c 'import torch; print("torch", torch.__version__, "from", torch.__path__[0])'
	@touch $@

$(VENV)/.done-tools: $(VENV)/.done-torch pyproject.toml
	@echo "installing what builds, tests and draws: ninja, pybind11, pytest, numpy, matplotlib, ..."
	@$(PIP) install -q 'setuptools>=77' wheel ninja pybind11
	@touch $@

$(VENV)/.done-build: $(VENV)/.done-tools $(NATIVE)
	@echo "building mxdeconv (a few minutes the first time)"
	@PATH="$(CURDIR)/$(VENV)/bin:$$PATH" $(PIP) install -v --no-build-isolation -e '.[examples,test]' 2>&1 | $(SHOW) || $(FAILED)
	@$(PY) -c 'import mxdeconv' || { echo "mxdeconv was built but cannot be imported; see above" >&2; exit 1; }
	@touch $@

# Linters only: mypy reads torch's types, nothing has to be built.
$(VENV)/.done-lint: $(VENV)/.done-torch pyproject.toml
	@echo "installing the linters that pyproject.toml names"
	@$(PIP) install -q $$(sed -n '/^dev = \[/,/\]/p' pyproject.toml | grep -o '"[^"]*"' | tr -d '"')
	@touch $@
