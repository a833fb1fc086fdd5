# One way in for readers, reproducers and CI. Needs python3 (3.11 or newer) and make; everything else goes into $(VENV).

PYTHON ?= python3
VENV ?= .venv
PORT ?= 8000
DEVICE ?= cpu
JOBS ?= 2
PRECISION ?= float32

# Folders may have blanks in their names, so recipes quote them; then no shell opens the ~ of a name, and this does.
home = $(subst |,,$(subst |~/,$(HOME)/,|$(1)))
absolute = $(if $(filter /% ~% stand-in,$(firstword $(1))),$(1),$(CURDIR)/$(1))
override VENV := $(call home,$(VENV))
override PYTHON := $(call home,$(PYTHON))
BIN := $(VENV)/bin

# Variables that only some targets use are an error where they are given for none of these.
OF_MINUTES := paper queue
OF_PRECISION := paper
OF_DEVICE := benchmark
OF_COUNT := mutants
OF_JOBS := test mutants
OF_PORT := serve
OF_SOURCE := book pdf serve
idle = $(if $(filter command,$(origin $(1))),$(if $(filter $(OF_$(1)),$(MAKECMDGOALS)),,$(MAKECMDGOALS)))
$(foreach name,MINUTES PRECISION DEVICE COUNT JOBS PORT SOURCE,$(if $(call idle,$(name)),\
	$(error $(name) has no effect on $(MAKECMDGOALS); it is for $(OF_$(name)))))

PY := "$(BIN)/python"
# The folder that `make book` builds and `make serve` shows; `make reproduce` makes one of its own from the same pages.
SOURCE ?= .
# The address of the repository, known to whoever publishes the book: with it, chapters have buttons that launch them.
ifdef REPOSITORY
export QMVAE_REPOSITORY := $(REPOSITORY)
endif
# The commit of the branch `launch` that these buttons open; without it they open whatever the branch has then.
ifneq ($(LAUNCH),)
export QMVAE_LAUNCH := $(LAUNCH)
endif
OWN := _build/quick
# The environment is ready for this lock, this pyproject and this checkout; any other content or folder has another stamp.
STAMP := $(VENV)/.ready-$(shell { cat requirements.lock pyproject.toml; pwd; } | cksum | cut -d ' ' -f 1)
BLANK := $(subst ,, )

# In full, since chapters run in a folder of their own.
DATA_ROOT ?= $(QMVAE_DATA_ROOT)
ifneq ($(DATA_ROOT),)
export QMVAE_DATA_ROOT := $(call absolute,$(DATA_ROOT))
endif

# Where nothing can be written at home, caches and the like are kept here.
ifneq ($(shell probe=$$(mktemp -d "$$HOME/.qmvae.XXXXXX" 2>&1) && rmdir "$$probe" && echo writable),writable)
export XDG_CACHE_HOME ?= $(CURDIR)/_build/home
export MPLCONFIGDIR ?= $(CURDIR)/_build/home
export IPYTHONDIR ?= $(CURDIR)/_build/home
export JUPYTER_DATA_DIR ?= $(CURDIR)/_build/home
export JUPYTER_CONFIG_DIR ?= $(CURDIR)/_build/home
endif

.DEFAULT_GOAL := help
.PHONY: help setup reproduce models neighbours paper queue benchmark torture mutants test refresh book pdf launch serve lab lint lock audit clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' Makefile
	@echo
	@echo "Variables: DATA_ROOT (a folder with MNIST and SVHN), PYTHON ($(PYTHON)), VENV ($(VENV)), PORT ($(PORT)), SOURCE ($(SOURCE)), DEVICE ($(DEVICE); of the benchmark), MINUTES (of a piece of paper or queue), PRECISION ($(PRECISION); of paper, bfloat16 on a CPU that has it), JOBS (processes of the tests, $(JOBS)), REPOSITORY (its address, for launch buttons), LAUNCH (the commit that they open)"

setup: $(subst $(BLANK),\ ,$(STAMP)) ## create the virtual environment from requirements.lock

$(subst $(BLANK),\ ,$(STAMP)): requirements.lock pyproject.toml
	@command -v "$(PYTHON)" >/dev/null || { echo "make: $(PYTHON) not found; name another with PYTHON=/path/to/python3" >&2; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "make: $(PYTHON) is older than 3.11; name a newer one with PYTHON=/path/to/python3" >&2; exit 1; }
	@"$(PYTHON)" -c 'import ensurepip, venv' 2>/dev/null || \
		{ echo "make: $(PYTHON) lacks the venv module (Debian and Ubuntu: the package python3-venv)" >&2; exit 1; }
	@$(PY) -m pip --version >/dev/null 2>&1 || "$(PYTHON)" -m venv --clear "$(VENV)"
	@echo "Installing what the lock names into $(VENV), each file held against its hash (several gigabytes; it takes a while where they must be downloaded)"
	sed -n '/^uv==/,/[^\]$$/p' requirements.lock | \
		$(PY) -m pip install --quiet --disable-pip-version-check --no-deps --only-binary :all: --require-hashes --requirement /dev/stdin
	$(PY) -m uv pip sync --quiet --compile-bytecode --no-build --require-hashes --python $(PY) requirements.lock
	$(PY) -m uv pip install --quiet --python $(PY) --no-deps --no-build-isolation --editable .
	@rm -f "$(VENV)"/.ready-*
	@touch "$@"

