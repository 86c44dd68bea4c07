# Two commands: `make demo` and `make test`. Each sets everything up by itself: Python 3.11 and make are all it needs.
PYTHON ?= python3.11
BIN := .venv/bin
STAMP := .venv/.installed
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.PHONY: help setup demo openai-example up secrets test oldest compose-test life faults soak check lint fuzz quality bench \
  bench-setup gpu docs format lock clean

help: ## Say what can be made
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:[^#]*## /\t/' | expand -t 15

setup: $(STAMP) ## Make .venv with the exact versions of requirements.lock

# torch comes first and by itself: any other order or range may pull gigabytes of GPU libraries.
$(STAMP): requirements.lock pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "Python 3.11 is needed: set PYTHON=/path/to/python3.11"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet "$$(grep '^torch==' requirements.lock)"
	$(BIN)/python -m pip install --quiet --requirement requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --editable .
	touch $@

demo: $(STAMP) ## Pretrain, fine-tune and distil on real images, word vectors on real text; under 3 minutes
	$(BIN)/python -m examples.demo

openai-example: $(STAMP) .cache/clients/.installed ## A script for the hosted API, unchanged, fine-tunes SmolLM2-135M here
	$(BIN)/python -m examples.hosted

up: $(STAMP) ## Run Weightworks on this machine until Ctrl-C
	$(BIN)/weightworks up

secrets: ## Write the secrets that docker-compose.yml needs into secrets/, once
	@sh deploy/secrets.sh secrets

test: lint .cache/clients/.installed ## All checks and all tests
	$(BIN)/python -m pytest -q --durations=15 --numprocesses=2 --dist=loadfile --ignore=tests/faults/test_matrix.py
	$(BIN)/python -m pytest -q --durations=3 tests/faults/test_matrix.py

# The clients of the hosted API, each alone in a folder with what it needs: as those who use it have it.
.cache/clients/.installed: tests/clients/requirements-3.txt tests/clients/requirements-1.txt tests/clients/node/package-lock.json | $(STAMP)
	rm -rf .cache/clients
	for major in 3 1; do $(BIN)/python -m pip install --quiet --no-deps --target .cache/clients/openai-$$major \
	  --requirement tests/clients/requirements-$$major.txt || exit 1; done
	mkdir -p .cache/clients/node && cp tests/clients/node/package*.json .cache/clients/node
	if command -v npm >/dev/null; then cd .cache/clients/node && npm ci --silent --no-fund --no-audit; \
	  else echo "npm is not here: the Node client is not tested"; fi
	touch $@

oldest: ## Test core with the oldest torch that it is kept good for, 2.11, on Python 3.12 (gigabytes where torch is CUDA's)
	test -x .cache/oldest/bin/python || python3.12 -m venv .cache/oldest
	.cache/oldest/bin/python -m pip install --quiet "torch==2.11.*"
	grep -v '^torch==' requirements.lock | .cache/oldest/bin/python -m pip install --quiet --requirement /dev/stdin
	PYTHONPATH=. WEIGHTWORKS_ROOT=. .cache/oldest/bin/python -m pytest -q -m "not slow" tests/core

compose-test: $(STAMP) ## Build and start the containers, train through them, kill some in mid-job, and remove them
	$(BIN)/python -m tests.compose

life: $(STAMP) ## Live LIVES (500) random lives of jobs against each database, and hold each to what must hold
	LIFE_EXAMPLES=$(or $(LIVES),500) $(BIN)/python -m pytest -q tests/core/jobs/test_life.py

faults: $(STAMP) ## Break everything that can break, RUNS times (3) on each database, and print what it broke
	$(BIN)/python -m tests.faults --runs $(or $(RUNS),3)

soak: $(STAMP) ## Jobs of all methods and random faults for MINUTES (20) on each database, then every invariant
	$(BIN)/python -m tests.faults.soak --minutes $(or $(MINUTES),20) $(addprefix --database ,$(DATABASE))

check: lint ## The quick gate: format, lint, types, import rule, fast tests
	$(BIN)/python -m pytest -q -x tests/core/jobs tests/core/data tests/core/training tests/core/test_settings.py

lint: $(STAMP) ## Format, lint, types and the import rule
	$(BIN)/ruff format --check --quiet .
	$(BIN)/ruff check --quiet .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

fuzz: $(STAMP) ## Send what the schema allows and forbids to a real API: make fuzz MINUTES=5
	$(BIN)/python -m tests.faults.fuzz --minutes $(or $(MINUTES),5)

format: $(STAMP) ## Format the code and mend what the linter can
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

quality: $(STAMP) ## Measure a method against its figure: make quality NAME=pca
	$(BIN)/python -m benchmarks.quality $(NAME)

bench: bench-setup ## Measure ours beside the peers, and write benchmarks/RESULTS.md: make bench NAME=word2vec FULL=1
	$(BIN)/python -m benchmarks $(NAME) $(if $(FULL),--full)

bench-setup: .cache/bench/.installed

# The peers see our packages too, and may have others beside; torch is ours, so that nothing pulls another one in.
.cache/bench/.installed: benchmarks/requirements.txt benchmarks/requirements-apart.txt $(STAMP)
	test -x .cache/bench/bin/python || $(BIN)/python -m venv .cache/bench
	$(BIN)/python -c "import sysconfig; print(sysconfig.get_path('purelib'))" \
	  > "$$(.cache/bench/bin/python -c "import sysconfig; print(sysconfig.get_path('purelib'))")/ours.pth"
	grep '^torch==' requirements.lock > .cache/bench/constraints.txt
	.cache/bench/bin/python -m pip install --quiet --constraint .cache/bench/constraints.txt \
	  --requirement benchmarks/requirements.txt
	.cache/bench/bin/python -m pip install --quiet --no-deps --upgrade --target .cache/bench/apart \
	  --requirement benchmarks/requirements-apart.txt
	touch $@

gpu: $(STAMP) ## Measure on a GPU, and hold every method to its promises there: make gpu NAME=decoder
	$(BIN)/python -m benchmarks.device $(NAME)

docs: $(STAMP) ## Write the methods' settings into their pages
	$(BIN)/python -m benchmarks.quality.pages

lock: ## Write requirements.lock from what is installed
	$(BIN)/python -m pip freeze --exclude-editable | sed 's/+cpu$$//' > requirements.lock

clean: ## Remove what was set up and made here
	rm -rf .venv .cache demo-output .mypy_cache .ruff_cache .pytest_cache
