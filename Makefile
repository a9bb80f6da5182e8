# Everything here runs in its own environment, .venv, made by the first target that needs it.
PYTHON ?= python3
BIN := .venv/bin
DEMO_FLAGS ?=
BENCH_FLAGS ?=
PIP_FLAGS ?=
comma := ,
# Extras to install: JAX for CUDA where there is an NVIDIA driver (CUDA 13 needs driver 580); on a TPU VM: make demo EXTRAS=tpu
DRIVER := $(shell command -v nvidia-smi > /dev/null && nvidia-smi --query-gpu=driver_version --format=csv,noheader | head -n 1 | cut -d . -f 1)
EXTRAS ?= $(if $(DRIVER),$(shell [ "$(DRIVER)" -ge 580 ] && echo cuda || echo cuda12))

# Most of the time of the tests is spent on compiling small programs, so XLA is told not to optimise them.
# `make torture` and pytest by hand compile as users do.
QUICK_TO_COMPILE := --xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false
PYTEST := -n 2 --dist loadfile --no-loadscope-reorder

.PHONY: help demo test test-long test-newest paper-smoke outside cases check-report check-explorer check-atlas explorer-picture front-picture d3 torture bench bench-tpu-aot test-tpu-aot bench-gpu-aot bench-gpu bench-choices results-tables docs tutorials wheel lint format torch clean
.DEFAULT_GOAL := help

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 15

demo: .venv/.installed  ## fine-tune, map, evaluate and merge a real population (five to ten minutes on two cores)
	@$(BIN)/wsr demo $(DEMO_FLAGS)

# Lint runs beside the tests, which wait for other processes now and then; what it says comes at the end.
test: .venv/.installed-dev  ## lint and the tests (eight to fifteen minutes on two cores)
	@mkdir -p build; $(MAKE) --no-print-directory lint > build/lint.txt 2>&1 & linting=$$!; \
	XLA_FLAGS="$(strip $(QUICK_TO_COMPILE) $(XLA_FLAGS))" $(BIN)/python -m pytest $(PYTEST) -m "not long"; tested=$$?; \
	wait $$linting; linted=$$?; cat build/lint.txt; exit $$((tested ? tested : linted))

test-long: .venv/.installed-dev  ## the tests that take long: Ray, whole experiments, the commands of the README
	@XLA_FLAGS="$(strip $(QUICK_TO_COMPILE) $(XLA_FLAGS))" $(BIN)/python -m pytest $(PYTEST) -m long

# XLA refuses flags that it no longer knows, so only the lasting one of QUICK_TO_COMPILE is set.
NEWEST_PYTHON ?= python3.13

test-newest: .venv/newest/.installed  ## the tests with the newest JAX and Flax, on a newer Python (NEWEST_PYTHON=python3.13)
	@XLA_FLAGS="--xla_backend_optimization_level=0 $(XLA_FLAGS)" .venv/newest/bin/python -m pytest $(PYTEST) -m "not long"

.venv/newest/.installed: pyproject.toml
	@echo "installing wsr with the newest JAX for $(NEWEST_PYTHON) into .venv/newest"
	@$(NEWEST_PYTHON) -m venv .venv/newest
	@.venv/newest/bin/pip install -q --disable-pip-version-check $(PIP_FLAGS) --upgrade --upgrade-strategy=eager -e .[dev]
	@.venv/newest/bin/pip install -q --disable-pip-version-check $(PIP_FLAGS) --upgrade jax flax  # beyond the tested bound too
	@touch $@

paper-smoke: .venv/.installed-dev  ## every study with --preset=paper, with tiny models and a hub on this machine (under 10 minutes on two cores)
	@XLA_FLAGS="$(strip $(QUICK_TO_COMPILE) $(XLA_FLAGS))" $(BIN)/python tests/hub/paper_smoke.py

