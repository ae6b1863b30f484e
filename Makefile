# `make` runs the default configuration to the figures; `make test` passes the tests. Both set themselves up.
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed
export PATH := $(CURDIR)/$(BIN):$(PATH)
export NO_MKDOCS_2_WARNING := 1

.PHONY: default smoke paper beyond inputs sensitivity report docs test test-all slurm-test input-test fault-test browser check \
	check-paper bench lint format lock schema clean

snakemake_in := $(BIN)/python -m decaymerge.workflow.run

default: $(INSTALLED)
	@$(snakemake_in) . config/config.yaml $(ARGS)

smoke: $(INSTALLED)
	@$(snakemake_in) runs/smoke config/smoke.yaml $(ARGS)

paper: $(INSTALLED)
	@$(snakemake_in) runs/paper config/paper.yaml $(ARGS)

beyond: $(INSTALLED)
	@$(snakemake_in) runs/beyond config/beyond.yaml $(ARGS)

inputs: $(INSTALLED)
	@$(snakemake_in) runs/inputs config/inputs.yaml $(ARGS)

sensitivity: $(INSTALLED)
	@$(snakemake_in) runs/sensitivity config/sensitivity.yaml $(ARGS)

RUN ?= .
CONFIG ?= config/config.yaml
of_run = $(BIN)/snakemake --directory $(RUN) --configfile $(CONFIG) --nolock

# One HTML file of a finished run: make report RUN=runs/smoke CONFIG=config/smoke.yaml
report: $(INSTALLED)
	@$(of_run) --dry-run 2>&1 | grep -q "Nothing to be done" \
		|| { echo "make: $(RUN)/results is not complete, or older than $(CONFIG) and the code, or its last run had" \
			"another configuration; name that one as CONFIG, or say: $(of_run)" >&2; exit 1; }
	@$(of_run) --quiet all -- results/overview.html results/explore.html
	@$(of_run) --quiet all --report results/report.html -- all results/overview.html
	@echo "make: the report is $(RUN)/results/report.html; beside it, claims.html and explore.html"

# The documentation, to site/index.html; a link that leads nowhere is an error.
docs: $(INSTALLED)
	$(BIN)/mkdocs build

NOT_HERE := not default_run and not slurm and not faults
# Two processes: one makes the smoke run and asks about it, while the other does the rest.
parallel := OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist loadgroup

# The tests that take minutes together; `make test-all` runs the slow ones as well.
test: $(INSTALLED) browser
	$(parallel) -m "not slow and $(NOT_HERE)" $(ARGS)

test-all: $(INSTALLED) browser
	$(parallel) -m "$(NOT_HERE)" $(ARGS)

# Bad inputs by family; `make test` runs them as well.
input-test: $(INSTALLED)
	$(parallel) -m inputs $(ARGS)

# Ten kills of Snakemake and ten of a job, each at a random moment of a smoke run of its own; most of an hour.
fault-test: $(INSTALLED)
	$(BIN)/pytest -m faults -s $(ARGS)

SLURM := procps munge slurmctld slurmd slurmdbd slurm-client mariadb-server

# The profile for SLURM, on a SLURM of two nodes that the tests start, break and remove.
slurm-test: $(INSTALLED)
	@(for name in slurmctld slurmd slurmdbd munged squeue mariadbd; do command -v $$name > /dev/null || exit 1; done) \
		|| { [ "$$(id -u)" = 0 ] && apt-get update -q > /dev/null \
			&& apt-get install -yq --no-install-recommends $(SLURM) > /dev/null; } \
		|| { echo "make: a SLURM is needed; on Debian, as root: apt-get install $(SLURM)" >&2; exit 1; }
	$(BIN)/pytest -m slurm $(ARGS)

# Pages are looked at in a real browser, which pip does not have. The fixture in tests/conftest.py takes any of these.
CHROME := "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome"
BROWSERS := chromium chromium-browser google-chrome google-chrome-stable $(CHROME)
browser:
	@(for name in $(BROWSERS); do command -v "$$name" > /dev/null && exit; done; exit 1) \
		|| { [ "$$(id -u)" = 0 ] && command -v apt-get > /dev/null \
			&& apt-get update -q > /dev/null && apt-get install -yq chromium > /dev/null; } \
		|| { echo "make: the tests need Chromium or Chrome; on Debian: apt-get install chromium," \
			"on macOS: brew install --cask google-chrome" >&2; exit 1; }

# The default run, and the statements of docs/explanation/results.md compared with its results.
check: default
	$(BIN)/pytest -m default_run $(ARGS)