reproduce: setup ## run Q-MVAE for 3,000 steps (minutes on two CPU cores), print its tables, build the book of this run
	$(PY) -m qmvae_study run --profile quick --readings as-printed
	$(PY) -m qmvae_study collect --profile quick
	@rm -rf $(OWN) && mkdir -p $(OWN) && cp -R _config.yml CHANGELOG.md CITATION.cff book notebooks $(OWN)
	$(PY) -m qmvae_study render --profile quick --notebooks $(OWN)/notebooks
	@$(MAKE) --no-print-directory book SOURCE=$(OWN)
	@echo "The book of this run: $(CURDIR)/$(OWN)/_build/html/index.html"

models: setup ## run every model of the tables, each for 3,000 steps, print the tables
	$(PY) -m qmvae_study run --profile quick
	$(PY) -m qmvae_study collect --profile quick

neighbours: setup ## carry out the experiments of the book's second part: minutes each on two CPU cores
	$(PY) -m qmvae_study neighbours

paper: setup ## run the paper's settings (real data; a GPU, or days), print its tables; MINUTES=8 stops after so many
	$(PY) -m qmvae_study run --profile paper --precision $(PRECISION) $(if $(MINUTES),--minutes $(MINUTES))
	$(PY) -m qmvae_study collect --profile paper

queue: setup ## carry out the long study on two CPU cores, for days; MINUTES=8 stops after so many, to be given again
	$(PY) -m qmvae_study queue $(if $(MINUTES),--minutes $(MINUTES))

benchmark: setup ## measure steps per second and memory beside another trainer; DEVICE=cuda for a GPU
	$(PY) -m benchmarks --device $(DEVICE)

torture: setup ## kill small runs of every model, fill the disk, turn bits of what they left, and count what came of it
	$(PY) -m benchmarks.torture

mutants: setup ## plant small changes in the code and count those that the tests catch; hours, or COUNT=40 of each module
	$(PY) tests/mutants.py --jobs $(JOBS) $(if $(COUNT),--count $(COUNT))

# In JOBS processes of one thread each, since processes of several threads would wait for each other; a file's tests share one,
# and what it makes for them: the built book, trained models. Long files are not last: after them every notebook that is stored
# with its outputs takes seconds to be run and compared, cell by cell.
test: export OMP_NUM_THREADS = 1
test: setup ## run the tests, and compare the stored outputs of the notebooks with fresh ones
	notebooks=$$($(PY) tests/notebook_kinds.py) && \
		$(PY) -m pytest -p no:cacheprovider -n $(JOBS) --dist loadfile --no-loadscope-reorder \
		--nbval --nbval-current-env tests $$notebooks

refresh: setup ## execute the stored chapters anew, and write those whose outputs change
	$(PY) -m qmvae_study refresh

# --all, because an incremental build after a failed one reports success; the whole path, because jupyter-book looks for the
# table of contents first below the working folder and then below the source.
book: setup ## build the book; any warning is an error
	"$(BIN)/jupyter-book" build "$(SOURCE)" --config "$(SOURCE)/_config.yml" \
		--toc "$(call absolute,$(SOURCE))/book/_toc.yml" -W -n --keep-going --all

pdf: book ## the book as one file, printed by Chromium
	$(PY) book/_ext/pdf.py "$(SOURCE)/_build/html" "$(SOURCE)/book/_toc.yml" "$(SOURCE)/_build/book.pdf"

launch: setup ## put a cell that installs this commit and its lock on Colab into the chapters; for the branch that launch buttons open
	@test -n "$(REPOSITORY)" || { echo "make: name the address of the repository with REPOSITORY=https://…" >&2; exit 1; }
	commit=$$(git rev-parse HEAD) && $(PY) book/_ext/pages.py "$(REPOSITORY)" "$$commit" notebooks

serve: setup ## show the built book on this machine
	@test -d "$(SOURCE)/_build/html" || { echo "make: no book yet; run make book" >&2; exit 1; }
	$(PY) -m http.server --bind 127.0.0.1 --directory "$(SOURCE)/_build/html" $(PORT)

# Jupyter finds kernels by name, first on this path: another python3 of the user's may be of another environment.
lab: setup ## open the notebooks in JupyterLab
	JUPYTER_PATH="$(call absolute,$(VENV))/share/jupyter$${JUPYTER_PATH:+:$$JUPYTER_PATH}" $(PY) -m jupyterlab notebooks

lint: setup ## check style and format
	$(PY) -m ruff check
	$(PY) -m ruff format --check

# Versions that are already in the lock stay where pyproject.toml allows it: delete a line to move that package.
lock: setup ## bring requirements.lock up to date with pyproject.toml
	$(PY) -m uv pip compile pyproject.toml --all-extras --universal --python-version 3.11 --fork-strategy fewest \
		--generate-hashes --no-annotate --no-config --quiet --custom-compile-command "make lock" --output-file requirements.lock

audit: setup ## ask over the network whether what the lock names has known holes
	$(PY) -m pip_audit --disable-pip --require-hashes --requirement requirements.lock

clean: ## remove what was built; the environment, the data and the runs stay
	rm -rf _build build *.egg-info .pytest_cache .ruff_cache .hypothesis
	find qmvae_core qmvae_study qmvae_neighbours tests notebooks \( -name __pycache__ -o -name .ipynb_checkpoints \) -prune -exec rm -rf {} +