# Needs node and a Chromium (on Debian: apt-get install nodejs npm chromium), named by CHROMIUM where it is elsewhere.
check-report: .venv/.installed-dev tests/browser/node_modules  ## the report in a browser: two widths, light and dark, keyboard, paper, axe
	@rm -rf build/report-pages  # an earlier version may have left the run of another plan
	@$(BIN)/python tests/browser/pages.py build/report-pages
	@node tests/browser/check.mjs build/report-pages

check-explorer: .venv/.installed-dev tests/browser/node_modules  ## the explorer in a browser: its values against exact ones, mouse, touch, keyboard, link, command, axe
	@$(BIN)/python tests/browser/explorer_pages.py build/explorer-pages
	@node tests/browser/explorer.mjs build/explorer-pages
	@$(BIN)/python tests/browser/explorer_pages.py build/explorer-pages command

check-atlas: .venv/.installed-dev tests/browser/node_modules  ## the page of an atlas in a browser: search, mouse, link, time to draw, axe
	@$(BIN)/python tests/browser/atlas_pages.py build/atlas-pages
	@node tests/browser/atlas.mjs build/atlas-pages

# Two hundred forward passes of MiniLM, on the population of make demo.
explorer-picture: .venv/.installed tests/browser/node_modules  ## the picture of docs/explore.md (about 5 minutes on two cores)
	@$(BIN)/wsr explore --store=runs/demo/store --on=vader_nyt,vader_movie --points=100 --probe_size=100 --test_size=100 \
		--members=vader_tweets-full-s0,vader_amazon-full-s0,election_tweets-full-s0,reuters_r8-full-s0,newsgroups_rec_sci-full-s0 \
		--out=build/explore.html
	@node tests/browser/picture.mjs build/explore.html docs/explore.png 860 \
		'#pick=election_tweets-full-s0,vader_amazon-full-s0,vader_tweets-full-s0&at=election_tweets-full-s0:0.1,vader_amazon-full-s0:0.56,vader_tweets-full-s0:0.34'

front-picture: .venv/.installed tests/browser/node_modules  ## the picture of a front in docs/explore.md (about 5 minutes on two cores)
	@$(BIN)/wsr pareto --store=runs/demo/store --on=vader_nyt,newsgroups_comp --points=100 --probe_size=100 --validation_size=200 \
		--test_size=500 --max_length=32 --front=12 --page=build/front.html \
		--members=vader_tweets-full-s0,vader_amazon-full-s0,election_tweets-full-s0,reuters_r8-full-s0,newsgroups_rec_sci-full-s0
	@node tests/browser/picture.mjs build/front.html docs/front.png 1400 '' '[aria-label="Trade-off"]'

D3 := d3-7.9.0
ASSETS := wsr/report/explorer/assets

d3:  ## fetch D3, which the explorer's page contains, from npm again; its hashes are in $(ASSETS)/d3.sha256
	@rm -rf build/d3 && mkdir -p build/d3
	@npm pack --silent --pack-destination=build/d3 $(subst -,@,$(D3))
	@tar -xzf build/d3/$(D3).tgz -C build/d3
	@cd build/d3/package && cp dist/d3.min.js d3.min.js && cp LICENSE d3.LICENSE && sha256sum --check $(CURDIR)/$(ASSETS)/d3.sha256
	@cp build/d3/package/d3.min.js build/d3/package/d3.LICENSE $(ASSETS)/

tests/browser/node_modules: tests/browser/package-lock.json
	@npm ci --prefix tests/browser --no-audit --no-fund
	@touch $@

# The programs that these tests compare with are not what the project needs, so they stay in an environment of their own,
# which sees the packages of .venv. What follows lm-eval and pymoo is what they import.
RIVALS := peft==0.21.2 sentence-transformers==6.2.0 accelerate==1.15.0 lm-eval==0.4.13 \
	DataProperty colorama dill evaluate lxml mbstrdecoder more-itertools nltk pathvalidate portalocker pytablewriter \
	rouge-score sacrebleu sqlitedict tabledata tabulate tcolorpy typepy word2number \
	pymoo==0.6.2 moocore cffi pycparser autograd cma alive-progress about-time graphemeu Deprecated wrapt

