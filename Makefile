# Every target installs what it needs into .venv, once. `make help` lists the targets.
.DEFAULT_GOAL := help
.PHONY: help serve test check lint report format smoke reproduce clean

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV ?= .venv
PORT ?= 3000
SMOKE ?= tmp/smoke
# The teacher of compact: it must be exported before compact can be trained.
TEACHER := whitened_cnn
# Recipes that are trained with three seeds.
HEADLINES := simple_cnn compact mobilenetv2_frozen mobilenetv2_finetuned mobilenetv2_tuned
# Tests of `make check`. Those of training and export are left out, because they import Keras.
CHECKED := tests/kernel tests/commands tests/bench tests/service tests/test_architecture.py \
           tests/test_bentofile.py
bin := $(VENV)/bin

# BentoML and ONNX Runtime report usage to their makers unless told not to.
export BENTOML_DO_NOT_TRACK := True
export ORT_DISABLE_TELEMETRY := 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1

help: ## print this list
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

$(VENV)/bin/python:
	@test -n "$(PYTHON)" && $(PYTHON) -c \
		'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' || \
		{ echo "Python 3.11, 3.12 or 3.13 is needed (TensorFlow 2.21 has no packages for 3.14);" \
		"choose one: make PYTHON=/path/to/python3.11"; exit 1; }
	@$(PYTHON) -c 'import platform; import sys; sys.exit((platform.system(), platform.machine()) \
		== ("Darwin", "x86_64"))' || \
		{ echo "Macs with an Intel processor are not supported: ONNX Runtime and TensorFlow no" \
		"longer have packages for them. Use Linux, for example in a container"; exit 1; }
	$(PYTHON) -m venv $(VENV)

# A stamp older than its prerequisites triggers a new installation.
$(VENV)/serve.stamp: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "installing the packages for serving into $(VENV) (once, about a minute)"
	$(bin)/python -m pip install --quiet --constraint constraints.txt --editable .
	@touch $@

$(VENV)/all.stamp: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "installing all packages, including TensorFlow, into $(VENV) (once, a few minutes)"
	$(bin)/python -m pip install --quiet --constraint constraints.txt --editable '.[train,bench,test]'
	@touch $@ $(VENV)/serve.stamp $(VENV)/check.stamp

# Packages for `make check` and `make lint`, without TensorFlow.
$(VENV)/check.stamp: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "installing the packages for the quick checks into $(VENV) (once, a minute or two)"
	$(bin)/python -m pip install --quiet --constraint constraints.txt --editable '.[bench,test]'
	@touch $@ $(VENV)/serve.stamp

serve: $(VENV)/serve.stamp ## start the server on PORT (3000)
	@$(bin)/cifar10 serve --port $(PORT)

test: $(VENV)/all.stamp ## run all tests
	$(bin)/pytest -n auto

check: $(VENV)/check.stamp ## check style and types, run the tests that need no server, browser or TensorFlow
	$(bin)/ruff check .
	$(bin)/ruff format --check .
	$(bin)/mypy
	$(bin)/lint-imports
	$(bin)/pytest -n auto -m "not server" $(CHECKED)

lint: $(VENV)/check.stamp ## check style, types, import contracts and that reports are up to date
	$(bin)/ruff check .
	$(bin)/ruff format --check .
	$(bin)/mypy
	$(bin)/lint-imports
	$(bin)/cifar10 report --check

report: $(VENV)/check.stamp ## render report.html, REPORT.md and all generated tables from results/
	$(bin)/cifar10 report

format: $(VENV)/check.stamp ## format the code
	$(bin)/ruff check --fix .
	$(bin)/ruff format .

smoke: export CIFAR10_MODELS := $(SMOKE)/models
smoke: export CIFAR10_DATA := synthetic
smoke: $(VENV)/all.stamp ## run the full pipeline, data to report, on generated pictures, in two minutes
	rm -rf $(SMOKE)
	$(bin)/cifar10 data
	$(bin)/cifar10 train simple_cnn --smoke
	$(bin)/cifar10 export simple_cnn_smoke
	$(bin)/cifar10 bench run --quick --results $(SMOKE)/results
	$(bin)/cifar10 bench load --seconds 3 --results $(SMOKE)/results
	$(bin)/cifar10 bench verify --results $(SMOKE)/results
	$(bin)/cifar10 report --results $(SMOKE)/results --output $(SMOKE)
	@echo "the full pipeline works; see $(SMOKE)/REPORT.md"

# A failed training becomes a row and a non-zero exit status; the rest is still exported and measured.
reproduce: $(VENV)/all.stamp ## run the whole study: train, export, measure, report (CIFAR10_DATA or a download)
	$(bin)/cifar10 data
	@status=0; set -x; \
	{ $(bin)/cifar10 train $(TEACHER) && $(bin)/cifar10 export $(TEACHER); } || status=1; \
	$(bin)/cifar10 study || status=1; \
	$(bin)/cifar10 study $(HEADLINES) --seeds 1,2 || status=1; \
	$(bin)/cifar10 export --all || status=1; \
	$(bin)/cifar10 export --all --int8 || status=1; \
	$(bin)/cifar10 bench all || status=1; \
	exit $$status

clean: ## remove .venv and everything generated but not committed
	rm -rf $(VENV) tmp .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache *.egg-info
