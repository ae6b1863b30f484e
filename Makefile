# `make` runs the default configuration to the figures; `make test` passes the tests. Both set themselves up.
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed
export PATH := $(CURDIR)/$(BIN):$(PATH)
export NO_MKDOCS_2_WARNING := 1

# The lock file guards the folder against a second run; it goes with the process, so a killed run leaves none,
# and Snakemake's own lock, which would stay behind, can be taken off.
run = mkdir -p $(1) && flock --nonblock --close --conflict-exit-code 75 $(1)/.make.lock sh -c \
	'snakemake --directory $(1) --configfile $(2) --unlock --quiet && snakemake $(ARGS) --directory $(1) --configfile $(2)' \
	|| { code=$$?; [ $$code = 75 ] && echo "make: another run is working in $(1); wait for it or stop it" >&2; exit $$code; }

.PHONY: default smoke paper beyond report docs test slurm-test fault-test browser check bench lint format lock schema clean

default: $(INSTALLED)
	@$(call run,.,config/config.yaml)

smoke: $(INSTALLED)
	@$(call run,runs/smoke,config/smoke.yaml)

paper: $(INSTALLED)
	@$(call run,runs/paper,config/paper.yaml)

beyond: $(INSTALLED)
	@$(call run,runs/beyond,config/beyond.yaml)

RUN ?= .
CONFIG ?= config/config.yaml
of_run = snakemake --directory $(RUN) --configfile $(CONFIG) --nolock

# One HTML file of a finished run: make report RUN=runs/smoke CONFIG=config/smoke.yaml
report: $(INSTALLED)
	@$(of_run) --dry-run 2>&1 | grep -q "Nothing to be done" \
		|| { echo "make: $(RUN)/results is not complete, or older than $(CONFIG) and the code; run it first," \
			"then give the same command again" >&2; exit 1; }
	@$(of_run) --quiet all -- results/overview.html
	@$(of_run) --quiet all --report results/report.html -- all results/overview.html
	@echo "make: the report is $(RUN)/results/report.html"

# The documentation, to site/index.html; a link that leads nowhere is an error.
docs: $(INSTALLED)
	mkdocs build

test: $(INSTALLED) browser
	pytest -m "not default_run and not slurm and not faults" $(ARGS)

# Ten kills of Snakemake and ten of a job, each at a random moment of a smoke run of its own; most of an hour.
fault-test: $(INSTALLED)
	pytest -m faults -s $(ARGS)

SLURM := procps munge slurmctld slurmd slurmdbd slurm-client mariadb-server

# The profile for SLURM, on a SLURM of two nodes that the tests start, break and remove.
slurm-test: $(INSTALLED)
	@which slurmctld slurmd slurmdbd munged squeue mariadbd > /dev/null \
		|| { [ "$$(id -u)" = 0 ] && apt-get update -q > /dev/null \
			&& apt-get install -yq --no-install-recommends $(SLURM) > /dev/null; } \
		|| { echo "make: a SLURM is needed; on Debian, as root: apt-get install $(SLURM)" >&2; exit 1; }
	pytest -m slurm $(ARGS)

# Pages are looked at in a real browser, which pip does not have.
browser:
	@command -v chromium > /dev/null \
		|| { [ "$$(id -u)" = 0 ] && apt-get update -q > /dev/null && apt-get install -yq chromium > /dev/null; } \
		|| { echo "make: the tests need Chromium; on Debian: apt-get install chromium" >&2; exit 1; }

# The statements that the README makes of the default run, held against its results.
check: default
	pytest -m default_run $(ARGS)

# Ratios, each measured side by side; half an hour on an idle machine, and 12 GB of scratch space in $TMPDIR.
bench: $(INSTALLED)
	@test -x .venv-bench/bin/python || $(PYTHON) -m venv .venv-bench
	@.venv-bench/bin/python -m pip install --quiet --disable-pip-version-check -r benchmarks/requirements.txt
	python benchmarks/train.py $(ARGS)
	python benchmarks/gpu.py $(ARGS)
	python benchmarks/cost.py $(ARGS)
	python benchmarks/pipeline.py $(ARGS)
	python benchmarks/scan.py .venv-bench/bin/python $(ARGS)

lint: $(INSTALLED)
	ruff check src tests benchmarks examples docs/hooks
	ruff format --check src tests benchmarks examples docs/hooks
	snakefmt --check Snakefile rules
	snakemake --lint
	mypy
	mkdocs build

format: $(INSTALLED)
	ruff check --fix src tests benchmarks examples docs/hooks
	ruff format src tests benchmarks examples docs/hooks
	snakefmt Snakefile rules

schema: $(INSTALLED)
	decaymerge schema > config/schema.json

$(INSTALLED): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "make: Python 3.11 or newer is needed, $$($(PYTHON) --version) was found; say make PYTHON=..." >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv \
		|| { echo "make: no virtual environment; on Debian: apt-get install python3-venv" >&2; rm -rf .venv; exit 1; }
	@echo "make: installing the packages of requirements.lock into .venv, which takes some minutes"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	@touch $@

# Newest versions that pyproject.toml allows, in a fresh environment; torch is pinned on purpose. Say PYTHON=... with the
# oldest 3.11 at hand: some packages need 3.11.5, and Debian 12 has 3.11.2.
lock:
	rm -rf .venv-lock && $(PYTHON) -m venv .venv-lock
	.venv-lock/bin/python -m pip install --quiet torch==2.13.0 --editable '.[dev,examples]'
	{ echo "# Made by 'make lock'. Every package that the project runs, tests and lints with."; \
	  .venv-lock/bin/python -m pip freeze --exclude-editable | sed 's/+cpu$$//'; } > requirements.lock
	rm -rf .venv-lock

clean:
	rm -rf results logs runs site .snakemake .pytest_cache .mypy_cache .ruff_cache benchmarks/*/