outside: torch .venv/outside/.installed  ## compare with PEFT, sentence-transformers, lm-evaluation-harness and pymoo, in an environment of their own
	@.venv/outside/bin/python -m pytest -n 2 tests/outside

cases: torch .venv/outside/.installed  ## run a folder of cases beside what is right: make cases CASES=FOLDER
	@.venv/outside/bin/python tests/outside/cases.py $(CASES)

.venv/outside/.installed: Makefile | .venv/.installed-dev
	@$(PYTHON) -m venv .venv/outside
	@$(BIN)/python -c 'import site; print(site.getsitepackages()[0])' > "$$(.venv/outside/bin/python -c 'import site; print(site.getsitepackages()[0])')/wsr.pth"
	@.venv/outside/bin/pip install -q --disable-pip-version-check $(PIP_FLAGS) --no-deps $(RIVALS)
	@touch $@

torture: .venv/.installed-dev  ## faults as often as docs/reliability.md promises (TORTURE: pytest's choice of tests)
	@rm -f docs/results/torture.jsonl
	@$(BIN)/python -m pytest --torture=docs/results/torture.jsonl -m fault $(TORTURE)

bench: torch  ## wsr against what people use today, side by side (at most 20 minutes on two cores)
	@$(BIN)/python -m benchmarks --out=benchmarks/results/cpu $(BENCH_FLAGS)

# The compiler of TPUs stays out of .venv: with it there, JAX would look for a TPU wherever it starts.
LIBTPU := .venv/libtpu/libtpu/libtpu.so

bench-tpu-aot: .venv/.installed-dev $(LIBTPU)  ## the engine's programs, compiled for TPUs that are not there (an hour on two cores)
	@TPU_LIBRARY_PATH=$(CURDIR)/$(LIBTPU) $(BIN)/python -m benchmarks.ahead_of_time

# So does that of NVIDIA's GPUs, in the version of JAX that is installed.
CUDA := .venv/cuda12/.installed

bench-gpu-aot: .venv/.installed-dev $(CUDA)  ## encoders compiled for an H100 that is not there: types, bytes, memory (minutes)
	@PYTHONPATH=$(CURDIR)/.venv/cuda12 $(BIN)/python -m benchmarks.ahead_of_time --chips=h100

test-tpu-aot: .venv/.installed-dev $(LIBTPU)  ## their memory, expected time and communication under ceilings (about 2 minutes)
	@TPU_LIBRARY_PATH=$(CURDIR)/$(LIBTPU) $(BIN)/python -m pytest -n 2 tests/accelerators

$(LIBTPU): Makefile | .venv/.installed-dev
	@echo "fetching the compiler of TPUs into .venv/libtpu (about 210 MB)"
	@$(BIN)/pip install -q --disable-pip-version-check $(PIP_FLAGS) --no-deps --upgrade --target=.venv/libtpu libtpu==0.0.42.1
	@touch $@

$(CUDA): | .venv/.installed-dev
	@echo "fetching the compiler of NVIDIA's GPUs into .venv/cuda12 (about 180 MB)"
	@jax=$$($(BIN)/python -c "import jax; print(jax.__version__)"); $(BIN)/pip install -q --disable-pip-version-check \
		$(PIP_FLAGS) --no-deps --upgrade --target=.venv/cuda12 jax-cuda12-pjrt==$$jax jax-cuda12-plugin==$$jax
	@touch $@

bench-gpu: torch  ## the same on a GPU; offline: make bench-gpu PIP_FLAGS="--no-index --find-links=FOLDER_OF_WHEELS"
	@$(BIN)/python -m benchmarks --only=evaluation,surrogate,probes,finetuning --out=benchmarks/results/gpu $(BENCH_FLAGS)

bench-choices: torch  ## why the project is written as it is: packing or buckets, ways to write an encoder
	@$(BIN)/python -m benchmarks --only=encoder,packing --out=benchmarks/results/cpu $(BENCH_FLAGS)