# The numbers of the pages that come from the longer runs, compared with new ones; hours.
check-paper: paper sensitivity beyond inputs
	$(BIN)/python docs/hooks/run_numbers.py compare runs/paper/results docs/numbers/paper
	$(BIN)/python docs/hooks/run_numbers.py compare runs/sensitivity/results docs/numbers/sensitivity
	$(BIN)/python docs/hooks/run_numbers.py compare runs/beyond/results docs/numbers/beyond
	$(BIN)/python docs/hooks/run_numbers.py compare runs/inputs/results docs/numbers/inputs

# Ratios, each measured side by side; half an hour on an idle machine, and 12 GB of scratch space in $TMPDIR.
bench: $(INSTALLED)
	@test -x .venv-bench/bin/python || $(PYTHON) -m venv .venv-bench
	@$(call install_torch,.venv-bench/bin/python)
	@.venv-bench/bin/python $(pip_install) -r benchmarks/requirements.txt
	$(BIN)/python benchmarks/train.py $(ARGS)
	$(BIN)/python benchmarks/gpu.py $(ARGS)
	$(BIN)/python benchmarks/cost.py $(ARGS)
	$(BIN)/python benchmarks/pipeline.py $(ARGS)
	$(BIN)/python benchmarks/scan.py .venv-bench/bin/python $(ARGS)

# Of Snakemake's lints, the one that asks each rule for a conda environment is left out: none could hold this package.
lint: $(INSTALLED)
	$(BIN)/ruff check src tests benchmarks examples docs/hooks
	$(BIN)/ruff format --check src tests benchmarks examples docs/hooks
	$(BIN)/snakefmt --check Snakefile rules
	$(BIN)/python -c 'from snakemake import cli; from snakemake.linting.rules import RuleLinter; \
		del RuleLinter.lint_missing_software_definition; cli.main(["--lint"])'
	$(BIN)/mypy
	$(BIN)/mkdocs build

format: $(INSTALLED)
	$(BIN)/ruff check --fix src tests benchmarks examples docs/hooks
	$(BIN)/ruff format src tests benchmarks examples docs/hooks
	$(BIN)/snakefmt Snakefile rules

schema: $(INSTALLED)
	$(BIN)/decaymerge schema > config/schema.json

pip_install := -m pip install --quiet --disable-pip-version-check

# PyTorch's own index has the CPU build, which for Linux is not on PyPI. Another one: make TORCH_INDEX=…, none: TORCH_INDEX=
TORCH := torch==2.13.0
TORCH_INDEX ?= $(if $(filter Linux-x86_64,$(shell uname -s)-$(shell uname -m)),https://download.pytorch.org/whl/cpu)
answers := -c 'import sys, urllib.request; urllib.request.urlopen(sys.argv[1], timeout=5)'
install_torch = $(1) $(pip_install) $(TORCH) \
	$$($(1) $(answers) $(TORCH_INDEX)/torch/ 2> /dev/null && echo --extra-index-url $(TORCH_INDEX))

$(INSTALLED): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "make: Python 3.11 or newer is needed, $$($(PYTHON) --version) was found; say make PYTHON=..." >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv \
		|| { echo "make: no virtual environment; on Debian: apt-get install python3-venv" >&2; rm -rf .venv; exit 1; }
	@echo "make: installing the packages of requirements.lock into .venv, which takes some minutes"
	@$(BIN)/python $(pip_install) --no-deps -r requirements.lock # it is complete but for PyTorch, which comes next
	@$(call install_torch,$(BIN)/python)
	@$(BIN)/python $(pip_install) --no-deps --editable .
	@touch $@

# Newest versions that pyproject.toml allows, one of each for every system and Python. PyTorch, which is pinned on
# purpose, is left out with its CUDA packages: which of its builds is installed differs between machines.
lock:
	rm -rf .venv-lock && $(PYTHON) -m venv .venv-lock
	.venv-lock/bin/python $(pip_install) uv
	echo $(TORCH) | .venv-lock/bin/uv pip compile pyproject.toml - --all-extras --universal --python-version 3.11 \
		--fork-strategy fewest --generate-hashes --no-emit-index-url --custom-compile-command "make lock TORCH=$(TORCH)" \
		--quiet --output-file .venv-lock/lock
	awk '/^[a-z]/ { left_out = /^(torch|triton)==|^(cuda|nvidia)-/ } ! left_out' .venv-lock/lock > requirements.lock
	rm -rf .venv-lock

clean:
	rm -rf results logs runs site .snakemake .pytest_cache .mypy_cache .ruff_cache benchmarks/*/ benchmarks/*.tsv