results-tables: .venv/.installed  ## whether the pages of results are what the committed rows say
	@$(BIN)/python -m experiments.results
	@$(BIN)/python -m experiments.power

docs: .venv/.installed-docs  ## build the documentation into site/; a broken link or reference is an error
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build

tutorials: .venv/.installed-docs  ## execute the tutorials (about 5 minutes on two cores); make docs then shows their outputs
	@rm -rf build/tutorials && mkdir -p build/tutorials
	@for tutorial in $(basename $(notdir $(wildcard docs/tutorials/*.py))); do \
		echo "docs/tutorials/$$tutorial.py" && \
		$(BIN)/jupytext --quiet --to ipynb --output build/tutorials/$$tutorial.ipynb docs/tutorials/$$tutorial.py && \
		(cd build/tutorials && PATH="$(CURDIR)/$(BIN):$$PATH" jupyter nbconvert --log-level=ERROR \
			--KernelManager.transport=ipc --ExecutePreprocessor.startup_timeout=300 \
			--to notebook --execute --inplace $$tutorial.ipynb) || exit 1; \
	done

lint: .venv/.installed-dev  ## ruff (format and check) and mypy
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy

format: .venv/.installed-dev  ## rewrite the code as ruff wants it
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

torch: .venv/.installed-dev  ## install PyTorch, the oracle of the parity tests (without it they are skipped)
	@$(BIN)/pip install -q $(PIP_FLAGS) torch==2.13.0

wheel: .venv/bin/python  ## build the wheel, check it, install it alone and run the README's Python example
	@rm -rf build/wheel && $(BIN)/pip install -q --disable-pip-version-check $(PIP_FLAGS) build twine
	@$(BIN)/python -m build --outdir=build/wheel .
	@$(BIN)/twine check --strict build/wheel/*
	@$(PYTHON) -m venv build/wheel/alone && build/wheel/alone/bin/pip install -q --disable-pip-version-check $(PIP_FLAGS) build/wheel/*.whl
	@sed -n '/^```python$$/,/^```$$/{//!p;/^```$$/q}' README.md > build/wheel/example.py
	@cd build/wheel && alone/bin/python example.py && echo "the wheel runs the README's example"

clean:  ## remove the environment and the caches, not the runs
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache build *.egg-info

.venv/bin/python:
	@command -v $(PYTHON) >/dev/null || { echo "make: '$(PYTHON)' was not found; install Python 3.11 or newer, or name one: make PYTHON=/path/to/python3" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "make: $$($(PYTHON) --version) is too old; wsr needs Python 3.11 or newer: make PYTHON=/path/to/python3" >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { echo "make: $(PYTHON) has no venv module; on Debian: apt-get install python3-venv" >&2; exit 1; }
	@$(PYTHON) -m venv .venv

# Python compiles a module when it is first imported; compiling all 19,000 beforehand would take pip half a minute.
.venv/.installed: pyproject.toml | .venv/bin/python
	@echo "installing wsr into .venv (JAX, Flax and what they need: about 1 GB)"
	@$(BIN)/pip install -q --disable-pip-version-check --no-compile $(PIP_FLAGS) -e '.$(if $(EXTRAS),[$(EXTRAS)])'
	@touch $@

.venv/.installed-dev: pyproject.toml | .venv/bin/python
	@echo "installing wsr and what its tests need into .venv"
	@$(BIN)/pip install -q --disable-pip-version-check --no-compile $(PIP_FLAGS) -e '.[dev$(if $(EXTRAS),$(comma)$(EXTRAS))]'
	@touch $@ .venv/.installed .venv/.installed-docs

.venv/.installed-docs: pyproject.toml | .venv/bin/python
	@echo "installing wsr and what its documentation needs into .venv"
	@$(BIN)/pip install -q --disable-pip-version-check --no-compile $(PIP_FLAGS) -e '.[docs$(if $(EXTRAS),$(comma)$(EXTRAS))]'
	@touch $@ .venv/.installed
